//! Signing keys that change while tokens are issued and checked.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use shared::secrets::{Entry, SecretError, SecretSource};

use super::*;

#[test]
fn of_several_keys_the_newest_whose_time_has_come_signs() {
    let entry = |keys: &GeneratedKeys, not_before: &str| json!({ "private_pem": keys.private_pem.expose_secret(), "not_before": not_before });
    let file =
        |last: &str| json!({ "keys": [entry(&KEYS, "2020-01-01T00:00:00Z"), entry(&OTHER_KEYS, last)] }).to_string();
    let kid = |last: &str| {
        let keys = read_keys(&file(last)).unwrap();
        newest(&keys, OffsetDateTime::now_utc()).unwrap().header.kid.clone()
    };
    let kid_of = |keys: &GeneratedKeys| {
        let set: JwkSet = serde_json::from_str(&keys.jwks).unwrap();
        set.keys[0].common.key_id.clone()
    };
    assert_eq!(kid("2021-01-01T00:00:00Z"), kid_of(&OTHER_KEYS));
    assert_eq!(kid("2999-01-01T00:00:00Z"), kid_of(&KEYS));
    let early = json!({ "keys": [entry(&KEYS, "2999-01-01T00:00:00Z")] }).to_string();
    let config = TokenConfig { signing_key: Some(early.into()), ..config() };
    assert!(matches!(Signer::new(&config), Err(ConfigError::Invalid { name: "TOKEN_SIGNING_KEY", .. })));
}

/// A store of secrets whose entries a test changes.
#[derive(Debug, Default)]
struct Store {
    entries: Mutex<HashMap<String, String>>,
    reads: AtomicUsize,
}

#[async_trait]
impl SecretSource for Store {
    async fn get(&self, id: &str) -> Result<SecretString, SecretError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let text = self.entries.lock().unwrap().get(id).cloned();
        text.map(SecretString::from).ok_or(SecretError::NotText)
    }
}

impl Store {
    fn put(&self, id: &str, text: impl Into<String>) {
        self.entries.lock().unwrap().insert(id.to_owned(), text.into());
    }

    fn config(self: &Arc<Self>, keys: &GeneratedKeys) -> TokenConfig {
        let entry = |id: &str| Some(Entry { secrets: self.clone(), id: id.to_owned() });
        TokenConfig { jwks_entry: entry("jwks"), signing_key_entry: entry("keys"), ..config_of(keys) }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_rotate_under_traffic_and_no_token_is_refused() {
    let both = {
        let mut set: JwkSet = serde_json::from_str(&KEYS.jwks).unwrap();
        set.keys.extend(serde_json::from_str::<JwkSet>(&OTHER_KEYS.jwks).unwrap().keys);
        serde_json::to_string(&set).unwrap()
    };
    let store = Arc::new(Store::default());
    store.put("jwks", &KEYS.jwks);
    store.put("keys", KEYS.private_pem.expose_secret());
    // Two containers of `auth`, and two of functions that check; each keeps its own copies.
    let signers = [Signer::new(&store.config(&KEYS)).unwrap(), Signer::new(&store.config(&KEYS)).unwrap()];
    let verifiers = [Verifier::new(&store.config(&KEYS)).unwrap(), Verifier::new(&store.config(&KEYS)).unwrap()];
    let mut alive: Vec<(SystemTime, String)> = Vec::new();
    let mut kids = BTreeSet::new();
    for minute in 0..60_u64 {
        match minute {
            5 => store.put("jwks", &both),
            20 => store.put("keys", OTHER_KEYS.private_pem.expose_secret()),
            // The old tokens' quarter of an hour is over.
            45 => store.put("jwks", &OTHER_KEYS.jwks),
            _ => {}
        }
        for signer in &signers {
            signer.keep_up().await;
            let token = signer.access_token(UserId::draw()).unwrap().token.expose_secret().to_owned();
            kids.insert(jsonwebtoken::decode_header(&token).unwrap().kid);
            alive.push((SystemTime::now(), token));
        }
        // Real time stands still for the claims; what lived its quarter of an hour is not sent any more.
        alive.drain(..alive.len().saturating_sub(2 * 15));
        for verifier in &verifiers {
            for (_, token) in &alive {
                verifier.check(token).await.unwrap_or_else(|error| panic!("minute {minute}: {error}"));
            }
        }
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    assert_eq!(kids.len(), 2, "the key did not rotate");
}

#[tokio::test(start_paused = true)]
async fn a_key_signs_only_once_it_is_published() {
    let store = Arc::new(Store::default());
    store.put("jwks", &KEYS.jwks);
    store.put("keys", OTHER_KEYS.private_pem.expose_secret());
    let signer = Signer::new(&store.config(&KEYS)).unwrap();
    let before = signer.current().header.kid;
    tokio::time::advance(Duration::from_mins(6)).await;
    signer.keep_up().await;
    assert_eq!(signer.current().header.kid, before);
    store.put("jwks", &OTHER_KEYS.jwks);
    tokio::time::advance(Duration::from_mins(6)).await;
    signer.keep_up().await;
    assert_ne!(signer.current().header.kid, before);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_costs_one_reading_and_a_store_that_is_away_costs_nothing_else() {
    let store = Arc::new(Store::default());
    store.put("jwks", &KEYS.jwks);
    let verifier = Verifier::new(&store.config(&KEYS)).unwrap();
    let stranger = Signer::new(&config_of(&OTHER_KEYS)).unwrap().access_token(UserId::draw()).unwrap().token;
    let ours = signer().access_token(UserId::draw()).unwrap().token;
    tokio::time::advance(Duration::from_mins(1)).await;
    for _ in 0..1_000 {
        assert!(verifier.check(stranger.expose_secret()).await.is_err());
        verifier.check(ours.expose_secret()).await.unwrap();
    }
    assert_eq!(store.reads.load(Ordering::Relaxed), 1);
    store.entries.lock().unwrap().clear();
    tokio::time::advance(Duration::from_mins(10)).await;
    verifier.check(ours.expose_secret()).await.unwrap();
    store.put("jwks", "{\"keys\": []}");
    tokio::time::advance(Duration::from_mins(10)).await;
    verifier.check(ours.expose_secret()).await.unwrap();
}
