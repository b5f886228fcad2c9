//! Where an object belongs: its key names the knowledge base and, within it, the document.

use std::str::FromStr;

use shared::domain::KnowledgeBaseId;

/// How keys are made: text, `{kb}`, text, `{path}`. The usual is `{kb}/{path}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyPattern {
    before: String,
    between: String,
}

/// A pattern that does not hold.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the pattern of keys is not text, `{{kb}}`, text, and `{{path}}` at its end")]
pub struct BadPattern;

impl FromStr for KeyPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (before, rest) = text.split_once("{kb}").ok_or(BadPattern)?;
        let between = rest.strip_suffix("{path}").ok_or(BadPattern)?;
        let plain = |text: &str| !text.contains(['{', '}']);
        // Without anything between, nothing says where one ends and the other begins.
        let holds = plain(before) && plain(between) && !between.is_empty();
        holds.then(|| Self { before: before.to_owned(), between: between.to_owned() }).ok_or(BadPattern)
    }
}

impl KeyPattern {
    /// The knowledge base of a key, and the document's path in it; `None` when the key is made otherwise, or is a folder's.
    #[must_use]
    pub fn read<'a>(&self, key: &'a str) -> Option<(KnowledgeBaseId, &'a str)> {
        let (id, path) = key.strip_prefix(self.before.as_str())?.split_once(self.between.as_str())?;
        (!path.is_empty() && !path.ends_with('/')).then_some((id.parse().ok()?, path))
    }

    /// The key of a document.
    #[must_use]
    pub fn write(&self, knowledge_base: KnowledgeBaseId, path: &str) -> String {
        format!("{}{knowledge_base}{}{path}", self.before, self.between)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests: what fails here fails the test")]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_knowledge_base_and_its_path() {
        let id = KnowledgeBaseId::draw();
        for pattern in ["{kb}/{path}", "inbox/{kb}/{path}", "in-{kb}--{path}"] {
            let pattern: KeyPattern = pattern.parse().unwrap();
            assert_eq!(pattern.read(&pattern.write(id, "a/b c.txt")), Some((id, "a/b c.txt")));
            assert_eq!(pattern.read(&pattern.write(id, "folder/")), None);
        }
        let pattern: KeyPattern = "{kb}/{path}".parse().unwrap();
        for key in ["", "a.txt", "nobody/a.txt", &format!("{id}/"), &format!("x/{id}/a.txt")] {
            assert_eq!(pattern.read(key), None, "{key}");
        }
    }

    #[test]
    fn a_pattern_that_tells_nothing_apart_is_refused() {
        for pattern in ["", "{kb}", "{path}", "{kb}{path}", "{path}/{kb}", "{kb}/{path}.txt", "{x}{kb}/{path}"] {
            assert!(pattern.parse::<KeyPattern>().is_err(), "{pattern}");
        }
    }
}
