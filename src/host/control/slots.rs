//! Slots for clients. Where all are taken, the one that has been there longest gives way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many clients of one kind are served at a time.
pub const CLIENTS_MAX: usize = 8;
const CLIENTS: u32 = 8;

#[derive(Debug, Clone)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// In the order of their arrival.
    taken: Arc<Mutex<VecDeque<Client>>>,
}

#[derive(Debug, Clone)]
struct Client {
    leave: Arc<Notify>,
    /// Whether it waits for an outcome: others give way first.
    is_busy: bool,
}

impl Default for Slots {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(CLIENTS_MAX)), taken: Arc::default() }
    }
}

impl Slots {
    /// A slot. If none is free within `patience`, a client gives way: an idle one, or else the oldest.
    pub(super) async fn enter(&self, is_busy: bool, patience: Duration) -> Slot {
        let acquire = || Arc::clone(&self.free).acquire_owned();
        let permit = if let Ok(permit) = timeout(patience, acquire()).await {
            permit
        } else {
            self.dismiss();
            acquire().await
        };
        let leave = Arc::new(Notify::new());
        self.lock().push_back(Client { leave: Arc::clone(&leave), is_busy });
        Slot { slots: self.clone(), leave, _permit: permit.ok() }
    }

    fn dismiss(&self) {
        let mut taken = self.lock();
        let first_idle = taken.iter().position(|client| !client.is_busy).unwrap_or(0);
        if let Some(client) = taken.remove(first_idle) {
            client.leave.notify_one();
        }
    }

    /// Waits until all have left.
    pub(super) async fn emptied(&self) {
        let _all = self.free.acquire_many(CLIENTS).await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Client>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Free again when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    leave: Arc<Notify>,
    /// The semaphore is never closed, so it is there.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slot {
    /// Returns when this client has to give way.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().retain(|client| !Arc::ptr_eq(&client.leave, &self.leave));
    }
}
