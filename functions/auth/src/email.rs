//! E-mail addresses, in the one form in which they are stored and compared.

use std::{fmt, str::FromStr};

use serde::Serialize;
use shared::domain::InvalidValue;
use unicode_normalization::UnicodeNormalization;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema},
};

/// RFC 5321, section 4.5.3.1.3: a path has 256 octets, its brackets included.
const BYTES_MAX: usize = 254;

/// RFC 5321, section 4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;

/// Normalising can make a text shorter; one that is longer than this can not become an address.
const RAW_BYTES_MAX: usize = 4 * BYTES_MAX;

/// An e-mail address in the form in which addresses are compared: NFKC, lower case, the domain as DNS has it
/// (`xn--...`).
///
/// So `Ann@Bücher.example`, `ann@bücher.example` and `ann@xn--bcher-kva.example` are one account. What only looks like
/// another address is refused: invisible and format characters, and words that mix scripts (a Cyrillic `а` among Latin
/// letters), by the "highly restrictive" level of UTS 39, section 5.2. An address that is a look-alike as a whole is
/// not: it belongs to somebody, and only verification can say to whom.
///
/// Stricter than RFC 5321 where mail in practice is: no quoted local parts, no address literals, and a domain with a dot
/// (RFC 7085).
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let too_long = || InvalidValue::new(format!("is longer than {BYTES_MAX} bytes"));
        if text.len() > RAW_BYTES_MAX {
            return Err(too_long());
        }
        // Twice, because the lower case of a normalised text need not be normalised.
        let text: String = text.trim().nfkc().collect::<String>().to_lowercase().nfkc().collect();
        if text.is_empty() {
            return Err(InvalidValue::new("is empty"));
        }
        if text.chars().any(|char| char.is_control() || char.is_whitespace()) {
            return Err(InvalidValue::new("contains a control character or white space"));
        }
        if !text.split(|char: char| char.is_ascii() && !char.is_ascii_alphanumeric()).all(is_honest) {
            return Err(InvalidValue::new("contains a word with invisible characters or characters of mixed scripts"));
        }
        let Some((local, domain)) = text.split_once('@').filter(|(_, domain)| !domain.contains('@')) else {
            return Err(InvalidValue::new("is not an e-mail address: it needs exactly one `@`"));
        };
        let domain = to_dns(domain)
            .ok_or_else(|| InvalidValue::new("is not an e-mail address: what follows the `@` is not a domain"))?;
        if !is_dot_atom(local) {
            return Err(InvalidValue::new("is not an e-mail address: what precedes the `@` is not a mailbox"));
        }
        if local.len() > LOCAL_BYTES_MAX {
            return Err(InvalidValue::new(format!("has more than {LOCAL_BYTES_MAX} bytes before the `@`")));
        }
        let address = format!("{local}@{domain}");
        if address.len() > BYTES_MAX {
            return Err(too_long());
        }
        Ok(Self(address))
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialSchema for Email {
    fn schema() -> RefOr<schema::Schema> {
        let text = schema::Object::builder().schema_type(schema::Type::String);
        text.format(Some(schema::SchemaFormat::Custom("email".to_owned()))).max_length(Some(BYTES_MAX)).into()
    }
}

impl ToSchema for Email {}

/// Whether a word shows what it is: only characters for identifiers, and no scripts mixed that are not written together.
fn is_honest(word: &str) -> bool {
    word.is_ascii() || word.check_restriction_level(RestrictionLevel::HighlyRestrictive)
}

/// The domain's form in DNS, if it can stand there.
fn to_dns(domain: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii_strict(domain).ok()?;
    // The last label of an IPv4 address is a number; of a domain, never.
    let (_, top) = ascii.rsplit_once('.')?;
    (!top.bytes().all(|byte| byte.is_ascii_digit())).then_some(ascii)
}

/// RFC 5322, section 3.2.3, and RFC 6531, section 3.3: atoms with single dots between them.
fn is_dot_atom(local: &str) -> bool {
    let is_atext = |char: char| char.is_alphanumeric() || !char.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(char);
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, InvalidValue> {
        text.parse::<Email>().map(|email| email.0)
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        for spelling in ["ann@example.com", " Ann@Example.COM\n", "ANN@EXAMPLE.COM", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ"]
        {
            assert_eq!(parse(spelling).unwrap(), "ann@example.com", "{spelling}");
        }
        for spelling in ["zoë@bücher.example", "ZOE\u{308}@BÜCHER.example", "zoë@xn--bcher-kva.example"] {
            assert_eq!(parse(spelling).unwrap(), "zoë@xn--bcher-kva.example", "{spelling}");
        }
    }

    #[test]
    fn the_form_is_stable() {
        for text in ["İstanbul@example.com", "ß@straße.example", "ﬁ@example.com", "ΑΣ@example.com"] {
            let once = parse(text).unwrap();
            assert_eq!(parse(&once).unwrap(), once, "{text}");
        }
    }

    #[test]
    fn addresses_of_the_world_are_taken() {
        for text in [
            "a@b.co",
            "first.last+tag@sub.domain.example",
            "o'brien@example.ie",
            "x_y-z=1@example.org",
            "1234567890@example.com",
            "иван@почта.рф",
            "ivan.иван@example.com",
            "用户@例子.广告",
            "山田taro@example.jp",
            "δοκιμή@παράδειγμα.ελ",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "  ",
            "plain",
            "@example.com",
            "ann@",
            "ann@@example.com",
            "a@b@example.com",
            "ann@localhost",
            "ann@[127.0.0.1]",
            "ann@127.0.0.1",
            "ann@-example.com",
            "ann@example-.com",
            "ann@exam_ple.com",
            "ann@example..com",
            "ann@.example.com",
            "ann@example.com.",
            ".ann@example.com",
            "ann.@example.com",
            "a..n@example.com",
            "\"a b\"@example.com",
            "a b@example.com",
            "a\0b@example.com",
            "ann@exam\nple.com",
            "a,b@example.com",
            "<ann@example.com>",
            "ann@xn--0.example",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn look_alikes_are_refused() {
        for text in [
            "a\u{200b}nn@example.com",  // zero width space
            "a\u{200d}nn@example.com",  // zero width joiner
            "a\u{ad}nn@example.com",    // soft hyphen
            "\u{202e}nna@example.com",  // right-to-left override
            "ann\u{fe0f}@example.com",  // variation selector
            "a\u{e0041}nn@example.com", // tag character
            "ann@exa\u{200b}mple.com",  // UTS 46 alone would drop it
            "ann@exam\u{2060}ple.com",  // word joiner
            "аnn@example.com",          // Cyrillic а
            "ann@ехample.com",          // Cyrillic ех
            "pαypal@example.com",       // Greek α
            "ann\u{e000}@example.com",  // private use
            "ann@example\u{3002}com",   // ideographic full stop
            "\u{feff}ann@example.com",  // byte order mark
            "a\u{115f}nn@example.com",  // Hangul filler
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_length_is_bounded_in_all_its_parts() {
        let (local, label) = ("l".repeat(64), "d".repeat(63));
        assert!(parse(&format!("{local}@example.com")).is_ok());
        assert!(parse(&format!("{local}l@example.com")).is_err());
        assert!(parse(&format!("a@{label}.com")).is_ok());
        assert!(parse(&format!("a@{label}d.com")).is_err());
        let longest = format!("{local}@{label}.{label}.{}", "d".repeat(61));
        assert_eq!(longest.len(), 254);
        assert_eq!(parse(&longest).unwrap(), longest);
        assert!(parse(&format!("{longest}d")).is_err());
        assert!(parse(&"a".repeat(1_000_000)).is_err());
        assert!(parse(&"\u{fdfa}".repeat(300)).is_err());
    }
}
