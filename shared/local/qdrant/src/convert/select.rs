//! What to return with a point, and which points to change.

use qdrant_client::qdrant::{
    PointsSelector, WithPayloadSelector, WithVectorsSelector, points_selector::PointsSelectorOneOf,
    with_payload_selector, with_vectors_selector,
};
use qdrant_edge as edge;
use tonic::Status;

use super::{filter, value};
use crate::errors;

/// Which points an operation is about.
pub enum Points {
    /// These ids.
    Ids(Vec<edge::PointId>),
    /// All that match.
    Matching(edge::Filter),
}

/// Which points an operation is about.
///
/// # Errors
/// `INVALID_ARGUMENT` when the selector is missing or wrong.
pub fn points(selector: Option<PointsSelector>) -> Result<Points, Status> {
    match selector.and_then(|selector| selector.points_selector_one_of) {
        Some(PointsSelectorOneOf::Points(list)) => Ok(Points::Ids(value::ids(list.ids)?)),
        Some(PointsSelectorOneOf::Filter(given)) => Ok(Points::Matching(filter::filter(given)?)),
        None => Err(Status::invalid_argument("PointSelector is missing")),
    }
}

/// Which payload fields to return; `None` when the request does not say.
///
/// # Errors
/// `INVALID_ARGUMENT` for an empty selector or a bad path.
pub fn payload(selector: Option<WithPayloadSelector>) -> Result<Option<edge::WithPayloadInterface>, Status> {
    use with_payload_selector::SelectorOptions;
    let Some(selector) = selector else { return Ok(None) };
    let interface = match selector.selector_options {
        Some(SelectorOptions::Enable(enable)) => edge::WithPayloadInterface::Bool(enable),
        Some(SelectorOptions::Include(include)) => {
            edge::WithPayloadInterface::Selector(edge::PayloadSelector::new_include(value::paths(&include.fields)?))
        }
        Some(SelectorOptions::Exclude(exclude)) => {
            edge::WithPayloadInterface::Selector(edge::PayloadSelector::new_exclude(value::paths(&exclude.fields)?))
        }
        None => return Err(Status::invalid_argument("No PayloadSelector")),
    };
    Ok(Some(interface))
}

/// Which vectors to return; none when the request does not say. A name that the collection does not
/// have is an error, as in the server.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub fn vectors(selector: Option<WithVectorsSelector>, config: &edge::EdgeConfig) -> Result<edge::WithVector, Status> {
    use with_vectors_selector::SelectorOptions;
    let Some(selector) = selector else { return Ok(edge::WithVector::Bool(false)) };
    match selector.selector_options {
        Some(SelectorOptions::Enable(enable)) => Ok(edge::WithVector::Bool(enable)),
        Some(SelectorOptions::Include(include)) => {
            for name in &include.names {
                super::vector::require_name(name, config)?;
            }
            Ok(edge::WithVector::Selector(include.names))
        }
        None => Err(Status::invalid_argument("No VectorsSelector")),
    }
}

/// A limit, which the server does not let be 0.
///
/// # Errors
/// `INVALID_ARGUMENT` for 0.
pub fn limit(given: Option<u64>, default: usize) -> Result<usize, Status> {
    match given {
        None => Ok(default),
        Some(0) => Err(errors::invalid_field("limit", "value 0 invalid, must be 1 or larger")),
        Some(limit) => Ok(filter::count(limit)),
    }
}
