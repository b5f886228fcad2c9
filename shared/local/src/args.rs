//! The command line.

use ingest::reindex;
use lexopt::{Arg, Parser, ValueExt};

use crate::{bench, eval, failure::Failure, ingest as bulk, settings};

/// What `lockstep --help` says.
pub const USAGE: &str = "\
Lockstep on one machine.

usage: lockstep up [options]
       lockstep reindex [--next | --status | --rollback | --finish | --cancel]
       lockstep eval [options] DATASET...
       lockstep soak [--minutes N] [--seed N]
       lockstep bench [--only PART] [--documents N] [FIGURES.json...]
       lockstep bench-audit [--points N]
       lockstep bench-large [--megabytes N]
       lockstep ingest PATH... [options]
       lockstep signing-key FOLDER
       lockstep openapi CHECKOUT

up: the whole stack

  --port N      the gateway's port on 127.0.0.1 (default: $PORT, else 8080; 0: any free one)
  --no-demo     start with no account and no documents
  --quiet       no demo, and nothing on standard output but one line with the URL
  --minutes N   how long random schedules are tried (default: 20)
  --points N    how many points are audited (default: 1,000,000)
  --documents N how many documents there are when the last ones are measured (default: 100,000)
  --only PART   measure questions, ingestion, growth or login alone, and keep no figures
  --megabytes N how long a text is ingested in pieces (default: 100)
  --seed N      what the first one is drawn from (default: a random number)
  --log FORMAT  text (default) or json; also $LOCKSTEP_LOG. What is logged: $RUST_LOG

  openapi       write docs/contracts of a checkout anew, from the handlers
  signing-key   make the two halves of a signing key for an installation elsewhere
  reindex       build Qdrant's collection anew from PostgreSQL, while the stack runs or not
  --next        the same for the other model (EMBEDDING_NEXT_URL and so on, or EMBEDDING_NEXT_MODEL_DIR)
  --status      say how the collections stand
  --rollback    go back to the collection that was live before
  --finish      drop the collection that is kept for a rollback
  --cancel      give up what is being built

eval: how well questions find their documents (docs.jsonl, queries.jsonl, qrels.jsonl in each DATASET)
  --url URL        ask this stack instead of one of its own, whose data stay in LOCKSTEP_DATA_DIR/eval
  --skip-ingest    the documents are there
  --queries N      at most N questions of each set
  --half 0|1       every second question: tune on one half, report the other
  --json FILE      the figures as JSON

ingest: sends files, folders with all below them, and s3://bucket/prefix, to a running stack or service; run again, it goes
        on

  --url URL     the service (default: $LOCKSTEP_URL, else http://127.0.0.1:8080)
  --knowledge-base ID   where to (default: the personal one)
  --parallel N  files at the same time (default: 4)
  --json        what became of each file, as JSON on standard output

environment
  LOCKSTEP_TOKEN       for ingest: an access token or API key (default: the demo's account signs in)
  LOCKSTEP_DATA_DIR    where everything is kept (default: .lockstep in the checkout)
  LOCKSTEP_CACHE_DIR   where what is built or fetched once is kept (default: ~/.cache/lockstep)
  DATABASE_URL         use this PostgreSQL instead of a private one
  QDRANT_URL           use this Qdrant (gRPC) instead of a private one
  EMBEDDING_URL        use this OpenAI-compatible endpoint instead of the model in this process; with
                       EMBEDDING_MODEL, EMBEDDING_DIMENSION and, if it wants one, EMBEDDING_API_KEY
  POSTGRES_BIN, LOCAL_QDRANT_BIN, EMBEDDING_MODEL_DIR   use these programs and this model";

/// The gateway's port where nothing else is said.
const PORT: u16 = 8080;

/// How long schedules are tried where nothing else is said.
const MINUTES: u64 = 20;

/// Points that are audited where nothing else is said.
const POINTS: u32 = 1_000_000;

/// How long a text is ingested unless told: what the service promises to take.
const MEGABYTES: usize = 100;

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// The whole stack.
    Up(Options),
    /// Something about Qdrant's collections.
    Reindex(reindex::Command),
    /// Measuring retrieval.
    Eval(eval::Options),
    /// Random schedules.
    Soak {
        /// For how long.
        minutes: u64,
        /// What the first one is drawn from; `None`: from a random number.
        seed: Option<u64>,
    },
    /// What the service adds to the work itself.
    Bench(bench::Options),
    /// Measures the audit.
    BenchAudit {
        /// So many points.
        points: u32,
    },
    /// Measures the ingestion of a long text.
    BenchLarge {
        /// Of so many megabytes.
        megabytes: usize,
    },
    /// Makes a signing key for an installation elsewhere.
    SigningKey {
        /// Where it is written.
        folder: std::path::PathBuf,
    },
    /// Writes the API's contract.
    Contract {
        /// The checkout.
        root: std::path::PathBuf,
    },
    /// Sending files.
    Ingest(bulk::Options),
    /// [`USAGE`].
    Help,
}

/// How the stack runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// The gateway's port; 0 for any that is free.
    pub port: u16,
    /// Whether to make the demo's account and documents.
    pub demo: bool,
    /// Whether to say no more than the URL.
    pub quiet: bool,
    /// Whether to log JSON.
    pub json: bool,
}

/// Reads the command line.
///
/// # Errors
/// When a word is not understood; the sentence names it.
pub fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Command, Failure> {
    let wrong = |error: lexopt::Error| Failure::new(format!("{error}; `lockstep --help` lists what there is"));
    let mut parser = Parser::from_args(words);
    let port = settings::var("PORT").map(|text| text.parse().map_err(Failure::because(format!("PORT={text}"))));
    let json = settings::var("LOCKSTEP_LOG").is_some_and(|format| format == "json");
    let mut options = Options { port: port.transpose()?.unwrap_or(PORT), demo: true, quiet: false, json };
    if let Some("ingest") =
        parser.try_raw_args().and_then(|raw| raw.peek().and_then(|word| word.to_str().map(str::to_owned))).as_deref()
    {
        return parse_ingest(parser).map_err(wrong);
    }
    let (mut command, mut collections) = (None, None);
    let (mut minutes, mut seed, mut points, mut megabytes) = (MINUTES, None, POINTS, MEGABYTES);
    while let Some(word) = parser.next().map_err(wrong)? {
        match word {
            Arg::Value(word)
                if command.is_none()
                    && ["up", "soak", "bench-audit", "bench-large"].iter().any(|name| word == *name) =>
            {
                command = Some(word);
            }
            Arg::Value(word) if word == "signing-key" && command.is_none() => {
                let folder = parser.value().map_err(wrong)?.into();
                return Ok(Command::SigningKey { folder });
            }
            Arg::Value(word) if word == "openapi" && command.is_none() => {
                let root = parser.value().map_err(wrong)?.into();
                return Ok(Command::Contract { root });
            }
            Arg::Value(word) if word == "bench" && command.is_none() => {
                return bench_options(parser).map(Command::Bench);
            }
            Arg::Value(word) if word == "reindex" && command.is_none() => collections = Some(reindex::Command::Start),
            Arg::Long(word) if collections == Some(reindex::Command::Start) => {
                collections = Some(match word {
                    "next" => reindex::Command::StartNext,
                    "status" => reindex::Command::Status,
                    "rollback" => reindex::Command::Rollback,
                    "finish" => reindex::Command::Finish,
                    "cancel" => reindex::Command::Cancel,
                    "help" => return Ok(Command::Help),
                    _ => {
                        return Err(Failure::new(format!(
                            "reindex has no option --{word}; `lockstep --help` lists what there is"
                        )));
                    }
                });
            }
            Arg::Value(word) if word == "eval" && command.is_none() => return eval_options(parser).map(Command::Eval),
            Arg::Long("port") => options.port = parser.value().and_then(|value| value.parse()).map_err(wrong)?,
            Arg::Long("no-demo") => options.demo = false,
            Arg::Long("quiet") => (options.quiet, options.demo) = (true, false),
            Arg::Long("log") => match parser.value().map_err(wrong)?.to_str() {
                Some("json") => options.json = true,
                Some("text") => options.json = false,
                _ => return Err(Failure::new("--log takes `text` or `json`")),
            },
            Arg::Long("minutes") => minutes = parser.value().and_then(|value| value.parse()).map_err(wrong)?,
            Arg::Long("seed") => seed = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?),
            Arg::Long("points") => points = parser.value().and_then(|value| value.parse()).map_err(wrong)?,
            Arg::Long("megabytes") => megabytes = parser.value().and_then(|value| value.parse()).map_err(wrong)?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(match (collections, command.as_deref().and_then(std::ffi::OsStr::to_str)) {
        (Some(collections), _) => Command::Reindex(collections),
        (None, Some("up")) => Command::Up(options),
        (None, Some("soak")) => Command::Soak { minutes, seed },
        (None, Some("bench-audit")) => Command::BenchAudit { points },
        (None, Some("bench-large")) => Command::BenchLarge { megabytes },
        (None, _) => Command::Help,
    })
}

/// What stands behind `bench`.
fn bench_options(mut parser: Parser) -> Result<bench::Options, Failure> {
    let wrong = |error: lexopt::Error| Failure::new(format!("{error}; `lockstep --help` lists what there is"));
    let mut options = bench::Options::default();
    while let Some(word) = parser.next().map_err(wrong)? {
        match word {
            Arg::Value(file) => options.others.push(file.into()),
            Arg::Long("documents") => {
                options.documents = parser.value().and_then(|value| value.parse()).map_err(wrong)?;
            }
            Arg::Long("only") => options.only = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(options)
}

/// What stands behind `eval`.
fn eval_options(mut parser: Parser) -> Result<eval::Options, Failure> {
    let wrong = |error: lexopt::Error| Failure::new(format!("{error}; `lockstep --help` lists what there is"));
    let mut options = eval::Options::default();
    while let Some(word) = parser.next().map_err(wrong)? {
        match word {
            Arg::Value(dir) => options.sets.push(dir.into()),
            Arg::Long("url") => options.url = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?),
            Arg::Long("skip-ingest") => options.skip_ingest = true,
            Arg::Long("queries") => {
                options.queries_max = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?);
            }
            Arg::Long("half") => options.half = Some(parser.value().and_then(|value| value.parse()).map_err(wrong)?),
            Arg::Long("json") => options.json = Some(parser.value().map_err(wrong)?.into()),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(options)
}

/// Reads what follows `ingest`.
fn parse_ingest(mut parser: Parser) -> Result<Command, lexopt::Error> {
    let url = settings::var("LOCKSTEP_URL").unwrap_or_else(|| format!("http://127.0.0.1:{PORT}"));
    let token = settings::var("LOCKSTEP_TOKEN");
    let mut options =
        bulk::Options { paths: Vec::new(), url, token, knowledge_base: None, parallel: bulk::PARALLEL, json: false };
    // The command's own name.
    parser.next()?;
    while let Some(word) = parser.next()? {
        match word {
            Arg::Value(path) => options.paths.push(path.into()),
            Arg::Long("url") => options.url = parser.value()?.string()?,
            Arg::Long("knowledge-base") => options.knowledge_base = Some(parser.value()?.string()?),
            Arg::Long("parallel") => options.parallel = parser.value()?.parse()?,
            Arg::Long("json") => options.json = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            other => return Err(other.unexpected()),
        }
    }
    if options.paths.is_empty() { Err("`ingest` wants files or folders".into()) } else { Ok(Command::Ingest(options)) }
}
