//! `lockstep bench`: what the service adds to the work that must be done anyway. Every figure stands beside a floor, the same
//! work without us, measured in turns in the same run; what is shown is their ratio.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "as the test kit: what fails ends the run, with a sentence"
)]

mod growth;
mod ingestion;
mod login;
mod questions;

use std::{fmt::Write as _, path::PathBuf, str::FromStr, time::Duration};

use serde_json::{Value, json};
use shared::{config::LogConfig, telemetry};

use crate::{failure::Failure, folder, settings};

/// What is measured, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Documents that are there before the last ones of `growth`.
    pub documents: u32,
    /// The one part to be measured; `None`: all.
    pub only: Option<Measured>,
    /// Figures that another program has written, to be shown in the same table.
    pub others: Vec<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { documents: 100_000, only: None, others: Vec::new() }
    }
}

/// What is measured together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Measured {
    /// Warm questions.
    Questions,
    /// Ingestion with either kind of embedder.
    Ingestion,
    /// A document beside many others.
    Growth,
    /// The time of a login.
    Login,
}

impl FromStr for Measured {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "questions" => Ok(Self::Questions),
            "ingestion" => Ok(Self::Ingestion),
            "growth" => Ok(Self::Growth),
            "login" => Ok(Self::Login),
            _ => Err("is neither questions, ingestion, growth nor login".to_owned()),
        }
    }
}

/// Whether a ratio may be at most or must be at least its bar.
#[derive(Clone, Copy, Debug)]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
struct Figure {
    what: &'static str,
    unit: &'static str,
    ours: f64,
    floor: f64,
    bar: Bar,
}

impl Figure {
    fn ratio(&self) -> f64 {
        self.ours / self.floor
    }

    fn json(&self) -> Value {
        let (kind, bar) = match self.bar {
            Bar::AtMost(bar) => ("at_most", bar),
            Bar::AtLeast(bar) => ("at_least", bar),
        };
        let holds = match self.bar {
            Bar::AtMost(bar) => self.ratio() <= bar,
            Bar::AtLeast(bar) => self.ratio() >= bar,
        };
        json!({
            "what": self.what, "unit": self.unit, "ours": self.ours, "floor": self.floor, "ratio": self.ratio(),
            "bar": bar, "bar_is": kind, "holds": holds,
        })
    }
}

/// Measures all of it, prints the table, and keeps it as JSON in the data folder.
///
/// # Errors
/// When a file can not be read or written. A bar that is missed is no error: machines differ.
pub fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    if settings::var("RUST_LOG").is_some() {
        telemetry::init(&LogConfig::from_env());
    }
    let mut figures: Vec<Value> = Vec::new();
    for file in &options.others {
        let text =
            std::fs::read_to_string(file).map_err(Failure::because(format!("{} can not be read", file.display())))?;
        let read: Vec<Value> =
            serde_json::from_str(&text).map_err(Failure::because("the other figures are no list"))?;
        figures.extend(read);
    }
    let measured = runtime.block_on(async {
        let wanted = |part| options.only.is_none_or(|only| only == part);
        let mut measured = Vec::new();
        if wanted(Measured::Questions) {
            measured.extend(questions::measure().await);
        }
        if wanted(Measured::Ingestion) {
            measured.extend(ingestion::measure().await);
        }
        if wanted(Measured::Growth) {
            measured.extend(growth::measure(options.documents).await);
        }
        if wanted(Measured::Login) {
            measured.push(login::measure().await);
        }
        measured
    });
    figures.extend(measured.iter().map(Figure::json));
    print!("{}", table(&figures));
    if options.only.is_some() {
        return Ok(());
    }
    let file = settings::data_dir().join("bench.json");
    folder::make(&settings::data_dir())?;
    std::fs::write(&file, format!("{:#}\n", Value::Array(figures)))
        .map_err(Failure::because(format!("{} can not be written", file.display())))?;
    eprintln!("bench: {}", file.display());
    Ok(())
}

fn table(figures: &[Value]) -> String {
    let mut text = format!("{:<58} {:>10} {:>10} {:>7} {:>9}\n", "", "ours", "floor", "ratio", "bar");
    for figure in figures {
        let part = |name: &str| figure.get(name).cloned().unwrap_or_default();
        let number = |name: &str| part(name).as_f64().unwrap_or(f64::NAN);
        let sign = if part("bar_is") == "at_least" { ">=" } else { "<=" };
        let missed = if part("holds") == false { "  missed" } else { "" };
        let what =
            format!("{}, {}", part("what").as_str().unwrap_or_default(), part("unit").as_str().unwrap_or_default());
        let _ = writeln!(
            text,
            "{what:<58} {:>10.2} {:>10.2} {:>7.3} {sign:>3} {:>5.2}{missed}",
            number("ours"),
            number("floor"),
            number("ratio"),
            number("bar")
        );
    }
    text
}

fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The value below which this share of them lies, in thousandths.
fn quantile(times: &mut [f64], thousandths: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() * thousandths / 1_000).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

fn median(times: &mut [f64]) -> f64 {
    quantile(times, 500)
}
