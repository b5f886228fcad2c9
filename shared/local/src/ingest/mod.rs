//! `lockstep ingest PATH...`: sends the files below some folders, and the objects in some buckets, to a running service, over its HTTP API alone.
//!
//! A map: [`files`] finds them, [`client`] speaks to the service, [`report`] shows how it goes and what became of each.
//! Run again, it goes on: what stands there with a file's hash is not sent, and what was on its way has a key made of its
//! name and content, which the service takes up where it broke off.

mod client;
mod files;
mod report;

use std::{path::PathBuf, sync::Arc};

use futures::{StreamExt, stream};
use shared::{config::ObjectsConfig, objects::s3::S3};

use self::{
    client::Client,
    report::{Became, Report},
};
use crate::{failure::Failure, settings};

/// Files that are on their way at the same time: enough to hide the waiting, and no flood.
pub const PARALLEL: usize = 4;

/// What is to be sent, and where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Files, folders, and `s3://bucket/prefix`.
    pub paths: Vec<PathBuf>,
    /// The service.
    pub url: String,
    /// An access token or API key; `None`: the demo's account signs in.
    pub token: Option<String>,
    /// The knowledge base; `None` stands for the personal one.
    pub knowledge_base: Option<String>,
    /// Files at the same time.
    pub parallel: usize,
    /// One JSON object on standard output instead of a table.
    pub json: bool,
}

/// Sends everything and says what became of it. False when a file has failed.
///
/// # Errors
/// When there is nothing to send, or nobody to send it to.
pub fn run(options: &Options) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::because("the runtime can not start"))?.block_on(send_all(options))
}

async fn send_all(options: &Options) -> Result<bool, Failure> {
    let s3 = Arc::new(S3::new(&buckets()));
    let files = files::all(&options.paths, &s3).await?;
    let client = &Client::connect(options, s3).await?;
    let report = &Report::new(&files);
    let work = files.iter().map(async |file| {
        let became = client.send(file).await;
        report.note(file, became);
    });
    stream::iter(work).buffer_unordered(options.parallel.max(1)).collect::<()>().await;
    report.finish();
    print!("{}", if options.json { report.json() } else { report.table() });
    Ok(report.count(Became::is_failed) == 0)
}

/// Where buckets are: AWS, with the credentials that its own tools would use, unless the variables of the functions say otherwise.
fn buckets() -> ObjectsConfig {
    let defaults = ObjectsConfig::default();
    let key = settings::var("S3_ACCESS_KEY_ID").zip(settings::var("S3_SECRET_ACCESS_KEY"));
    ObjectsConfig {
        endpoint: settings::var("S3_ENDPOINT"),
        region: settings::var("S3_REGION").or_else(|| settings::var("AWS_REGION")).unwrap_or(defaults.region),
        credentials: key.map(|(id, secret)| (id, secret.into())),
        ..ObjectsConfig::default()
    }
}
