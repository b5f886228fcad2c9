//! Why something of the local stack did not work: a sentence for the person at the terminal.

use std::{error::Error, fmt};

/// Why something of the local stack did not work: a sentence that says what to do, and the cause.
#[derive(Debug)]
pub struct Failure {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure that the sentence explains.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }

    /// A failure with a cause: `map_err(Failure::because("the folder can not be made"))`.
    pub fn because<E: Into<Box<dyn Error + Send + Sync>>>(message: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self { message: message.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.source.as_deref().map(|error| error as &(dyn Error + 'static));
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

// The causes are part of the sentence already, so `source` does not repeat them.
impl Error for Failure {}
