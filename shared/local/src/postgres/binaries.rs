//! Where PostgreSQL's programs are.

use std::{cmp::Reverse, fs, path::PathBuf};

use crate::{failure::Failure, settings};

/// The folder with `postgres` and `initdb`: `POSTGRES_BIN`, then installed ones, then those that the set-up has fetched.
pub(super) fn find() -> Result<PathBuf, Failure> {
    let complete = |dir: &PathBuf| dir.join("postgres").is_file() && dir.join("initdb").is_file();
    if let Some(dir) = settings::var("POSTGRES_BIN").map(PathBuf::from) {
        if complete(&dir) {
            return Ok(dir);
        }
        return Err(Failure::new(format!("POSTGRES_BIN={} has no `postgres` and `initdb`", dir.display())));
    }
    let found = settings::path_dirs().into_iter().chain(versions()).chain([fetched()]).find(complete);
    // A link in PATH is followed: PostgreSQL finds its other files beside the real program.
    let dir = found.ok_or_else(|| {
        Failure::new(
            "there is no PostgreSQL on this machine: run `make setup` (which fetches it), install it, set POSTGRES_BIN \
             to the folder of `postgres`, or set DATABASE_URL to a server",
        )
    })?;
    let real = dir.join("postgres").canonicalize().ok().and_then(|file| file.parent().map(PathBuf::from));
    Ok(real.filter(complete).unwrap_or(dir))
}

/// Where `shared/local/postgres/fetch` puts them.
fn fetched() -> PathBuf {
    settings::cache_dir().join("postgres/bin")
}

/// Where Debian and Homebrew install them, newest first.
fn versions() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (base, prefix) in
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        for entry in fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|name| name.parse().ok());
            found.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    found.sort_by_key(|(version, _)| Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}
