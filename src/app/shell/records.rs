//! The store's side: the lease, the record of each gateway, and what a predecessor's record says.

use crate::core::{Fact, Generation, LeaseRequest, LeftRecord, Settled, TreeRecord};
use crate::gateway::probe::Prober;
use crate::gateway::process::{self, Gateway, Launch};
use crate::host::clock;
use crate::store::{SpawnIntent, Store};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, TryLockError};
use tokio::task::JoinHandle;

pub(super) struct Records {
    pub(super) store: Store,
    launch: Arc<Launch>,
    /// The youngest gateway that was recorded, and its instance id.
    recorded: (Generation, String),
    /// The record of a predecessor's gateway.
    left: Option<LeftRecord>,
    /// What was last recorded of the processes of the gateway.
    tree: Arc<Mutex<TreeRecord>>,
}

impl Records {
    pub(super) fn new(store: Store, launch: Arc<Launch>) -> Self {
        Self { store, launch, recorded: (0, String::new()), left: None, tree: Arc::default() }
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

    /// Has the processes of the gateway recorded for a successor, which has to find them.
    pub(super) fn note_tree(&self, gateway: &Gateway, prober: Arc<Prober>) -> JoinHandle<()> {
        let generation = gateway.generation();
        let (looked, store, known) = (gateway.known(), self.store.clone(), Arc::clone(&self.tree));
        tokio::spawn(async move {
            let Some(tree) = looked.await else { return };
            prober.expect_user(tree.uid);
            let before = std::mem::replace(&mut *known.lock().await, tree.clone());
            if before != tree {
                store.tree(generation, tree);
            }
        })
    }

    pub(super) fn tree(&self) -> Arc<Mutex<TreeRecord>> {
        Arc::clone(&self.tree)
    }

    pub(super) fn try_lock_tree(&self) -> Result<OwnedMutexGuard<TreeRecord>, TryLockError> {
        self.tree().try_lock_owned()
    }
}
