//! One test's app: its own database, its own collection, the same code as in the cloud.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use auth::Signer;
use axum::{Router, body::Body};
use http::{Method, Request, header};
use qdrant_client::{
    Qdrant,
    qdrant::{Condition, Filter, ScrollPointsBuilder, point_id::PointIdOptions},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use shared::{
    App,
    app::Model,
    config::{
        AccountsConfig, AnswersConfig, Config, DatabaseConfig, EmbeddingConfig, ExtractionConfig, Limits,
        ObjectsConfig, QdrantConfig, TokenConfig,
    },
    db::{Db, DbError, migrations},
    domain::{ChunkId, DisplayName, DocumentId, KnowledgeBaseId, UserId},
    embed::Embedder,
    knowledge_bases,
    objects::{ObjectStore, s3::S3},
    retry::RetryBudget,
    tokens::Verifier,
    vectors::{VectorIndex, qdrant::QdrantIndex},
};
use tokio_postgres::types::Type;
use tower::ServiceExt;

use super::{
    embedder::{CountingEmbedder, Embedded},
    reply::Reply,
    servers::{self, Place},
};
use crate::{folder::TempFolder, gateway};

/// What [`TestApp::with`] may change before the app is made of it.
#[derive(Debug)]
pub struct Parts {
    /// The configuration: the test's own database and prefix.
    pub config: Config,
    /// Text to vectors; it will be counted.
    pub embedder: Arc<dyn Embedder>,
    /// The other model, while one takes the other's place.
    pub next: Option<Arc<dyn Embedder>>,
    /// The index, when it is another than Qdrant under `config.qdrant`.
    pub index: Option<Arc<dyn VectorIndex>>,
    /// Buckets, when they are other than S3 under `config.objects`.
    pub objects: Option<Arc<dyn ObjectStore>>,
}

impl Parts {
    /// Qdrant under `config.qdrant`, to be wrapped.
    #[must_use]
    pub fn qdrant_index(&self) -> Arc<dyn VectorIndex> {
        let space = self.embedder.space();
        Arc::new(QdrantIndex::new(&self.config.qdrant, space).expect("the configuration holds"))
    }
}

/// One test's app.
#[derive(Debug)]
pub struct TestApp {
    /// What the handlers share.
    pub app: App,
    /// All functions' routes, as behind the gateway.
    pub router: Router,
    /// What was embedded.
    pub embedded: Embedded,
    place: Place,
    mail: PathBuf,
}

/// An account of a test.
#[derive(Clone, Debug)]
pub struct TestUser {
    /// The account.
    pub id: UserId,
    /// An access token that holds for the test.
    pub token: String,
    /// The personal knowledge base.
    pub knowledge_base: KnowledgeBaseId,
    /// The address.
    pub email: String,
}

impl TestApp {
    /// The app as it is.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// The app with other parts.
    pub async fn with(change: impl FnOnce(&mut Parts)) -> Self {
        Self::at(Place::own().await, change)
    }

    /// The app on other stores than those that the tests of this process share.
    #[must_use]
    pub fn at(place: Place, change: impl FnOnce(&mut Parts)) -> Self {
        let keys = servers::keys();
        let mut qdrant = QdrantConfig::at(&place.qdrant_url);
        qdrant.prefix.clone_from(&place.prefix);
        let mail = mail_folder().join(uuid::Uuid::new_v4().simple().to_string());
        let config = Config {
            // Every test shows that the functions need no more than their role has.
            database: DatabaseConfig::at(migrations::as_app_role(&place.database_url)),
            qdrant,
            // Not read: the embedder is shared by all tests of the process.
            embedding: EmbeddingConfig::MiniLm { dir: "model".into(), threads: NonZero::<usize>::MIN },
            embedding_next: None,
            tokens: TokenConfig {
                issuer: "http://127.0.0.1:8080".to_owned(),
                audience: "lockstep".to_owned(),
                access_ttl: Duration::from_mins(15),
                jwks: keys.jwks.clone(),
                jwks_entry: None,
                signing_key: Some(keys.private_pem.clone()),
                signing_key_entry: None,
            },
            answers: AnswersConfig::default(),
            limits: Limits::default(),
            extraction: ExtractionConfig { program: Some(reader()), ..ExtractionConfig::default() },
            objects: ObjectsConfig::default(),
            accounts: AccountsConfig::local(mail.clone()),
        };
        let mut parts = Parts { config, embedder: servers::embedder(), next: None, index: None, objects: None };
        change(&mut parts);
        let embedded = Embedded::default();
        let app = App {
            db: Db::new(&parts.config.database).expect("the configuration holds"),
            index: parts.index.clone().unwrap_or_else(|| parts.qdrant_index()),
            embedder: Arc::new(CountingEmbedder::new(parts.embedder, embedded.clone())),
            index_retries: RetryBudget::new("qdrant"),
            next: parts.next.clone().map(|embedder| Model {
                index: Arc::new(
                    QdrantIndex::new(&parts.config.qdrant, embedder.space()).expect("the configuration holds"),
                ),
                embedder,
            }),
            objects: parts.objects.unwrap_or_else(|| Arc::new(S3::new(&parts.config.objects))),
            verifier: Verifier::new(&parts.config.tokens).expect("the key set holds"),
            config: Arc::new(parts.config),
        };
        let router = gateway::router(&app).expect("the functions start");
        Self { app, router, embedded, place, mail }
    }

    /// Another app on the same database and collection.
    #[must_use]
    pub fn again(&self, change: impl FnOnce(&mut Parts)) -> Self {
        Self::at(Place { to_drop: None, ..self.place.clone() }, change)
    }

    /// Sends a request with a JSON body, or without one.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Reply {
        self.send(request(method, path, token, body)).await
    }

    /// Sends a request as it is.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Reply {
        let response = self.router.clone().oneshot(request.map(Body::from)).await;
        Reply::read(response.unwrap_or_else(|never| match never {})).await
    }

    /// An account with a personal knowledge base, made in PostgreSQL directly: hashing a password for each would cost
    /// more than most tests.
    pub async fn register(&self, name: &str) -> TestUser {
        let id = UserId::draw();
        let email = format!("{name}-{}@example.com", id.0.simple());
        let display: DisplayName = name.parse().expect("a name");
        let insert = self.app.db.transaction::<_, DbError, _>("testkit::register", async |tx| {
            tx.execute_typed(
                "-- testkit::register
                INSERT INTO users (id, email, display_name, password_hash, email_verified_at)
                VALUES ($1, $2, $3, '', now())",
                &[(&id.0, Type::UUID), (&email, Type::TEXT), (&display.as_str(), Type::TEXT)],
            )
            .await?;
            knowledge_bases::insert_personal(tx, id).await
        });
        let knowledge_base = insert.await.expect("the account can be made");
        TestUser { id, token: self.token(id), knowledge_base, email }
    }

    /// An access token for an account, whether or not there is one.
    #[must_use]
    pub fn token(&self, user: UserId) -> String {
        let signer = Signer::new(&self.app.config.tokens).expect("the key holds");
        signer.access_token(user).expect("a token").token.expose_secret().to_owned()
    }

    /// The mails that were sent so far, in order.
    #[must_use]
    pub fn mails(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(&self.mail) else { return Vec::new() };
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read_to_string(file).expect("it can be read")).collect()
    }

    /// Where they lie.
    #[must_use]
    pub fn mail_dir(&self) -> &Path {
        &self.mail
    }

    /// The code in the last mail that has one.
    #[must_use]
    pub fn mailed_code(&self) -> String {
        let mails = self.mails();
        let code = mails.iter().rev().find_map(|mail| mail.lines().find_map(|line| line.strip_prefix("Code: ")));
        code.unwrap_or_else(|| panic!("no code in {mails:?}")).to_owned()
    }

    /// A direct connection to the test's database.
    pub async fn pg(&self) -> tokio_postgres::Client {
        servers::connect(&self.place.database_url).await
    }

    /// The URL of the test's database for its owner, without any proxy.
    #[must_use]
    pub fn database_url(&self) -> &SecretString {
        &self.place.database_url
    }

    /// A direct client of Qdrant, as the app's configuration has it.
    #[must_use]
    pub fn qdrant(&self) -> Qdrant {
        Qdrant::from_url(&self.app.config.qdrant.url).skip_compatibility_check().build().expect("the URL holds")
    }

    /// The alias of the test's collection.
    #[must_use]
    pub fn collection(&self) -> String {
        format!("{}-{}", self.app.config.qdrant.prefix, self.app.embedder.space().collection_name())
    }

    /// The points of a document, by id, with their payloads.
    pub async fn points(&self, document: DocumentId) -> Vec<(ChunkId, BTreeMap<String, String>)> {
        self.scroll(Some(Filter::must([Condition::matches("doc", document.to_string())]))).await
    }

    /// All points of the test's collection, by id, with their payloads; none when there is no collection yet.
    pub async fn all_points(&self) -> Vec<(ChunkId, BTreeMap<String, String>)> {
        self.scroll(None).await
    }

    async fn scroll(&self, filter: Option<Filter>) -> Vec<(ChunkId, BTreeMap<String, String>)> {
        let client = self.qdrant();
        let mut points = Vec::new();
        let mut offset = None;
        loop {
            let mut request =
                ScrollPointsBuilder::new(self.collection()).limit(500).with_payload(true).with_vectors(false);
            if let Some(filter) = &filter {
                request = request.filter(filter.clone());
            }
            if let Some(offset) = offset {
                request = request.offset::<qdrant_client::qdrant::PointId>(offset);
            }
            let page = match client.scroll(request).await {
                Ok(page) => page,
                Err(error) if error.to_string().contains("NotFound") || error.to_string().contains("not found") => {
                    return points;
                }
                Err(error) => panic!("Qdrant can not be scrolled: {error}"),
            };
            for point in page.result {
                let id = match point.id.and_then(|id| id.point_id_options) {
                    Some(PointIdOptions::Uuid(id)) => id.parse().expect("a UUID"),
                    other => panic!("a point's id is {other:?}"),
                };
                let payload = point.payload.into_iter().map(|(key, value)| {
                    let text = value.as_str().cloned();
                    (key, text.unwrap_or_else(|| value.to_string()))
                });
                points.push((id, payload.collect()));
            }
            offset = page.next_page_offset;
            if offset.is_none() {
                return points;
            }
        }
    }
}

/// A request with a JSON body, or without one.
///
/// # Panics
/// When the path is none.
#[must_use]
pub fn request(method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Request<Vec<u8>> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    request.body(body).expect("a request")
}

/// The program that reads documents for a test: the test's own does not start like a function. Cargo puts its binaries
/// into the folder above the tests'.
fn reader() -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let built = test.ancestors().nth(2).expect("a folder for what is built");
    built.join("test-function")
}

/// Holds the mails of all tests of the process, and goes with it.
fn mail_folder() -> &'static Path {
    static FOLDER: OnceLock<TempFolder> = OnceLock::new();
    FOLDER.get_or_init(|| TempFolder::new().unwrap_or_else(|error| panic!("{error}"))).path()
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let Some(database) = &self.place.to_drop else { return };
        let (prefix, qdrant) = (format!("{}-", self.app.config.qdrant.prefix), self.qdrant());
        let statement = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        servers::blocking(async move {
            servers::administer(&servers::servers().database_url, &statement).await.ok();
            let Ok(listed) = qdrant.list_collections().await else { return };
            for collection in listed.collections.into_iter().filter(|collection| collection.name.starts_with(&prefix)) {
                qdrant.delete_collection(collection.name).await.ok();
            }
        });
    }
}
