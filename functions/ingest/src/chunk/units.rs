//! The pieces that are never cut, and the price of a cut before each.

use icu_segmenter::{SentenceSegmenter, options::SentenceBreakInvariantOptions};

use super::Limits;
use super::paths::Paths;
use super::runs;
use crate::extract::{BlockKind, Extracted, Page};

/// A block up to this long is not looked into for sentences.
const WHOLE_BLOCK_BYTES_MAX: usize = 160;

/// A piece of text that stays together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// First byte, visible.
    pub(super) start: usize,
    /// After the last visible byte.
    pub(super) end: usize,
    pub(super) section: usize,
    pub(super) tokens: u32,
    /// Tokens of text in a chunk that begins here.
    pub(super) room: u32,
    /// Price of a chunk's beginning here.
    pub(super) cut_cost: u64,
    /// Price of this unit's following another in its chunk.
    pub(super) cross_cost: u32,
}

/// What a cut before a unit separates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// A page, a slide or a sheet.
    Page,
    /// A heading: its level is no deeper than that of the section before.
    Heading,
    /// A heading inside the section before.
    SubHeading,
    Paragraph,
    ListItem,
    Row,
    Sentence,
    CodeLine,
    /// A line inside a sentence.
    Line,
    Word,
    Character,
}

impl Before {
    /// What a cut costs. The unit is arbitrary; what matters is the ratio, about 1,000 being one chunk
    /// more.
    fn cut_cost(self) -> u64 {
        match self {
            Self::Page | Self::Heading | Self::SubHeading => 300,
            Self::Paragraph => 1_000,
            Self::ListItem => 1_200,
            Self::Row => 1_500,
            Self::Sentence => 2_500,
            Self::CodeLine => 3_000,
            Self::Line => 6_000,
            Self::Word => 15_000,
            Self::Character => 30_000,
        }
    }

    fn is_heading(self) -> bool {
        matches!(self, Self::Page | Self::Heading | Self::SubHeading)
    }

    /// What it costs not to cut: passages on two subjects are found for neither. More than a boundary,
    /// less than two small chunks.
    fn cross_cost(self) -> u32 {
        match self {
            Self::Page => PAGE_CROSS_COST,
            Self::Heading => 1_700,
            Self::SubHeading => 1_400,
            _ => 0,
        }
    }
}

/// A price is multiplied by up to this much more from place to place, so that the same places are best
/// again after an edit: the more, the sooner, and the less full the chunks. Measured in `tests/it/chunk.rs`.
const NOISE: u64 = 30;

/// More than any cut: a chunk is cited by its page, and so has only one.
const PAGE_CROSS_COST: u32 = 1_000_000;

/// A cut between a heading and its text, or a table's header and its rows.
const ORPHAN_COST: u64 = 40_000;

/// A cut between `as follows:` and what follows.
const COLON_COST: u64 = 1_000;

/// A cut between a fence and its code.
const FENCE_COST: u64 = 10_000;

/// Bytes on each side of a boundary that decide its noise.
const HASHED_BYTES: usize = 24;

/// Splits a text, block by block.
pub(super) struct Splitter<'a, E> {
    extracted: &'a Extracted,
    text: &'a str,
    limits: &'a Limits,
    count_tokens: &'a dyn Fn(&str) -> Result<usize, E>,
    next_block: usize,
    next_section: usize,
    /// Of a unit, in the current section.
    tokens_max: usize,
    section: usize,
    units: Vec<Unit>,
    /// Added to the price of the next cut, because of what stands before it.
    glue: u64,
    /// Those that have not begun yet.
    pages: &'a [Page],
}

impl<'a, E> Splitter<'a, E> {
    pub(super) fn new(
        extracted: &'a Extracted,
        limits: &'a Limits,
        count_tokens: &'a dyn Fn(&str) -> Result<usize, E>,
    ) -> Self {
        Self {
            extracted,
            text: &extracted.text,
            limits,
            count_tokens,
            next_block: 0,
            next_section: 0,
            tokens_max: 0,
            section: 0,
            units: Vec::new(),
            glue: 0,
            pages: &extracted.pages,
        }
    }

    /// The units so far.
    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Splits on until there are so many units more. Whether there is more text.
    pub(super) fn advance(&mut self, paths: &Paths<'_, E>, more: usize) -> Result<bool, E> {
        let (extracted, enough) = (self.extracted, self.units.len() + more);
        while self.units.len() < enough {
            let Some(block) = extracted.blocks.get(self.next_block) else { return Ok(false) };
            self.next_block += 1;
            let end = extracted.blocks.get(self.next_block).map_or(self.text.len(), |next| next.start);
            let mut deeper = false;
            while let Some(section) = extracted.sections.get(self.next_section)
                && section.start <= block.start
            {
                let parent = section.heading.as_ref().and_then(|heading| heading.parent);
                deeper = parent.is_some() && parent == self.next_section.checked_sub(1);
                self.section = self.next_section;
                self.tokens_max = (self.limits.chunk_tokens_max - paths.reserved(self.section)).max(1);
                self.next_section += 1;
            }
            self.block(block.kind, block.start, end, deeper)?;
        }
        Ok(true)
    }

    fn block(&mut self, kind: BlockKind, start: usize, end: usize, deeper: bool) -> Result<(), E> {
        match kind {
            BlockKind::Heading => {
                let before = if deeper { Before::SubHeading } else { Before::Heading };
                self.prose(before, start, end)?;
                self.glue = ORPHAN_COST;
            }
            BlockKind::TableHead => {
                self.piece(Before::Paragraph, start, end)?;
                self.glue = ORPHAN_COST;
            }
            BlockKind::TableRow => self.piece(Before::Row, start, end)?,
            BlockKind::Paragraph => self.prose(Before::Paragraph, start, end)?,
            BlockKind::ListItem => self.prose(Before::ListItem, start, end)?,
            BlockKind::Code => self.code(start, end)?,
        }
        Ok(())
    }

    fn slice(&self, start: usize, end: usize) -> &str {
        self.text.get(start..end).unwrap_or_default()
    }

    /// Sentences, and where a line ends without one ending, lines.
    fn prose(&mut self, mut before: Before, start: usize, end: usize) -> Result<(), E> {
        let text = self.text.get(start..end).unwrap_or_default();
        if text.trim().len() <= WHOLE_BLOCK_BYTES_MAX {
            return self.piece(before, start, end);
        }
        let mut at = start;
        // The first boundary is the text's beginning.
        for bound in SentenceSegmenter::new(SentenceBreakInvariantOptions::default()).segment_str(text).skip(1) {
            let end = start + bound;
            let sentence = self.text.get(at..end).unwrap_or_default();
            self.piece(before, at, end)?;
            at = end;
            if !sentence.trim().is_empty() {
                before = after_sentence(sentence);
            } else if sentence.contains('\n') {
                // An empty line.
                before = Before::Paragraph;
            }
        }
        Ok(())
    }

    fn code(&mut self, start: usize, end: usize) -> Result<(), E> {
        let text = self.text.get(start..end).unwrap_or_default();
        let mut before = Before::Paragraph;
        let mut at = start;
        for line in text.split_inclusive('\n') {
            let fence = is_fence(line);
            if fence && before != Before::Paragraph {
                self.glue = FENCE_COST;
            }
            self.piece(before, at, at + line.len())?;
            if fence {
                self.glue = FENCE_COST;
            }
            let blank = line.trim().is_empty();
            before = if blank { Before::Row } else { Before::CodeLine };
            at += line.len();
        }
        // The closing fence binds what is before it, not what comes after.
        self.glue = 0;
        Ok(())
    }

    /// A unit, or more if it is too long for one.
    fn piece(&mut self, before: Before, start: usize, end: usize) -> Result<(), E> {
        let text = self.slice(start, end);
        let visible = text.trim_start();
        let start = start + (text.len() - visible.len());
        let visible = visible.trim_end();
        if visible.is_empty() {
            return Ok(());
        }
        let end = start + visible.len();
        if visible.len() <= self.limits.chunk_bytes_max {
            let tokens = (self.count_tokens)(visible)?;
            if tokens <= self.tokens_max {
                self.push(before, start, end, tokens);
                return Ok(());
            }
        }
        let text = self.text.get(start..end).unwrap_or_default();
        let mut level = before;
        for run in runs::split(text) {
            self.run(level, start + run.start, start + run.end)?;
            level = run.after;
        }
        Ok(())
    }

    /// A run of words or characters, halved until it fits.
    fn run(&mut self, before: Before, start: usize, end: usize) -> Result<(), E> {
        let text = self.slice(start, end);
        let visible = text.trim_start();
        let start = start + (text.len() - visible.len());
        let visible = visible.trim_end();
        if visible.is_empty() {
            return Ok(());
        }
        let end = start + visible.len();
        let tokens = (self.count_tokens)(visible)?;
        let fits = tokens <= self.tokens_max && visible.len() <= self.limits.chunk_bytes_max;
        let middle = visible.len() / 2;
        let half = match visible.floor_char_boundary(middle) {
            0 => visible.ceil_char_boundary(middle),
            half => half,
        };
        if fits || half >= visible.len() {
            self.push(before, start, end, tokens);
            return Ok(());
        }
        self.run(before, start, start + half)?;
        self.run(Before::Character, start + half, end)
    }

    fn push(&mut self, before: Before, start: usize, end: usize, tokens: usize) {
        let begun = self.pages.partition_point(|page| page.start <= start);
        let before = if begun > 0 && !self.units.is_empty() { Before::Page } else { before };
        self.pages = self.pages.get(begun..).unwrap_or_default();
        let price = before.cut_cost() + std::mem::take(&mut self.glue);
        let noise = match self.units.last() {
            Some(last) if !before.is_heading() => self.noise(last.start, last.end, start, end),
            _ => 0,
        };
        self.units.push(Unit {
            start,
            end,
            section: self.section,
            // At least one, which bounds the units of a chunk.
            tokens: u32::try_from(tokens.max(1)).unwrap_or(u32::MAX),
            room: u32::try_from(self.tokens_max).unwrap_or(u32::MAX),
            // `noise` is in thousandths.
            cut_cost: price + price * NOISE * noise / 1_000,
            cross_cost: before.cross_cost(),
        });
        if self.slice(start, end).ends_with(':') {
            self.glue = COLON_COST;
        }
    }

    /// Between 0 and 1,000, more often small than large.
    fn noise(&self, last_start: usize, last_end: usize, start: usize, end: usize) -> u64 {
        let bytes = self.text.as_bytes();
        let left = last_start.max(last_end.saturating_sub(HASHED_BYTES))..last_end;
        let right = start..end.min(start + HASHED_BYTES);
        let sides = [bytes.get(left), bytes.get(right)];
        let hash = runs::hash(sides.into_iter().flatten().flatten().copied());
        let even = hash % 1_001;
        even * even / 1_000
    }
}

/// What a cut behind this piece of running text would separate.
fn after_sentence(sentence: &str) -> Before {
    let visible = sentence.trim_end();
    let white = sentence.get(visible.len()..).unwrap_or_default();
    if white.matches('\n').count() > 1 {
        return Before::Paragraph;
    }
    let bare = visible.trim_end_matches(|c: char| "\"'”’»)]*_`".contains(c));
    let ended = bare.ends_with(|c: char| ".!?…。！？".contains(c));
    if !ended {
        return Before::Line;
    }
    // "Mr. Darcy" and "J. Austen" are no ends of sentences.
    let word = bare.rsplit(char::is_whitespace).next().unwrap_or_default();
    let name = word.len() <= 4 && word.ends_with('.') && word.starts_with(char::is_uppercase);
    if name { Before::Line } else { Before::Sentence }
}

fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("```") || line.starts_with("~~~")
}
