//! The signing key of a local installation, and one for another.

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

/// Writes a signing key for an installation elsewhere into `folder`: `signing-key.pem`, which only `auth` may have, and `jwks.json`,
/// its public half. What is there stays.
///
/// # Errors
/// When it can not be made or written.
pub fn write(folder: &Path) -> Result<(), Failure> {
    let keys = load_or_generate(folder)?;
    folder::secret(&folder.join("signing-key.pem"), || Ok(keys.private_pem.expose_secret().to_owned()))?;
    folder::secret(&folder.join("jwks.json"), || Ok(keys.jwks.clone()))?;
    println!("{0}/signing-key.pem is for TokenSigningKeyArn, {0}/jwks.json for TokenJwksArn", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::TempFolder;

    #[test]
    fn a_written_key_is_one_that_the_functions_take_and_stays_as_it_is() {
        let folder = TempFolder::new().unwrap();
        write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let (pem, jwks) = (read("signing-key.pem"), read("jwks.json"));
        let config = shared::config::TokenConfig {
            issuer: "https://example.com".to_owned(),
            audience: "lockstep".to_owned(),
            access_ttl: std::time::Duration::from_mins(15),
            jwks: jwks.clone(),
            jwks_entry: None,
            signing_key: Some(pem.clone().into()),
            signing_key_entry: None,
        };
        auth::Signer::new(&config).unwrap();
        write(folder.path()).unwrap();
        assert_eq!((read("signing-key.pem"), read("jwks.json")), (pem, jwks));
    }
}
