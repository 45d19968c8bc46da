//! One file a verb.

use crate::platform::thread::BlockingCall;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

pub mod ask;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod explain;
pub mod install;
pub mod logs;
pub mod man;
pub mod metrics;
pub mod notify;
mod outcome;
pub mod pause;
pub mod probe;
mod progress;
mod record;
pub mod run;
mod start;
pub mod status;
pub mod terminal;

/// Whether the file system of the store answers in time: no call to one that hangs returns. Unlike a look at the directory,
/// open(2) asks the server of NFS each time.
pub async fn store_answers(dir: &Path, within: Duration) -> bool {
    let dir = dir.to_owned();
    let opened = BlockingCall::default().run(within, move || File::open(dir).is_ok()).await;
    // Without a thread it is not known.
    !opened.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}
