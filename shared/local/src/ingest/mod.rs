//! `lockstep ingest PATH...`: sends the files below some folders to a running service, over its HTTP API alone.
//!
//! A map: [`files`] finds them, [`client`] speaks to the service, [`report`] shows how it goes and what became of each.
//! Run again, it goes on: what stands there with a file's hash is not sent, and what was on its way has a key made of its
//! name and content, which the service takes up where it broke off.

mod client;
mod files;
mod report;

use std::path::PathBuf;

use futures::{StreamExt, stream};

use self::{
    client::Client,
    report::{Became, Report},
};
use crate::failure::Failure;

/// Files that are on their way at the same time: enough to hide the waiting, and no flood.
pub const PARALLEL: usize = 4;

/// What is to be sent, and where to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Files and folders.
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
    let files = files::below(&options.paths)?;
    let client = &Client::connect(options).await?;
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
