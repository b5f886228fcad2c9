//! The documents by which others check access tokens: API Gateway's JWT authorizer reads both, without credentials.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, header};
use serde_json::{Value, json};
use shared::{App, config::TokenConfig, http::Json};

/// A new key must be published for this long before it signs; API Gateway itself keeps keys for two hours.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(super) fn routes(config: &TokenConfig) -> Router<App> {
    let configuration = configuration(&config.issuer);
    Router::new()
        .route("/.well-known/jwks.json", get(async |State(app): State<App>| public(app.verifier.key_set().await)))
        .route("/.well-known/openid-configuration", get(async move || public(configuration)))
}

fn public(body: impl serde::Serialize) -> Response {
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], Json(body)).into_response()
}

/// `OpenID` Connect Discovery 1.0, section 3, as far as it is true of us: tokens are issued by `/auth/login`, not by an
/// authorization endpoint, and there are no ID tokens. The empty list says so to clients that would try.
fn configuration(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
        "response_types_supported": [],
        "grant_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_under_the_issuer() {
        for issuer in ["https://api.example/prod", "https://api.example/prod/"] {
            let document = configuration(issuer);
            assert_eq!(document["issuer"], issuer, "repeated exactly: section 4.3");
            assert_eq!(document["jwks_uri"], "https://api.example/prod/.well-known/jwks.json");
        }
    }
}
