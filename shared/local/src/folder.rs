//! Folders: made for one owner, or for the life of this process.

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::failure::Failure;

/// Waits for the pipe's end, then removes the folder; again, while programs that are just ending still write into it.
const BROOM: &str = r#"
read -r _
left=50
while [ "$left" -gt 0 ]; do
    sleep 0.2
    rm -rf -- "$1" && [ ! -e "$1" ] && exit
    left=$((left - 1))
done
"#;

/// Makes a folder that others may pass through but not list, and those above it.
///
/// # Errors
/// When it can not be made.
pub fn make(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .map_err(Failure::because(format!("the folder {} can not be made", path.display())))
}

/// The text of a file that only its owner may read; made from `new` when it is not there yet.
///
/// # Errors
/// When it can not be read or written.
pub fn secret(path: &Path, new: impl FnOnce() -> Result<String, Failure>) -> Result<String, Failure> {
    if let Ok(text) = fs::read_to_string(path) {
        return Ok(text.trim_end().to_owned());
    }
    let text = new()?;
    let unwritable = || format!("{} can not be written", path.display());
    // Written whole or not at all: a half-written key would be taken for the key for ever.
    let draft = path.with_extension("new");
    fs::remove_file(&draft).ok();
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(Failure::because(unwritable()))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Failure::because(unwritable()))?;
    fs::rename(&draft, path).map_err(Failure::because(unwritable()))?;
    Ok(text)
}

/// A folder that goes when this value or this process does, however it ends.
#[derive(Debug)]
pub struct TempFolder {
    path: PathBuf,
    broom: Child,
}

impl TempFolder {
    /// A new, empty folder.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("lockstep-{}", uuid::Uuid::new_v4().simple()));
        make(&path)?;
        let broom = Command::new("/bin/sh")
            .args(["-c", BROOM, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal must not reach it: then its work only begins.
            .process_group(0)
            .spawn()
            .map_err(Failure::because("sh can not be started"))?;
        Ok(Self { path, broom })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        drop(self.broom.stdin.take());
        // Reaped, so that no zombie stays; it takes a fraction of a second.
        self.broom.wait().ok();
    }
}
