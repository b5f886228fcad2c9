//! `lockstep eval`: how well, and how fast, questions find their documents, through the real HTTP API.
//!
//! A data set is a folder with `docs.jsonl` (`id`, `title`, `text`), `queries.jsonl` (`id`, `text`) and `qrels.jsonl`
//! (`query_id`, `doc_id`, `relevance`). Each becomes an account of its own, whose documents stay: they are ingested once.

mod metrics;
mod set;

use std::{
    collections::HashSet,
    fmt::Write,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use self::{
    metrics::{Measured, Summary},
    set::Set,
};
use crate::{
    failure::Failure,
    process::{self, Signal},
    settings,
};

/// The modes, in the order in which they are shown.
const MODES: [&str; 3] = ["sparse", "dense", "hybrid"];

/// Documents that are sent at the same time: while one is embedded, another is written.
const SENT_AT_ONCE: usize = 4;

/// Hits that are asked for: what recall@100 needs.
const HITS: usize = 100;

/// A request may take this long: on a busy machine a long document is read for a while.
const REQUEST_MAX: Duration = Duration::from_mins(2);

/// How often a document is sent again, while a store is busy.
const ATTEMPTS_MAX: u32 = 10;

/// An access token holds for 15 minutes.
const SIGN_IN_EVERY: Duration = Duration::from_mins(10);

/// Of accounts that exist on this machine only.
const PASSWORD: &str = "three flowerpots in a row";

/// What is measured, and how.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// The data sets' folders.
    pub sets: Vec<PathBuf>,
    /// A stack that runs; else one is started for the purpose.
    pub url: Option<String>,
    /// The documents are there already.
    pub skip_ingest: bool,
    /// At most so many questions of each set, spread evenly.
    pub queries_max: Option<usize>,
    /// Only every second question: 0 or 1. Tune on one half, report the other.
    pub half: Option<usize>,
    /// Where the figures go as JSON.
    pub json: Option<PathBuf>,
}

/// Measures.
///
/// # Errors
/// When a set can not be read, or the stack refuses something.
pub fn run(options: &Options) -> Result<(), Failure> {
    if options.sets.is_empty() {
        return Err(Failure::new("name the folders of data sets: `lockstep eval DIR...` or `make eval DATASETS=...`"));
    }
    let sets = options.sets.iter().map(|dir| Set::read(dir)).collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::because("the runtime can not start"))?;
    let stack = if options.url.is_some() { None } else { Some(Stack::start()?) };
    let url = options.url.clone().or_else(|| stack.as_ref().map(|stack| stack.url.clone())).unwrap_or_default();
    let mut rows = Vec::new();
    for set in &sets {
        rows.extend(runtime.block_on(measure(&url, set, options))?);
    }
    println!("{}", table(&rows));
    if let Some(path) = &options.json {
        let figures: Vec<Value> = rows.iter().map(|(set, mode, row)| row.json(set, mode)).collect();
        let text = format!("{:#}\n", Value::Array(figures));
        std::fs::write(path, text).map_err(Failure::because(format!("{} can not be written", path.display())))?;
    }
    Ok(())
}

type Row = (String, &'static str, Summary);

async fn measure(url: &str, set: &Set, options: &Options) -> Result<Vec<Row>, Failure> {
    let client = Client::builder().timeout(REQUEST_MAX).no_proxy().build();
    let mut api = Api { client: client.map_err(Failure::because("no HTTP client"))?, url, set, token: None };
    if !options.skip_ingest {
        api.ingest().await?;
    }
    let queries = set.sample(options.half, options.queries_max);
    let mut rows = Vec::new();
    for mode in MODES {
        let bar = bar(queries.len(), &format!("{} {mode}", set.name));
        let mut measured = Vec::with_capacity(queries.len());
        for query in &queries {
            let token = api.token().await?;
            let body = json!({ "query": query.text, "k": HITS, "mode": mode, "group_by": "document" });
            let asked = Instant::now();
            let (_, answer) = api.send(api.client.post(api.path("/query")).bearer_auth(&token).json(&body)).await?;
            let latency = asked.elapsed();
            if answer.get("degraded").and_then(Value::as_array).is_none_or(|degraded| !degraded.is_empty()) {
                return Err(Failure::new("an answer is degraded, so it measures something else"));
            }
            let hits = answer.get("hits").and_then(Value::as_array).into_iter().flatten();
            let found = hits.filter_map(|hit| hit.pointer("/document/source_uri")?.as_str().map(ToOwned::to_owned));
            let mut seen = HashSet::new();
            let found: Vec<String> = found.filter(|id| seen.insert(id.clone())).collect();
            measured.push(Measured::of(&found, &query.relevant, latency));
            bar.inc(1);
        }
        bar.finish_and_clear();
        rows.push((set.name.clone(), mode, Summary::of(&measured)));
    }
    Ok(rows)
}

struct Api<'a> {
    client: Client,
    url: &'a str,
    set: &'a Set,
    token: Option<(String, Instant)>,
}

impl Api<'_> {
    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let broken = || Failure::because("the stack did not answer");
        let response = request.send().await.map_err(broken())?;
        let status = response.status();
        let body: Value = response.json().await.map_err(broken())?;
        if status.is_success() {
            return Ok((status, body));
        }
        Err(Failure::new(format!("{status}: {}", body.get("detail").and_then(Value::as_str).unwrap_or_default())))
    }

    /// A token that holds for a while yet.
    async fn token(&mut self) -> Result<String, Failure> {
        if let Some((token, since)) = &self.token
            && since.elapsed() < SIGN_IN_EVERY
        {
            return Ok(token.clone());
        }
        let body = json!({ "email": format!("eval-{}@example.com", self.set.name), "password": PASSWORD });
        let answer = match self.send(self.client.post(self.path("/auth/login")).json(&body)).await {
            Ok((_, answer)) => answer,
            Err(_) => self.send(self.client.post(self.path("/auth/register")).json(&body)).await?.1,
        };
        let token = answer.get("access_token").and_then(Value::as_str);
        let token = token.ok_or_else(|| Failure::new("signing in gave no token"))?.to_owned();
        self.token = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    /// Sends all documents; those that are there already cost a few milliseconds each.
    async fn ingest(&mut self) -> Result<(), Failure> {
        let bar = bar(self.set.documents.len(), &format!("{} documents", self.set.name));
        for documents in self.set.documents.chunks(100) {
            let token = self.token().await?;
            let mut sending = stream::iter(documents)
                .map(|document| self.ingest_one(&token, document))
                .buffer_unordered(SENT_AT_ONCE);
            while let Some(sent) = sending.next().await {
                sent?;
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn ingest_one(&self, token: &str, document: &Value) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            let sent = self.send(self.client.post(self.path("/documents")).bearer_auth(token).json(document)).await;
            match sent {
                Ok((StatusCode::OK | StatusCode::CREATED, _)) => return Ok(()),
                Err(failure) if attempt >= ATTEMPTS_MAX => return Err(failure),
                // Not complete yet, or a store is busy.
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
            attempt += 1;
        }
    }
}

/// A stack of our own, whose data stay for the next time.
struct Stack {
    child: Child,
    url: String,
}

impl Stack {
    fn start() -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(Failure::because("this program has no path"))?;
        let child = Command::new(own)
            .args(["up", "--quiet", "--port", "0"])
            .env("LOCKSTEP_DATA_DIR", settings::data_dir().join("eval"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(Failure::because("the stack can not be started"))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(Failure::because("the stack says nothing"))?;
        }
        match line.split_whitespace().nth(1) {
            Some(url) => Ok(Self { url: url.to_owned(), child }),
            None => Err(Failure::new("the stack did not start; what it said stands above")),
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        process::signal(self.child.id(), Signal::Term);
        self.child.wait().ok();
    }
}

fn bar(length: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64).with_message(what.to_owned());
    match ProgressStyle::with_template("{msg:28} {wide_bar} {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| set | mode | questions | nDCG@10 | recall@5 | recall@100 | MRR@10 | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|---|",
    );
    for (set, mode, row) in rows {
        write!(
            text,
            "\n| {set} | {mode} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.0} | {:.0} |",
            row.queries, row.ndcg_10, row.recall_5, row.recall_100, row.mrr_10, row.p50_ms, row.p99_ms
        )
        .ok();
    }
    text
}
