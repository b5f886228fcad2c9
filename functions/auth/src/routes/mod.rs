//! The function's routes: requests parsed into the words of the domain, results written as JSON.

mod accounts;
mod api_keys;
mod contract;
mod knowledge_bases;
mod mailboxes;
mod members;
mod sessions;
mod well_known;

use axum::{
    Extension,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use shared::{App, config::ConfigError};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    accounts::Accounts,
    api_keys::ApiKeys,
    knowledge_bases::KnowledgeBases,
    limits::{self, Limiter},
    mail,
    members::Members,
    sessions::Sessions,
    signer::Signer,
};

/// The function's routes, for [`shared::http::finish`]; what they share beside the app comes with them.
///
/// # Errors
/// When the configuration asks for mail that this build can not send.
pub fn routes(app: &App, signer: Signer) -> Result<OpenApiRouter<App>, ConfigError> {
    let config = &app.config.accounts;
    let limiter = Limiter { db: app.db.clone(), quota: config.address_quota };
    let sessions = Sessions::new(app, signer.clone());
    Ok(limited()
        .route_layer(middleware::from_fn_with_state(limiter, limits::admit))
        .merge(issuing())
        .layer(middleware::from_fn_with_state(signer.clone(), keep_up))
        .merge(others())
        .layer(Extension(Accounts::new(app, signer, mail::mailer(config.mail.as_ref())?)))
        .layer(Extension(sessions))
        .layer(Extension(ApiKeys::new(app)))
        .layer(Extension(KnowledgeBases::new(app)))
        .layer(Extension(Members::new(app))))
}

/// What the routes are, for the API's contract.
#[must_use]
pub fn contract() -> OpenApi {
    limited().merge(issuing()).merge(others()).into_openapi()
}

/// Those that try credentials or send mail: limited for each client.
fn limited() -> OpenApiRouter<App> {
    accounts::limited().merge(mailboxes::limited())
}

/// Those that issue tokens, or end what they were issued for.
fn issuing() -> OpenApiRouter<App> {
    accounts::routes().merge(sessions::routes())
}

fn others() -> OpenApiRouter<App> {
    api_keys::routes()
        .merge(knowledge_bases::routes())
        .merge(members::routes())
        .merge(well_known::routes())
        .merge(contract::routes())
}

/// Who issues tokens notices a rotation of the signing keys first.
async fn keep_up(State(signer): State<Signer>, request: Request, next: Next) -> Response {
    signer.keep_up().await;
    next.run(request).await
}
