//! An answer without a language model: the best sentences of the best hits, word for word.

use std::{collections::HashSet, ops::Range};

use shared::{
    deadline::Deadline,
    embed::{EmbedError, Embedder},
    sparse::{self, SparseVector},
};

use crate::{
    response::{Answer, AnswerKind, ByteRange, Citation, Hit, Statement},
    sentences,
};

/// Hits that are read for the answer.
const HITS_MAX: usize = 5;

/// Sentences that are embedded: 40 short ones take a third of a second on one core.
const SENTENCES_MAX: usize = 40;

/// Statements of an answer.
const STATEMENTS_MAX: usize = 3;

/// The share of cosine similarity in a sentence's support; the rest is the share of the question's terms in it.
const COSINE_WEIGHT: f32 = 0.7;

/// The least support that makes a statement.
const SUPPORT_MIN: f32 = 0.45;

/// Further statements have at least this share of the best one's support.
const SUPPORT_RATIO_MIN: f32 = 0.85;

/// A sentence of a hit.
struct Sentence<'a> {
    hit: &'a Hit,
    text: &'a str,
    byte_range: ByteRange,
    /// The share of the question's terms that it has.
    overlap: f32,
}

/// Answers `question`, whose embedding is `vector`, from `hits`.
pub(crate) async fn extract(
    embedder: &dyn Embedder,
    question: &str,
    vector: &[f32],
    hits: &[Hit],
    deadline: Deadline,
) -> Result<Answer, EmbedError> {
    let sentences = candidates(&sparse::query(question), hits);
    let texts: Vec<String> = sentences.iter().map(|sentence| sentence.text.to_owned()).collect();
    let vectors =
        if texts.is_empty() { Vec::new() } else { embedder.embed_passages(texts, deadline.instant()).await? };
    let mut statements: Vec<Statement> = sentences
        .iter()
        .zip(&vectors)
        .map(|(sentence, embedding)| sentence.statement(support(cosine(vector, embedding), sentence.overlap)))
        .collect();
    // Stable: of equals, the one of the better hit comes first.
    statements.sort_by(|a, b| b.support.total_cmp(&a.support));
    let least = statements.first().map_or(1.0, |best| best.support * SUPPORT_RATIO_MIN).max(SUPPORT_MIN);
    statements.retain(|statement| statement.support >= least);
    statements.truncate(STATEMENTS_MAX);
    Ok(Answer { found: !statements.is_empty(), statements, ..Answer::none(AnswerKind::Extractive) })
}

impl Sentence<'_> {
    fn statement(&self, support: f32) -> Statement {
        let citations = vec![Citation::of(self.hit, self.byte_range)];
        Statement { text: self.text.to_owned(), support, citations }
    }
}

/// The sentences worth embedding, each text once: those with most of the question's terms, then by their hit's rank.
fn candidates<'a>(question: &SparseVector, hits: &'a [Hit]) -> Vec<Sentence<'a>> {
    let mut seen = HashSet::new();
    let mut sentences: Vec<Sentence> = hits
        .iter()
        .take(HITS_MAX)
        .flat_map(|hit| sentences::statements(&hit.text).into_iter().filter_map(move |range| sentence(hit, &range)))
        .filter(|sentence| seen.insert(sentence.text))
        .map(|sentence| Sentence { overlap: overlap(question, sentence.text), ..sentence })
        .collect();
    sentences.sort_by(|a, b| b.overlap.total_cmp(&a.overlap));
    sentences.truncate(SENTENCES_MAX);
    sentences
}

/// The sentence at `range` of the hit's text, with its place in the document. None where the hit's text is not the
/// document's, byte for byte: a citation is exact or not given.
fn sentence<'a>(hit: &'a Hit, range: &Range<usize>) -> Option<Sentence<'a>> {
    let ByteRange { start, end } = hit.byte_range;
    if end.checked_sub(start) != Some(hit.text.len() as u64) {
        return None;
    }
    let byte_range = ByteRange { start: start + range.start as u64, end: start + range.end as u64 };
    Some(Sentence { hit, text: hit.text.get(range.clone())?, byte_range, overlap: 0.0 })
}

/// The share of the question's terms that stand in `text`; zero for a question of stop words.
#[allow(clippy::cast_precision_loss, reason = "counts of words are small")]
fn overlap(question: &SparseVector, text: &str) -> f32 {
    let terms = sparse::query(text).indices;
    let shared = question.indices.iter().filter(|term| terms.binary_search(term).is_ok()).count();
    shared as f32 / question.indices.len().max(1) as f32
}

/// Embeddings have length 1, so the cosine is their product.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn support(cosine: f32, overlap: f32) -> f32 {
    (COSINE_WEIGHT * cosine.max(0.0) + (1.0 - COSINE_WEIGHT) * overlap).clamp(0.0, 1.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use shared::domain::{ChunkId, ContentHash, DocumentId, KnowledgeBaseId};

    use super::*;
    use crate::response::HitDocument;

    pub(crate) fn hit(document: &str, range: Range<usize>) -> Hit {
        Hit {
            chunk_id: ChunkId::draw(),
            score: 1.0,
            rerank_score: None,
            text: document.get(range.clone()).unwrap().to_owned(),
            document: HitDocument {
                id: DocumentId::draw(),
                title: None,
                source_uri: "fixture".to_owned(),
                knowledge_base: KnowledgeBaseId::draw(),
                revision: 1,
                content_hash: ContentHash([0; 32]),
            },
            byte_range: ByteRange { start: range.start as u64, end: range.end as u64 },
            page: None,
            heading_path: Vec::new(),
        }
    }

    #[test]
    fn a_sentence_is_cited_by_its_place_in_the_document() {
        let document = "Präambel. The lease runs out after a minute. Nobody minds that much.";
        let hits = [hit(document, 11..document.len())];
        let sentences = candidates(&sparse::query("When does the lease run out?"), &hits);
        assert_eq!(sentences.len(), 2);
        for sentence in sentences {
            let ByteRange { start, end } = sentence.byte_range;
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            assert_eq!(document.get(range), Some(sentence.text));
        }
    }

    #[test]
    fn sentences_with_the_questions_terms_come_first_and_each_text_once() {
        let document = "Nobody minds that much. The lease runs out after a minute.";
        let hits = [hit(document, 0..document.len()), hit(document, 0..document.len())];
        let sentences = candidates(&sparse::query("When does the lease run out?"), &hits);
        let texts: Vec<&str> = sentences.iter().map(|sentence| sentence.text).collect();
        assert_eq!(texts, ["The lease runs out after a minute.", "Nobody minds that much."]);
    }

    #[test]
    fn a_hit_whose_text_is_not_the_documents_is_not_cited() {
        let mut hit = hit("The lease runs out after a minute.", 0..34);
        hit.byte_range.end += 1;
        assert!(candidates(&sparse::query("lease"), &[hit]).is_empty());
    }

    #[test]
    fn support_lies_between_nothing_and_all() {
        for (cosine, overlap) in [(-1.0, 0.0), (1.0, 1.0), (1.000_1, 1.0), (0.5, 0.5)] {
            assert!((0.0..=1.0).contains(&support(cosine, overlap)));
        }
    }
}
