//! Warm questions, against the same embedding, the same request to Qdrant and the same statements to PostgreSQL, one after
//! the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future;
use http::Method;
use secrecy::ExposeSecret;
use serde_json::json;
use shared::{deadline::Deadline, sparse, vectors::Search};

use super::{Bar, Figure, median, ms, quantile, say};
use crate::testkit::{PostgresProxy, Statement, TestApp, TestUser, long_text};

/// Paragraphs of the text that is searched: about a thousand chunks.
const PARAGRAPHS: usize = 1_500;

/// Different questions, none of which a cache of the process has seen.
const QUESTIONS: usize = 600;

/// Candidates of each leg, as a plain question asks for them.
const CANDIDATES: usize = 100;

/// Workers of the throughput's figure, and connections of each side.
const WORKERS: usize = 16;

/// How long each side runs at once.
const LOAD: Duration = Duration::from_secs(4);

/// Turns of the throughput's figure.
const TURNS: usize = 3;

struct Floor {
    app: Arc<TestApp>,
    user: TestUser,
    connections: Vec<tokio_postgres::Client>,
    statements: Vec<Statement>,
}

impl Floor {
    async fn ask(&self, question: &str, worker: usize) {
        let deadline = Deadline::after(Duration::from_secs(30));
        let dense = self.app.app.embedder.embed_query(question.to_owned(), deadline.instant()).await.expect("a vector");
        let search = Search {
            dense: Some(dense),
            sparse: Some(sparse::query(question)),
            knowledge_bases: vec![self.user.knowledge_base],
            documents: None,
            limit: CANDIDATES,
            except: Vec::new(),
        };
        self.app.app.index.search(search, deadline).await.expect("candidates");
        let pg = self.connections.get(worker).expect("a connection for each worker");
        for statement in &self.statements {
            statement.send(pg).await.expect("rows");
        }
    }
}

async fn ask(app: &TestApp, user: &TestUser, question: &str) {
    let body = json!({ "query": question });
    app.call(Method::POST, "/query", Some(&user.token), Some(body)).await.expect(200);
}

fn question(n: usize) -> String {
    format!("What does paragraph {n} say about the harbour and its {} lamps?", n * 7 % 97)
}

pub(super) async fn measure() -> Vec<Figure> {
    say("a text is being ingested, to be asked about");
    let app = TestApp::with(|parts| {
        parts.config.database.pool_max = WORKERS;
        parts.config.limits.request_timeout = Duration::from_mins(15);
    });
    let app = Arc::new(app.await);
    let user = app.register("ann").await;
    let text = json!({ "text": long_text(PARAGRAPHS), "media_type": "text/markdown", "source_uri": "text" });
    app.call(Method::POST, "/documents", Some(&user.token), Some(text)).await.expect(201);
    // What is fresh is looked at twice: not what is measured here.
    let old = "UPDATE document_revisions SET finished_at = finished_at - interval '1 hour', created_at = created_at - interval '1 hour'";
    app.pg().await.execute(old, &[]).await.expect("PostgreSQL answers");

    let floor = Arc::new(Floor {
        statements: statements(&app, &user).await,
        connections: future::join_all((0..WORKERS).map(|_| app.pg())).await,
        app: app.clone(),
        user: user.clone(),
    });
    say("questions are being asked one by one");
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for n in 0..QUESTIONS {
        // Each side has every question, and each is first as often as the other.
        for first in [n % 2 == 0, n % 2 == 1] {
            let question = question(2 * n + usize::from(first));
            let begun = Instant::now();
            if first {
                ask(&app, &user, &question).await;
                ours.push(ms(begun.elapsed()));
            } else {
                floor.ask(&question, 0).await;
                floors.push(ms(begun.elapsed()));
            }
        }
    }
    // The first ones warm both sides up.
    let (mut ours, mut floors) = (ours.split_off(QUESTIONS / 10), floors.split_off(QUESTIONS / 10));
    let mut figures = vec![
        Figure {
            what: "warm question, p50",
            unit: "ms",
            ours: median(&mut ours),
            floor: median(&mut floors),
            bar: Bar::AtMost(1.15),
        },
        Figure {
            what: "warm question, p99",
            unit: "ms",
            ours: quantile(&mut ours, 990),
            floor: quantile(&mut floors, 990),
            bar: Bar::AtMost(1.5),
        },
    ];
    say("questions are being asked at once");
    let (mut ours, mut floors) = (0.0, 0.0);
    for _ in 0..TURNS {
        let (app, user) = (app.clone(), user.clone());
        ours += at_once(move |n, _| {
            let (app, user) = (app.clone(), user.clone());
            async move { ask(&app, &user, &question(n)).await }
        })
        .await;
        let floor = floor.clone();
        floors += at_once(move |n, worker| {
            let floor = floor.clone();
            async move { floor.ask(&question(n), worker).await }
        })
        .await;
    }
    figures.push(Figure {
        what: "warm questions, 16 at once",
        unit: "1/s",
        ours: ours / f64::from(u32::try_from(TURNS).unwrap_or(1)),
        floor: floors / f64::from(u32::try_from(TURNS).unwrap_or(1)),
        bar: Bar::AtLeast(0.85),
    });
    figures
}

/// What one question sends to PostgreSQL, with its values.
async fn statements(app: &TestApp, user: &TestUser) -> Vec<Statement> {
    let url = app.app.config.database.url.expose_secret().to_owned();
    let postgres = PostgresProxy::before(&url).await;
    let watched = app.again(|parts| parts.config.database.url = postgres.redirect(&url).into());
    // The first question finds out what the second knows.
    ask(&watched, user, &question(QUESTIONS * 4)).await;
    postgres.forget();
    ask(&watched, user, &question(QUESTIONS * 4 + 1)).await;
    postgres.statements()
}

/// Questions a second, of all workers.
async fn at_once<F: Future<Output = ()> + Send>(
    ask: impl Fn(usize, usize) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    static NEXT: AtomicUsize = AtomicUsize::new(1_000_000);
    let begun = Instant::now();
    let workers = (0..WORKERS).map(|worker| {
        let ask = ask.clone();
        async move {
            let mut asked = 0_u32;
            while begun.elapsed() < LOAD {
                ask(NEXT.fetch_add(1, Ordering::Relaxed), worker).await;
                asked += 1;
            }
            asked
        }
    });
    let asked: u32 = future::join_all(workers).await.into_iter().sum();
    f64::from(asked) / begun.elapsed().as_secs_f64()
}
