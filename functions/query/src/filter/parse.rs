//! JSON becomes a [`Filter`], or a problem that names the place.

use serde_json::{Map, Value};
use shared::problem::{Code, Problem};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Column, Comparison, Field, Filter, Scalar, Test};

/// Levels of `and`, `or` and `not` within each other. Who nests deeper writes a program.
const DEPTH_MAX: usize = 8;

/// Tests of one filter, which bounds the statement that PostgreSQL must plan.
const TESTS_MAX: usize = 64;

/// Values of one `in`.
pub(super) const VALUES_MAX: usize = 200;

/// Bytes of a text in a filter, and of a field's name: longer ones name no `source_uri`.
pub(super) const TEXT_BYTES_MAX: usize = 2_048;

/// Keys that lead to an attribute: as deep as attributes may be.
pub(super) const KEYS_MAX: usize = 8;

/// Reads the value of `filter`.
pub(crate) fn parse(value: &Value) -> Result<Filter, Problem> {
    Parser { tests: 0 }.filter("filter", value, 0)
}

struct Parser {
    tests: usize,
}

impl Parser {
    fn filter(&mut self, at: &str, value: &Value, depth: usize) -> Result<Filter, Problem> {
        if depth > DEPTH_MAX {
            return Err(Problem::invalid_field(at, format!("is nested more than {DEPTH_MAX} deep")));
        }
        let members = object(at, value)?;
        if members.is_empty() {
            return Err(Problem::invalid_field(at, "is an object without members"));
        }
        let mut all = Vec::new();
        for (name, value) in members {
            let at = &format!("{at}.{}", shown(name));
            match name.as_str() {
                "and" => all.push(Filter::All(self.filters(at, value, depth)?)),
                "or" => all.push(Filter::Any(self.filters(at, value, depth)?)),
                "not" => all.push(Filter::Not(Box::new(self.filter(at, value, depth + 1)?))),
                _ => self.tests(&field(at, name)?, at, value, &mut all)?,
            }
        }
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Filter::All(all) })
    }

    fn filters(&mut self, at: &str, value: &Value, depth: usize) -> Result<Vec<Filter>, Problem> {
        let Value::Array(items) = value else {
            return Err(Problem::invalid_field(at, "is not an array of filters"));
        };
        if items.is_empty() {
            return Err(Problem::invalid_field(at, "is empty"));
        }
        let items = items.iter().enumerate();
        items.map(|(n, item)| self.filter(&format!("{at}[{n}]"), item, depth + 1)).collect()
    }

    fn tests(&mut self, field: &Field, at: &str, value: &Value, all: &mut Vec<Filter>) -> Result<(), Problem> {
        let members = object(at, value)?;
        if members.is_empty() {
            return Err(Problem::invalid_field(at, "has no test"));
        }
        for (operator, value) in members {
            self.tests += 1;
            if self.tests > TESTS_MAX {
                return Err(Problem::invalid_field("filter", format!("has more than {TESTS_MAX} tests")));
            }
            let at = &format!("{at}.{}", shown(operator));
            let test = |test| Filter::Test(field.clone(), test);
            let compare = |comparison| {
                let value = scalar(field, at, value)?;
                if matches!(value, Scalar::Bool(_)) {
                    return Err(Problem::invalid_field(at, "is neither a number nor a text: there is no order"));
                }
                Ok(test(Test::Compare(comparison, value)))
            };
            all.push(match operator.as_str() {
                "eq" => test(Test::In(vec![scalar(field, at, value)?])),
                "ne" => Filter::Not(Box::new(test(Test::In(vec![scalar(field, at, value)?])))),
                "in" => test(Test::In(values(field, at, value)?)),
                "gt" => compare(Comparison::Greater)?,
                "gte" => compare(Comparison::GreaterOrEqual)?,
                "lt" => compare(Comparison::Less)?,
                "lte" => compare(Comparison::LessOrEqual)?,
                "prefix" => test(Test::Prefix(prefix(field, at, value)?)),
                "exists" => match value {
                    Value::Bool(true) => test(Test::Exists),
                    Value::Bool(false) => Filter::Not(Box::new(test(Test::Exists))),
                    _ => return Err(Problem::invalid_field(at, "is neither true nor false")),
                },
                _ => {
                    let known = "eq, ne, in, gt, gte, lt, lte, prefix, exists";
                    return Err(unknown(at, &format!("There is no test `{at}`; there are {known}.")));
                }
            });
        }
        Ok(())
    }
}

fn object<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().ok_or_else(|| Problem::invalid_field(at, "is not an object"))
}

fn unknown(at: &str, detail: &str) -> Problem {
    Problem::new(Code::UnknownField, detail).with("field", at)
}

/// A name of the client's in a problem: not longer than it helps.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// The field of this name. `attributes.a.b` is the member `b` of the attribute `a`; a dot or backslash in a key is written
/// with a backslash before it.
fn field(at: &str, name: &str) -> Result<Field, Problem> {
    if let Some(column) = Column::named(name) {
        return Ok(Field::Column(column));
    }
    let Some(path) = name.strip_prefix("attributes.") else {
        let known: Vec<&str> = Column::ALL.iter().map(|(name, _)| *name).collect();
        let known = known.join(", ");
        return Err(unknown(
            at,
            &format!("There is no field `{at}`; there are {known}, `attributes.` and a key, and, or, not."),
        ));
    };
    if path.len() > TEXT_BYTES_MAX || path.contains('\0') {
        return Err(Problem::invalid_field(at, "names no attribute"));
    }
    let (mut keys, mut key, mut escaped) = (Vec::new(), String::new(), false);
    for c in path.chars() {
        match c {
            _ if escaped => {
                key.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' => keys.push(std::mem::take(&mut key)),
            _ => key.push(c),
        }
    }
    keys.push(key);
    if escaped || keys.iter().any(String::is_empty) || keys.len() > KEYS_MAX {
        return Err(Problem::invalid_field(at, "names no attribute"));
    }
    Ok(Field::Attribute(keys))
}

fn values(field: &Field, at: &str, value: &Value) -> Result<Vec<Scalar>, Problem> {
    match value {
        Value::Array(values) if values.len() > VALUES_MAX => {
            Err(Problem::invalid_field(at, format!("has more than {VALUES_MAX} entries")))
        }
        Value::Array(values) => {
            values.iter().enumerate().map(|(n, value)| scalar(field, &format!("{at}[{n}]"), value)).collect()
        }
        _ => Err(Problem::invalid_field(at, "is not an array")),
    }
}

/// A value of the type that the field has.
fn scalar(field: &Field, at: &str, value: &Value) -> Result<Scalar, Problem> {
    let wrong = |what: &str| Err(Problem::invalid_field(at, format!("is not {what}")));
    match (field, value) {
        (Field::Attribute(_), Value::Bool(value)) => Ok(Scalar::Bool(*value)),
        (Field::Attribute(_), Value::Number(value)) => Ok(Scalar::Number(value.clone())),
        (Field::Attribute(_), Value::String(value)) => text(at, value).map(Scalar::Text),
        (Field::Attribute(_), _) => wrong("a text, a number, true or false (`exists` tests what is not there)"),
        (Field::Column(Column::SourceUri | Column::Title | Column::MediaType), value) => match value {
            Value::String(value) => text(at, value).map(Scalar::Text),
            _ => wrong("a text"),
        },
        (Field::Column(Column::SizeBytes), value) => match value {
            Value::Number(value) if value.is_i64() => Ok(Scalar::Number(value.clone())),
            _ => wrong("a whole number"),
        },
        (Field::Column(Column::CreatedAt | Column::UpdatedAt), value) => {
            match value.as_str().map(|value| OffsetDateTime::parse(value, &Rfc3339)) {
                Some(Ok(time)) => Ok(Scalar::Time(time)),
                _ => wrong("a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z"),
            }
        }
    }
}

fn prefix(field: &Field, at: &str, value: &Value) -> Result<String, Problem> {
    match (field, value) {
        (Field::Column(Column::SizeBytes | Column::CreatedAt | Column::UpdatedAt), _) => {
            Err(Problem::invalid_field(at, "tests texts, and the field is none"))
        }
        (_, Value::String(value)) => text(at, value),
        _ => Err(Problem::invalid_field(at, "is not a text")),
    }
}

fn text(at: &str, text: &str) -> Result<String, Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Problem::invalid_field(at, format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    // PostgreSQL's texts have none: nothing can be equal.
    if text.contains('\0') {
        return Err(Problem::invalid_field(at, "contains a NUL character"));
    }
    Ok(text.to_owned())
}
