//! Starting and ending the binary under test, and the shapes that the tests share.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, Modifier, NamedVectors, PointStruct, SparseVectorParamsBuilder,
    SparseVectorsConfigBuilder, UpsertPointsBuilder, Vector, VectorParamsBuilder, VectorsConfigBuilder,
};
use qdrant_client::{Payload, Qdrant};
use tonic::Code;

/// A data folder that is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("local-qdrant-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server, killed at the end.
pub struct Server {
    child: Child,
    pub url: String,
}

pub fn command(data: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-qdrant"));
    command.arg("--data").arg(data).arg("--port").arg(port.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    pub fn start(data: &Folder) -> Self {
        let mut child = command(data.path(), 0).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("local-qdrant ready on ") else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("not ready: {line:?}, {errors:?}");
        };
        Self { url: url.to_owned(), child }
    }

    pub fn client(&self) -> Qdrant {
        Qdrant::from_url(&self.url).skip_compatibility_check().build().unwrap()
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// SIGTERM, then how it ended and how long that took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg("-TERM").arg(pid).status().unwrap().success());
        (self.child.wait().unwrap(), started.elapsed())
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A collection with the vectors `dense` (4, cosine) and `bm25` (sparse, idf).
pub fn schema(name: &str) -> CreateCollectionBuilder {
    let mut vectors = VectorsConfigBuilder::default();
    vectors.add_named_vector_params("dense", VectorParamsBuilder::new(4, Distance::Cosine));
    let mut sparse = SparseVectorsConfigBuilder::default();
    sparse.add_named_vector_params("bm25", SparseVectorParamsBuilder::default().modifier(Modifier::Idf));
    CreateCollectionBuilder::new(name).vectors_config(vectors).sparse_vectors_config(sparse)
}

/// A point with both vectors and the payload `kb`, `n`.
pub fn point(id: u64, dense: [f32; 4], bm25: &[(u32, f32)], kb: &str) -> PointStruct {
    let vectors = NamedVectors::default().add_vector("dense", Vector::new_dense(dense.to_vec())).add_vector(
        "bm25",
        Vector::new_sparse(
            bm25.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
            bm25.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
        ),
    );
    let number = i64::try_from(id).unwrap();
    let payload = Payload::from([("kb", kb.into()), ("n", number.into())]);
    PointStruct::new(id, vectors, payload)
}

/// A server with the collection `c` of six points in two knowledge bases.
pub async fn with_points() -> (Folder, Server, Qdrant) {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let client = server.client();
    client.create_collection(schema("c")).await.unwrap();
    let points = vec![
        point(1, [1.0, 0.0, 0.0, 0.0], &[(1, 1.0), (9, 0.5)], "a"),
        point(2, [0.9, 0.1, 0.0, 0.0], &[(2, 1.0), (9, 0.5)], "a"),
        point(3, [0.0, 1.0, 0.0, 0.0], &[(3, 1.0), (9, 0.5)], "a"),
        point(4, [0.8, 0.2, 0.0, 0.0], &[(1, 0.4), (9, 0.5)], "b"),
        point(5, [0.0, 0.0, 1.0, 0.0], &[(5, 1.0), (9, 0.5)], "b"),
        point(6, [0.0, 0.0, 0.0, 1.0], &[(6, 1.0), (9, 0.5)], "b"),
    ];
    client.upsert_points(UpsertPointsBuilder::new("c", points).wait(true)).await.unwrap();
    (folder, server, client)
}

/// The code and the text of what must be an error.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, qdrant_client::QdrantError>) -> (Code, String) {
    match result.unwrap_err() {
        qdrant_client::QdrantError::ResponseError { status } => (status.code(), status.message().to_owned()),
        other => panic!("not an answer of the server: {other}"),
    }
}
