//! Rich Text Format: its text, without its looks.
//! <https://interoperability.blob.core.windows.net/files/Archive_References/%5bMSFT-RTF%5d.pdf>

use encoding_rs::{Encoding, WINDOWS_1252};

use super::{ExtractError, Extracted, Job, writer::Writer};

/// Groups that are open at once.
const DEPTH_MAX: usize = 1_000;

/// Groups that hold something other than the text.
const SKIPPED: [&str; 20] = [
    "fonttbl",
    "colortbl",
    "stylesheet",
    "info",
    "pict",
    "object",
    "filetbl",
    "listtable",
    "listoverridetable",
    "revtbl",
    "rsidtbl",
    "generator",
    "themedata",
    "datastore",
    "latentstyles",
    "xmlnstbl",
    "fldinst",
    "bkmkstart",
    "bkmkend",
    "nonshppict",
];

/// The title, in a group that is otherwise skipped.
const TITLE: &str = "title";

pub(super) fn extract(bytes: &[u8], job: &Job) -> Result<Extracted, ExtractError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        writer: Writer::new(&job.limits),
        encoding: WINDOWS_1252,
        text: String::new(),
        pending: Vec::new(),
        row: Vec::new(),
        rows: Vec::new(),
        title: String::new(),
    };
    reader.read()?;
    let title = std::mem::take(&mut reader.title);
    let read = reader.writer.finish(None)?;
    Ok(read.titled(super::is_title(&title).then_some(title.as_str())))
}

#[derive(Clone, Copy)]
struct Group {
    skipped: bool,
    title: bool,
    /// Characters after `\u` that stand for it where it is not known.
    fallback: usize,
    in_table: bool,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    writer: Writer,
    encoding: &'static Encoding,
    /// Of the paragraph or cell that is being read.
    text: String,
    /// Bytes that are not decoded yet: a character may take two escapes.
    pending: Vec<u8>,
    row: Vec<String>,
    rows: Vec<Vec<String>>,
    title: String,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), ExtractError> {
        let mut open: Vec<Group> = Vec::new();
        let mut group = Group { skipped: false, title: false, fallback: 1, in_table: false };
        // Characters still to be left out behind a `\u`.
        let mut left_out = 0;
        while let Some(byte) = self.next() {
            match byte {
                b'{' => {
                    if open.len() == DEPTH_MAX {
                        return Err(ExtractError::TooDeep);
                    }
                    open.push(group);
                    left_out = 0;
                }
                b'}' => {
                    self.settle(group);
                    left_out = 0;
                    group = match open.pop() {
                        Some(outer) => outer,
                        None => break,
                    };
                    if open.is_empty() {
                        break;
                    }
                }
                b'\\' => self.control(&mut group, &mut left_out),
                b'\r' | b'\n' => {}
                _ if left_out > 0 => left_out -= 1,
                _ => self.pending.push(byte),
            }
            if self.writer.is_full() {
                break;
            }
        }
        self.settle(group);
        self.paragraph();
        self.table();
        Ok(())
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn control(&mut self, group: &mut Group, left_out: &mut usize) {
        let Some(first) = self.next() else { return };
        if first == b'\'' {
            let digits = self.bytes.get(self.at..self.at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            self.at += 2;
            match byte {
                Some(_) if *left_out > 0 => *left_out -= 1,
                Some(byte) => self.pending.push(byte),
                None => {}
            }
            return;
        }
        if !first.is_ascii_alphabetic() {
            match first {
                b'*' => group.skipped = true,
                b'~' => self.character(*group, '\u{a0}'),
                b'_' => self.character(*group, '\u{2011}'),
                b'\\' | b'{' | b'}' => self.pending.push(first),
                b'\r' | b'\n' => self.end_paragraph(*group),
                _ => {}
            }
            return;
        }
        let rest = self.bytes.get(self.at - 1..).unwrap_or_default();
        let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let sign = usize::from(rest.get(letters) == Some(&b'-'));
        let digits = rest.iter().skip(letters + sign).take_while(|byte| byte.is_ascii_digit()).count();
        let word = rest.get(..letters).map(String::from_utf8_lossy).unwrap_or_default();
        let number = rest
            .get(letters..letters + sign + digits)
            .and_then(|number| std::str::from_utf8(number).ok()?.parse::<i32>().ok());
        let mut end = letters + if digits > 0 { sign + digits } else { 0 };
        end += usize::from(rest.get(end) == Some(&b' '));
        self.at += end - 1;
        self.word(&word, number, group, left_out);
    }

    fn word(&mut self, word: &str, number: Option<i32>, group: &mut Group, left_out: &mut usize) {
        match word {
            "par" | "sect" | "page" => self.end_paragraph(*group),
            "line" => self.character(*group, '\n'),
            "tab" => self.character(*group, '\t'),
            "emdash" => self.character(*group, '—'),
            "endash" => self.character(*group, '–'),
            "lquote" => self.character(*group, '‘'),
            "rquote" => self.character(*group, '’'),
            "ldblquote" => self.character(*group, '“'),
            "rdblquote" => self.character(*group, '”'),
            "bullet" => self.character(*group, '•'),
            "intbl" => group.in_table = true,
            "pard" => group.in_table = false,
            "cell" => {
                self.settle(*group);
                self.row.push(std::mem::take(&mut self.text));
            }
            "row" => {
                self.settle(*group);
                self.rows.push(std::mem::take(&mut self.row));
            }
            "ansicpg" => {
                let label = format!("windows-{}", number.unwrap_or_default());
                self.encoding = Encoding::for_label(label.as_bytes()).unwrap_or(WINDOWS_1252);
            }
            "uc" => group.fallback = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(1),
            "u" => {
                // Above 32,767 they are written as negative.
                let unit = number.unwrap_or_default().rem_euclid(65_536);
                let character = u32::try_from(unit).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                self.character(*group, character);
                *left_out = group.fallback;
            }
            "bin" => self.at += number.and_then(|number| usize::try_from(number).ok()).unwrap_or_default(),
            TITLE => {
                group.title = true;
            }
            word if SKIPPED.contains(&word) => group.skipped = true,
            _ => {}
        }
    }

    fn character(&mut self, group: Group, character: char) {
        self.settle(group);
        self.push(group, character.encode_utf8(&mut [0; 4]));
    }

    /// Decodes what is pending.
    fn settle(&mut self, group: Group) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let (text, _) = self.encoding.decode_without_bom_handling(&pending);
            self.push(group, &text);
        }
    }

    fn push(&mut self, group: Group, text: &str) {
        if group.title {
            self.title.push_str(text);
        } else if !group.skipped {
            self.text.push_str(text);
        }
    }

    fn end_paragraph(&mut self, group: Group) {
        self.settle(group);
        if group.in_table {
            self.text.push('\n');
        } else {
            self.table();
            self.paragraph();
        }
    }

    fn paragraph(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.writer.paragraph(&text);
    }

    fn table(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.writer.table(rows);
    }
}

#[cfg(test)]
mod tests {
    use crate::extract::{Format, extract};

    #[test]
    fn text_tables_and_characters_of_other_alphabets_are_read() {
        let rtf = br"{\rtf1\ansi\ansicpg1251\uc1{\fonttbl{\f0 Arial;}}{\info{\title A name}}{\*\generator x}
\pard One \b bold\b0  word, \'cf\'f0\'e8\'e2\'e5\'f2 \u8364?.\par
\trowd\pard\intbl a\cell b\cell\row\trowd\pard\intbl 1\cell 2\cell\row\pard Last \{one\}.\par}";
        let read = extract(rtf, Format::Rtf).unwrap();
        assert_eq!(read.text, "One bold word, Привет €.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nLast {one}.");
        assert_eq!(read.title.as_deref(), Some("A name"));
    }
}
