//! Chunks: what holds of every document, and how little an edit changes.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;

use ingest::chunk::{Chunk, Limits, chunk, each_chunk, embedding_input};
use ingest::extract::{Extracted, Format, extract};
use proptest::prelude::*;

/// About what a sub-word tokenizer counts.
fn count(text: &str) -> Result<usize, Infallible> {
    Ok(text.split_whitespace().map(|word| 1 + word.len() / 6).sum())
}

fn read(text: &str, format: Format) -> Extracted {
    extract(text.as_bytes(), format).unwrap()
}

fn chunks_of(text: &str, format: Format) -> Vec<Chunk> {
    chunk(&read(text, format), Limits::default(), &count).unwrap()
}

fn limits(chunk_tokens_max: usize) -> Limits {
    Limits { chunk_tokens_max, ..Limits::default() }
}

/// What holds of the chunks of any document under any limits.
fn check(extracted: &Extracted, chunks: &[Chunk], limits: Limits) {
    let mut at = 0;
    for (ordinal, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.ordinal, ordinal);
        assert_eq!(extracted.text.get(chunk.byte_start..chunk.byte_end), Some(chunk.text.as_str()));
        assert_eq!(chunk.text.trim(), chunk.text);
        assert!(!chunk.text.is_empty());
        let left_out = &extracted.text[at..chunk.byte_start];
        assert!(left_out.trim_start_matches('\u{feff}').trim().is_empty(), "left out: {left_out:?}");
        at = chunk.byte_end;
        let one_character = chunk.text.chars().count() == 1;
        assert!(chunk.text.len() <= limits.chunk_bytes_max || one_character);
        assert_eq!(chunk.tokens, count(&chunk.text).unwrap());
        let read = count(&embedding_input(&chunk.heading_path, &chunk.text)).unwrap();
        assert!(read <= limits.chunk_tokens_max || one_character, "{read} tokens");
    }
    assert!(extracted.text[at..].trim().is_empty());
}

fn markdown_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ]{0,60}",
        "#{1,7} [A-Za-z ]{0,90}",
        "[-*>] [a-z. ]{0,40}",
        "\\|[a-z|]{0,20}\\|",
        "(\\|-)+\\|",
        "(```|~~~)[a-z]{0,4}",
        "(===|---)",
        "[a-zé漢😀]{0,300}",
        "([A-Z][a-z]{1,9} ){1,30}[a-z]+[.?!] ",
        "\\PC{0,40}",
        Just(String::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn chunks_are_the_text_without_white_space_and_within_limits(
        lines in prop::collection::vec(markdown_line(), 0..60),
        tokens_max in 1_usize..80,
        markdown: bool,
    ) {
        let text = lines.join("\n");
        let format = if markdown { Format::Markdown } else { Format::Plain };
        let Ok(extracted) = extract(text.as_bytes(), format) else {
            return Ok(());
        };
        prop_assert_eq!(&extracted.text, &text);
        let limits = limits(tokens_max);
        let chunks = chunk(&extracted, limits, &count).unwrap();
        check(&extracted, &chunks, limits);
        prop_assert_eq!(chunks, chunk(&extracted, limits, &count).unwrap());
    }

    #[test]
    fn any_string_can_be_chunked(text in "(?s).{0,400}", tokens_max in 0_usize..40) {
        for format in Format::ALL {
            if let Ok(extracted) = extract(text.as_bytes(), format) {
                let limits = limits(tokens_max);
                check(&extracted, &chunk(&extracted, limits, &count).unwrap(), Limits { chunk_tokens_max: tokens_max.max(7), ..limits });
            }
        }
    }
}

#[test]
fn a_counter_that_takes_any_word_for_one_token_still_gives_short_chunks() {
    let text = "ab".repeat(50_000);
    let extracted = read(&text, Format::Plain);
    let words = |text: &str| Ok::<_, Infallible>(text.split_whitespace().count());
    let chunks = chunk(&extracted, Limits::default(), &words).unwrap();
    assert!(chunks.iter().all(|chunk| chunk.text.len() <= 4_096));
}

#[test]
fn the_counters_error_is_returned() {
    let extracted = read("some text", Format::Plain);
    let failed = chunk(&extracted, Limits::default(), &|_| Err("no tokenizer"));
    assert_eq!(failed, Err("no tokenizer"));
}

#[test]
fn a_chunk_is_given_while_the_text_behind_it_is_still_being_read() {
    let text = "One sentence of seven words stands here. ".repeat(10) + "\n\n";
    let extracted = read(&text.repeat(300), Format::Markdown);
    let read = Cell::new(0);
    let counting = |text: &str| {
        read.set(read.get() + text.len());
        count(text)
    };
    let mut read_before_first = None;
    let mut give = |_| {
        read_before_first.get_or_insert(read.get());
    };
    each_chunk(&extracted, Limits::default(), &counting, &mut give).unwrap();
    let before_first = read_before_first.unwrap();
    assert!(before_first * 4 < extracted.text.len(), "{before_first} of {}", extracted.text.len());
}

#[test]
fn the_embedder_reads_the_headings_before_the_text() {
    let path = ["Ownership".to_owned(), "Rules".to_owned()];
    assert_eq!(embedding_input(&path, "Each value"), "Ownership > Rules\n\nEach value");
    assert_eq!(embedding_input(&[], "Each value"), "Each value");
}

#[test]
fn the_embedder_does_not_read_a_heading_twice() {
    let path = ["Ownership".to_owned(), "The `Rules`".to_owned()];
    let text = "## The Rules\n\nEach value";
    assert_eq!(embedding_input(&path, text), format!("Ownership\n\n{text}"));
}

#[test]
fn tiny_sections_share_a_chunk_under_their_common_heading() {
    let text = "# FAQ\n\n## Is it free?\n\nYes.\n\n## Is it fast?\n\nYes.\n";
    let chunks = chunks_of(text, Format::Markdown);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].heading_path, ["FAQ"]);
}

#[test]
fn long_sections_do_not_share_chunks() {
    let body = "Some words of running text that fill it. ".repeat(12);
    let text = format!("# A\n\n{body}\n\n# B\n\n{body}\n");
    let chunks = chunks_of(&text, Format::Markdown);
    let paths: Vec<_> = chunks.iter().map(|chunk| chunk.heading_path.concat()).collect();
    assert_eq!(paths, ["A", "B"]);
}

#[test]
fn a_heading_stays_with_its_text() {
    for name in ["ch04-01-what-is-ownership.md", "ch16-03-shared-state.md"] {
        let path = format!("{}/tests/fixtures/markdown/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        for chunk in chunks_of(&text, Format::Markdown) {
            let last = chunk.text.lines().last().unwrap();
            assert!(!last.starts_with("##"), "ends with its heading: {}", chunk.text);
        }
    }
}

#[test]
fn a_phrase_is_found_under_its_heading() {
    let path = format!("{}/tests/fixtures/markdown/ch04-01-what-is-ownership.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let chunks = chunks_of(&text, Format::Markdown);
    let found = chunks.iter().find(|chunk| chunk.text.contains("Each value in Rust has an")).unwrap();
    assert_eq!(found.heading_path, ["What Is Ownership?", "Ownership Rules"]);
}

#[test]
fn table_rows_and_code_lines_are_not_cut() {
    let rows: String = (0..200).map(|row| format!("| row {row} | a cell with words |\n")).collect();
    let code: String = (0..200).map(|line| format!("let value_{line} = {line};\n")).collect();
    let text = format!("| a | b |\n|---|---|\n{rows}\n```rust\n{code}```\n");
    for chunk in chunks_of(&text, Format::Markdown) {
        let (first, last) = (chunk.text.lines().next().unwrap(), chunk.text.lines().last().unwrap());
        assert!(first.starts_with('|') || first.starts_with("let ") || first.starts_with("```"));
        assert!(last.ends_with('|') || last.ends_with(';') || last.ends_with("```"));
        assert!(chunk.text.trim() != "| a | b |\n|---|---|");
    }
}

#[test]
fn sentences_are_not_cut() {
    let text = "The quick brown fox jumps over the lazy dog and runs away. ".repeat(300);
    for chunk in chunks_of(&text, Format::Plain) {
        assert!(chunk.text.starts_with("The quick") && chunk.text.ends_with("away."));
    }
}

#[test]
fn megabytes_of_anything_end() {
    for unit in ["x", "x\n", "x\n\n", "# a\n", "漢", "a. ", " ", ".", "}\n", "|x|y|\n", "- a\n"] {
        let text = format!("y{}y", unit.repeat(90_000 / unit.len()));
        for format in [Format::Plain, Format::Markdown] {
            let extracted = read(&text, format);
            let chunks = chunk(&extracted, Limits::default(), &count).unwrap();
            check(&extracted, &chunks, Limits::default());
        }
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn word(&mut self) -> String {
        (0..2 + self.below(8)).map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap())).collect()
    }

    fn sentence(&mut self) -> String {
        let words: Vec<_> = (0..5 + self.below(25)).map(|_| self.word()).collect();
        format!("It {}.", words.join(" "))
    }

    fn paragraph(&mut self) -> String {
        let sentences: Vec<_> = (0..=self.below(7)).map(|_| self.sentence()).collect();
        sentences.join(" ")
    }

    fn headed(&mut self) -> String {
        let paragraph = self.paragraph();
        match self.below(8) {
            0 => format!("{} {}\n\n{paragraph}", "#".repeat(1 + self.below(4)), self.word()),
            _ => paragraph,
        }
    }
}

/// Chunks of `after` that `before` does not have.
fn new_chunks(before: &[Chunk], after: &[Chunk]) -> usize {
    let mut known: HashMap<&str, usize> = HashMap::new();
    for chunk in before {
        *known.entry(&chunk.text).or_default() += 1;
    }
    let mut new = 0;
    for chunk in after {
        match known.get_mut(chunk.text.as_str()) {
            Some(left) if *left > 0 => *left -= 1,
            _ => new += 1,
        }
    }
    new
}

/// Documents of about 200 chunks made of `parts` pieces, each edited in several places.
fn edits_change_little(parts: usize, separator: &str, piece: fn(&mut Dice) -> String) {
    let (mut changes, mut full) = (Vec::new(), Vec::new());
    for seed in 1..=8_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut pieces: Vec<String> = (0..parts).map(|_| piece(&mut dice)).collect();
        let before = chunks_of(&pieces.join(separator), Format::Markdown);
        assert!(before.len() > 150);
        full.extend(before.iter().map(|chunk| chunk.tokens));
        for _ in 0..13 {
            let unedited = pieces.clone();
            let at = dice.below(parts);
            match dice.below(3) {
                0 => drop(pieces.remove(at)),
                1 => pieces.insert(at, piece(&mut dice)),
                _ => pieces[at] = piece(&mut dice),
            }
            let after = chunks_of(&pieces.join(separator), Format::Markdown);
            changes.push(new_chunks(&before, &after));
            pieces = unedited;
        }
    }
    changes.sort_unstable();
    let at = |percent: usize| changes[(changes.len() - 1) * percent / 100];
    assert!(at(50) <= 2, "median {}", at(50));
    assert!(at(99) <= 6, "99th percentile {}", at(99));
    let fill_percent = full.iter().sum::<usize>() * 100 / (full.len() * 254);
    assert!(fill_percent >= 65, "{fill_percent} % full");
}

#[test]
fn an_edited_paragraph_changes_few_chunks() {
    edits_change_little(420, "\n\n", Dice::paragraph);
}

#[test]
fn an_edited_paragraph_between_headings_changes_few_chunks() {
    edits_change_little(420, "\n\n", Dice::headed);
}

#[test]
fn an_edited_sentence_in_one_endless_paragraph_changes_few_chunks() {
    edits_change_little(1_700, " ", Dice::sentence);
}
