//! The embedding model's folder.

use std::path::PathBuf;

use crate::{failure::Failure, process, settings};

/// The folder that holds the embedding model: `EMBEDDING_MODEL_DIR`, or what `shared/local/model/build` makes.
///
/// # Errors
/// When the script fails.
pub fn dir() -> Result<PathBuf, Failure> {
    built("EMBEDDING_MODEL_DIR", "shared/local/model/build")
}

/// What the variable names, or what the script prints: it builds what is missing and is quick when nothing is.
pub(crate) fn built(variable: &str, script: &str) -> Result<PathBuf, Failure> {
    let path = if let Some(path) = settings::var(variable) {
        PathBuf::from(path)
    } else {
        let script = settings::checkout().join(script);
        if !script.exists() {
            return Err(Failure::new(format!("{} is missing: set {variable}, or run `make setup`", script.display())));
        }
        let printed = process::run(&[script.display().to_string()])
            .map_err(Failure::because(format!("{variable} is not set and can not be built; run `make setup`")))?;
        PathBuf::from(printed.lines().last().unwrap_or_default())
    };
    if path.exists() {
        return Ok(path);
    }
    Err(Failure::new(format!("{} does not exist ({variable}); run `make setup`", path.display())))
}
