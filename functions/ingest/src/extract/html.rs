//! HTML: the main content of the page as Markdown, then the Markdown path.

use std::borrow::Cow;

use dom_query::{Document, NodeRef};
use dom_smoothie::{Config, Readability};

use super::html_parse::{self, RUN_BYTES_MAX};
use super::{ExtractError, Extracted, html_tidy, is_refused_control, markdown};

/// A page whose whole body has no more text than this is taken whole: there is too little to tell an
/// article from what surrounds it.
const WHOLE_BODY_CHARS_MAX: usize = 2_000;

/// An article shorter than this is not believed; the whole body is taken.
const ARTICLE_CHARS_MIN: usize = 200;

/// Of the text that a page itself marks as its main content, an article must have so much, in percent, to be believed.
/// References and catalogues are no articles: of their many short parts Readability keeps a few.
const MAIN_PERCENT_MIN: usize = 70;

/// Marks a former `h1`: Readability makes every `h1` an `h2`, and the nesting would be lost.
const TOP_HEADING: &str = "data-lockstep-h1";

/// What holds no text of the page, whatever is inside.
const SKIPPED: [&str; 22] = [
    "head", "script", "style", "meta", "link", "template", "noscript", "nav", "footer", "iframe", "object", "embed",
    "svg", "canvas", "audio", "video", "button", "select", "input", "textarea", "datalist", "map",
];

pub(super) fn extract(html: &str) -> Result<Extracted, ExtractError> {
    let document = html_parse::parse(html)?;
    for heading in document.select("h1").nodes() {
        heading.set_attr(TOP_HEADING, "");
    }
    let page_title = non_empty(document.select_single("head > title").text().as_ref())
        .or_else(|| non_empty(document.select_single("title").text().as_ref()));

    let amount = amount_of_text(&document, "body");
    let whole = amount.chars <= WHOLE_BODY_CHARS_MAX || amount.longest_bytes > RUN_BYTES_MAX;
    let article = if whole { None } else { article(document.clone()) };
    let (text, title) = match article {
        Some((_, chars, title)) if chars * 100 < amount_of_text(&document, "main").chars * MAIN_PERCENT_MIN => {
            (render(&document, "main"), title)
        }
        Some((text, _, title)) => (text, title),
        None => (render(&document, "body"), None),
    };

    let mut extracted = markdown::extract(text, 0)?;
    extracted.title = title.or(page_title).or(extracted.title);
    Ok(extracted)
}

/// A page or a part of one that is all content: a mail's body, a book's chapter.
pub(super) fn whole(html: &str) -> Result<Extracted, ExtractError> {
    markdown::extract(render(&html_parse::parse(html)?, "body"), 0)
}

/// The main content that Readability finds, how many characters of it can be seen, and its title; if it finds enough.
fn article(document: Document) -> Option<(String, usize, Option<String>)> {
    let config = Config {
        // JSON from the page, for a title that the page says elsewhere too.
        disable_json_ld: true,
        ..Config::default()
    };
    let mut readability = Readability::with_document(document, None, Some(config)).ok()?;
    let article = readability.parse().ok()?;
    if article.length < ARTICLE_CHARS_MIN {
        return None;
    }
    let amount = amount_of_text(&readability.doc, "#readability-page-1");
    let text = render(&readability.doc, "#readability-page-1");
    Some((text, amount.chars, non_empty(&article.title)))
}

fn render(document: &Document, root: &str) -> String {
    let renamed = format!("h2[{TOP_HEADING}]");
    document.select(&renamed).rename("h1");
    let root = document.select_single(root);
    let Some(root) = root.nodes().first() else {
        return String::new();
    };
    html_tidy::tidy(root, &SKIPPED);
    let mut text = root.md(Some(&SKIPPED)).to_string();
    // `&#1;` is a way to write a control character that the check of the input does not see.
    text.retain(|character| !is_refused_control(character));
    text
}

#[derive(Default)]
struct Amount {
    /// Characters that can be seen.
    chars: usize,
    /// The longest stretch without an element.
    longest_bytes: usize,
}

fn amount_of_text(document: &Document, root: &str) -> Amount {
    let mut amount = Amount::default();
    let root = document.select_single(root);
    let mut open: Vec<NodeRef> = root.nodes().to_vec();
    while let Some(node) = open.pop() {
        if node.is_text() {
            let text = node.text();
            amount.chars += text.chars().filter(|c| !c.is_whitespace()).count();
            amount.longest_bytes = amount.longest_bytes.max(text.len());
        } else if !is_skipped(&node) {
            open.extend(node.children_it(false));
        }
    }
    amount
}

fn is_skipped(node: &NodeRef) -> bool {
    node.qual_name_ref().is_some_and(|name| SKIPPED.contains(&name.local.as_ref()))
}

fn non_empty(text: &str) -> Option<String> {
    let words: Cow<str> = super::one_line(text);
    (!words.is_empty()).then(|| words.into_owned())
}
