//! Servers whose certificate does not hold: expired, by an authority that nobody trusts, for another name. No request was made
//! then, and none will be until somebody acts; so they are counted apart from servers that are away.

use std::fmt::Debug;

use crate::metrics;

/// Counts the error of a call to `server` when it is about its certificate.
pub(crate) fn watched<T, E: Debug>(server: &'static str, result: Result<T, E>) -> Result<T, E> {
    if result.as_ref().is_err_and(is_about_one) {
        metrics::certificate_failure(server);
    }
    result
}

/// As all clients show the `rustls::Error` that is their cause. Qdrant's has only its text left, so the chain of causes can
/// not be asked.
fn is_about_one(error: &impl Debug) -> bool {
    format!("{error:?}").contains("InvalidCertificate(")
}
