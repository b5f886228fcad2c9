//! What is drawn is done, and each answer is looked at.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use shared::domain::DocumentId;
use tokio::time::{error::Elapsed, timeout};

use super::{
    ledger::{self, Witness},
    plan::{Action, PROCESSES, SHELVES},
    record::{Acknowledged, Record, Request},
    text::Text,
    world::{DUE, EXPIRE, PATIENT, World},
};
use crate::testkit::Reply;

/// The pause before a request that had no last word is sent again.
const AGAIN: Duration = Duration::from_millis(150);

/// More hits than the documents of one tenant have chunks.
const HITS_MAX: usize = 100;

/// No request takes so long, whatever befalls it.
const ANSWER_MAX: Duration = Duration::from_mins(2);

/// One who acts.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) world: Arc<World>,
    pub(super) record: Arc<Record>,
    pub(super) name: String,
}

/// What a writer was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Nothing more will be said.
    LastWord,
    /// The same request may come again.
    Again,
}

impl Actor {
    /// Waits for work, and notes a panic in it as a violation: the history belongs to it.
    pub(super) async fn guard(&self, work: tokio::task::JoinHandle<()>) {
        let Err(error) = work.await else { return };
        let panic = error.into_panic();
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        self.record.violation(&self.name, said);
    }

    /// Does it.
    pub(super) async fn act(&self, action: &Action) {
        match action {
            Action::Write { text, key, via, attempts } => self.write(text, key.as_deref(), *via, *attempts).await,
            Action::Again { key, via } => {
                let request = self.record.memory().requests.get(key).cloned();
                if let Some(request) = request {
                    self.send(&request, Some(key), *via).await;
                }
            }
            Action::Delete { slot, via } => self.delete(*slot, *via).await,
            Action::Retry { slot, via } => self.retry(*slot, *via).await,
            Action::Query { tenant, shelf, mode } => self.query(*tenant, *shelf, mode).await,
            Action::Sweep => {
                let reply = self.call(PATIENT, 0, "/sweep", None, &json!({})).await;
                self.expect("sweep", reply.as_ref(), &[(200, ""), (409, "lease_lost")]);
            }
            Action::Verify { shelf, via } => {
                let tenant = SHELVES.get(*shelf).copied().unwrap_or_default();
                let body = json!({ "knowledge_base": self.world.shelf(*shelf) });
                let reply = self.call(*via, tenant, "/consistency/verify", None, &body).await;
                let expected = [(200, ""), (202, ""), (409, "audit_running"), (409, "lease_lost")];
                self.expect("verify", reply.as_ref(), &expected);
            }
            Action::Kill { process, next } => {
                self.record.note(&self.name, &format!("kills process {process}; the next dies at {next:?}"));
                self.record.count("kill -9");
                match next {
                    Some((point, pass)) => self.world.replace(*process, &[point, &pass.to_string()]).await,
                    None => self.world.replace(*process, &[]).await,
                }
            }
            Action::Fault { call, fault, times } => {
                self.record.note(&self.name, &format!("{call:?} {fault:?} x {times}"));
                self.record.count("Qdrant fault");
                self.world.qdrant.fault(*call, *fault, *times);
            }
            Action::Deliver => {
                let delivered = self.world.qdrant.deliver_what_arrives().await;
                self.record.note(&self.name, &format!("{delivered} late writes arrive"));
            }
            Action::Cut { statement, cut } => {
                self.record.note(&self.name, &format!("{cut:?} of {statement}"));
                self.record.count("COMMIT cut");
                self.world.postgres.cut(statement, *cut);
            }
            Action::Expire => {
                let done = self.world.execute(EXPIRE).await;
                self.record.note(&self.name, &format!("all leases run out: {done}"));
            }
            Action::Due => {
                let done = self.world.execute(DUE).await;
                self.record.note(&self.name, &format!("all retired points are due: {done}"));
            }
            Action::Stores => {
                self.record.note(&self.name, "kills both stores");
                self.world.kill_stores().await;
                self.record.note(&self.name, "both stores are back");
                self.record.count("kill -9 of both stores");
            }
        }
    }

    async fn write(&self, text: &Text, key: Option<&str>, via: usize, attempts: u32) {
        let (_, shelf, name) = self.world.slot(text.slot);
        let text_body = text.body();
        let hash = self.world.texts.note(&text_body);
        let body = json!({
            "text": text_body, "media_type": "text/plain", "source_uri": name, "knowledge_base": shelf,
        });
        let request = Request { slot: text.slot, body, last_word: None };
        if let Some(key) = key {
            self.record.memory().requests.insert(key.to_owned(), request.clone());
        } else {
            self.record.memory().keyless.insert(hash);
        }
        for attempt in 0..attempts as usize {
            if self.send(&request, key, via + attempt).await == Told::LastWord {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.record.count("writers who gave up");
    }

    /// Sends a document once, and keeps what is said.
    pub(super) async fn send(&self, request: &Request, key: Option<&str>, via: usize) -> Told {
        let (tenant, _, name) = self.world.slot(request.slot);
        let text = request.body["text"].as_str().unwrap_or_default();
        let content_hash = super::text::hash(text);
        let what = format!("sends {}/{name} {:.8} under {key:?}", request.slot, content_hash);
        let Some(reply) = self.call(via, tenant, "/documents", key, &request.body).await else {
            self.record.note(&self.name, &format!("{what}: the process died"));
            return Told::Again;
        };
        let (status, code) = (reply.status.as_u16(), code(&reply).to_owned());
        let answer = match status {
            200..=202 => format!(
                "{} revision {} {}",
                reply.json["id"], reply.json["revision"], reply.json["ingestion"]["revision"]
            ),
            _ => code.clone(),
        };
        self.record.note(
            &self.name,
            &format!("{what} via {}: {status} {answer} {}", via % PROCESSES, reply.header("idempotency-replayed")),
        );
        match (status, code.as_str()) {
            (200 | 201, _) => {
                self.acknowledged(&reply, Some(&content_hash), true);
                if let Some(key) = key {
                    self.last_word(key, &reply).await;
                }
                Told::LastWord
            }
            (202, _) => {
                self.acknowledged(&reply, Some(&content_hash), false);
                Told::Again
            }
            (409, "superseded") => {
                if let Some(key) = key {
                    self.last_word(key, &reply).await;
                }
                Told::LastWord
            }
            (409, "document_busy" | "idempotency_key_in_flight" | "lease_lost") | (503, _) => Told::Again,
            _ => {
                self.record
                    .violation(&self.name, &format!("P3: an answer that nothing explains: {status} {}", reply.json));
                Told::LastWord
            }
        }
    }

    /// Compares the last word with what was said before under this key, and keeps it.
    async fn last_word(&self, key: &str, reply: &Reply) {
        let said = (reply.status.as_u16(), reply.bytes.clone());
        let before = {
            let mut memory = self.record.memory();
            let Some(request) = memory.requests.get_mut(key) else { return };
            request.last_word.replace(said.clone())
        };
        let Some(before) = before else { return };
        self.record.count("replays");
        if before == said {
            return;
        }
        // The answer shows a document, and goes with it; then the same request is refused for good.
        let shown = serde_json::from_slice::<Value>(&before.1).unwrap_or_default();
        let document = shown["id"].as_str().and_then(|id| id.parse::<DocumentId>().ok());
        let refused = said.0 == 409;
        let gone = match document {
            Some(document) => ledger::read(&self.world.app.app.db)
                .await
                .ok()
                .map(|entries| entries.iter().any(|entry| entry.document == document && entry.revision.is_none())),
            // A refusal is made anew when its document is gone, with another request's id.
            None => Some(before.0 == 409),
        };
        if !refused || gone == Some(false) {
            let (was, is) = (String::from_utf8_lossy(&before.1), String::from_utf8_lossy(&said.1));
            self.record
                .violation(&self.name, &format!("P3: {key} was told {} {was}, and then {} {is}", before.0, said.0));
        }
    }

    /// Keeps a success, to be found true in the end.
    fn acknowledged(&self, reply: &Reply, content_hash: Option<&str>, active: bool) {
        let number = if active { &reply.json["revision"] } else { &reply.json["ingestion"]["revision"] };
        let revision = number.as_i64().and_then(|number| i32::try_from(number).ok());
        let document = reply.json["id"].as_str().and_then(|id| id.parse().ok());
        let (Some(revision), Some(document)) = (revision, document) else {
            self.record.violation(&self.name, &format!("P3: a success that names no revision: {}", reply.json));
            return;
        };
        self.record.count(if active { "active" } else { "accepted" });
        let content_hash = content_hash.map(str::to_owned);
        self.record.memory().acknowledged.push(Acknowledged { document, revision, active, content_hash });
    }

    async fn delete(&self, slot: usize, via: usize) {
        let Some((tenant, document)) = self.find(slot).await else { return };
        let caller = self.world.caller(via, tenant);
        let path = format!("/documents/{document}");
        let answer = timeout(ANSWER_MAX, caller.delete(&path)).await;
        let reply = self.answer(answer, via).await;
        let status = self.expect("delete", reply.as_ref(), &[(204, ""), (404, "not_found")]);
        self.record.note(&self.name, &format!("deletes {document}: {status}"));
        if status == 204 {
            self.record.memory().deleted.push(document);
        }
    }

    async fn retry(&self, slot: usize, via: usize) {
        let Some((tenant, document)) = self.find(slot).await else { return };
        let reply = self.call(via, tenant, &format!("/documents/{document}/retry"), None, &json!({})).await;
        let codes = ["document_busy", "not_resumable", "lease_lost", "superseded"].map(|code| (409, code));
        let mut expected = vec![(200, ""), (202, ""), (404, "not_found")];
        expected.extend(codes);
        let status = self.expect("retry", reply.as_ref(), &expected);
        self.record.note(&self.name, &format!("retries {document}: {status}"));
        if let (200 | 202, Some(reply)) = (status, reply) {
            self.acknowledged(&reply, None, status == 200);
        }
    }

    /// Who may see the document of a slot, and its id, if there is one.
    async fn find(&self, slot: usize) -> Option<(usize, DocumentId)> {
        let (tenant, shelf, name) = self.world.slot(slot);
        let token = self.world.app.token(self.world.users.get(tenant)?.id);
        let path = format!("/documents?knowledge_base={shelf}&source_uri={}", name.replace('/', "%2F"));
        let reply = self.world.app.call(Method::GET, &path, Some(&token), None).await;
        self.expect("list", Some(&reply), &[(200, "")]);
        Some((tenant, reply.json["items"].get(0)?["id"].as_str()?.parse().ok()?))
    }

    /// Asks, and compares the answer with what was true at some moment meanwhile.
    pub(super) async fn query(&self, tenant: usize, shelf: Option<usize>, mode: &str) {
        let world = &self.world;
        let scope: Vec<_> = match shelf {
            Some(shelf) => vec![world.shelf(shelf)],
            None => (0..SHELVES.len())
                .filter(|shelf| SHELVES.get(*shelf) == Some(&tenant))
                .map(|n| world.shelf(n))
                .collect(),
        };
        let mut question = json!({
            "query": "What does the edition of the notes say in this paragraph?", "k": HITS_MAX, "mode": mode, "debug": true,
        });
        if shelf.is_some() {
            question["knowledge_bases"] = json!(scope);
        }
        let Ok(before) = ledger::read(&world.app.app.db).await else { return self.record.count("unanswered") };
        let token = world.users.get(tenant).map(|user| world.app.token(user.id));
        let reply = world.app.call(Method::POST, "/query", token.as_deref(), Some(question)).await;
        let Ok(after) = ledger::read(&world.app.app.db).await else { return self.record.count("unanswered") };
        if self.expect("query", Some(&reply), &[(200, "")]) != 200 {
            return self.record.count("unanswered");
        }
        let whole = mode != "sparse";
        let witness =
            Witness { before: &before, after: &after, scope: &scope, whole, hits_max: HITS_MAX, texts: &world.texts };
        self.record.count("queries");
        if whole && !witness.complete(&reply.json) {
            self.record.count("queries that say that they are incomplete");
        }
        if before.len() != after.len() {
            self.record.count("queries during a change");
        }
        for wrong in witness.judge(&reply.json) {
            let ledger: Vec<_> = after.iter().rev().take(8).collect();
            self.record
                .violation(&self.name, &format!("{wrong}\n{}\nthe ledger's end: {ledger:?}", reply.json["debug"]));
        }
    }

    /// Sends JSON to a process; `None` when it died meanwhile.
    async fn call(&self, via: usize, tenant: usize, path: &str, key: Option<&str>, body: &Value) -> Option<Reply> {
        let via = via % PROCESSES;
        let caller = self.world.caller(via, tenant);
        let answer = timeout(ANSWER_MAX, caller.post(path, key, body)).await;
        self.answer(answer, via).await
    }

    async fn answer(&self, answer: Result<reqwest::Result<Reply>, Elapsed>, via: usize) -> Option<Reply> {
        match answer {
            Ok(Ok(reply)) => Some(reply),
            Ok(Err(_)) => {
                self.record.count("unanswered by a process that died");
                self.world.revive(via % PROCESSES).await;
                None
            }
            Err(_) => {
                self.record.violation(&self.name, &format!("process {via} has not answered for {ANSWER_MAX:?}"));
                None
            }
        }
    }

    /// Returns the status (0 when there was no answer), and notes it when it is not one of these nor a store's absence.
    fn expect(&self, what: &str, reply: Option<&Reply>, expected: &[(u16, &str)]) -> u16 {
        let Some(reply) = reply else { return 0 };
        let (status, code) = (reply.status.as_u16(), code(reply));
        if status != 503 && !expected.contains(&(status, code)) {
            self.record
                .violation(&self.name, &format!("{what}: an answer that nothing explains: {status} {}", reply.json));
        }
        if what == "sweep" || what == "verify" {
            self.record.count(format!("{what} {status}"));
        }
        status
    }
}

/// The problem's code; empty when it is none.
fn code(reply: &Reply) -> &str {
    reply.json["code"].as_str().unwrap_or_default()
}
