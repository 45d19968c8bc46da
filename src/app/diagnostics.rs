//! Has evidence gathered and saved, and tells the core where it is.

use super::input::Input;
use crate::core::{Event, Generation, HangContext};
use crate::gateway::incident::{self, HungGateway, Surroundings};
use crate::host::clock;
use crate::store::incidents;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the disk may take. With what the gathering may take it is less than what the core waits.
const SAVE_TIME_MAX: Duration = Duration::from_millis(1500);

/// Looks at gateways that hang.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    /// Where the files go.
    pub store_dir: PathBuf,
    /// What else there is to look at.
    pub surroundings: Surroundings,
}

impl Diagnostics {
    /// Gathers and saves in the background, then sends `Examined`.
    pub(super) fn examine(
        &self,
        generation: Generation,
        subject: HungGateway,
        case: Box<HangContext>,
        inputs: &Sender<Input>,
    ) {
        let (this, inputs) = (self.clone(), inputs.clone());
        tokio::spawn(async move {
            let stamp = clock::stamp();
            let (found, conclusion) = incident::gather(subject, &case, this.surroundings, stamp.clone()).await;
            let evidence = match save(this.store_dir, stamp, format!("{found:#}\n")).await {
                Ok(path) => Some(path.display().to_string()),
                Err(error) => {
                    tracing::warn!("cannot save what was found of the gateway: {error}");
                    None
                }
            };
            let examined = Event::Examined { generation, evidence, conclusion: Some(conclusion) };
            // A closed channel means that the loop has ended and needs no answer.
            let _closed = inputs.send(examined.into()).await;
        });
    }
}

/// On a thread of its own. Those of the runtime are waited for at its end, however long a disk takes; and where a limit
/// of processes allows no more of them, which may be why the gateway hangs, it panics.
async fn save(store_dir: PathBuf, stamp: String, text: String) -> io::Result<PathBuf> {
    let (done, saved) = oneshot::channel();
    let saving = move || {
        // The core does not wait for one that took too long.
        let _late = done.send(incidents::save(&store_dir, &stamp, text.as_bytes()));
    };
    let _detached = thread::Builder::new().name("incident".to_owned()).spawn(saving)?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the disk of the store directory does not take it in time");
    timeout(SAVE_TIME_MAX, saved).await.ok().and_then(Result::ok).unwrap_or_else(|| Err(late()))
}
