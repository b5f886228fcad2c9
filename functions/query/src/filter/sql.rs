//! A [`Filter`] as a condition over `documents d` and its active revision `document_revisions r`.

use serde_json::{Value, json};
use shared::db::Parameter;
use time::OffsetDateTime;
use tokio_postgres::types::{ToSql, Type};

use super::{Column, Comparison, Field, Filter, Scalar, Test};

/// A value that travels beside the statement.
type Boxed = Box<dyn ToSql + Send + Sync>;

/// A condition and what its placeholders stand for.
#[derive(Default)]
pub(crate) struct Condition {
    /// Nothing in it comes from a user.
    pub(crate) text: String,
    parameters: Vec<(Boxed, Type)>,
    /// Placeholders that the statement uses before the condition's.
    before: usize,
}

impl Condition {
    /// The condition for `filter`, true without one. Its placeholders begin after `$before`.
    pub(crate) fn new(filter: Option<&Filter>, before: usize) -> Self {
        let mut condition = Self { before, ..Self::default() };
        condition.text = filter.map_or_else(|| "true".to_owned(), |filter| condition.filter(filter));
        condition
    }

    /// What the placeholders stand for, in their order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        self.parameters.iter().map(|(value, kind)| {
            let value: &(dyn ToSql + Sync) = &**value;
            (value, kind.clone())
        })
    }

    fn place(&mut self, value: impl ToSql + Send + Sync + 'static, kind: Type) -> String {
        self.parameters.push((Box::new(value), kind));
        format!("${}", self.before + self.parameters.len())
    }

    fn filter(&mut self, filter: &Filter) -> String {
        match filter {
            Filter::All(filters) => self.joined(filters, " AND ", "true"),
            Filter::Any(filters) => self.joined(filters, " OR ", "false"),
            Filter::Not(filter) => format!("NOT {}", self.filter(filter)),
            Filter::Test(Field::Column(column), test) => self.column(*column, test),
            Filter::Test(Field::Attribute(keys), test) => self.attribute(keys, test),
        }
    }

    fn joined(&mut self, filters: &[Filter], word: &str, none: &str) -> String {
        let parts: Vec<String> = filters.iter().map(|filter| self.filter(filter)).collect();
        if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(word)) }
    }

    fn column(&mut self, column: Column, test: &Test) -> String {
        let name = match column {
            Column::SourceUri => "d.source_uri",
            Column::Title => "d.title",
            Column::MediaType => "r.media_type",
            Column::SizeBytes => "r.size_bytes",
            Column::CreatedAt => "d.created_at",
            Column::UpdatedAt => "d.updated_at",
        };
        let condition = match test {
            Test::Exists => return format!("{name} IS NOT NULL"),
            Test::In(values) => format!("{name} = ANY ({})", self.list(column, values)),
            Test::Compare(comparison, value) => {
                let list = self.list(column, std::slice::from_ref(value));
                let order = if is_text(column) { " COLLATE \"C\"" } else { "" };
                // A list of one, so that its type is the column's.
                format!("{name}{order} {} ANY ({list})", operator(*comparison))
            }
            Test::Prefix(prefix) => format!("starts_with({name}, {})", self.place(prefix.clone(), Type::TEXT)),
        };
        // Only a title may be missing. An index serves the others as they are.
        if column == Column::Title { format!("COALESCE({condition}, false)") } else { format!("({condition})") }
    }

    fn list(&mut self, column: Column, values: &[Scalar]) -> String {
        match column {
            Column::SourceUri | Column::Title | Column::MediaType => {
                let texts: Vec<String> = values.iter().filter_map(text_of).collect();
                self.place(texts, Type::TEXT_ARRAY)
            }
            Column::SizeBytes => {
                let numbers: Vec<i64> = values.iter().filter_map(whole_number_of).collect();
                self.place(numbers, Type::INT8_ARRAY)
            }
            Column::CreatedAt | Column::UpdatedAt => {
                let times: Vec<OffsetDateTime> = values.iter().filter_map(time_of).collect();
                self.place(times, Type::TIMESTAMPTZ_ARRAY)
            }
        }
    }

    fn attribute(&mut self, keys: &[String], test: &Test) -> String {
        match test {
            Test::In(values) => {
                // As it stands, or as an element of an array: what the index on attributes answers.
                let shapes = values.iter().flat_map(|value| {
                    let value = json_of(value);
                    [nested(keys, value.clone()), nested(keys, json!([value]))]
                });
                let shapes: Vec<Value> = shapes.collect();
                format!("(d.attributes @> ANY ({}))", self.place(shapes, Type::JSONB_ARRAY))
            }
            Test::Exists => format!("COALESCE(jsonb_typeof({}) <> 'null', false)", self.path(keys)),
            Test::Prefix(prefix) => {
                let path = self.path(keys);
                let prefix = self.place(prefix.clone(), Type::TEXT);
                element(&path, &format!("jsonb_typeof(e.v) = 'string' AND starts_with(e.v #>> '{{}}', {prefix})"))
            }
            Test::Compare(comparison, Scalar::Text(bound)) => {
                let path = self.path(keys);
                let value = self.place(bound.clone(), Type::TEXT);
                let operator = operator(*comparison);
                element(
                    &path,
                    &format!("jsonb_typeof(e.v) = 'string' AND (e.v #>> '{{}}') COLLATE \"C\" {operator} {value}"),
                )
            }
            Test::Compare(comparison, value) => {
                let path = self.path(keys);
                let value = self.place(json_of(value), Type::JSONB);
                let operator = operator(*comparison);
                element(&path, &format!("jsonb_typeof(e.v) = 'number' AND e.v {operator} {value}"))
            }
        }
    }

    /// The attribute under these keys; NULL when one is missing, or leads into something that is no object.
    fn path(&mut self, keys: &[String]) -> String {
        let mut path = "d.attributes".to_owned();
        for key in keys {
            path = format!("({path} -> {})", self.place(key.clone(), Type::TEXT));
        }
        path
    }
}

/// Whether the value itself, or one element of the array that it is, passes `test` as `e.v`.
fn element(path: &str, test: &str) -> String {
    format!(
        "EXISTS (SELECT FROM jsonb_array_elements(
            CASE jsonb_typeof({path}) WHEN 'array' THEN {path} ELSE jsonb_build_array({path}) END) AS e (v) WHERE {test})"
    )
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn is_text(column: Column) -> bool {
    matches!(column, Column::SourceUri | Column::Title | Column::MediaType)
}

fn nested(keys: &[String], value: Value) -> Value {
    keys.iter().rev().fold(value, |value, key| json!({ key.as_str(): value }))
}

fn json_of(value: &Scalar) -> Value {
    match value {
        Scalar::Text(text) => json!(text),
        Scalar::Number(number) => json!(number),
        Scalar::Bool(bool) => json!(bool),
        // Attributes have no times.
        Scalar::Time(_) => Value::Null,
    }
}

fn text_of(value: &Scalar) -> Option<String> {
    if let Scalar::Text(text) = value { Some(text.clone()) } else { None }
}

fn whole_number_of(value: &Scalar) -> Option<i64> {
    if let Scalar::Number(number) = value { number.as_i64() } else { None }
}

fn time_of(value: &Scalar) -> Option<OffsetDateTime> {
    if let Scalar::Time(time) = value { Some(*time) } else { None }
}
