//! The store's side: the lease, the record of each gateway, and what a predecessor's record says.

use crate::core::{Fact, Generation, LeaseRequest, LeftRecord, Settled};
use crate::gateway::process::{self, Gateway, Launch};
use crate::host::clock;
use crate::store::{SpawnIntent, Store};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, TryLockError};
use tokio::task::JoinHandle;

/// Pids and start times.
pub(super) type Members = Vec<(i32, u64)>;

pub(super) struct Records {
    pub(super) store: Store,
    launch: Arc<Launch>,
    /// The youngest gateway that was recorded, and its instance id.
    recorded: (Generation, String),
    /// The record of a predecessor's gateway.
    left: Option<LeftRecord>,
    /// The members of the gateway when they were last recorded.
    members: Arc<Mutex<Members>>,
}

impl Records {
    pub(super) fn new(store: Store, launch: Arc<Launch>) -> Self {
        Self { store, launch, recorded: (0, String::new()), left: None, members: Arc::default() }
    }

    pub(super) fn set_launch(&mut self, launch: Arc<Launch>) {
        self.launch = launch;
    }

    pub(super) fn ask(&self, ticket: u64, ask: LeaseRequest) {
        self.store.ask(ticket, ask, clock::now());
    }

    pub(super) fn enter_lease(&mut self, left: Option<LeftRecord>) {
        self.left = left;
    }

    /// The record of this gateway, if a predecessor started it.
    pub(super) fn left(&self, generation: Generation) -> Option<LeftRecord> {
        self.left.clone().filter(|left| left.generation == generation)
    }

    /// Has the store record that this gateway will be started.
    pub(super) fn begin(&mut self, generation: Generation) {
        self.begin_as(generation, process::new_instance(&self.launch.key));
    }

    fn begin_as(&mut self, generation: Generation, instance: String) {
        self.recorded = (generation, instance.clone());
        self.store.intend(SpawnIntent { generation, instance, command: self.launch.text() });
    }

    /// The instance id of the youngest gateway.
    pub(super) fn instance(&self) -> &str {
        &self.recorded.1
    }

    /// Its process exists, whether or not its execve(2) returns: a successor has to find it.
    pub(super) fn spawned(&self, gateway: &Gateway) {
        let (pid, start_time) = (gateway.pid().unwrap_or(0), gateway.start_time().unwrap_or(0));
        self.store.spawned(gateway.generation(), pid, start_time);
    }

    /// A gateway of a predecessor is kept. One without a record gets one.
    pub(super) fn adopted(&mut self, gateway: &Gateway) {
        let generation = gateway.generation();
        if self.left(generation).is_none() {
            self.begin_as(generation, gateway.instance().to_owned());
        }
        if let (Some(pid), Some(start_time)) = (gateway.pid(), gateway.start_time()) {
            self.store.adopted(generation, pid, start_time);
        }
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact) {
        // Its pre-start hook failed: an attempt that counts for the next supervisor too.
        let is_unknown = self.recorded.0 != generation && self.left(generation).is_none();
        if is_unknown && fact == Fact::Settled(Settled::NeverStarted) {
            self.begin(generation);
        }
        self.store.remember(generation, fact, clock::now());
    }

    /// Has the members of the gateway recorded for a successor, which has to find them.
    pub(super) fn note_members(&self, gateway: &Gateway) -> JoinHandle<()> {
        let generation = gateway.generation();
        let (looked, store, known) = (gateway.members(), self.store.clone(), Arc::clone(&self.members));
        tokio::spawn(async move {
            let Some(members) = looked.await else { return };
            let before = std::mem::replace(&mut *known.lock().await, members.clone());
            if before != members {
                store.members(generation, members);
            }
        })
    }

    pub(super) fn members(&self) -> Arc<Mutex<Members>> {
        Arc::clone(&self.members)
    }

    pub(super) fn try_lock_members(&self) -> Result<OwnedMutexGuard<Members>, TryLockError> {
        self.members().try_lock_owned()
    }
}
