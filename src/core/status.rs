//! What a supervisor is doing, for whoever asks.

use super::{Generation, Verdict};
use std::time::Duration;

/// A snapshot. Durations count back from now, or forward where they speak of the future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// One word: `leasing`, `standby`, `probing`, `backing_off`, `spawning`, `starting`, `running`, `stopping`.
    pub state: &'static str,
    /// The gateway that is there now.
    pub gateway: Option<GatewayStatus>,
    /// The youngest gateway's number; 0 before the first.
    pub generation: Generation,
    /// The epoch of our lease, while we hold it.
    pub epoch: Option<u64>,
    /// The last verdict of a probe and its detail.
    pub probe: Option<(Verdict, String)>,
    /// Restarts in the window that spent the budget.
    pub restarts: u32,
    /// The budget and its window.
    pub max_restarts: u32,
    /// See `max_restarts`.
    pub restart_window: Duration,
    /// What will happen next.
    pub next: Next,
}

/// The gateway of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Its process id.
    pub pid: i32,
    /// Since when it has been there.
    pub age: Duration,
    /// Since when it has been up, if it is.
    pub up: Option<Duration>,
    /// Whether its last probe was good.
    pub healthy: bool,
    /// Whether another supervisor started it.
    pub adopted: bool,
}

/// The next thing that a supervisor will do by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// A few words, such as `start a gateway`.
    pub action: &'static str,
    /// In how long, where that is known.
    pub within: Option<Duration>,
    /// Why.
    pub why: String,
}
