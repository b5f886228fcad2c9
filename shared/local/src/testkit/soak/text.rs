//! Documents whose content tells, by its hash alone, who sent it: whatever a reader is shown can be compared with it.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

/// Words of a paragraph: half of what the embedder reads at once, so that two paragraphs are two chunks.
const WORDS: usize = 140;

/// Different paragraphs of one document: few, so that revisions share chunks.
pub(super) const PARAGRAPHS: usize = 48;

/// One content of one document, as it is drawn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Text {
    /// Which of the schedule's documents.
    pub(super) slot: usize,
    /// Stands in the text, and makes it differ from all others.
    pub(super) edition: String,
    /// Which paragraphs, in this order.
    pub(super) paragraphs: Vec<usize>,
}

impl Text {
    /// What is sent.
    pub(super) fn body(&self) -> String {
        let mut body = format!("Edition {} of the notes says:", self.edition);
        words(&mut body, self.slot, self.edition.len() + self.paragraphs.len());
        for paragraph in &self.paragraphs {
            write!(body, "\n\nParagraph {paragraph} of {} says:", self.slot).ok();
            words(&mut body, self.slot, *paragraph);
        }
        body
    }
}

/// The same words for all tenants, so that a hit of another's document is as good as one's own.
fn words(body: &mut String, slot: usize, paragraph: usize) {
    for word in 0..WORDS {
        let n = (slot * 31 + paragraph * 7_919 + word * 104_729) % 5_003;
        write!(body, " word{n}").ok();
    }
    body.push('.');
}

/// SHA-256 in hexadecimal, as hits name their content.
pub(super) fn hash(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// All that was ever sent, by its hash.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<HashMap<String, Arc<str>>>);

impl Texts {
    /// Notes a content before it is sent, and returns its hash.
    pub(super) fn note(&self, body: &str) -> String {
        let hash = hash(body);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(hash.clone()).or_insert_with(|| body.into());
        hash
    }

    /// What has this hash.
    pub(super) fn get(&self, hash: &str) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }
}
