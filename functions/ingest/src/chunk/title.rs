//! A document's title as the outermost heading: a passage is found by what it is about, which often stands nowhere else.

use super::{Chunk, Limits};

/// The title as a heading path bears it: in at most as many tokens as paths may have, the end cut off where it has more.
/// `None` when nothing is left.
fn fitted<E>(
    title: &str,
    limits: &Limits,
    count_tokens: &dyn Fn(&str) -> Result<usize, E>,
) -> Result<Option<(String, usize)>, E> {
    let mut title = title.trim().to_owned();
    loop {
        if title.is_empty() {
            return Ok(None);
        }
        let tokens = count_tokens(&title)?;
        if tokens <= limits.heading_tokens_max() {
            return Ok(Some((title, tokens)));
        }
        title.truncate(title.floor_char_boundary(title.len() / 2));
        title.truncate(title.trim_end().len());
    }
}

/// Cuts by the limits that leave room for `title`, and gives each chunk under it. One that stands under a heading of the same
/// words already is left as it is.
///
/// # Errors
/// Only what `cut` and `count_tokens` return.
pub fn under<E>(
    title: Option<&str>,
    limits: Limits,
    count_tokens: &dyn Fn(&str) -> Result<usize, E>,
    cut: impl FnOnce(Limits, &mut dyn FnMut(Chunk)) -> Result<(), E>,
    give: &mut dyn FnMut(Chunk),
) -> Result<(), E> {
    let Some((title, tokens)) = title.map(|title| fitted(title, &limits, count_tokens)).transpose()?.flatten() else {
        return cut(limits, give);
    };
    let title_letters = letters(&title);
    // One for the mark between title and heading.
    let chunk_tokens_max = limits.chunk_tokens_max.saturating_sub(tokens + 1).max(1);
    cut(Limits { chunk_tokens_max, ..limits }, &mut |mut chunk| {
        if chunk.heading_path.first().is_none_or(|first| letters(first) != title_letters) {
            chunk.heading_path.insert(0, title.clone());
        }
        give(chunk);
    })
}

fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{
        chunk::{each_chunk, embedding_input},
        extract::{Format, extract},
    };

    #[allow(clippy::unnecessary_wraps, reason = "counting tokens can fail")]
    fn words(text: &str) -> Result<usize, Infallible> {
        Ok(text.split_whitespace().count())
    }

    fn chunks(title: Option<&str>, text: &str, limits: Limits) -> Vec<Chunk> {
        let extracted = extract(text.as_bytes(), Format::Markdown).unwrap();
        let mut chunks = Vec::new();
        let cut = |limits, give: &mut dyn FnMut(Chunk)| each_chunk(&extracted, limits, &words, give);
        under(title, limits, &words, cut, &mut |chunk| chunks.push(chunk)).unwrap();
        chunks
    }

    #[test]
    fn every_passage_stands_under_the_title_and_none_twice() {
        let text = "# Height\n\nIt is 330 metres tall.\n";
        let path = |title| chunks(title, text, Limits::default()).remove(0).heading_path;
        assert_eq!(path(None), ["Height"]);
        assert_eq!(path(Some(" Eiffel Tower ")), ["Eiffel Tower", "Height"]);
        assert_eq!(path(Some("height")), ["Height"]);
        assert_eq!(path(Some("  ")), ["Height"]);
    }

    #[test]
    fn a_long_title_is_cut_and_passages_keep_to_their_limit() {
        let limits = Limits { chunk_tokens_max: 40, heading_tokens_max: 8, ..Limits::default() };
        let title = "word ".repeat(100);
        let text = "A sentence of six words stands. ".repeat(50);
        let chunks = chunks(Some(&title), &text, limits);
        assert!(chunks.len() > 5);
        for chunk in chunks {
            assert_eq!(chunk.heading_path.len(), 1);
            let tokens = words(&embedding_input(&chunk.heading_path, &chunk.text)).unwrap();
            assert!(tokens <= limits.chunk_tokens_max, "{tokens}");
        }
    }
}
