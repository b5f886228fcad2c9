//! The files below some folders, in the order of their names.

use std::{
    fs, io,
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
/// in a circle. A folder that can not be listed is among them: sending it fails, and says why.
pub(super) fn below(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        let path = path.canonicalize().map_err(Failure::because(format!("{} can not be read", path.display())))?;
        let base = path.parent().unwrap_or(&path).to_owned();
        let mut open = vec![path];
        while let Some(path) = open.pop() {
            let size_bytes = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => match list(&path) {
                    Ok(entries) => {
                        open.extend(entries);
                        continue;
                    }
                    Err(_) => 0,
                },
                Ok(meta) if meta.is_file() => meta.len(),
                Ok(_) => continue,
                Err(_) => 0,
            };
            found.push(File { name: name(&base, &path), path, size_bytes });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.path == b.path);
    if found.is_empty() { Err(Failure::new("there are no files")) } else { Ok(found) }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.retain(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    Ok(entries.iter().map(fs::DirEntry::path).collect())
}

fn name(base: &Path, path: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned()
}
