//! All collections and aliases of one data folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use qdrant_client::qdrant::{AliasDescription, AliasOperations, CreateCollection};
use tonic::Status;

use crate::aliases::Aliases;
use crate::args::Failure;
use crate::collection::{self, Collection};
use crate::errors;

/// The server's own limit on names.
const NAME_BYTES_MAX: usize = 255;

/// Everything the server holds. All methods block.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    names: RwLock<Names>,
    /// Held while a collection is created or deleted, so that a name that is being deleted cannot be
    /// taken before its folder is gone.
    reshaping: Mutex<()>,
    /// The lock lasts as long as the process; the kernel drops it after `kill -9` too.
    _lock: File,
}

/// What names mean. One lock for both maps: whoever resolves an alias sees all of a change or none.
#[derive(Debug)]
struct Names {
    collections: BTreeMap<String, Arc<Collection>>,
    aliases: Aliases,
}

impl Names {
    fn find(&self, name: &str) -> Option<&Arc<Collection>> {
        let real = self.aliases.get(name).unwrap_or(name);
        self.collections.get(real)
    }
}

impl Store {
    /// Opens or creates the data folder, and every collection in it.
    ///
    /// # Errors
    /// A [`Failure`] that says in one line what is in the way.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let cannot =
            |error: io::Error| Failure::other(format!("cannot open the data folder {}: {error}", folder.display()));
        fs::create_dir_all(folder.join("collections")).map_err(cannot)?;
        let lock = File::create(folder.join(".lock")).map_err(cannot)?;
        if lock.try_lock().is_err() {
            return Err(Failure::data_in_use(format!(
                "the data folder {} is in use by another process",
                folder.display()
            )));
        }
        let mut collections = BTreeMap::new();
        for entry in fs::read_dir(folder.join("collections")).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let opened = Collection::open(&path)
                .map_err(|error| Failure::other(format!("cannot open the collection {name}: {error}")))?;
            match opened {
                Some(collection) => {
                    collections.insert(name.to_owned(), Arc::new(collection));
                }
                // A crash during creation or deletion left it.
                None => fs::remove_dir_all(&path).map_err(cannot)?,
            }
        }
        let aliases = Aliases::load(&folder.join("aliases.json")).map_err(cannot)?;
        Ok(Self {
            folder: folder.to_owned(),
            names: RwLock::new(Names { collections, aliases }),
            reshaping: Mutex::new(()),
            _lock: lock,
        })
    }

    /// The collection of this name or alias.
    pub fn get(&self, name: &str) -> Option<Arc<Collection>> {
        self.names.read().find(name).cloned()
    }

    /// The collection of this name or alias.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn require(&self, name: &str) -> Result<Arc<Collection>, Status> {
        self.get(name).ok_or_else(|| errors::no_collection(name))
    }

    /// The names of all collections, ordered; aliases are not among them.
    pub fn list(&self) -> Vec<String> {
        self.names.read().collections.keys().cloned().collect()
    }

    /// All open collections.
    pub fn collections(&self) -> Vec<Arc<Collection>> {
        self.names.read().collections.values().cloned().collect()
    }

    /// Creates a collection.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`, or `INVALID_ARGUMENT` when the name is an alias or cannot be a name.
    pub fn create(&self, request: &CreateCollection) -> Result<(), Status> {
        let name = request.collection_name.as_str();
        check_name(name)?;
        let _reshaping = self.reshaping.lock();
        {
            let names = self.names.read();
            if names.collections.contains_key(name) {
                return Err(errors::collection_exists(name));
            }
            if names.aliases.get(name).is_some() {
                return Err(errors::bad_input(format!(
                    "Can't create collection with name {name}. Alias with the same name already exists"
                )));
            }
        }
        let folder = self.collection_folder(name);
        let created = Collection::create(&folder, request).inspect_err(|_| {
            // Half a collection is removed now or, should this fail, at the next start.
            let _ = fs::remove_dir_all(&folder);
        })?;
        self.names.write().collections.insert(name.to_owned(), Arc::new(created));
        Ok(())
    }

    /// Deletes a collection (not through an alias) with its aliases, after its last user is done.
    /// `false` when there is none.
    ///
    /// # Errors
    /// `INTERNAL` for the disk.
    pub fn delete(&self, name: &str) -> Result<bool, Status> {
        let _reshaping = self.reshaping.lock();
        let removed = {
            let mut names = self.names.write();
            let Some(found) = names.collections.get(name).cloned() else { return Ok(false) };
            names.aliases.forget_collection(name)?;
            found.disown()?;
            names.collections.remove(name);
            found
        };
        collection::remove_when_unused(removed, &self.collection_folder(name))?;
        Ok(true)
    }

    /// Applies all alias actions or none.
    ///
    /// # Errors
    /// See [`Aliases::apply`].
    pub fn change_aliases(&self, actions: Vec<AliasOperations>) -> Result<(), Status> {
        let mut names = self.names.write();
        let Names { collections, aliases } = &mut *names;
        aliases.apply(actions, |name| collections.contains_key(name))
    }

    /// All aliases, or those of one collection.
    pub fn list_aliases(&self, of: Option<&str>) -> Vec<AliasDescription> {
        let names = self.names.read();
        let wanted = names.aliases.list().filter(|(_, target)| of.is_none_or(|of| of == *target));
        wanted
            .map(|(alias, collection)| AliasDescription {
                alias_name: alias.to_owned(),
                collection_name: collection.to_owned(),
            })
            .collect()
    }

    fn collection_folder(&self, name: &str) -> PathBuf {
        self.folder.join("collections").join(name)
    }
}

/// Collection names become folder names; the forbidden characters are the server's.
fn check_name(name: &str) -> Result<(), Status> {
    const FORBIDDEN: &[char] = &['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(errors::invalid_field("collection_name", "must be 1 to 255 bytes long"));
    }
    if let Some(forbidden) = name.chars().find(|letter| FORBIDDEN.contains(letter)) {
        return Err(errors::invalid_field(
            "collection_name",
            format!("collection name cannot contain {forbidden:?} char"),
        ));
    }
    if name == "." || name == ".." {
        return Err(errors::invalid_field("collection_name", "not a usable folder name"));
    }
    Ok(())
}
