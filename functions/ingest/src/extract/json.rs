//! JSON, also one value a line: a line for each value, with the path to it, in the order of the text.
//!
//! `{"a": {"b": [1, "x"]}}` reads as `a.b[0]: 1` and `a.b[1]: x`. Values that stand beside one another in the outermost list or
//! object are paragraphs of their own.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{ExtractError, Extracted, Limits, writer::Writer};

/// Nesting from which on a value begins no paragraph of its own.
const PARAGRAPH_DEPTH: usize = 1;

/// What `serde_json` says of a text that is nested deeper than it follows: 128 levels.
const TOO_DEEP: &str = "recursion limit exceeded";

pub(super) fn extract(text: &str, limits: &Limits) -> Result<Extracted, ExtractError> {
    let mut reading = Reading { writer: Writer::new(limits), path: String::new(), lines: String::new(), depth: 0 };
    let mut values = serde_json::Deserializer::from_str(text);
    // One value, or one after another.
    while values.end().is_err() {
        if let Err(error) = Value(&mut reading).deserialize(&mut values) {
            let message = error.to_string();
            return Err(match message.contains(TOO_DEEP) {
                true => ExtractError::TooDeep,
                false if reading.writer.is_full() => break,
                false => ExtractError::malformed(message),
            });
        }
        reading.flush();
    }
    reading.writer.finish(None)
}

struct Reading {
    writer: Writer,
    path: String,
    /// Of the paragraph that is being read.
    lines: String,
    depth: usize,
}

impl Reading {
    fn leaf<E: serde::de::Error>(&mut self, value: &str) -> Result<(), E> {
        if self.writer.is_full() {
            return Err(E::custom("too much text"));
        }
        if !value.trim().is_empty() {
            if !self.lines.is_empty() {
                self.lines.push('\n');
            }
            if !self.path.is_empty() {
                self.lines.push_str(&self.path);
                self.lines.push_str(": ");
            }
            self.lines.push_str(value);
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.writer.paragraph(&std::mem::take(&mut self.lines));
    }

    /// Reads a value one level down, under `step` of the path.
    fn descend<T, E>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let length = self.path.len();
        self.path.push_str(step);
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        self.path.truncate(length);
        if self.depth < PARAGRAPH_DEPTH {
            self.flush();
        }
        done
    }
}

/// A value to be read into the reading; nothing else is kept of it.
struct Value<'a>(&'a mut Reading);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.0.leaf(&value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.0.leaf(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.0.leaf(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.0.leaf(&value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.0.leaf(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let step = format!("[{index}]");
            let more = self.0.descend(&step, |reading| values.next_element_seed(Value(reading)))?;
            if more.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            let step = if self.0.path.is_empty() { name } else { format!(".{name}") };
            self.0.descend(&step, |reading| members.next_value_seed(Value(reading)))?;
            if self.0.path.len() > super::TITLE_CHARS_MAX * 128 {
                return Err(A::Error::custom(TOO_DEEP));
            }
        }
        Ok(())
    }
}
