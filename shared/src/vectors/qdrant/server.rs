//! The server, as it is talked to with the API key that holds now.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use qdrant_client::{Qdrant, QdrantError};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    certificate,
    config::{ConfigError, QdrantConfig},
    secrets::Credential,
};

/// A server, and its client under the key that was last good.
pub(super) struct Server {
    config: QdrantConfig,
    client: RwLock<Keyed>,
}

#[derive(Clone)]
struct Keyed {
    client: Arc<Qdrant>,
    key: Option<Arc<SecretString>>,
}

impl Server {
    pub(super) fn new(config: &QdrantConfig) -> Result<Self, ConfigError> {
        let key = config.api_key.as_ref().map(Credential::now);
        let client = client(config, key.as_deref()).map_err(|error| ConfigError::invalid("QDRANT_URL", error))?;
        let keyed = Keyed { client: Arc::new(client), key };
        Ok(Self { config: config.clone(), client: RwLock::new(keyed) })
    }

    /// Makes a request. When its key is refused and another has taken that one's place, it is made once more: the first has
    /// done nothing.
    pub(super) async fn ask<R: Clone, T, F>(
        &self,
        request: R,
        call: impl Fn(Arc<Qdrant>, R) -> F,
    ) -> Result<T, QdrantError>
    where
        F: Future<Output = Result<T, QdrantError>>,
    {
        let first = self.keyed();
        let answer = certificate::watched("qdrant", call(first.client, request.clone()).await);
        let Some(credential) = &self.config.api_key else { return answer };
        let (Err(error), Some(shown)) = (&answer, &first.key) else { return answer };
        if !is_refused(error) || !credential.renew(shown).await {
            return answer;
        }
        let second = self.renewed(credential.now())?;
        call(second.client, request).await
    }

    fn keyed(&self) -> Keyed {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client under this key: somebody else's, if they were here before.
    fn renewed(&self, key: Arc<SecretString>) -> Result<Keyed, QdrantError> {
        let mut keyed = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if !keyed.key.as_ref().is_some_and(|current| Arc::ptr_eq(current, &key)) {
            *keyed = Keyed { client: Arc::new(client(&self.config, Some(&key))?), key: Some(key) };
        }
        Ok(keyed.clone())
    }
}

fn client(config: &QdrantConfig, key: Option<&SecretString>) -> Result<Qdrant, QdrantError> {
    let mut builder = Qdrant::from_url(&config.url)
        .timeout(config.timeout)
        .connect_timeout(config.timeout.min(Duration::from_secs(3)))
        // The check would be a blocking request in the constructor, on every cold start.
        .skip_compatibility_check();
    if let Some(key) = key {
        builder = builder.api_key(key.expose_secret());
    }
    builder.build()
}

fn is_refused(error: &QdrantError) -> bool {
    use tonic::Code;
    matches!(error, QdrantError::ResponseError { status }
        if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied))
}
