//! Where clients are served: while the lease is ours, and in standby.

use super::input::Input;
use super::reporter::Reporter;
use crate::host::control::{BoundSocket, Broadcast, Control, Facts, IsInside, SocketFile};
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

    /// Tells which processes are of what is supervised.
    pub(super) fn is_inside(&self) -> IsInside {
        Arc::clone(&self.is_inside)
    }

    /// Makes it, and blocks on its file system: the result is for [`ControlServer::serve`]. To be called once the lease is
    /// ours, the socket of a predecessor is replaced; and again when ours is missing, or in a store directory that was put into
    /// the place of ours.
    pub(super) fn owner(&mut self) -> impl FnOnce() -> io::Result<BoundSocket> + Send + use<> {
        let (before, store_dir) = (self.close(), self.facts.store_dir.clone());
        move || {
            if let Some(file) = before {
                // First: the next file may get the same inode number, and the task that serves this one ends later.
                file.remove();
            }
            BoundSocket::of_owner(&store_dir)
        }
    }

    /// The same for a supervisor without the lease; `None` if one is open.
    pub(super) fn standby(&self) -> Option<impl FnOnce() -> io::Result<BoundSocket> + Send + use<>> {
        let store_dir = self.facts.store_dir.clone();
        self.serving.is_none().then_some(move || BoundSocket::of_standby(&store_dir))
    }

    /// The same again; `None` if none was made yet.
    pub(super) fn standby_again(&mut self) -> Option<impl FnOnce() -> io::Result<BoundSocket> + Send + use<>> {
        let is_known = self.serving.is_some() || self.trouble.is_some();
        let (before, store_dir) = (self.close(), self.facts.store_dir.clone());
        is_known.then_some(move || {
            drop(before);
            BoundSocket::of_standby(&store_dir)
        })
    }

    fn close(&mut self) -> Option<Arc<SocketFile>> {
        let (file, task) = self.serving.take()?;
        task.abort();
        Some(file)
    }

    /// Serves clients there from now on.
    pub(super) fn serve(&mut self, socket: io::Result<BoundSocket>, reporter: &Reporter) {
        // Another one may have been made meanwhile.
        self.close();
        let error = match socket.and_then(Control::on) {
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
