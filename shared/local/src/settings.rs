//! What the environment decides for the local stack. The only file of this package that reads it.

use std::{env, path::PathBuf};

/// A variable's value; one that is set to nothing counts as not set.
#[must_use]
pub fn var(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The checkout that this was built from: scripts and sample documents are found below it.
#[must_use]
pub fn checkout() -> PathBuf {
    let here = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    here.canonicalize().unwrap_or(here)
}

/// Where things that are built or fetched once are kept: `LOCKSTEP_CACHE_DIR`, or a folder in the user's cache.
#[must_use]
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = var("LOCKSTEP_CACHE_DIR") {
        return dir.into();
    }
    let base = var("XDG_CACHE_HOME").map(PathBuf::from);
    base.or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("lockstep")
}

/// Where the local stack keeps everything: `LOCKSTEP_DATA_DIR`, or `.lockstep` in the checkout.
#[must_use]
pub fn data_dir() -> PathBuf {
    let dir = var("LOCKSTEP_DATA_DIR").map_or_else(|| checkout().join(".lockstep"), PathBuf::from);
    std::path::absolute(&dir).unwrap_or(dir)
}

/// The folders of `PATH`, in order.
#[must_use]
pub fn path_dirs() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}
