//! The embedders.

mod http;
mod minilm;

use std::time::Duration;

use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(5)
}
