//! Filters.

use qdrant_client::qdrant::{
    Condition, DatetimeRange, FieldCondition, Filter, GeoLineString, GeoPoint, Match, Range, ValuesCount,
    condition::ConditionOneOf, r#match::MatchValue,
};
use qdrant_edge as edge;
use tonic::Status;

use super::value;
use crate::errors;

/// A filter.
///
/// # Errors
/// `INVALID_ARGUMENT` for whatever the server would not take.
pub fn filter(filter: Filter) -> Result<edge::Filter, Status> {
    let Filter { should, must, must_not, min_should } = filter;
    let min_should = min_should
        .map(|min_should| {
            if min_should.min_count == 0 {
                return Err(errors::invalid_field("min_count", "must be greater than 0"));
            }
            Ok(edge::MinShould {
                conditions: conditions(min_should.conditions)?.unwrap_or_default(),
                min_count: count(min_should.min_count),
            })
        })
        .transpose()?;
    Ok(edge::Filter {
        should: conditions(should)?,
        min_should,
        must: conditions(must)?,
        must_not: conditions(must_not)?,
    })
}

/// An optional filter.
///
/// # Errors
/// As [`filter`].
pub fn optional(given: Option<Filter>) -> Result<Option<edge::Filter>, Status> {
    given.map(filter).transpose()
}

/// `None` for an empty list: an empty `should` matches everything, not nothing.
fn conditions(given: Vec<Condition>) -> Result<Option<Vec<edge::Condition>>, Status> {
    if given.is_empty() {
        return Ok(None);
    }
    given.into_iter().map(condition).collect::<Result<_, _>>().map(Some)
}

fn condition(condition: Condition) -> Result<edge::Condition, Status> {
    let missing = || Status::invalid_argument("Malformed Condition type");
    Ok(match condition.condition_one_of.ok_or_else(missing)? {
        ConditionOneOf::Field(given) => edge::Condition::Field(field(given)?),
        ConditionOneOf::IsEmpty(given) => edge::Condition::IsEmpty(value::path(&given.key)?.into()),
        ConditionOneOf::IsNull(given) => edge::Condition::IsNull(value::path(&given.key)?.into()),
        ConditionOneOf::HasId(given) => edge::Condition::HasId(value::ids(given.has_id)?.into_iter().collect()),
        ConditionOneOf::HasVector(given) => {
            edge::Condition::HasVector(edge::HasVectorCondition { has_vector: given.has_vector })
        }
        ConditionOneOf::Filter(given) => edge::Condition::Filter(filter(given)?),
        ConditionOneOf::Nested(given) => {
            let inner = given.filter.ok_or_else(|| errors::bad_input("Nested filter is empty"))?;
            edge::Condition::Nested(edge::NestedCondition::new(edge::Nested {
                key: value::path(&given.key)?,
                filter: filter(inner)?,
            }))
        }
        ConditionOneOf::Slice(given) => {
            let total = given.total.try_into().map_err(|_| errors::invalid_field("total", "must be 1 or larger"))?;
            if given.index >= given.total {
                return Err(errors::invalid_field("index", "must be less than `total`"));
            }
            edge::Condition::Slice(edge::SliceCondition { slice: edge::Slice { total, index: given.index } })
        }
    })
}

fn field(given: FieldCondition) -> Result<edge::FieldCondition, Status> {
    let FieldCondition {
        key,
        r#match,
        range,
        geo_bounding_box,
        geo_radius,
        values_count,
        geo_polygon,
        datetime_range,
        is_empty,
        is_null,
    } = given;
    let range = match (range, datetime_range) {
        (Some(_), Some(_)) => {
            return Err(errors::bad_input("range and datetime_range exclude each other"));
        }
        (Some(range), None) => Some(edge::RangeInterface::Float(float_range(&range))),
        (None, Some(range)) => Some(edge::RangeInterface::DateTime(datetimes(&range)?)),
        (None, None) => None,
    };
    let condition = edge::FieldCondition {
        key: value::path(&key)?,
        r#match: r#match.map(matching).transpose()?,
        range,
        geo_bounding_box: geo_bounding_box
            .map(|given| {
                Ok::<_, Status>(edge::GeoBoundingBox {
                    top_left: geo_point(given.top_left)?,
                    bottom_right: geo_point(given.bottom_right)?,
                })
            })
            .transpose()?,
        geo_radius: geo_radius
            .map(|given| {
                Ok::<_, Status>(edge::GeoRadius {
                    center: geo_point(given.center)?,
                    radius: f64::from(given.radius).into(),
                })
            })
            .transpose()?,
        geo_polygon: geo_polygon
            .map(|given| {
                Ok::<_, Status>(edge::GeoPolygon {
                    exterior: geo_line(given.exterior.unwrap_or_default())?,
                    interiors: Some(given.interiors.into_iter().map(geo_line).collect::<Result<_, _>>()?),
                })
            })
            .transpose()?,
        values_count: values_count.map(|given| values(&given)),
        is_empty,
        is_null,
    };
    if condition.all_fields_none() {
        return Err(errors::bad_input("At least one field condition must be specified"));
    }
    Ok(condition)
}

fn matching(given: Match) -> Result<edge::Match, Status> {
    let missing = || Status::invalid_argument("Malformed Match condition");
    Ok(match given.match_value.ok_or_else(missing)? {
        MatchValue::Keyword(text) => edge::Match::new_value(edge::ValueVariants::String(text)),
        MatchValue::Integer(number) => edge::Match::new_value(edge::ValueVariants::Integer(number)),
        MatchValue::Boolean(flag) => edge::Match::new_value(edge::ValueVariants::Bool(flag)),
        MatchValue::Text(text) => edge::Match::Text(edge::MatchText { text }),
        MatchValue::TextAny(text_any) => edge::Match::TextAny(edge::MatchTextAny { text_any }),
        MatchValue::Phrase(phrase) => edge::Match::Phrase(edge::MatchPhrase { phrase }),
        MatchValue::Prefix(prefix) => edge::Match::Prefix(edge::MatchPrefix { prefix }),
        MatchValue::Substring(substring) => edge::Match::Substring(edge::MatchSubstring { substring }),
        MatchValue::Keywords(list) => {
            let any = edge::AnyVariants::Strings(list.strings.into_iter().collect());
            edge::Match::Any(edge::MatchAny { any })
        }
        MatchValue::Integers(list) => {
            let any = edge::AnyVariants::Integers(list.integers.into_iter().collect());
            edge::Match::Any(edge::MatchAny { any })
        }
        MatchValue::ExceptKeywords(list) => {
            let except = edge::AnyVariants::Strings(list.strings.into_iter().collect());
            edge::Match::Except(edge::MatchExcept { except })
        }
        MatchValue::ExceptIntegers(list) => {
            let except = edge::AnyVariants::Integers(list.integers.into_iter().collect());
            edge::Match::Except(edge::MatchExcept { except })
        }
    })
}

fn float_range(given: &Range) -> edge::Range<edge::external::ordered_float::OrderedFloat<f64>> {
    edge::Range {
        lt: given.lt.map(Into::into),
        gt: given.gt.map(Into::into),
        gte: given.gte.map(Into::into),
        lte: given.lte.map(Into::into),
    }
}

fn datetimes(given: &DatetimeRange) -> Result<edge::Range<edge::DateTimeWrapper>, Status> {
    // `Timestamp` prints itself in RFC 3339, which the engine reads.
    let bound = |time: Option<prost_types::Timestamp>| time.map(|time| datetime(&time.to_string())).transpose();
    Ok(edge::Range { lt: bound(given.lt)?, gt: bound(given.gt)?, gte: bound(given.gte)?, lte: bound(given.lte)? })
}

/// A time in RFC 3339.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is not one.
pub fn datetime(text: &str) -> Result<edge::DateTimeWrapper, Status> {
    text.parse().map_err(|_| errors::bad_input(format!("Unable to parse date: {text}")))
}

fn values(given: &ValuesCount) -> edge::ValuesCount {
    edge::ValuesCount {
        lt: given.lt.map(count),
        gt: given.gt.map(count),
        gte: given.gte.map(count),
        lte: given.lte.map(count),
    }
}

fn geo_point(given: Option<GeoPoint>) -> Result<edge::GeoPoint, Status> {
    let point = given.ok_or_else(|| errors::bad_input("a GeoPoint is missing"))?;
    edge::GeoPoint::new(point.lon, point.lat).map_err(errors::bad_input)
}

fn geo_line(given: GeoLineString) -> Result<edge::GeoLineString, Status> {
    let points = given.points.into_iter().map(|point| geo_point(Some(point)));
    let line = edge::GeoLineString { points: points.collect::<Result<_, _>>()? };
    edge::GeoPolygon::validate_line_string(&line).map_err(errors::from_engine)?;
    Ok(line)
}

/// A protocol count for the engine; on any machine that runs it, `usize` holds a `u64`.
pub fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
