//! The request, as clients write it and as it is understood.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use shared::{
    domain::{DocumentId, KnowledgeBaseId},
    problem::Problem,
};
use utoipa::ToSchema;

use crate::{
    cursor::{Cursor, Fingerprint},
    filter::{self, Filter, FilterBody},
};

/// Bytes of a question. The embedding model reads its first few hundred tokens; the lexical leg reads all.
pub const QUERY_BYTES_MAX: usize = 8_192;

/// Hits of one answer.
pub const HITS_MAX: usize = 100;

/// Hits where the request does not say.
pub const HITS_DEFAULT: i64 = 10;

/// Knowledge bases that one request may name.
pub const KNOWLEDGE_BASES_MAX: usize = 100;

/// Documents that one request may name.
pub const DOCUMENTS_MAX: usize = 1_000;

/// Turns of a conversation: what a question refers to was said lately.
pub const TURNS_MAX: usize = 20;

/// Bytes of a conversation.
pub const CONVERSATION_BYTES_MAX: usize = 32 * 1024;

/// Chunks on each side of a hit that one request may ask for.
pub const CONTEXT_MAX: usize = 5;

/// The body of `POST /query`. Only `query` is required; a field that does not stand here is refused by name.
///
/// ```json
/// {"query": "How tall is the Eiffel Tower?", "k": 5, "answer": true}
/// ```
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"query": "How tall is the Eiffel Tower?", "k": 5, "answer": true})))]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own that a client sets")]
pub struct QueryRequest {
    /// The question: 1 to 8,192 bytes, not blank. Line breaks and tabs count as spaces; other control characters are
    /// refused.
    #[schema(
        min_length = 1,
        max_length = 8192,
        pattern = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$"
    )]
    pub query: String,
    /// The most hits to return: 1 to 100, by default 10.
    #[serde(default = "hits_default")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    pub k: i64,
    /// Search only these knowledge bases (at most 100). One that does not exist or that the caller may not read makes
    /// the answer 404. Left out: all that the caller may read. Empty: none, so there are no hits.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub knowledge_bases: Option<Vec<KnowledgeBaseId>>,
    /// Search only these documents (at most 1,000). One that does not exist, or not for the caller, has no hits. Left
    /// out: all documents. Empty: none.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub documents: Option<Vec<DocumentId>>,
    /// Search only documents that pass this: tests of their fields and attributes.
    #[serde(default)]
    #[schema(value_type = Option<FilterBody>)]
    pub filter: Option<Value>,
    /// How to search.
    #[serde(default)]
    pub mode: Mode,
    /// `document`: only the best passage of each document.
    #[serde(default)]
    pub group_by: Option<GroupBy>,
    /// Leave out hits with a lower score, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub min_score: Option<f32>,
    /// With each hit, so many chunks before and behind it, 0 to 5.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 5)]
    pub context: i64,
    /// With each hit, where the question's words stand in it.
    #[serde(default)]
    pub highlights: bool,
    /// Where the page before ended: its `next_cursor`, with the same request otherwise.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Whether to answer the question, with citations, beside the hits.
    #[serde(default)]
    pub answer: bool,
    /// Earlier turns of the conversation, oldest first: at most 20, of at most 32 KiB in all. The question is searched as if
    /// it had been asked in full ("And how wide is it?").
    #[serde(default)]
    #[schema(max_items = 20)]
    pub conversation: Vec<Turn>,
    /// Whether to let a reranker order the best candidates, where there is one.
    #[serde(default = "yes")]
    pub rerank: bool,
    /// Whether to tell how the hits were found.
    #[serde(default)]
    pub debug: bool,
}

/// A turn of a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Who said something in a conversation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Speaker)]
pub enum Role {
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// How to search.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By meaning and by words, fused. Finds most.
    #[default]
    Hybrid,
    /// By meaning only (embeddings).
    Dense,
    /// By words only (BM25).
    Sparse,
}

/// What hits are grouped by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Their document.
    Document,
}

impl Mode {
    /// Whether the dense leg is searched.
    pub(crate) fn dense(self) -> bool {
        match self {
            Self::Hybrid | Self::Dense => true,
            Self::Sparse => false,
        }
    }

    /// Whether the sparse leg is searched.
    pub(crate) fn sparse(self) -> bool {
        match self {
            Self::Hybrid | Self::Sparse => true,
            Self::Dense => false,
        }
    }
}

/// A request that holds.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "as in the request")]
pub(crate) struct Query {
    /// One line, trimmed, not empty.
    pub(crate) text: String,
    pub(crate) hits_max: usize,
    pub(crate) knowledge_bases: Option<BTreeSet<KnowledgeBaseId>>,
    pub(crate) documents: Option<BTreeSet<DocumentId>>,
    pub(crate) filter: Option<Filter>,
    pub(crate) mode: Mode,
    pub(crate) group_by: Option<GroupBy>,
    pub(crate) min_score: f32,
    pub(crate) context: usize,
    pub(crate) highlights: bool,
    pub(crate) after: Option<Cursor>,
    /// Of all that decides the order of the hits.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) answer: bool,
    pub(crate) conversation: Vec<Turn>,
    pub(crate) rerank: bool,
    pub(crate) debug: bool,
}

impl TryFrom<QueryRequest> for Query {
    type Error = Problem;

    fn try_from(request: QueryRequest) -> Result<Self, Problem> {
        let hits_max = usize::try_from(request.k)
            .ok()
            .filter(|k| (1..=HITS_MAX).contains(k))
            .ok_or_else(|| Problem::invalid_field("k", format!("is not from 1 to {HITS_MAX}")))?;
        let context = usize::try_from(request.context)
            .ok()
            .filter(|context| *context <= CONTEXT_MAX)
            .ok_or_else(|| Problem::invalid_field("context", format!("is not from 0 to {CONTEXT_MAX}")))?;
        let min_score = request.min_score.unwrap_or_default();
        if !(0.0..=1.0).contains(&min_score) {
            return Err(Problem::invalid_field("min_score", "is not from 0 to 1"));
        }
        let text = question(&request.query)?;
        let knowledge_bases = set("knowledge_bases", request.knowledge_bases, KNOWLEDGE_BASES_MAX)?;
        let documents = set("documents", request.documents, DOCUMENTS_MAX)?;
        let filter = request.filter.as_ref().map(filter::parse).transpose()?;
        let (mode, group_by) = (request.mode, request.group_by);
        let decides = (&text, hits_max, &knowledge_bases, &documents, &filter, mode, group_by, min_score);
        let fingerprint = Fingerprint::of(&format!("{decides:?}"));
        let after = request.cursor.map(|cursor| Cursor::decode(&cursor, fingerprint)).transpose()?;
        Ok(Self {
            text,
            hits_max,
            knowledge_bases,
            documents,
            filter,
            mode,
            group_by,
            min_score,
            context,
            highlights: request.highlights,
            after,
            fingerprint,
            answer: request.answer,
            conversation: conversation(request.conversation)?,
            rerank: request.rerank,
            debug: request.debug,
        })
    }
}

fn yes() -> bool {
    true
}

fn conversation(turns: Vec<Turn>) -> Result<Vec<Turn>, Problem> {
    if turns.len() > TURNS_MAX {
        return Err(Problem::invalid_field("conversation", format!("has more than {TURNS_MAX} turns")));
    }
    if turns.iter().map(|turn| turn.content.len()).sum::<usize>() > CONVERSATION_BYTES_MAX {
        return Err(Problem::invalid_field("conversation", format!("is longer than {CONVERSATION_BYTES_MAX} bytes")));
    }
    Ok(turns)
}

fn hits_default() -> i64 {
    HITS_DEFAULT
}

fn question(text: &str) -> Result<String, Problem> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Problem::invalid_field("query", format!("is longer than {QUERY_BYTES_MAX} bytes")));
    }
    // What people paste has line breaks; to both legs they are spaces.
    let text = text.replace(['\n', '\r', '\t'], " ");
    if text.chars().any(char::is_control) {
        return Err(Problem::invalid_field("query", "contains a control character"));
    }
    match text.trim() {
        "" => Err(Problem::invalid_field("query", "is blank")),
        text => Ok(text.to_owned()),
    }
}

fn set<T: Ord>(field: &str, ids: Option<Vec<T>>, max: usize) -> Result<Option<BTreeSet<T>>, Problem> {
    match ids {
        Some(ids) if ids.len() > max => Err(Problem::invalid_field(field, format!("has more than {max} entries"))),
        ids => Ok(ids.map(BTreeSet::from_iter)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::{http::Json, problem::Code};

    use super::*;

    fn parse(body: &Value) -> Result<Query, Problem> {
        Json::<QueryRequest>::parse(body.to_string().as_bytes())?.try_into()
    }

    #[test]
    fn a_question_alone_is_a_request() {
        let query = parse(&json!({"query": " what\nis\tit? "})).unwrap();
        assert_eq!((query.text.as_str(), query.hits_max, query.mode), ("what is it?", 10, Mode::Hybrid));
        assert!(!query.answer && !query.debug && query.knowledge_bases.is_none() && query.documents.is_none());
    }

    #[test]
    fn limits_hold_on_both_sides() {
        for k in [1, 100] {
            assert!(parse(&json!({"query": "x", "k": k})).is_ok());
        }
        assert!(parse(&json!({"query": "x".repeat(QUERY_BYTES_MAX)})).is_ok());
        let ids = |n: usize| vec![uuid::Uuid::nil(); n];
        assert!(parse(&json!({"query": "x", "knowledge_bases": ids(100), "documents": ids(1_000)})).is_ok());
        assert!(parse(&json!({"query": "x", "knowledge_bases": [], "documents": []})).is_ok());
    }

    #[test]
    fn values_that_a_field_does_not_take_are_refused_by_the_fields_name() {
        let ids = |n: usize| vec![uuid::Uuid::nil(); n];
        for (field, body) in [
            ("query", json!({})),
            ("query", json!({"query": ""})),
            ("query", json!({"query": " \n"})),
            ("query", json!({"query": null})),
            ("query", json!({"query": "a\u{0}b"})),
            ("query", json!({"query": "a\u{7f}b"})),
            ("query", json!({"query": "x".repeat(QUERY_BYTES_MAX + 1)})),
            ("k", json!({"query": "x", "k": 0})),
            ("k", json!({"query": "x", "k": 101})),
            ("k", json!({"query": "x", "k": -1})),
            ("k", json!({"query": "x", "k": "10"})),
            ("k", json!({"query": "x", "k": 1.5})),
            ("mode", json!({"query": "x", "mode": "Dense"})),
            ("group_by", json!({"query": "x", "group_by": "page"})),
            ("min_score", json!({"query": "x", "min_score": 1.1})),
            ("context", json!({"query": "x", "context": 6})),
            ("context", json!({"query": "x", "context": -1})),
            ("cursor", json!({"query": "x", "cursor": "AAAA"})),
            ("filter.title.eq", json!({"query": "x", "filter": {"title": {"eq": 1}}})),
            ("answer", json!({"query": "x", "answer": 1})),
            ("knowledge_bases", json!({"query": "x", "knowledge_bases": ids(101)})),
            ("knowledge_bases[0]", json!({"query": "x", "knowledge_bases": ["mine"]})),
            ("documents", json!({"query": "x", "documents": ids(1_001)})),
        ] {
            let problem = parse(&body).expect_err(&body.to_string());
            assert_eq!(problem.code(), Code::InvalidField, "{body}");
            assert!(problem.to_string().contains(&format!("`{field}`")), "{body}: {problem}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let problem = parse(&json!({"query": "x", "top_k": 3})).unwrap_err();
        assert_eq!(problem.code(), Code::UnknownField);
        assert!(problem.to_string().contains("`top_k`"), "{problem}");
    }
}
