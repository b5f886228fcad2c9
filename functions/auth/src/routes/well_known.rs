//! The documents by which others check access tokens: API Gateway's JWT authorizer reads both, without credentials.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use jsonwebtoken::jwk::Jwk;
use serde::Serialize;
use shared::{
    App,
    http::{Json, Routes},
    routes,
};
use utoipa::ToSchema;

/// A new key must be published for this long before it signs; API Gateway itself keeps keys for two hours.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html>
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(key_set)).routes(routes!(discovery))
}

/// Shows the public keys of the access tokens.
///
/// RFC 7517, section 5.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "keys",
    operation_id = "get_key_set",
    responses((status = 200, description = "The keys.", body = KeySet)),
)]
async fn key_set(State(app): State<App>) -> Response {
    public(KeySet { keys: app.verifier.key_set().await.keys })
}

/// Shows where the keys are, and what is true of the tokens.
///
/// `OpenID` Connect Discovery 1.0, section 3.
#[utoipa::path(
    get,
    path = "/.well-known/openid-configuration",
    tag = "keys",
    operation_id = "get_openid_configuration",
    responses((status = 200, description = "The issuer.", body = Discovery)),
)]
async fn discovery(State(app): State<App>) -> Response {
    public(Discovery::of(&app.config.tokens.issuer))
}

fn public(body: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], Json(body)).into_response()
}

/// RFC 7517, section 5.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"keys": [{
    "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "2026-11", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9", "e": "AQAB"
}]})))]
struct KeySet {
    #[schema(value_type = Vec<Object>)]
    keys: Vec<Jwk>,
}

/// `OpenID` Connect Discovery 1.0, section 3, as far as it is true of us: tokens are issued by `/auth/login`, not by an
/// authorization endpoint, and there are no ID tokens. The empty list says so to clients that would try.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "issuer": "https://api.example.com", "jwks_uri": "https://api.example.com/.well-known/jwks.json",
    "response_types_supported": [], "grant_types_supported": [], "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "claims_supported": ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"]
})))]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 0],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    claims_supported: [&'static str; 7],
}

impl Discovery {
    fn of(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            jwks_uri: format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/')),
            response_types_supported: [],
            grant_types_supported: [],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: ["RS256"],
            claims_supported: ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_under_the_issuer() {
        for issuer in ["https://api.example/prod", "https://api.example/prod/"] {
            let document = serde_json::to_value(Discovery::of(issuer)).unwrap();
            assert_eq!(document["issuer"], issuer, "repeated exactly: section 4.3");
            assert_eq!(document["jwks_uri"], "https://api.example/prod/.well-known/jwks.json");
        }
    }
}
