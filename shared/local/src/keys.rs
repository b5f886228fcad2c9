//! The signing key of a local installation.

use std::path::Path;

use auth::signer::GeneratedKeys;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{failure::Failure, folder};

/// The key in `folder`; made when there is none.
///
/// # Errors
/// When it can not be made, written or read.
pub fn load_or_generate(folder: &Path) -> Result<GeneratedKeys, Failure> {
    folder::make(folder)?;
    let file = folder.join("token-signing.json");
    // One file for both halves: two could be from two runs.
    let text = folder::secret(&file, || {
        let keys = auth::signer::generate().map_err(Failure::because("no signing key can be made"))?;
        Ok(json!({ "private_pem": keys.private_pem.expose_secret(), "jwks": keys.jwks }).to_string())
    })?;
    let unreadable = || format!("{} can not be read; remove it to get a new key", file.display());
    let keys: Value = serde_json::from_str(&text).map_err(Failure::because(unreadable()))?;
    let part = |name| keys.get(name).and_then(Value::as_str).ok_or_else(|| Failure::new(unreadable()));
    Ok(GeneratedKeys { private_pem: part("private_pem")?.into(), jwks: part("jwks")?.to_owned() })
}
