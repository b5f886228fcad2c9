//! Amazon SES, API v2.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_sesv2::{
    Client,
    types::{Body, Content, Destination, EmailContent, Message},
};
use shared::deadline::Deadline;
use tokio::sync::OnceCell;

use super::{Mail, MailError, Mailer};

/// The client is made when the first mail is sent: a start that sends none pays nothing.
pub(super) struct Ses {
    from: String,
    client: OnceCell<Client>,
}

impl Ses {
    pub(super) fn new(from: String) -> Self {
        Self { from, client: OnceCell::new() }
    }
}

impl fmt::Debug for Ses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ses").field("from", &self.from).finish_non_exhaustive()
    }
}

#[async_trait]
impl Mailer for Ses {
    async fn send(&self, mail: Mail, deadline: Deadline) -> Result<(), MailError> {
        let refused = |error: Box<dyn std::error::Error + Send + Sync>| MailError::Refused(error);
        let client = self
            .client
            .get_or_init(async || Client::new(&aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await))
            .await;
        let content = |text: &str| Content::builder().data(text).charset("UTF-8").build();
        let subject = content(mail.subject).map_err(|error| refused(error.into()))?;
        let text = content(&mail.text).map_err(|error| refused(error.into()))?;
        let message = Message::builder().subject(subject).body(Body::builder().text(text).build()).build();
        let sending = client
            .send_email()
            .from_email_address(&self.from)
            .destination(Destination::builder().to_addresses(&mail.to).build())
            .content(EmailContent::builder().simple(message).build())
            .send();
        let answer = tokio::time::timeout_at(deadline.instant(), sending).await.map_err(|_| MailError::Timeout)?;
        answer.map(drop).map_err(|error| refused(error.into()))
    }
}
