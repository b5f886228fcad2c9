//! The command line, and the ways in which the program can end badly.

use std::fmt;
use std::path::PathBuf;

const USAGE: &str = "usage: local-qdrant --data DIR --port N   (port 0: any free port)";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// The folder that holds everything; created when missing.
    pub data: PathBuf,
    /// The port on 127.0.0.1; 0 lets the system choose.
    pub port: u16,
}

/// Why the program ends, in one line, and the exit code that says so.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The line for stderr.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// Anything that has no code of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// The command line or the port cannot be used.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// Another process holds the data folder.
    pub fn data_in_use(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 3 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl Args {
    /// Reads `--data DIR --port N` (also `--data=DIR`).
    ///
    /// # Errors
    /// A [`Failure`] with code 2 for anything else.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut words = words.into_iter();
        let mut data = None;
        let mut port = None;
        while let Some(word) = words.next() {
            let (flag, inline) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| Failure::usage(format!("{flag} needs a value; {USAGE}")))
            };
            match flag.as_str() {
                "--data" => data = Some(PathBuf::from(value()?)),
                "--port" => {
                    let text = value()?;
                    let parsed = text.parse::<u16>();
                    port = Some(
                        parsed.map_err(|_| Failure::usage(format!("--port {text} is not a port number; {USAGE}")))?,
                    );
                }
                other => return Err(Failure::usage(format!("unknown argument {other}; {USAGE}"))),
            }
        }
        match (data, port) {
            (Some(data), Some(port)) => Ok(Self { data, port }),
            _ => Err(Failure::usage(USAGE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, Failure> {
        Args::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn both_spellings_of_a_flag_are_read() {
        let expected = Args { data: "d".into(), port: 7 };
        assert_eq!(parse(&["--data", "d", "--port=7"]), Ok(expected));
    }

    #[test]
    fn a_bad_port_is_named() {
        let failure = parse(&["--data", "d", "--port", "70000"]).unwrap_err();
        assert_eq!(failure.code, 2);
        assert!(failure.message.contains("70000"), "{failure}");
    }

    #[test]
    fn a_missing_flag_shows_the_usage() {
        assert_eq!(parse(&["--port", "1"]).unwrap_err().message, USAGE);
    }
}
