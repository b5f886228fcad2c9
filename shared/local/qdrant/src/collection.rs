//! One collection: an engine shard in a folder, and beside it what the shard does not keep (the
//! configuration as it was asked for, and the parameters of the field indexes).

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prost::Message;
use qdrant_client::qdrant::{
    CollectionInfo, CollectionStatus, CreateCollection, OptimizerStatus, PayloadIndexParams, PayloadSchemaInfo,
    UpdateCollection, UpdateQueueInfo,
};
use qdrant_edge::{EdgeShard, UpdateOperation};
use tonic::Status;

use crate::convert::{config, index};
use crate::errors;
use crate::files;

/// The description beside the shard. It is written last when a collection is created and removed
/// first when it is deleted: a folder without it is rubbish that a crash left.
const DESCRIPTION: &str = "collection.pb";

/// An open collection. All methods block; call them off the async threads.
#[derive(Debug)]
pub struct Collection {
    shard: EdgeShard,
    folder: std::path::PathBuf,
    /// `config` and `payload_schema` as asked for; the live numbers are filled in when it is read.
    description: Mutex<CollectionInfo>,
    /// The engine's `update` returns no operation id, so they are counted here.
    operations: AtomicU64,
    flushed_at: AtomicU64,
    optimized_at: AtomicU64,
    optimizing: AtomicBool,
    optimizer_error: Mutex<Option<String>>,
}

impl Collection {
    /// Creates the shard in `folder`, which must not exist yet.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` or `UNIMPLEMENTED` for the configuration, `INTERNAL` for the disk.
    pub fn create(folder: &Path, request: &CreateCollection) -> Result<Self, Status> {
        let shard_config = config::shard_config(request)?;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let description = CollectionInfo {
            config: Some(config::collection_config(request)),
            created_at: Some(config::timestamp(now)),
            ..CollectionInfo::default()
        };
        let shard = EdgeShard::new(folder, shard_config).map_err(errors::from_engine)?;
        files::replace(&folder.join(DESCRIPTION), &description.encode_to_vec()).map_err(errors::internal)?;
        Ok(Self::with(shard, folder, description))
    }

    /// Opens what [`Collection::create`] left; the engine replays its write-ahead log. `None` when
    /// the folder holds no complete collection.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn open(folder: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(folder.join(DESCRIPTION)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let description = CollectionInfo::decode(bytes.as_slice()).map_err(io::Error::other)?;
        let shard = EdgeShard::load(folder, None)
            .map_err(|error| io::Error::other(errors::from_engine(error).message().to_owned()))?;
        Ok(Some(Self::with(shard, folder, description)))
    }

    fn with(shard: EdgeShard, folder: &Path, description: CollectionInfo) -> Self {
        Self {
            shard,
            folder: folder.to_owned(),
            description: Mutex::new(description),
            operations: AtomicU64::new(0),
            flushed_at: AtomicU64::new(0),
            optimized_at: AtomicU64::new(0),
            optimizing: AtomicBool::new(false),
            optimizer_error: Mutex::new(None),
        }
    }

    /// The engine, for reading.
    pub fn shard(&self) -> &EdgeShard {
        &self.shard
    }

    /// Applies one operation; when it returns, the operation is in the write-ahead log and visible.
    /// Returns the number of the operation.
    ///
    /// # Errors
    /// The engine's, as the server words them.
    pub fn update(&self, operation: UpdateOperation) -> Result<u64, Status> {
        let result = self.shard.update(operation);
        // Counted also when it failed: a failed operation may be half applied and is in the log.
        let id = self.operations.fetch_add(1, Ordering::Relaxed);
        result.map(|()| id).map_err(errors::from_engine)
    }

    /// Remembers the parameters of a field index for [`Collection::info`].
    ///
    /// # Errors
    /// `INTERNAL` when the description cannot be written.
    pub fn remember_index(&self, field: String, params: Option<PayloadIndexParams>) -> Result<(), Status> {
        self.describe(|description| {
            let info = PayloadSchemaInfo { params, ..PayloadSchemaInfo::default() };
            description.payload_schema.insert(field, info);
            Ok(())
        })
    }

    /// Forgets what [`Collection::remember_index`] was told.
    ///
    /// # Errors
    /// `INTERNAL` when the description cannot be written.
    pub fn forget_index(&self, field: &str) -> Result<(), Status> {
        self.describe(|description| {
            description.payload_schema.remove(field);
            Ok(())
        })
    }

    /// Changes the configuration in the ways that the engine can follow.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` naming the field for the other ways.
    pub fn reconfigure(&self, request: &UpdateCollection) -> Result<(), Status> {
        config::refuse_unsupported_update(request)?;
        self.describe(|description| {
            let described = description.config.get_or_insert_default();
            config::merge_update(described, request);
            let hnsw = config::hnsw(described.hnsw_config.as_ref())?;
            self.shard.set_hnsw_config(hnsw).map_err(errors::from_engine)?;
            let optimizers = config::optimizers(described.optimizer_config.as_ref())?;
            self.shard.set_optimizers_config(optimizers).map_err(errors::from_engine)
        })
    }

    fn describe(&self, change: impl FnOnce(&mut CollectionInfo) -> Result<(), Status>) -> Result<(), Status> {
        let mut description = self.description.lock();
        let mut changed = description.clone();
        change(&mut changed)?;
        files::replace(&self.folder.join(DESCRIPTION), &changed.encode_to_vec()).map_err(errors::internal)?;
        *description = changed;
        Ok(())
    }

    /// Configuration, counts and status.
    ///
    /// # Errors
    /// The engine's.
    pub fn info(&self) -> Result<CollectionInfo, Status> {
        let live = self.shard.info().map_err(errors::from_engine)?;
        let described = self.description.lock().clone();
        let payload_schema: HashMap<_, _> = live
            .payload_schema
            .iter()
            .map(|(field, info)| {
                let name = field.to_string();
                let params = described.payload_schema.get(&name).and_then(|info| info.params.clone());
                (name, index::schema_info(info, params))
            })
            .collect();
        let status =
            if self.optimizing.load(Ordering::Relaxed) { CollectionStatus::Yellow } else { CollectionStatus::Green };
        let error = self.optimizer_error.lock().clone();
        Ok(CollectionInfo {
            status: status.into(),
            optimizer_status: Some(OptimizerStatus { ok: error.is_none(), error: error.unwrap_or_default() }),
            segments_count: live.segments_count as u64,
            points_count: Some(live.points_count as u64),
            indexed_vectors_count: Some(live.indexed_vectors_count as u64),
            payload_schema,
            update_queue: Some(UpdateQueueInfo::default()),
            ..described
        })
    }

    /// Makes everything durable against power loss when something changed since the last time.
    pub fn flush_if_changed(&self) {
        let seen = self.operations.load(Ordering::Relaxed);
        if self.flushed_at.load(Ordering::Relaxed) != seen {
            match self.shard.flush() {
                Ok(()) => self.flushed_at.store(seen, Ordering::Relaxed),
                Err(error) => eprintln!("local-qdrant: flush of {}: {error}", self.folder.display()),
            }
        }
    }

    /// Merges, indexes and vacuums segments when something changed since the last time. Cheap when
    /// the engine's thresholds are not reached; may take long (an HNSW graph) when they are.
    pub fn optimize_if_changed(&self) {
        let seen = self.operations.load(Ordering::Relaxed);
        if self.optimized_at.load(Ordering::Relaxed) == seen {
            return;
        }
        self.optimizing.store(true, Ordering::Relaxed);
        let result = self.shard.optimize();
        self.optimizing.store(false, Ordering::Relaxed);
        self.optimized_at.store(seen, Ordering::Relaxed);
        *self.optimizer_error.lock() = result.err().map(|error| error.to_string());
    }

    /// The first step of deleting: from here on a restart removes the folder.
    ///
    /// # Errors
    /// `INTERNAL` for the disk.
    pub fn disown(&self) -> Result<(), Status> {
        files::remove(&self.folder.join(DESCRIPTION)).map_err(errors::internal)
    }
}

/// Waits until `collection` has no other user, closes it and removes its folder.
///
/// # Errors
/// `INTERNAL` for the disk.
pub fn remove_when_unused(mut collection: std::sync::Arc<Collection>, folder: &Path) -> Result<(), Status> {
    // Dropping the engine's shard flushes into the folder, so it must be closed first.
    loop {
        match std::sync::Arc::try_unwrap(collection) {
            Ok(last) => {
                drop(last);
                break;
            }
            Err(used) => collection = used,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    fs::remove_dir_all(folder).map_err(errors::internal)
}
