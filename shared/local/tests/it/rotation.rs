//! Passwords and keys are rotated under traffic: a real process reads them from Secrets Manager (moto stands in for it, asked by
//! AWS's own client), and no request fails.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use local::testkit::{HashEmbedder, Place, QdrantProxy, Reply, TestApp, private_postgres, private_qdrant};
use reqwest::Client;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::function::Function;

/// Between the change itself and the secret's, as a script that rotates takes it. A busy machine adds to it, and the last look
/// is 1.5 s after the first.
const WINDOW: Duration = Duration::from_millis(300);

/// Far longer than a request takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// Callers at the same time.
const CALLERS: usize = 4;

/// moto, on a port of its own.
struct SecretsManager {
    child: Child,
    url: String,
    client: Client,
}

impl SecretsManager {
    async fn start() -> Self {
        let program = std::env::var("MOTO_SERVER")
            .expect("MOTO_SERVER: `make test` gives it, shared/local/moto/fetch fetches it");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let manager =
            Self { child: command.spawn().unwrap(), url: format!("http://127.0.0.1:{port}"), client: Client::new() };
        let end = Instant::now() + Duration::from_mins(1);
        while manager.client.get(format!("{}/moto-api/", manager.url)).send().await.is_err() {
            assert!(Instant::now() < end, "moto does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        manager
    }

    async fn ask(&self, action: &str, body: Value) {
        let request = self
            .client
            .post(&self.url)
            .header("x-amz-target", format!("secretsmanager.{action}"))
            .header("content-type", "application/x-amz-json-1.1")
            // Which service it is for; moto checks no signature.
            .header("authorization", "AWS4-HMAC-SHA256 Credential=a/20261125/us-east-1/secretsmanager/aws4_request")
            .body(body.to_string());
        request.send().await.unwrap().error_for_status().unwrap();
    }

    async fn create(&self, name: &str, value: &str) {
        self.ask("CreateSecret", json!({ "Name": name, "SecretString": value })).await;
    }

    async fn put(&self, name: &str, value: &str) {
        let token = uuid::Uuid::new_v4();
        self.ask("PutSecretValue", json!({ "SecretId": name, "SecretString": value, "ClientRequestToken": token }))
            .await;
    }
}

impl Drop for SecretsManager {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_and_keys_that_are_rotated_under_traffic_fail_no_request() {
    let (manager, (postgres, qdrant)) = tokio::join!(SecretsManager::start(), async {
        tokio::task::spawn_blocking(|| (private_postgres(), private_qdrant())).await.unwrap()
    });
    let app = TestApp::at(Place::private(&postgres, &qdrant), |parts| {
        parts.embedder = Arc::new(HashEmbedder::default());
    });
    let user = app.register("ann").await;
    let proxy = QdrantProxy::before(&app.app.config.qdrant.url).await;
    let pg = app.pg().await;

    // A login role that has to show its password.
    pg.batch_execute("CREATE ROLE rotated LOGIN PASSWORD 'password-0' IN ROLE lockstep_app").await.unwrap();
    let hba: String = pg.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("host all rotated 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
    pg.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let url = |n: u32| {
        let mut url = reqwest::Url::parse(app.database_url().expose_secret()).unwrap();
        url.set_username("rotated").unwrap();
        url.set_password(Some(&format!("password-{n}"))).unwrap();
        url.to_string()
    };
    let key = |n: u32| format!("key-{n}");
    proxy.require_key(&key(0));
    manager.create("database-url", &url(0)).await;
    manager.create("qdrant-key", &key(0)).await;

    let mut config = shared::config::Config::clone(&app.app.config);
    config.qdrant.url = proxy.url();
    let function = Function::launch_with(&config, &[], |command| {
        command
            .env_remove("DATABASE_URL")
            .env("DATABASE_URL_ARN", "database-url")
            .env("QDRANT_API_KEY_ARN", "qdrant-key");
        command.env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &manager.url).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").env_remove("AWS_PROFILE");
    })
    .await;

    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (client, over, answered) = (function.client(&user), Arc::clone(&over), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut replies = Vec::new();
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let body = json!({ "source_uri": format!("{caller}"), "text": format!("Sentence {n} of caller {caller}.") });
                    replies.push(client.send(&format!("{caller}-{n}"), &body).await.unwrap());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                replies
            })
        })
        .collect();
    let some_are_answered = async || {
        let (before, end) = (answered.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        while answered.load(Ordering::Relaxed) < before + 2 * CALLERS {
            assert!(Instant::now() < end, "nothing is answered any more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for n in 1..=3 {
        some_are_answered().await;
        pg.batch_execute(&format!("ALTER ROLE rotated PASSWORD 'password-{n}'")).await.unwrap();
        // What stands goes on; new connections are what a rotation meets.
        let idle =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated' AND state = 'idle'";
        pg.query(idle, &[]).await.unwrap();
        tokio::time::sleep(WINDOW).await;
        manager.put("database-url", &url(n)).await;

        some_are_answered().await;
        proxy.require_key(&key(n));
        tokio::time::sleep(WINDOW).await;
        manager.put("qdrant-key", &key(n)).await;
    }
    some_are_answered().await;
    over.store(true, Ordering::Relaxed);
    let replies: Vec<Reply> =
        futures::future::join_all(callers).await.into_iter().flat_map(|caller| caller.unwrap()).collect();
    let failed: Vec<String> = replies
        .iter()
        .filter(|reply| !reply.status.is_success())
        .map(|reply| format!("{} {}", reply.status, reply.json))
        .collect();
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), replies.len());
    app.assert_consistent().await;
}
