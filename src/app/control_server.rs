//! Where clients are served: while the lease is ours, and in standby.

use super::input::Input;
use super::reporter::Reporter;
use crate::host::control::{Broadcast, Control, Facts, IsInside, SocketFile};
use std::io;
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
    serving: Option<(Arc<SocketFile>, JoinHandle<()>)>,
    /// What was warned of last: a socket that cannot be made is tried again.
    trouble: Option<String>,
}

impl ControlServer {
    /// Closed yet.
    #[must_use]
    pub fn new(facts: Facts, is_inside: IsInside, inputs: Sender<Input>) -> Self {
        Self { facts, is_inside, inputs, broadcast: Broadcast::default(), serving: None, trouble: None }
    }

    /// Opens it. To be called once the lease is ours, the socket of a predecessor is replaced; and again when ours is
    /// missing, or in a store directory that was put into the place of ours.
    pub(super) fn open(&mut self, reporter: &Reporter) {
        if let Some((file, task)) = self.serving.take() {
            // At once: the next file may get the same inode number, and the task ends later.
            file.remove();
            task.abort();
        }
        self.serve(Control::bind(&self.facts.store_dir), reporter);
    }

    /// Opens that of a supervisor without the lease, if none is open.
    pub(super) fn open_standby(&mut self, reporter: &Reporter) {
        if self.serving.is_none() {
            self.serve(Control::bind_standby(&self.facts.store_dir), reporter);
        }
    }

    fn serve(&mut self, control: io::Result<Control>, reporter: &Reporter) {
        let error = match control {
            Ok(control) => {
                let control = control.joining(self.broadcast.clone());
                reporter.open(control.broadcast());
                let (file, is_inside) = (control.file(), Arc::clone(&self.is_inside));
                let task = tokio::spawn(control.serve(self.inputs.clone(), self.facts.clone(), is_inside));
                self.serving = Some((file, task));
                self.trouble = None;
                return;
            }
            Err(error) => error.to_string(),
        };
        if self.trouble.as_ref() != Some(&error) {
            let folder = self.facts.store_dir.display();
            tracing::warn!(
                "cannot make the control socket in {folder}: {error}; 'status', 'restart', 'stop' and 'retry-now' \
                 cannot reach this supervisor, signals do"
            );
            self.trouble = Some(error);
        }
    }
}
