//! Where clients are served: open while the lease is ours.

use super::input::Input;
use super::reporter::Reporter;
use crate::host::control::{Broadcast, Control, Facts, IsInside};
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// The control socket, as long as it is wanted.
pub struct ControlServer {
    facts: Facts,
    is_inside: IsInside,
    inputs: Sender<Input>,
    /// Clients of a socket that was replaced hear on.
    broadcast: Broadcast,
    serving: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Closed yet.
    #[must_use]
    pub fn new(facts: Facts, is_inside: IsInside, inputs: Sender<Input>) -> Self {
        Self { facts, is_inside, inputs, broadcast: Broadcast::default(), serving: None }
    }

    /// Opens it. To be called once the lease is ours, the socket of a predecessor is replaced; and again in a store
    /// folder that was put into the place of ours.
    pub(super) fn open(&mut self, reporter: &Reporter) {
        if let Some(before) = self.serving.take() {
            before.abort();
        }
        match Control::bind(&self.facts.store_dir) {
            Ok(control) => {
                let control = control.joining(self.broadcast.clone());
                reporter.open(control.broadcast());
                self.serving = Some(tokio::spawn(control.serve(
                    self.inputs.clone(),
                    self.facts.clone(),
                    Arc::clone(&self.is_inside),
                )));
            }
            Err(error) => {
                let folder = self.facts.store_dir.display();
                tracing::warn!(
                    "cannot make the control socket in {folder}: {error}; 'status', 'restart', 'stop' and 'retry-now' \
                     cannot reach this supervisor, signals do"
                );
            }
        }
    }
}
