//! Where secrets come from in the cloud.

use async_trait::async_trait;
use aws_sdk_secretsmanager::{Client, error::SdkError, operation::get_secret_value::GetSecretValueError};
use secrecy::SecretString;
use tokio::sync::OnceCell;

/// A store of secrets.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret's current value.
    ///
    /// # Errors
    /// When it does not exist, or may not or can not be read.
    async fn get(&self, id: &str) -> Result<SecretString, SecretError>;
}

/// A secret that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager refused or did not answer.
    #[error("Secrets Manager did not give the secret")]
    Refused(#[source] Box<SdkError<GetSecretValueError>>),
    /// The entry holds bytes, not text.
    #[error("the secret is not text")]
    NotText,
}

/// AWS Secrets Manager. The client is made when the first secret is asked for: a start that needs none pays nothing.
#[derive(Debug, Default)]
pub struct SecretsManager {
    client: OnceCell<Client>,
}

#[async_trait]
impl SecretSource for SecretsManager {
    async fn get(&self, id: &str) -> Result<SecretString, SecretError> {
        let client = self
            .client
            .get_or_init(async || Client::new(&aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await))
            .await;
        let answer = client
            .get_secret_value()
            .secret_id(id)
            .send()
            .await
            .map_err(|error| SecretError::Refused(Box::new(error)))?;
        answer.secret_string.map(SecretString::from).ok_or(SecretError::NotText)
    }
}
