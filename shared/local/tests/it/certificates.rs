//! Servers that show a certificate: one by an unknown authority is told nothing and is counted, one by a trusted authority is
//! asked. Real TLS before the real stores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use local::{
    folder::TempFolder,
    testkit::{HashEmbedder, TestApp, port_of},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use shared::{
    db::{Db, DbError},
    embed::{Embedder, HttpConfig, HttpEmbedder},
    secrets::Credential,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::{process::Process, world::send};

/// How PostgreSQL's clients ask for TLS: <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A certificate for `localhost`, and who signed it.
struct Authority {
    acceptor: TlsAcceptor,
    folder: TempFolder,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let folder = TempFolder::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), own.pem()).unwrap();
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&server_key, &Issuer::new(params, key)).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![server.into()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"postgresql".to_vec(), b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), folder }
    }

    fn file(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// The port of a server that shows the certificate, and forwards to `port`; and how often it was spoken to.
    async fn before(&self, port: u16) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (acceptor, spoken) = (self.acceptor.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = spoken.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, counted) = (acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    forward(client, &acceptor, port, &counted).await.ok();
                });
            }
        });
        (own, spoken)
    }
}

async fn forward(
    mut client: TcpStream,
    acceptor: &TlsAcceptor,
    port: u16,
    spoken: &AtomicUsize,
) -> std::io::Result<()> {
    let mut first = [0; 8];
    client.peek(&mut first).await?;
    if first == SSL_REQUEST {
        client.read_exact(&mut first).await?;
        client.write_all(b"S").await?;
    }
    let mut client = acceptor.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut some = [0; 1024];
    let read = client.read(&mut some).await?;
    spoken.fetch_add(usize::from(read > 0), Ordering::Relaxed);
    server.write_all(&some[..read]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

fn database(app: &TestApp, other: u16) -> SecretString {
    let mut url = reqwest::Url::parse(app.database_url().expose_secret()).unwrap();
    url.set_host(Some("localhost")).unwrap();
    url.set_port(Some(other)).unwrap();
    url.query_pairs_mut().append_pair("sslmode", "require");
    String::from(url).into()
}

async fn counted(app: &TestApp) -> u64 {
    let shown = app.call(Method::GET, "/metrics", None, None).await.expect(200);
    let text = String::from_utf8(shown.bytes.to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("certificate_failures ")?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_certificate_that_does_not_hold_is_told_nothing_and_counted() {
    local::metrics::collect();
    let authority = Authority::new();
    let app = TestApp::start().await;
    let config = &app.app.config;
    let before = counted(&app).await;

    let (other, spoken) = authority.before(port_of(app.database_url().expose_secret())).await;
    let mut to_postgres = config.database.clone();
    to_postgres.url = database(&app, other);
    let nothing = async |_: &tokio_postgres::Transaction<'_>| Ok::<_, DbError>(());
    Db::new(&to_postgres).unwrap().transaction("nothing", nothing).await.unwrap_err();
    let after = counted(&app).await;
    assert!(after > before, "PostgreSQL's is counted");
    assert_eq!(spoken.load(Ordering::Relaxed), 0);

    let (other, spoken) = authority.before(port_of(&config.qdrant.url)).await;
    let lost = TestApp::with(|parts| parts.config.qdrant.url = format!("https://localhost:{other}")).await;
    let ann = lost.register("ann").await;
    let question = json!({ "query": "Where is the spare key?" });
    let answer = lost.call(Method::POST, "/query", Some(&ann.token), Some(question)).await.expect(200);
    assert_eq!(answer.json["degraded"], json!(["qdrant"]), "{}", answer.json);
    let (before, after) = (after, counted(&app).await);
    assert!(after > before, "Qdrant's is counted");
    assert_eq!(spoken.load(Ordering::Relaxed), 0);

    let (other, spoken) = authority.before(port_of(&config.qdrant.url)).await;
    for key in [None, Some("sesame")] {
        let mut model = HttpConfig::new(format!("https://localhost:{other}/v1"), "stub", 384);
        model.api_key = key.map(|key| Credential::new(key.into(), None));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let before = counted(&app).await;
        HttpEmbedder::new(model).unwrap().embed_query("key".to_owned(), deadline).await.unwrap_err();
        assert!(counted(&app).await > before, "a model's is counted");
    }
    assert_eq!(spoken.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_certificate_of_a_trusted_authority_is_asked() {
    let authority = Authority::new();
    // As the process has it.
    let app = TestApp::with(|parts| parts.embedder = Arc::new(HashEmbedder::default())).await;
    let user = app.register("ann").await;
    let note = json!({ "text": "The spare key lies under the third flowerpot.", "source_uri": "note" });
    send(&app, &user, "key", &note).await.expect(201);

    let (postgres, asked_postgres) = authority.before(port_of(app.database_url().expose_secret())).await;
    let (qdrant, asked_qdrant) = authority.before(port_of(&app.app.config.qdrant.url)).await;
    let url = database(&app, postgres);
    let file = authority.file();
    let variables: &[(&str, &str)] = &[
        ("DATABASE_URL", url.expose_secret()),
        ("DATABASE_CA_FILE", &file),
        ("QDRANT_URL", &format!("https://localhost:{qdrant}")),
        // Where Qdrant's client looks for the machine's authorities.
        ("SSL_CERT_FILE", &file),
    ];
    let query = Process::start(&app, "query", variables).await;
    let question = json!({ "query": "Where is the spare key?" });
    let (status, body) = query.send(Method::POST, "/query", Some(&user.token), &[], &question).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body["hits"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
    assert_eq!(body["degraded"], json!([]));
    for spoken in [asked_postgres, asked_qdrant] {
        assert!(spoken.load(Ordering::Relaxed) > 0);
    }
}
