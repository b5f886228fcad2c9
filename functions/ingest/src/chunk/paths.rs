//! Heading paths: what they cost, and what the embedder reads of them.

use crate::extract::Extracted;

/// What the embedder reads for a chunk: its headings, an empty line, its text.
///
/// If the text begins with the line of the innermost heading, that heading is not said twice. Whoever wants to know
/// whether a chunk must be embedded again compares this.
#[must_use]
pub fn embedding_input(heading_path: &[String], text: &str) -> String {
    let repeated = heading_path.last().is_some_and(|heading| begins_with_heading(text, heading));
    let said = heading_path.len() - usize::from(repeated);
    let path = joined(heading_path.get(..said).unwrap_or_default());
    if path.is_empty() { text.to_owned() } else { format!("{path}\n\n{text}") }
}

fn joined(headings: &[String]) -> String {
    headings.join(" > ")
}

/// Whether the first line is the heading, setting markup aside.
fn begins_with_heading(text: &str, heading: &str) -> bool {
    let letters = |text: &str| -> String { text.chars().filter(|c| c.is_alphanumeric()).collect() };
    let line = text.lines().next().unwrap_or_default();
    let (line, heading) = (letters(line), letters(heading));
    // A long heading is cut in the path.
    !heading.is_empty() && line.starts_with(&heading)
}

/// A path as a chunk bears it.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    pub(super) headings: Vec<String>,
    /// Tokens of the headings and the marks between them.
    pub(super) tokens: usize,
    /// The room left no place for the whole path that chunks of this section bear.
    pub(super) is_cut_short: bool,
}

/// The heading paths of a document.
pub(super) struct Paths<'a, E> {
    extracted: &'a Extracted,
    tokens_max: usize,
    count_tokens: &'a dyn Fn(&str) -> Result<usize, E>,
    /// Estimated tokens of each section's path.
    estimates: Vec<usize>,
    /// The last path that was fitted, with its section: neighbours share it.
    last: Option<(usize, Path)>,
}

impl<'a, E> Paths<'a, E> {
    pub(super) fn new(
        extracted: &'a Extracted,
        tokens_max: usize,
        count_tokens: &'a dyn Fn(&str) -> Result<usize, E>,
    ) -> Result<Self, E> {
        let mut estimates: Vec<usize> = Vec::with_capacity(extracted.sections.len());
        for section in &extracted.sections {
            let tokens = match &section.heading {
                None => 0,
                Some(heading) => {
                    let above = heading.parent.and_then(|parent| estimates.get(parent));
                    // One for the mark between two headings.
                    let above = above.map_or(0, |tokens| tokens + 1);
                    above + count_tokens(&heading.text)?
                }
            };
            estimates.push(tokens);
        }
        Ok(Self { extracted, tokens_max, count_tokens, estimates, last: None })
    }

    /// Tokens to keep free for a section's path.
    pub(super) fn reserved(&self, section: usize) -> usize {
        let estimate = self.estimates.get(section).copied().unwrap_or(0);
        estimate.min(self.tokens_max)
    }

    /// The innermost section whose heading all `sections` stand under.
    pub(super) fn shared(&self, mut sections: impl Iterator<Item = usize>) -> Option<usize> {
        let first = sections.next()?;
        sections.try_fold(first, |shared, section| self.common(shared, section))
    }

    fn common(&self, mut a: usize, mut b: usize) -> Option<usize> {
        while a != b {
            // A parent stands before its children.
            let later = if a > b { &mut a } else { &mut b };
            *later = self.extracted.sections.get(*later)?.heading.as_ref()?.parent?;
        }
        Some(a)
    }

    /// The path of `section` in at most `room` tokens and no more than paths may have.
    pub(super) fn fitted(&mut self, section: Option<usize>, room: usize) -> Result<Path, E> {
        let Some(section) = section else {
            return Ok(Path::default());
        };
        let path = match &self.last {
            Some((last, path)) if *last == section => path.clone(),
            _ => {
                let headings = self.extracted.heading_path(section);
                let headings = headings.into_iter().map(str::to_owned).collect();
                let path = self.shorten(headings, self.tokens_max)?;
                self.last = Some((section, path.clone()));
                path
            }
        };
        if path.tokens <= room {
            return Ok(path);
        }
        let path = self.shorten(path.headings, room)?;
        Ok(Path { is_cut_short: true, ..path })
    }

    /// Drops the outermost headings, then the end of the last, until the rest fits.
    fn shorten(&self, mut headings: Vec<String>, tokens_max: usize) -> Result<Path, E> {
        headings.retain(|heading| !heading.is_empty());
        loop {
            let tokens = match joined(&headings) {
                path if path.is_empty() => 0,
                path => (self.count_tokens)(&path)?,
            };
            if tokens <= tokens_max {
                return Ok(Path { headings, tokens, is_cut_short: false });
            }
            if headings.len() > 1 {
                headings.remove(0);
            } else if let Some(heading) = headings.first_mut() {
                let half = heading.floor_char_boundary(heading.len() / 2);
                heading.truncate(half);
                heading.truncate(heading.trim_end().len());
                headings.retain(|heading| !heading.is_empty());
            }
        }
    }
}
