//! The files below some folders, in the order of their names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::failure::Failure;

/// A file to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct File {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its name in the service: its path below the folder that was named, with that folder's own name.
    pub(super) name: String,
    /// Its size when it was found.
    pub(super) size_bytes: u64,
}

/// All files that are named or lie below what is named. Hidden ones are left out, and links are not followed: they may lead
/// in a circle.
pub(super) fn below(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let path = path.canonicalize().map_err(Failure::because(format!("{} can not be read", path.display())))?;
        let base = path.parent().unwrap_or(&path).to_owned();
        let mut open = vec![path];
        while let Some(path) = open.pop() {
            let unreadable = || Failure::because(format!("{} can not be read", path.display()));
            let meta = fs::symlink_metadata(&path).map_err(unreadable())?;
            if meta.is_dir() {
                for entry in fs::read_dir(&path).map_err(unreadable())? {
                    let entry = entry.map_err(unreadable())?;
                    if !entry.file_name().to_string_lossy().starts_with('.') {
                        open.push(entry.path());
                    }
                }
            } else if meta.is_file() {
                found.push(File { name: name(&base, &path), path, size_bytes: meta.len() });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.path == b.path);
    if found.is_empty() { Err(Failure::new("there are no files")) } else { Ok(found) }
}

fn name(base: &Path, path: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned()
}
