//! The function as a process.

use std::{net::TcpListener, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

/// Enough on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_signing_key_that_can_not_be_used_ends_the_process_and_is_named() {
    // Lambda, which has no event.
    let lambda = TcpListener::bind("127.0.0.1:0").unwrap();
    let keys = auth::signer::generate().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_auth"))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", lambda.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "auth")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("QDRANT_URL", "http://127.0.0.1:1")
        .env("EMBEDDING_MODEL_DIR", "none")
        .env("TOKEN_ISSUER", "https://issuer.example")
        .env("TOKEN_JWKS", keys.jwks)
        .env("TOKEN_SIGNING_KEY", "no key")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("TOKEN_SIGNING_KEY"), "{log}");
}
