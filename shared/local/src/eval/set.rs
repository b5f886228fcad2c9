//! A data set, read from its folder.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use crate::failure::Failure;

/// A data set.
#[derive(Debug)]
pub(super) struct Set {
    /// The folder's name.
    pub(super) name: String,
    /// The documents, as `POST /documents` takes them.
    pub(super) documents: Vec<Value>,
    queries: Vec<Query>,
}

/// A question, and what answers it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) text: String,
    /// Documents, with how much each is worth.
    pub(super) relevant: BTreeMap<String, u32>,
}

impl Set {
    /// Reads it.
    ///
    /// # Errors
    /// When a file is missing or not what it should be.
    pub(super) fn read(dir: &Path) -> Result<Self, Failure> {
        let dir = std::path::absolute(dir).map_err(Failure::because("a data set's folder has no path"))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut relevant = BTreeMap::<String, BTreeMap<String, u32>>::new();
        for line in lines(&dir, "qrels.jsonl")? {
            let worth = line.get("relevance").and_then(Value::as_u64).unwrap_or(1);
            let worth = u32::try_from(worth).unwrap_or(u32::MAX);
            relevant.entry(text(&line, "query_id")).or_default().insert(text(&line, "doc_id"), worth);
        }
        let queries = lines(&dir, "queries.jsonl")?.into_iter().filter_map(|line| {
            let relevant = relevant.remove(&text(&line, "id"))?;
            Some(Query { text: text(&line, "text"), relevant })
        });
        let queries = queries.collect();
        let documents = lines(&dir, "docs.jsonl")?.iter().map(document).collect();
        Ok(Self { name, documents, queries })
    }

    /// The questions of one half, at most so many, spread evenly over the set.
    pub(super) fn sample(&self, half: Option<usize>, max: Option<usize>) -> Vec<Query> {
        let halved = self.queries.iter().enumerate().filter(|(at, _)| half.is_none_or(|half| at % 2 == half));
        let halved: Vec<&Query> = halved.map(|(_, query)| query).collect();
        let max = max.unwrap_or(usize::MAX).min(halved.len());
        (0..max).filter_map(|n| halved.get(n * halved.len() / max).map(|query| (*query).clone())).collect()
    }
}

fn document(line: &Value) -> Value {
    let mut document = json!({ "source_uri": text(line, "id"), "text": text(line, "text") });
    let title = text(line, "title");
    if let (false, Some(members)) = (title.trim().is_empty(), document.as_object_mut()) {
        members.insert("title".to_owned(), title.into());
    }
    document
}

fn text(line: &Value, member: &str) -> String {
    line.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn lines(dir: &Path, file: &str) -> Result<Vec<Value>, Failure> {
    let path = dir.join(file);
    let because = || format!("{} can not be read", path.display());
    let content = fs::read_to_string(&path).map_err(Failure::because(because()))?;
    content
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).map_err(Failure::because(because())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_are_all_and_share_nothing() {
        let query = |n: usize| Query { text: n.to_string(), relevant: BTreeMap::new() };
        let set = Set { name: String::new(), documents: Vec::new(), queries: (0..11).map(query).collect() };
        let texts = |half, max| set.sample(half, max).into_iter().map(|query| query.text).collect::<Vec<_>>();
        assert_eq!(texts(Some(0), None), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(texts(Some(1), Some(2)), ["1", "5"]);
        assert_eq!(texts(None, None).len(), 11);
    }
}
