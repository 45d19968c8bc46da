//! Every number that a decision depends on. The defaults are those of the command line.

use super::Endpoint;
use super::fault::Planted;
use crate::prelude::*;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What to do beside an owner that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnConflict {
    /// End, with `conflict_exit_code`.
    Exit,
    /// Wait for its end, and take over then.
    Standby,
}

/// What becomes of the gateway when the store does not confirm the lease for [`super::lease::CONFIRMED_FOR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnStoreLost {
    /// It is ended.
    Stop,
    /// It goes on, though another supervisor may start a second one.
    Keep,
}

/// The settings of the core. Times are durations on the monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Policy {
    /// How long a boot may take before it counts as hung.
    pub startup_timeout: Duration,
    /// The time between two liveness probes.
    pub probe_interval: Duration,
    /// How long one probe may take.
    pub probe_timeout: Duration,
    /// How long no probe may have been good before the gateway counts as hung.
    pub hang_after: Duration,
    /// How long a gateway may drain after SIGTERM.
    pub stop_timeout: Duration,
    /// The same for one that hangs.
    pub hung_stop_timeout: Duration,
    /// How many restarts may follow short runs within `restart_window`.
    pub max_restarts: u32,
    /// See `max_restarts`.
    pub restart_window: Duration,
    /// The longest delay between two crashes and the next start.
    pub backoff_max: Duration,
    /// How long a gateway must have been healthy for its next restart to be immediate and uncounted.
    pub stable_after: Duration,
    /// How many unclean boots may lie within `boot_window` at a spawn; 0 = no limit.
    pub boot_limit: u32,
    /// See `boot_limit`.
    pub boot_window: Duration,
    /// How long the pre-start hook may take; none if there is no such hook.
    pub pre_start: Option<Duration>,
    /// The same of the post-stop hook.
    pub post_stop: Option<Duration>,
    /// How long the repair of a refused configuration may take; none if it is not to be tried.
    pub repair: Option<Duration>,
    /// Whether the gateway's command line can be asked about its exits at all.
    pub handoff: bool,
    /// How long an update of OpenClaw is waited for, and an installer that its gateway has left with it.
    pub update_timeout: Duration,
    /// Whether processes that bear a gateway's id and were created outside its tree are killed with it.
    pub kill_strays: bool,
    /// How much memory the gateway's tree may have resident, in KiB; none if that is no concern.
    pub memory_max_kb: Option<u64>,
    /// Whether the tree is measured without such a limit, for metrics.
    #[serde(default)]
    pub measures_tree: bool,
    /// What to do beside an owner that stays.
    pub on_conflict: OnConflict,
    /// `None`: stop under a heartbeat, keep under the kernel's lock.
    pub on_store_lost: Option<OnStoreLost>,
    /// Whether a person started us and watches: then a spent budget does not make the first start wait.
    pub attended: bool,
    /// How long a silent or foreign holder of the port is waited for.
    pub conflict_timeout: Duration,
    /// The exit code of a conflict.
    pub conflict_exit_code: u8,
    /// Where the gateway is expected to listen at first.
    pub endpoint: Endpoint,
    /// Where the gateway's output is shown, for messages: "see the gateway's output ...".
    pub messages: String,
    /// What the jitter of the backoff is drawn from.
    pub seed: u64,
    /// Nothing, except in tests of the tests.
    #[serde(skip)]
    pub planted: Planted,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            startup_timeout: Duration::from_mins(5),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(5),
            hang_after: Duration::from_mins(1),
            stop_timeout: Duration::from_secs(328),
            hung_stop_timeout: Duration::from_secs(10),
            max_restarts: 6,
            restart_window: Duration::from_hours(1),
            backoff_max: Duration::from_mins(5),
            stable_after: Duration::from_mins(2),
            boot_limit: 2,
            boot_window: Duration::from_mins(5),
            pre_start: None,
            post_stop: None,
            repair: None,
            handoff: true,
            // npm needs 43 s on two cores, and several minutes on a small board; a broken package is found in any case.
            update_timeout: Duration::from_mins(10),
            kill_strays: false,
            memory_max_kb: None,
            measures_tree: false,
            on_conflict: OnConflict::Exit,
            on_store_lost: None,
            attended: false,
            conflict_timeout: Duration::from_secs(30),
            conflict_exit_code: 78,
            endpoint: Endpoint::local(18789),
            messages: "above".to_owned(),
            seed: 0,
            planted: Planted::default(),
        }
    }
}
