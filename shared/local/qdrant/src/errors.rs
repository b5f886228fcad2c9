//! Errors as the Qdrant server words and codes them (its `StorageError` and `error_to_status`).

use std::fmt::Display;

use qdrant_edge::OperationError;
use tonic::Status;

/// The request is understood and wrong.
pub fn bad_input(what: impl Display) -> Status {
    Status::invalid_argument(format!("Wrong input: {what}"))
}

/// A field is outside its range; the wording is that of the server's request validation.
pub fn invalid_field(field: &str, what: impl Display) -> Status {
    Status::invalid_argument(format!("Validation error in body: [{field}: {what}]"))
}

/// There is no collection and no alias of this name.
pub fn no_collection(name: &str) -> Status {
    Status::not_found(format!("Not found: Collection `{name}` doesn't exist!"))
}

/// A collection of this name stands in the way.
pub fn collection_exists(name: &str) -> Status {
    Status::already_exists(format!("Wrong input: Collection `{name}` already exists!"))
}

/// There is no such point.
pub fn no_point(id: impl Display) -> Status {
    Status::not_found(format!("Not found: No point with id {id} found"))
}

/// This server does not do `what`. It says so rather than answer something else.
pub fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("local-qdrant does not implement {what}"))
}

/// Refuses a request that sets something this server does not implement.
///
/// # Errors
/// `UNIMPLEMENTED` naming `what` when it is `present`.
pub fn refuse(what: &str, present: bool) -> Result<(), Status> {
    if present { Err(unimplemented(what)) } else { Ok(()) }
}

/// Something failed that is nobody's input.
pub fn internal(what: impl Display) -> Status {
    Status::internal(format!("Service internal error: {what}"))
}

/// An engine error with the code and the text that the server gives it.
pub fn from_engine(error: OperationError) -> Status {
    match error {
        OperationError::PointIdError { missed_point_id } => no_point(missed_point_id),
        OperationError::WrongSparse => bad_input("Conversion between sparse and regular vectors failed"),
        OperationError::WrongMulti => bad_input("Conversion between multi and regular vectors failed"),
        OperationError::ValidationError { description } => bad_input(description),
        OperationError::Timeout { description } => Status::deadline_exceeded(format!("Timeout: {description}")),
        // The text without the backtrace that the engine carries along.
        OperationError::ServiceError { description, .. } => internal(description),
        error @ (OperationError::WrongVectorDimension { .. }
        | OperationError::MalformedVectorBlob { .. }
        | OperationError::MalformedPayloadBlob { .. }
        | OperationError::VectorNameNotExists { .. }
        | OperationError::TypeError { .. }
        | OperationError::TypeInferenceError { .. }
        | OperationError::MissingRangeIndexForOrderBy { .. }
        | OperationError::MissingMapIndexForFacet { .. }
        | OperationError::VariableTypeError { .. }
        | OperationError::NonFiniteNumber { .. }) => bad_input(error),
        error @ (OperationError::InconsistentStorage { .. }
        | OperationError::FileNotFound { .. }
        | OperationError::OutOfMemory { .. }
        | OperationError::Cancelled { .. }
        | OperationError::OutOfAppendableCapacity { .. }) => internal(error),
    }
}
