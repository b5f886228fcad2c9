//! Reading documents: text, titles, outlines, and what is refused.

use std::fmt::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use ingest::extract::{BlockKind, ExtractError, Extracted, Format, extract};
use proptest::prelude::*;

/// What is read as the text that it is, or makes one of markup.
const MARKUP: [Format; 3] = [Format::Plain, Format::Markdown, Format::Html];

fn markdown(text: &str) -> Extracted {
    extract(text.as_bytes(), Format::Markdown).unwrap()
}

fn html(text: &str) -> Extracted {
    extract(text.as_bytes(), Format::Html).unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn outline(extracted: &Extracted) -> Vec<String> {
    let sections = 0..extracted.sections.len();
    sections.map(|section| extracted.heading_path(section).join(" > ")).collect()
}

fn check(extracted: &Extracted) {
    let starts: Vec<_> = extracted.blocks.iter().map(|block| block.start).collect();
    let sections: Vec<_> = extracted.sections.iter().map(|section| section.start).collect();
    for starts in [&starts, &sections] {
        assert!(starts.is_sorted_by(|a, b| a < b), "{starts:?}");
        assert!(starts.iter().all(|start| extracted.text.is_char_boundary(*start)));
    }
    assert_eq!(starts[0], sections[0]);
    assert!(extracted.text[..starts[0]].trim_start_matches('\u{feff}').is_empty());
    assert!(sections.iter().all(|start| starts.binary_search(start).is_ok()));
    for (index, section) in extracted.sections.iter().enumerate() {
        let parent = section.heading.as_ref().and_then(|heading| heading.parent);
        assert!(parent.is_none_or(|parent| parent < index));
    }
}

#[test]
fn what_is_left_out_of_a_text_makes_no_paragraph() {
    let nothing = extract(b"{\\rtf1 \x7f\\par \x01\\par}", Format::Rtf);
    assert_eq!(nothing.unwrap_err(), ExtractError::Empty);
    let some = extract(b"{\\rtf1 \x7f\\par seen\\par}", Format::Rtf).unwrap();
    assert_eq!((some.text.as_str(), some.blocks.len()), ("seen", 1));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for format in Format::ALL {
            if let Ok(extracted) = extract(&bytes, format) {
                check(&extracted);
            }
        }
    }

    #[test]
    fn any_string_of_markup_is_read_or_refused(
        text in "([#>*\\-|`~=_\\[\\]()!&;\\\\: \t\n0-9a-cé漢]|</?(p|b|i|a|table|tr|td|ul|li|h1|div|svg|template|select|script)( a=['\"]?x)?>|<!--|&#[0-9]{1,3};){0,120}"
    ) {
        for format in MARKUP {
            if let Ok(extracted) = extract(text.as_bytes(), format) {
                check(&extracted);
                if format != Format::Html {
                    prop_assert_eq!(&extracted.text, &text);
                }
            }
        }
    }
}

#[test]
fn media_types_name_formats_in_any_case() {
    let format = Format::from_media_type("Text/Markdown");
    assert_eq!(format, Some(Format::Markdown));
    assert_eq!(Format::from_media_type("application/X-PDF"), Some(Format::Pdf));
    assert_eq!(Format::from_media_type("image/png"), None);
}

#[test]
fn bytes_that_are_no_utf8_are_refused_where_they_stand() {
    assert_eq!(extract(b"caf\xe9", Format::Plain), Err(ExtractError::NotUtf8 { byte_offset: 3 }));
}

#[test]
fn control_characters_are_refused_in_every_format() {
    for format in MARKUP {
        for code in [0, 1, 8, 0x0b, 0x1b, 0x7f_u8] {
            // Also far behind the beginning, and the first of several.
            for byte_offset in [2, 63, 64, 200] {
                let bytes = [&vec![b'a'; byte_offset], &[code, b'b', 2][..]].concat();
                let refused = ExtractError::ControlCharacter { byte_offset, code: code.into() };
                assert_eq!(extract(&bytes, format), Err(refused));
            }
        }
        assert!(extract(b"a\tb\r\n\x0cc", format).is_ok());
    }
}

#[test]
fn control_characters_written_as_html_references_do_not_reach_the_text() {
    assert_eq!(html("<p>a&#1;b&#x7f;c</p>").text, "abc");
}

#[test]
fn a_document_without_text_is_refused() {
    for format in MARKUP {
        for text in ["", " \n\t", "\u{feff}", "\u{feff}\n\u{200b}"] {
            assert_eq!(extract(text.as_bytes(), format), Err(ExtractError::Empty));
        }
    }
    let script = b"<html><head><title></title></head><body><script>f()</script></body>";
    assert_eq!(extract(script, Format::Html), Err(ExtractError::Empty));
}

#[test]
fn a_byte_order_mark_stays_in_the_text_and_out_of_the_blocks() {
    let extracted = markdown("\u{feff}# Title\n\nText");
    assert_eq!(extracted.text, "\u{feff}# Title\n\nText");
    assert_eq!(extracted.sections[0].start, 3);
    assert_eq!(extracted.title.as_deref(), Some("Title"));
}

#[test]
fn plain_text_has_paragraphs_and_no_headings() {
    let extracted = extract(b"# One\nline\n \n\nTwo\n", Format::Plain).unwrap();
    let starts: Vec<_> = extracted.blocks.iter().map(|block| block.start).collect();
    assert_eq!(starts, [0, 14]);
    assert_eq!(outline(&extracted), [""]);
    assert_eq!(extracted.title, None);
}

#[test]
fn headings_nest_by_level_even_when_levels_are_skipped() {
    let text = "intro\n\n# A\n### B\n## C\n#### D\n# E *em* `code` [link](u)\nF\n---\n";
    let paths = ["", "A", "A > B", "A > C", "A > C > D", "E em code link", "E em code link > F"];
    assert_eq!(outline(&markdown(text)), paths);
}

#[test]
fn headings_in_code_quotes_and_lists_are_no_sections() {
    let text = "```\n# a\n```\n\n> # b\n\n- # c\n\n    # d\n\n<div>\n# e\n</div>\n";
    assert_eq!(outline(&markdown(text)), [""]);
}

#[test]
fn a_heading_in_a_path_is_cut_to_a_readable_length() {
    let extracted = markdown(&format!("# {}\n", "word ".repeat(1_000)));
    assert_eq!(extracted.heading_path(0)[0].chars().count(), 119);
}

#[test]
fn the_title_comes_from_front_matter_then_from_the_first_top_heading() {
    assert_eq!(markdown("---\ntitle: \"A: B\"\ntags: [x]\n---\n# C\n").title.as_deref(), Some("A: B"));
    assert_eq!(markdown("---\ntitle: [x]\n---\n# C\n").title.as_deref(), Some("C"));
    assert_eq!(markdown("text\n\n## B\n\n# C\n").title.as_deref(), Some("C"));
    assert_eq!(markdown("## B\n\ntext\n").title.as_deref(), Some("B"));
    assert_eq!(markdown("text\n\n## B\n").title, None);
}

#[test]
fn a_table_is_a_head_with_its_rule_and_rows() {
    let extracted = markdown("| a |\n|---|\n| 1 |\n| 2 |\n");
    let kinds: Vec<_> = extracted.blocks.iter().map(|block| (block.start, block.kind)).collect();
    let expected = [(0, BlockKind::TableHead), (12, BlockKind::TableRow), (18, BlockKind::TableRow)];
    assert_eq!(kinds, expected);
}

#[test]
fn a_chapter_keeps_its_outline() {
    let extracted = extract(&fixture("markdown/ch16-03-shared-state.md"), Format::Markdown).unwrap();
    check(&extracted);
    assert_eq!(extracted.title.as_deref(), Some("Shared-State Concurrency"));
    let path = "Shared-State Concurrency > Controlling Access with Mutexes > The API of Mutex<T>";
    assert!(outline(&extracted).iter().any(|found| found == path), "{:?}", outline(&extracted));
}

#[test]
fn html_pages_keep_headings_lists_and_tables() {
    let extracted = extract(&fixture("html/example_03.html"), Format::Html).unwrap();
    check(&extracted);
    assert_eq!(extracted.title.as_deref(), Some("Example Document"));
    assert_eq!(outline(&extracted)[3], "Example Document > Data Table");
    for kept in ["- First item in unordered list", "1. First item", "| Row 2, Col 1 | Row 2, Col 2 |"] {
        assert!(extracted.text.contains(kept), "{kept}");
    }
    assert!(!extracted.text.contains("border"));
}

#[test]
fn every_sample_page_gives_its_words() {
    for (name, words) in [
        ("example_01", "Some background information here."),
        ("example_08", "| 2025 | Q1 |  |  |  |"),
        ("formatting", "H2O"),
        ("html_code_snippets", "print(result.document.export_to_markdown())"),
        ("html_rich_table_cells", "Basic duck facts"),
        ("kvp_data_example", "(123) 456-7890"),
        ("table_03", "After table"),
    ] {
        let extracted = extract(&fixture(&format!("html/{name}.html")), Format::Html).unwrap();
        check(&extracted);
        assert!(extracted.text.contains(words), "{name}: {}", extracted.text);
    }
}

#[test]
fn an_article_is_taken_out_of_what_surrounds_it() {
    let paragraph = "<p>Some running text, with commas, that tells the story, and goes on for a while.</p>";
    let page = format!(
        "<title>Story</title><body><nav>menu item</nav><div class=sidebar><a href=/>advert</a></div>\
         <article><h1>Heading</h1>{}<h2>Part</h2>{}</article><script>track()</script><footer>imprint</footer>",
        paragraph.repeat(30),
        paragraph.repeat(30)
    );
    let extracted = html(&page);
    assert_eq!(outline(&extracted), ["Heading", "Heading > Part"]);
    for absent in ["menu", "advert", "track", "imprint"] {
        assert!(!extracted.text.contains(absent), "{absent}");
    }
    assert_eq!(extracted.title.as_deref(), Some("Story"));
}

#[test]
fn a_fragment_is_read_whole_and_words_do_not_run_together() {
    assert_eq!(html("just <b>text</b>").text, "just **text**");
    let text = html("<dl><dt>term</dt><dd>meaning</dd></dl><table><tr><td>a</td><td>b</td></tr></table>").text;
    assert!(!text.contains("termmeaning") && text.contains("| a | b |"), "{text}");
    assert_eq!(
        html("<p>see <a href='javascript:x()'>this</a><img alt=picture src=data:x></p>").text,
        "see thispicture"
    );
    assert_eq!(html("<p>seen</p><p hidden>hidden</p><nav>nav</nav>").text, "seen");
}

/// Reads on a small stack, and fails rather than hang.
fn reads_in_time(format: Format, text: String) -> Result<Extracted, ExtractError> {
    let (done, result) = mpsc::channel();
    let reader = std::thread::Builder::new().stack_size(2 << 20);
    let shown: String = text.chars().take(40).collect();
    reader.spawn(move || done.send(extract(text.as_bytes(), format))).unwrap();
    let result = result.recv_timeout(Duration::from_mins(1));
    result.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

#[test]
fn a_reference_keeps_the_short_parts_that_no_article_has() {
    let method = |n: usize| {
        format!(
            "<section><h4 class=code-header>pub fn method_{n}(&amp;self, value: Kind{n}, other: Option&lt;Place{n}&gt;) -> Result{n}</h4>\
             <div class=docblock><p>Does the work of step {n}, and no more than that, until all of it is done.</p></div></section>"
        )
    };
    let methods: String = (0..40).map(method).collect();
    let page =
        format!("<body><nav>All crates</nav><main><h1>Struct Worker</h1>{methods}</main><footer>imprint</footer>");
    let text = html(&page).text;
    for n in 0..40 {
        assert!(text.contains(&format!("step {n},")) && text.contains(&format!("Kind{n},")), "{n}: {text}");
    }
    assert!(!text.contains("imprint") && !text.contains("All crates"), "{text}");
}

#[test]
fn hostile_html_is_refused_by_name() {
    let deep = reads_in_time(Format::Html, "<div>".repeat(500_000));
    assert_eq!(deep, Err(ExtractError::HtmlTooDeep { limit: 256 }));
    let mut tag = "<div".to_owned();
    for number in 0..200_000 {
        write!(tag, " a{number}='>'").unwrap();
    }
    let attributes = Err(ExtractError::HtmlTooManyAttributes { limit: 512 });
    assert_eq!(reads_in_time(Format::Html, tag.clone() + ">text"), attributes);
    assert_eq!(reads_in_time(Format::Html, format!("</p {tag}>text")), attributes);
    let formatting: String = (0..200).map(|number| format!("<b id={number}>")).collect();
    let paragraphs = format!("<p>{formatting}</p>{}", "<p>x".repeat(100_000));
    let elements = Err(ExtractError::HtmlTooManyElements { limit: 250_000 });
    assert_eq!(reads_in_time(Format::Html, paragraphs), elements);
}

#[test]
fn real_pages_do_not_meet_the_limits() {
    // End tags that may be left out, elements without one, markup inside of comments, scripts and values.
    let rows = "<tr><td>a<td>b<br><img src=x><p>c<p>d".repeat(2_000);
    let page = format!(
        "<!-- {0} --><script>if (a<b) {{ {0} }}</script><p title='{0}'>text<table>{rows}</table><ul>{1}</ul>",
        "<div a b c d e> ".repeat(5_000),
        "<li>item".repeat(2_000),
    );
    assert!(reads_in_time(Format::Html, page).is_ok());
}

#[test]
fn hostile_html_ends() {
    for unit in [
        "<",
        "<a",
        "<!--",
        "&amp;",
        "<b><i>",
        "<table>",
        "<table><tr><td>",
        "<a href=x>y",
        "<p><b>",
        "<template>",
        "<svg><g>",
        "<select><option>",
        "<b>x</b>",
        "<td>x",
        "<br>x",
        "<textarea>",
        "<ul><li>",
        "<blockquote>x",
    ] {
        let _ = reads_in_time(Format::Html, unit.repeat(200_000 / unit.len()));
    }
    for tag in ["div", "blockquote", "section", "ul><li", "b", "em"] {
        let open = format!("<{tag}>").repeat(if tag.contains('>') { 120 } else { 240 });
        let _ = reads_in_time(Format::Html, format!("{open}{}", "<p>some, words, here</p>".repeat(500)));
    }
}

#[test]
fn hostile_markdown_ends_and_is_not_changed() {
    for unit in
        [">", "> ", "[", "![", "*", "*a ", "_", "`", "1. ", "- ", "[^a]: ", "[a](", "<", "|", "# a\n", "\\", "~~~\n"]
    {
        let text = unit.repeat(400_000 / unit.len());
        assert_eq!(reads_in_time(Format::Markdown, text.clone()).unwrap().text, text);
    }
}
