//! Orders that cannot be undone wait here for the store: a spawn for its record and, where only a heartbeat keeps the
//! lease, every order, the start of a hook among them, for the word that the lease is still ours.

use crate::core::Generation;
use crate::core::lease::{FRESH_FOR, UNCHANGED_FOR};
use crate::host::clock;
use crate::store::{Intent, News, Store};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// How long a spawn waits for its record. The store bounds its own waits below that; a file system that hangs does not,
/// and with the kernel's lock in our hands a gateway without a record is better than none.
const RECORD_MAX: Duration = Duration::from_secs(8);

/// What cannot be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Spawn,
    Terminate,
    Kill,
    Hook,
}

/// What waits, and how carefully.
#[derive(Debug)]
pub(super) struct Orders {
    store: Store,
    /// For what is said in the place of a store that does not answer.
    news: Sender<News>,
    care: Care,
    waiting: Vec<(Generation, Order)>,
    patience: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Care {
    /// The kernel keeps the lease for us.
    Lock,
    /// Somebody else may have it by now. The last question, and when it was asked, on the clock that goes on in a
    /// suspend.
    Heartbeat { ticket: u64, asked: Duration },
}

impl Orders {
    pub(super) fn new(store: Store, news: Sender<News>) -> Self {
        Self { store, news, care: Care::Lock, waiting: Vec::new(), patience: None }
    }

    /// The lease is ours, kept by the kernel's lock or by a heartbeat.
    pub(super) fn enter_lease(&mut self, heartbeat: bool) {
        self.care = if heartbeat { Care::Heartbeat { ticket: 0, asked: Duration::ZERO } } else { Care::Lock };
    }

    /// A spawn waits for its record.
    pub(super) fn intend(&mut self, intent: Intent) {
        let generation = intent.generation;
        self.waiting.push((generation, Order::Spawn));
        self.store.intend(intent);
        self.wait(generation);
    }

    /// A signal or a hook: at once, or when the store has confirmed the lease.
    pub(super) fn ask(&mut self, generation: Generation, order: Order) -> Option<(Generation, Order)> {
        if let Care::Lock = self.care {
            return Some((generation, order));
        }
        self.waiting.push((generation, order));
        self.confirm(generation);
        None
    }

    /// The record of a spawn is written, or cannot be.
    pub(super) fn intended(&mut self, generation: Generation) -> Vec<(Generation, Order)> {
        // It went on without, or nobody waits for it: see `Shell::remember`.
        if !self.waiting.contains(&(generation, Order::Spawn)) {
            return Vec::new();
        }
        match self.care {
            Care::Lock => {
                self.stop_waiting();
                let (due, waiting) = self.waiting.iter().partition(|(waits, _)| *waits == generation);
                self.waiting = waiting;
                due
            }
            Care::Heartbeat { .. } => {
                self.confirm(generation);
                Vec::new()
            }
        }
    }

    /// The lease was ours when the store looked. An answer that took long says too little about now: somebody held up for
    /// longer than [`FRESH_FOR`] asks again, see `tests/core/lease_model.rs`.
    pub(super) fn confirmed(&mut self, answer: u64) -> Vec<(Generation, Order)> {
        match self.care {
            Care::Heartbeat { ticket, asked } if ticket == answer => {
                if clock::since_boot().saturating_sub(asked) > FRESH_FOR {
                    let generation = self.waiting.last().map_or(0, |(generation, _)| *generation);
                    self.confirm(generation);
                    return Vec::new();
                }
                self.stop_waiting();
                std::mem::take(&mut self.waiting)
            }
            Care::Heartbeat { .. } | Care::Lock => Vec::new(),
        }
    }

    fn confirm(&mut self, generation: Generation) {
        if let Care::Heartbeat { ticket, asked } = &mut self.care {
            *ticket += 1;
            *asked = clock::since_boot();
            self.store.confirm(*ticket);
        }
        self.wait(generation);
    }

    /// A store that hangs, or is always late, must not hold us for ever: what counts is since when something has waited.
    fn wait(&mut self, generation: Generation) {
        if self.patience.is_some() {
            return;
        }
        let (after, instead) = match self.care {
            Care::Lock => (RECORD_MAX, News::Intended { generation }),
            // As long as it takes until somebody else may take us for gone.
            Care::Heartbeat { .. } => {
                let why =
                    "the store has not answered for 30s, and whoever sees our heartbeat stand still may take over";
                (UNCHANGED_FOR, News::Lost { owner: None, why: why.to_owned() })
            }
        };
        let news = self.news.clone();
        self.patience = Some(tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _closed = news.send(instead).await;
        }));
    }

    fn stop_waiting(&mut self) {
        if let Some(patience) = self.patience.take() {
            patience.abort();
        }
    }
}
