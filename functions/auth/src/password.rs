//! Passwords, before they are hashed. By NIST SP 800-63B-4, section 3.1.1.2: length and a list of what is known to be
//! guessed first; no rules of composition; all of Unicode, normalised.

use std::{borrow::Cow, collections::HashSet, fmt, str::FromStr, sync::LazyLock};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de};
use shared::domain::InvalidValue;
use unicode_normalization::UnicodeNormalization;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, schema},
};

use crate::email::Email;

/// The fewest characters of a new password (DESIGN, section 5).
pub const CHARS_MIN: usize = 8;

/// The most characters of any password: enough for a phrase, and a bound on what is hashed.
pub const CHARS_MAX: usize = 128;

/// More bytes can not be [`CHARS_MAX`] characters: one takes at most four, and at most four of them compose one.
const RAW_BYTES_MAX: usize = CHARS_MAX * 4 * 4;

/// The passwords that are guessed first, in lower case, one a line.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// A password as a request carries it: any string. Not shown by `Debug`, and not by the error when it is no string.
pub struct RawPassword(SecretString);

impl<'de> Deserialize<'de> for RawPassword {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde's own message about another type would repeat what stands there.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text.into())),
            _ => Err(de::Error::custom("the password is not a string")),
        }
    }
}

impl fmt::Debug for RawPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawPassword([redacted])")
    }
}

impl PartialSchema for RawPassword {
    fn schema() -> RefOr<schema::Schema> {
        text().description(Some("The account's password.")).into()
    }
}

impl ToSchema for RawPassword {
    fn name() -> Cow<'static, str> {
        "Password".into()
    }
}

/// How the API's contract describes the password of a new account, or another one of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewPasswordText {}

impl PartialSchema for NewPasswordText {
    fn schema() -> RefOr<schema::Schema> {
        let rules = "Not among those that are guessed first, not one character repeated, not the e-mail address.";
        text().min_length(Some(CHARS_MIN)).pattern(Some(PRINTABLE)).description(Some(rules)).into()
    }
}

impl ToSchema for NewPasswordText {}

/// No control characters.
const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

fn text() -> schema::ObjectBuilder {
    let text = schema::Object::builder().schema_type(schema::Type::String).max_length(Some(CHARS_MAX));
    text.format(Some(schema::SchemaFormat::KnownFormat(schema::KnownFormat::Password)))
}

impl RawPassword {
    /// The password that may be somebody's: what a login tries.
    ///
    /// # Errors
    /// When it is longer than a password can be, before it is looked at otherwise.
    pub fn parse(&self) -> Result<Password, InvalidValue> {
        self.0.expose_secret().parse()
    }

    /// The password for an account, by the rules for new ones.
    ///
    /// # Errors
    /// When it breaks one of them.
    pub fn parse_new(&self, email: &Email) -> Result<Password, InvalidValue> {
        let password = self.parse()?;
        password.check_new(email)?;
        Ok(password)
    }
}

/// A password in the form in which it is hashed: NFKC, so that it does not depend on the keyboard or the system that
/// composed its characters. At most [`CHARS_MAX`] of them. Not shown by `Debug`.
#[derive(Clone)]
pub struct Password(SecretString);

impl Password {
    /// What is hashed.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }

    /// The rules for new passwords. Not for a login: the rules may change, and an old password must still fit.
    fn check_new(&self, email: &Email) -> Result<(), InvalidValue> {
        let text = self.0.expose_secret();
        if text.chars().count() < CHARS_MIN {
            return Err(InvalidValue::new(format!("has fewer than {CHARS_MIN} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidValue::new("contains a control character"));
        }
        let lower = text.to_lowercase();
        let mut chars = lower.chars();
        let first = chars.next();
        if chars.all(|char| Some(char) == first) {
            return Err(InvalidValue::new("is one character repeated"));
        }
        if COMMON.contains(lower.as_str()) {
            return Err(InvalidValue::new("is among the passwords that are guessed first; choose another"));
        }
        let local = email.as_str().split('@').next();
        if lower == email.as_str() || Some(lower.as_str()) == local {
            return Err(InvalidValue::new("is the e-mail address; choose another"));
        }
        Ok(())
    }
}

impl FromStr for Password {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let too_long = || InvalidValue::new(format!("has more than {CHARS_MAX} characters"));
        if text.len() > RAW_BYTES_MAX {
            return Err(too_long());
        }
        // The full size at once: growing would leave copies behind that nobody wipes.
        let mut normal = String::with_capacity(CHARS_MAX * 4);
        for (at, char) in text.nfkc().enumerate() {
            if at == CHARS_MAX {
                return Err(too_long());
            }
            normal.push(char);
        }
        Ok(Self(normal.into()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> Result<Password, InvalidValue> {
        RawPassword(text.into()).parse_new(&"someone.long@example.com".parse().unwrap())
    }

    #[test]
    fn any_uncommon_password_of_8_to_128_characters_is_taken() {
        for text in
            ["hunter-7", "with spaces in it", "ümläute!", "パスワードは長い", "🦀🦀🦀🦀🦀🦀🦀🦞", &"ab".repeat(64)]
        {
            assert!(new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn length_counts_characters_after_normalising() {
        assert!(new("short7!").is_err());
        assert!(new("ééééééé").is_err(), "seven characters in fourteen bytes");
        assert!(new(&"e\u{301}a".repeat(64)).is_ok(), "128 characters once composed");
        assert!(new(&"ab".repeat(65)).is_err());
        assert!(new(&"\u{fdfa}".repeat(8)).is_err(), "8 characters that become 144");
        assert!(new(&"x".repeat(1_000_000)).is_err());
    }

    #[test]
    fn a_password_does_not_depend_on_how_its_characters_were_composed() {
        let (composed, decomposed): (Password, Password) =
            ("pässwört".parse().unwrap(), "pa\u{308}sswo\u{308}rt".parse().unwrap());
        assert_eq!(composed.as_bytes(), decomposed.as_bytes());
    }

    #[test]
    fn what_is_guessed_first_is_refused() {
        for text in [
            "password",
            "Password1",
            "P@ssw0rd",
            "12345678",
            "qwertyuiop",
            "ILOVEYOU",
            "ｐａｓｓｗｏｒｄ",
            "aaaaaaaaaaaa",
            "ÄÄÄÄÄÄÄÄ",
            "        ",
            "someone.long@example.com",
            "Someone.Long",
        ] {
            assert!(new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn control_characters_are_refused_in_new_passwords() {
        for text in ["nul\0inside", "line\nbreak", "\u{7f}delete-it"] {
            assert!(new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_login_tries_what_the_rules_for_new_passwords_refuse() {
        for text in ["", "short", "password"] {
            assert!(text.parse::<Password>().is_ok());
        }
        assert!("x".repeat(129).parse::<Password>().is_err());
    }

    #[test]
    fn nothing_shows_a_password() {
        let raw: RawPassword = serde_json::from_str(r#""open-sesame""#).unwrap();
        assert!(!format!("{raw:?} {:?}", raw.parse().unwrap()).contains("sesame"));
        let error = serde_json::from_str::<RawPassword>("314159265").unwrap_err();
        assert!(!error.to_string().contains("31415"), "{error}");
        let refused = new("password1").unwrap_err();
        assert!(!refused.to_string().contains("password1"), "{refused}");
    }

    #[test]
    fn the_list_is_in_the_form_in_which_it_is_searched() {
        assert!(COMMON.len() > 1_000);
        for line in COMMON.iter() {
            let normal: String = line.nfkc().collect();
            assert_eq!(normal.to_lowercase(), *line);
            assert!(line.chars().count() >= CHARS_MIN, "{line}: is refused by its length already");
        }
    }
}
