//! From bytes to text, in whatever encoding it came.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Serialize};

use super::ExtractError;

/// What is known of a text's encoding.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Charset {
    /// Said to be UTF-8, and refused when it is not: a wrong guess would be kept for good.
    #[default]
    Utf8,
    /// Said to be another one, by its name in the Encoding Standard.
    Named(String),
    /// Nothing was said.
    Unknown,
}

impl Charset {
    /// The charset of this label (<https://encoding.spec.whatwg.org/#names-and-labels>); `None` when there is none.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        // A label for which ASCII is only a part: `us-ascii` stands for windows-1252 in the standard.
        if label.trim().eq_ignore_ascii_case("us-ascii") {
            return Some(Self::Utf8);
        }
        let encoding = Encoding::for_label_no_replacement(label.trim().as_bytes())?;
        Some(if encoding == UTF_8 { Self::Utf8 } else { Self::Named(encoding.name().to_owned()) })
    }
}

/// Bytes at the beginning in which a page must say its charset.
/// <https://html.spec.whatwg.org/multipage/semantics.html#charset>
const HTML_PRESCAN_BYTES: usize = 1024;

/// Bytes that are looked at to guess an encoding: more make no better guess.
const GUESS_BYTES_MAX: usize = 1 << 20;

/// The text. UTF-8 is borrowed as it is, with its byte order mark; all else is decoded, without one.
///
/// # Errors
/// `NotUtf8` when it is said to be UTF-8.
pub(super) fn decode<'a>(bytes: &'a [u8], charset: &Charset, is_html: bool) -> Result<Cow<'a, str>, ExtractError> {
    let not_utf8 = match std::str::from_utf8(bytes) {
        // Escapes change the meaning of ASCII in ISO-2022-JP.
        Ok(text) if *charset == Charset::Utf8 || !bytes.contains(&0x1b) && !named_wide(charset) => {
            return Ok(Cow::Borrowed(text));
        }
        Ok(_) => None,
        Err(error) => Some(ExtractError::NotUtf8 { byte_offset: error.valid_up_to() }),
    };
    let encoding = match charset {
        Charset::Utf8 => match (Encoding::for_bom(bytes), not_utf8) {
            (Some((encoding, _)), _) if encoding != UTF_8 => encoding,
            (_, Some(error)) => return Err(error),
            (_, None) => UTF_8,
        },
        Charset::Named(name) => Encoding::for_label(name.as_bytes()).unwrap_or(UTF_8),
        Charset::Unknown => is_html.then(|| html_charset(bytes)).flatten().unwrap_or_else(|| guess(bytes)),
    };
    // A byte order mark is believed before all else, and replacement characters stand for what can not be decoded.
    let (text, _, _) = encoding.decode(bytes);
    Ok(Cow::Owned(text.into_owned()))
}

/// UTF-16 of Latin letters is valid UTF-8, with NULs in between.
fn named_wide(charset: &Charset) -> bool {
    matches!(charset, Charset::Named(name) if name.starts_with("UTF-16"))
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    let head = bytes.get(..GUESS_BYTES_MAX).unwrap_or(bytes);
    if let Some(encoding) = utf_16(head) {
        return encoding;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(head, head.len() == bytes.len());
    detector.guess(None, Utf8Detection::Allow)
}

/// UTF-16 without a byte order mark: of Latin text, every other byte is NUL, which no other encoding has.
pub(super) fn utf_16(bytes: &[u8]) -> Option<&'static Encoding> {
    let nuls = |parity: usize| bytes.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (nuls(0), nuls(1));
    let most = bytes.len() / 5;
    match (even > most, odd > most) {
        (false, true) if even * 20 < odd => Some(UTF_16LE),
        (true, false) if odd * 20 < even => Some(UTF_16BE),
        _ => None,
    }
}

/// What `<meta charset=...>` or its older form says, in the first bytes.
fn html_charset(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..HTML_PRESCAN_BYTES).unwrap_or(bytes).to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let (_, after) = head.split_once("charset")?;
    let value = after.trim_start().strip_prefix('=')?.trim_start().trim_start_matches(['"', '\'']);
    let end = value.find(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)).unwrap_or(value.len());
    let encoding = Encoding::for_label_no_replacement(value.get(..end)?.as_bytes())?;
    // A page whose ASCII could be read is not in UTF-16, whatever it says.
    Some(if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> String {
        decode(bytes, &Charset::Unknown, false).unwrap().into_owned()
    }

    #[test]
    fn encodings_are_told_by_what_stands_there() {
        let german = "Die Größe der Bücher überrascht: für jeden Leser schön geordnet, außer im März. ";
        for label in ["windows-1252", "utf-8", "utf-16le", "utf-16be"] {
            let bytes = match label {
                "utf-16le" => german.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                "utf-16be" => german.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                label => Encoding::for_label(label.as_bytes()).unwrap().encode(german).0.into_owned(),
            };
            assert_eq!(decoded(&bytes), german, "{label}");
        }
        let russian = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.";
        for label in ["windows-1251", "koi8-r"] {
            let bytes = Encoding::for_label(label.as_bytes()).unwrap().encode(russian).0;
            assert_eq!(decoded(&bytes), russian, "{label}");
        }
        let japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。";
        for label in ["shift_jis", "euc-jp", "iso-2022-jp"] {
            let bytes = Encoding::for_label(label.as_bytes()).unwrap().encode(japanese).0;
            assert_eq!(decoded(&bytes), japanese, "{label}");
        }
    }

    #[test]
    fn what_is_said_counts_and_utf8_is_not_guessed_at() {
        assert_eq!(decode(b"caf\xe9", &Charset::Utf8, false), Err(ExtractError::NotUtf8 { byte_offset: 3 }));
        let named = Charset::from_label("Latin1").unwrap();
        assert_eq!(decode(b"caf\xe9", &named, false).unwrap(), "café");
        assert_eq!(Charset::from_label("klingon"), None);
        let page = b"<meta charset=\"iso-8859-7\"><p>\xe1\xe2\xe3";
        assert!(decode(page, &Charset::Unknown, true).unwrap().ends_with("αβγ"));
    }
}
