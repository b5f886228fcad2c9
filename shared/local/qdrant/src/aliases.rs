//! Alias names: a map from alias to collection in one small file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use qdrant_client::qdrant::{AliasOperations, alias_operations::Action};
use tonic::Status;

use crate::errors;
use crate::files;

/// The aliases of the whole server. Every change is written before it is visible.
#[derive(Debug)]
pub struct Aliases {
    path: PathBuf,
    names: BTreeMap<String, String>,
}

impl Aliases {
    /// Reads the file, or starts empty when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or is not ours.
    pub fn load(path: &Path) -> io::Result<Self> {
        let names = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), names })
    }

    /// The collection behind an alias.
    pub fn get(&self, alias: &str) -> Option<&str> {
        self.names.get(alias).map(String::as_str)
    }

    /// All pairs of alias and collection, ordered by alias.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(alias, collection)| (alias.as_str(), collection.as_str()))
    }

    /// Applies all actions or none. `exists` tells whether a collection (not an alias) of a name is
    /// there.
    ///
    /// # Errors
    /// As the server: an unknown collection or alias is `NOT_FOUND`, an alias named like a
    /// collection is `ALREADY_EXISTS`.
    pub fn apply(&mut self, actions: Vec<AliasOperations>, exists: impl Fn(&str) -> bool) -> Result<(), Status> {
        let mut names = self.names.clone();
        for action in actions {
            match action.action {
                Some(Action::CreateAlias(create)) => {
                    if !exists(&create.collection_name) {
                        return Err(errors::no_collection(&create.collection_name));
                    }
                    if exists(&create.alias_name) {
                        return Err(errors::collection_exists(&create.alias_name));
                    }
                    names.insert(create.alias_name, create.collection_name);
                }
                Some(Action::RenameAlias(rename)) => {
                    if exists(&rename.new_alias_name) {
                        return Err(errors::collection_exists(&rename.new_alias_name));
                    }
                    let collection = names.remove(&rename.old_alias_name).ok_or_else(|| {
                        Status::not_found(format!("Not found: Alias {} does not exists!", rename.old_alias_name))
                    })?;
                    names.insert(rename.new_alias_name, collection);
                }
                // Removing what is not there is no error, as in the server.
                Some(Action::DeleteAlias(delete)) => {
                    names.remove(&delete.alias_name);
                }
                None => return Err(Status::invalid_argument("Malformed AliasOperation type")),
            }
        }
        self.save(names)
    }

    /// Forgets every alias of a collection that is about to go.
    ///
    /// # Errors
    /// `INTERNAL` when the file cannot be written.
    pub fn forget_collection(&mut self, collection: &str) -> Result<(), Status> {
        let mut names = self.names.clone();
        names.retain(|_, target| target != collection);
        self.save(names)
    }

    fn save(&mut self, names: BTreeMap<String, String>) -> Result<(), Status> {
        if names != self.names {
            let bytes = serde_json::to_vec_pretty(&names).map_err(errors::internal)?;
            files::replace(&self.path, &bytes).map_err(errors::internal)?;
            self.names = names;
        }
        Ok(())
    }
}
