//! The function's routes: requests parsed into the words of the domain, results written as JSON.

mod accounts;
mod api_keys;
mod knowledge_bases;
mod mailboxes;
mod members;
mod sessions;
mod well_known;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use shared::{App, config::ConfigError};

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
pub fn routes(app: &App, signer: Signer) -> Result<Router<App>, ConfigError> {
    let config = &app.config.accounts;
    let limiter = Limiter { db: app.db.clone(), quota: config.address_quota };
    let guarded = accounts::limited().merge(mailboxes::limited());
    let guarded = guarded.route_layer(middleware::from_fn_with_state(limiter, limits::admit));
    let sessions = Sessions::new(app, signer.clone());
    Ok(guarded
        .merge(accounts::routes())
        .merge(sessions::routes().layer(Extension(sessions)))
        .layer(middleware::from_fn_with_state(signer.clone(), keep_up))
        .layer(Extension(Accounts::new(app, signer, mail::mailer(config.mail.as_ref())?)))
        .merge(api_keys::routes().layer(Extension(ApiKeys::new(app))))
        .merge(knowledge_bases::routes().layer(Extension(KnowledgeBases::new(app))))
        .merge(members::routes().layer(Extension(Members::new(app))))
        .merge(well_known::routes(&app.config.tokens)))
}

/// Who issues tokens notices a rotation of the signing keys first.
async fn keep_up(State(signer): State<Signer>, request: Request, next: Next) -> Response {
    signer.keep_up().await;
    next.run(request).await
}
