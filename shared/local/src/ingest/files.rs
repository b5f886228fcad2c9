//! The files below some folders and the objects in some buckets, in the order of their names.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use shared::{
    deadline::Deadline,
    objects::{ObjectId, ObjectStore, s3::S3},
};

use crate::failure::Failure;

/// How long one request to a bucket, or the reading of one object, may take.
const READ_MAX: Duration = Duration::from_mins(10);

/// A file to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct File {
    /// Where it is.
    pub(super) place: Place,
    /// Its name in the service: its path below the folder that was named, with that folder's own name; of an object, its URI,
    /// under which the bucket's own events would bring it in as well.
    pub(super) name: String,
    /// Its size when it was found.
    pub(super) size_bytes: u64,
}

/// Where a file is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// On this machine.
    Disk(PathBuf),
    /// In a bucket.
    Bucket(ObjectId),
}

/// All that is named: files, what lies below folders, and the objects below `s3://bucket/prefix`.
pub(super) async fn all(paths: &[PathBuf], s3: &S3) -> Result<Vec<File>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        match path.to_str().and_then(|path| path.strip_prefix("s3://")) {
            Some(place) => found.extend(in_bucket(place, s3).await?),
            None => found.extend(below(std::slice::from_ref(path))?),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.place == b.place);
    if found.is_empty() { Err(Failure::new("there are no files")) } else { Ok(found) }
}

async fn in_bucket(place: &str, s3: &S3) -> Result<Vec<File>, Failure> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = s3.list(bucket, prefix, &after, Deadline::after(READ_MAX)).await;
        let page = page.map_err(Failure::because(format!("the bucket {bucket} can not be listed")))?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after.clone_from(last);
        // What ends so is a folder of the console's making.
        for (key, size_bytes) in page.into_iter().filter(|(key, _)| !key.ends_with('/')) {
            let name = format!("s3://{bucket}/{key}");
            let id = ObjectId { bucket: bucket.to_owned(), key, version: None };
            found.push(File { place: Place::Bucket(id), name, size_bytes });
        }
    }
}

impl File {
    /// Its bytes.
    pub(super) async fn read(&self, s3: &S3) -> Result<Bytes, String> {
        match &self.place {
            Place::Disk(path) => fs::read(path).map(Bytes::from).map_err(|error| error.to_string()),
            Place::Bucket(id) if self.size_bytes == 0 => {
                s3.head(id, Deadline::after(READ_MAX)).await.map(|_| Bytes::new()).map_err(|error| error.to_string())
            }
            Place::Bucket(id) => {
                let read = s3.get(id, None, 0, self.size_bytes, Deadline::after(READ_MAX)).await;
                read.map_err(|error| error.to_string())
            }
        }
    }
}

/// All files that are named or lie below what is named. Hidden ones are left out, and links are not followed: they may lead
/// in a circle. A folder that can not be listed is among them: sending it fails, and says why.
fn below(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
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
            found.push(File { name: name(&base, &path), place: Place::Disk(path), size_bytes });
        }
    }
    Ok(found)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.retain(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    Ok(entries.iter().map(fs::DirEntry::path).collect())
}

fn name(base: &Path, path: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).to_string_lossy().into_owned()
}
