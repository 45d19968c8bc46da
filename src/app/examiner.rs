//! Has evidence gathered and saved, and tells the core where it is.

use crate::core::{Case, Event, Generation};
use crate::gateway::incident::{self, Subject, Surroundings};
use crate::host::clock;
use crate::store::incidents;
use std::path::PathBuf;
use tokio::sync::mpsc::Sender;

/// Looks at gateways that hang.
#[derive(Debug, Clone)]
pub struct Examiner {
    /// Where the files go.
    pub store_dir: PathBuf,
    /// What else there is to look at.
    pub surroundings: Surroundings,
}

impl Examiner {
    /// Gathers and saves in the background, then sends `Examined`.
    pub(super) fn examine(&self, generation: Generation, subject: Subject, case: Box<Case>, events: &Sender<Event>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let stamp = clock::stamp();
            let found = incident::gather(subject, &case, this.surroundings, stamp.clone()).await;
            let text = format!("{found:#}\n");
            let saving = move || incidents::save(&this.store_dir, &stamp, text.as_bytes());
            let saved = tokio::task::spawn_blocking(saving).await.map_err(std::io::Error::from).flatten();
            let evidence = match saved {
                Ok(path) => Some(path.display().to_string()),
                Err(error) => {
                    tracing::warn!("cannot save what was found of the gateway that hangs: {error}");
                    None
                }
            };
            // A closed channel means that the loop has ended and nobody waits for the answer.
            let _closed = events.send(Event::Examined { generation, evidence }).await;
        });
    }
}
