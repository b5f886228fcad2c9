//! The function's routes: requests parsed into the words of the domain, results written as JSON.

mod accounts;
mod api_keys;
mod knowledge_bases;
mod members;
mod well_known;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use shared::App;

use crate::{accounts::Accounts, api_keys::ApiKeys, knowledge_bases::KnowledgeBases, members::Members, signer::Signer};

/// The function's routes, for [`shared::http::finish`]; what they share beside the app comes with them.
pub fn routes(app: &App, signer: Signer) -> Router<App> {
    Router::new()
        .merge(accounts::routes().layer(middleware::from_fn_with_state(signer.clone(), keep_up)))
        .layer(Extension(Accounts::new(app, signer)))
        .merge(api_keys::routes().layer(Extension(ApiKeys::new(app))))
        .merge(knowledge_bases::routes().layer(Extension(KnowledgeBases::new(app))))
        .merge(members::routes().layer(Extension(Members::new(app))))
        .merge(well_known::routes(&app.config.tokens))
}

/// Who issues tokens notices a rotation of the signing keys first.
async fn keep_up(State(signer): State<Signer>, request: Request, next: Next) -> Response {
    signer.keep_up().await;
    next.run(request).await
}
