//! The least that a function can be: what cold starts are measured against. With `DATABASE_URL` it connects to PostgreSQL, as
//! any function must that is asked for something.

use axum::{Router, http::StatusCode};
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    let url = std::env::var("DATABASE_URL").ok();
    let answer = async move || match url {
        None => StatusCode::OK,
        Some(url) => connect(&url).await.map_or(StatusCode::BAD_GATEWAY, |()| StatusCode::OK),
    };
    lambda_http::run(Router::new().fallback(answer)).await
}

async fn connect(url: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await?;
    Ok(())
}
