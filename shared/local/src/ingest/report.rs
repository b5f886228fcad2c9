//! How it goes, on standard error, and what became of each file.

use std::{cell::RefCell, fmt::Write, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::files::File;

/// Where nobody looks at a bar, a line is written after so many files.
const LINE_EVERY: usize = 100;

/// What became of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Became {
    /// It is a document now, or a new revision of one.
    Done,
    /// It was one already.
    Unchanged,
    /// It could not become one, and why.
    Failed(String),
}

impl Became {
    pub(super) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// What became of all files so far.
pub(super) struct Report {
    bar: ProgressBar,
    files: usize,
    rows: RefCell<Vec<(String, u64, Became)>>,
}

impl Report {
    /// A bar over these files; by bytes, as they differ.
    pub(super) fn new(files: &[File]) -> Self {
        let bar = ProgressBar::new(files.iter().map(|file| file.size_bytes).sum());
        // A template that is not understood leaves the usual one.
        if let Ok(style) =
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, files: files.len(), rows: RefCell::default() }
    }

    pub(super) fn note(&self, file: &File, became: Became) {
        let mut rows = self.rows.borrow_mut();
        if let Became::Failed(reason) = &became {
            self.bar.suspend(|| eprintln!("failed  {}: {reason}", file.name));
        }
        rows.push((file.name.clone(), file.size_bytes, became));
        self.bar.inc(file.size_bytes);
        self.bar.set_message(format!("{}/{} files", rows.len(), self.files));
        if self.bar.is_hidden() && rows.len().is_multiple_of(LINE_EVERY) {
            let (rate, left) = (self.bar.per_sec() / 1_000.0, self.bar.eta().as_secs());
            eprintln!("{}/{} files, {rate:.0} kB/s, {left} s left", rows.len(), self.files);
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        // In the order of their names, whichever came back first.
        self.rows.borrow_mut().sort_by(|a, b| a.0.cmp(&b.0));
    }

    pub(super) fn count(&self, is: impl Fn(&Became) -> bool) -> usize {
        self.rows.borrow().iter().filter(|(_, _, became)| is(became)).count()
    }

    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        for (name, _, became) in self.rows.borrow().iter() {
            if let Became::Failed(reason) = became {
                // Writing to a string does not fail.
                writeln!(table, "failed     {name}: {reason}").ok();
            }
        }
        let count = |is: fn(&Became) -> bool| self.count(is);
        writeln!(table, "done       {}", count(|became| *became == Became::Done)).ok();
        writeln!(table, "unchanged  {}", count(|became| *became == Became::Unchanged)).ok();
        writeln!(table, "failed     {}", count(Became::is_failed)).ok();
        table
    }

    pub(super) fn json(&self) -> String {
        let rows = self.rows.borrow();
        let files: Vec<_> = rows
            .iter()
            .map(|(name, size_bytes, became)| match became {
                Became::Done => json!({ "name": name, "size_bytes": size_bytes, "became": "done" }),
                Became::Unchanged => json!({ "name": name, "size_bytes": size_bytes, "became": "unchanged" }),
                Became::Failed(reason) => {
                    json!({ "name": name, "size_bytes": size_bytes, "became": "failed", "reason": reason })
                }
            })
            .collect();
        let counts = json!({
            "done": self.count(|became| *became == Became::Done),
            "unchanged": self.count(|became| *became == Became::Unchanged),
            "failed": self.count(Became::is_failed),
        });
        format!("{}\n", json!({ "counts": counts, "files": files }))
    }
}
