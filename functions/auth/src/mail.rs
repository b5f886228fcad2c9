//! Mail out of the house: by Amazon SES in the cloud, into a folder on one machine.

use std::{fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use shared::{
    config::{ConfigError, MailConfig},
    deadline::Deadline,
};
use tokio::task::JoinError;

#[cfg(feature = "ses")]
mod ses;

/// A mail: plain text, to one address.
#[derive(Clone)]
pub struct Mail {
    /// Whom it is for.
    pub to: String,
    /// What it is about.
    pub subject: &'static str,
    /// What it says. May hold a code: never logged.
    pub text: String,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// A mail that did not leave.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Nothing says how mail leaves.
    #[error("neither MAIL_FROM nor MAIL_DIR is set")]
    NotConfigured,
    /// The file could not be written.
    #[error("the mail could not be written to its folder")]
    Folder(#[source] io::Error),
    /// The thread that wrote it ended without an answer.
    #[error("the thread that wrote the mail ended without an answer")]
    Thread(#[source] JoinError),
    /// The service refused it or did not answer.
    #[error("the mail service did not take the mail")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not answer in time.
    #[error("the mail service did not answer in time")]
    Timeout,
}

/// What sends mail.
#[async_trait]
pub trait Mailer: fmt::Debug + Send + Sync {
    /// Hands the mail over; whether it arrives is known to nobody.
    ///
    /// # Errors
    /// When it was not taken. It may have been, all the same.
    async fn send(&self, mail: Mail, deadline: Deadline) -> Result<(), MailError>;
}

/// The mailer that `config` describes; it connects when it first sends.
///
/// # Errors
/// When SES is asked for and not built in.
pub fn mailer(config: Option<&MailConfig>) -> Result<Arc<dyn Mailer>, ConfigError> {
    match config {
        None => Ok(Arc::new(NoMailer)),
        Some(MailConfig::Folder(path)) => Ok(Arc::new(Folder(path.clone()))),
        #[cfg(feature = "ses")]
        Some(MailConfig::Ses { from }) => Ok(Arc::new(ses::Ses::new(from.clone()))),
        #[cfg(not(feature = "ses"))]
        Some(MailConfig::Ses { .. }) => {
            Err(ConfigError::invalid("MAIL_FROM", "this build has no SES: build `auth` with its feature `ses`"))
        }
    }
}

#[derive(Debug)]
struct NoMailer;

#[async_trait]
impl Mailer for NoMailer {
    async fn send(&self, _: Mail, _: Deadline) -> Result<(), MailError> {
        Err(MailError::NotConfigured)
    }
}

/// One file for each mail, which only its owner may read. The names sort by time.
#[derive(Debug)]
struct Folder(PathBuf);

#[async_trait]
impl Mailer for Folder {
    async fn send(&self, mail: Mail, _: Deadline) -> Result<(), MailError> {
        let folder = self.0.clone();
        let write = move || write(&folder, &mail);
        let path = tokio::task::spawn_blocking(write).await.map_err(MailError::Thread)?.map_err(MailError::Folder)?;
        // The file's name, and not what stands in it: logs are read by more people than mail.
        tracing::info!(mail.file = %path.display(), "mail written");
        Ok(())
    }
}

fn write(folder: &std::path::Path, mail: &Mail) -> io::Result<PathBuf> {
    use std::{
        io::Write,
        os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{}.eml", uuid::Uuid::now_v7()));
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
    // Addresses have no line breaks: `Email` takes none.
    write!(
        file,
        "To: {}\r\nSubject: {}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}",
        mail.to,
        mail.subject,
        mail.text.replace('\n', "\r\n")
    )?;
    Ok(path)
}
