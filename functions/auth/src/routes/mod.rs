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
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use shared::{App, config::ConfigError, http::Routes};
use tower::util::MapRequestLayer;
use utoipa::openapi::OpenApi;

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
pub fn routes(app: &App, signer: Signer) -> Result<Routes, ConfigError> {
    let config = &app.config.accounts;
    let limiter = Limiter { db: app.db.clone(), quota: config.address_quota };
    let sessions = Sessions::new(app, signer.clone());
    let accounts = Accounts::new(app, signer.clone(), mail::mailer(config.mail.as_ref())?);
    let limit = middleware::from_fn_with_state(limiter, limits::admit);
    let keep_up = middleware::from_fn_with_state(signer, keep_up);
    let shared = (accounts, sessions, ApiKeys::new(app), KnowledgeBases::new(app), Members::new(app));
    // One layer: each is put around each route, at every start.
    let shared = MapRequestLayer::new(move |mut request: Request| {
        let (accounts, sessions, api_keys, knowledge_bases, members) = shared.clone();
        let extensions = request.extensions_mut();
        extensions.insert(accounts);
        extensions.insert(sessions);
        extensions.insert(api_keys);
        extensions.insert(knowledge_bases);
        extensions.insert(members);
        request
    });
    let guarded = limited().map(|router| router.route_layer(limit));
    Ok(guarded.merge(issuing()).map(|router| router.layer(keep_up)).merge(others()).map(|router| router.layer(shared)))
}

/// What the routes are, for the API's contract.
#[must_use]
pub fn contract() -> OpenApi {
    limited().merge(issuing()).merge(others()).contract()
}

/// Those that try credentials or send mail: limited for each client.
fn limited() -> Routes {
    accounts::limited().merge(mailboxes::limited())
}

/// Those that issue tokens, or end what they were issued for.
fn issuing() -> Routes {
    accounts::routes().merge(sessions::routes())
}

fn others() -> Routes {
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
