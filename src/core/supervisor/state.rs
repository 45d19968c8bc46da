//! The states of the supervisor with their data. What happens in them is told in the other files of this folder.

use crate::Holder;
use crate::conclusion::Conclusion;
use crate::conflict::Watch;
use crate::effect::{Effect, Outcome};
use crate::event::{Contested, Requester};
use crate::exit_status::ExitStatus;
use crate::fault::Fault;
use crate::handoff::Pending;
use crate::history::{Run, Unfinished};
use crate::hook::Call;
use crate::lease::Basis;
use crate::liveness::{FAILED_PROBES_MIN, Hung, Liveness};
use crate::policy::Policy;
use crate::prelude::*;
use crate::probe_history::Excess;
use crate::stall::StallWatch;
use crate::units::{Generation, Moment};
use crate::usage::ExitUsage;
use core::time::Duration;

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Before `Event::Start`.
    Idle,
    /// Asks for the lease. `seen` is the counter of an owner that is not visible from here. A stop waits for the answer until
    /// `stop_by`: it may bring a gateway on record, which the stop is for.
    Leasing { poll: Poll, seen: Option<Seen>, owner: Option<Rival>, stop_by: Option<Moment> },
    /// The lease is ours. The shell ends the hooks that a predecessor left.
    Clearing(Clearing),
    /// Another supervisor or its gateway is in charge; we wait for its end.
    Standby(Standby),
    /// The shell looks for the gateway of a predecessor.
    Adopting(Adopting),
    /// Finds out whether the port is free.
    Probing { poll: Poll, watch: Watch, judging: ProbePurpose },
    /// Nothing runs; the next start is planned. A pause may outlast it.
    BackingOff { until: Moment, why: String },
    /// Nothing runs, and the restart budget is spent: only an exit that turns out to be planned is followed by a start.
    Awaiting(HeldExit),
    /// A hook runs: before a spawn, or after an end.
    Hooking(Hooking),
    /// The spawn waits for its record, or the shell is creating the process.
    Spawning(Spawning),
    /// The process lives and has not come up yet.
    Starting { child: Child, poll: Poll, boot: Boot },
    /// It has come up. `stable`: it has served for `stable_after`.
    Running { child: Child, poll: Poll, started: Moment, liveness: Liveness, stable: bool, overuse: Overuse },
    /// It hangs; the shell collects the evidence.
    Examining(Examining),
    /// It is being ended, or has ended and its tree is being killed.
    Stopping(Stopping),
    /// All is decided; the shell still looks for processes that have left the last tree.
    Sweeping { outcome: Outcome, until: Moment },
    /// After `Effect::Exit`.
    Exited,
}

/// The rhythm of probes and lease requests: never two under way at once.
#[derive(Debug, Clone, Copy)]
pub(super) enum Poll {
    Due(Moment),
    Asked { ticket: u64, at: Moment },
}

/// `Leasing`, `Standby`: an owner's counter, and since when it has been the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) beat: u64,
    pub(super) since: Moment,
}

/// `Leasing`: a living supervisor that holds the lease or the port claim.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    pub(super) holder: Option<Holder>,
    pub(super) what: Contested,
    /// It is stopping, and has to be gone by then. `None` while it is asked.
    pub(super) gone_by: Option<Moment>,
}

/// `Clearing`, `Adopting`: a search for what a predecessor left, until it is answered.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// When it is given up.
    pub(super) until: Moment,
    /// When it is tried again: after a failure, or because no answer has come.
    pub(super) again: Moment,
    /// Why the last try failed.
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Clearing {
    /// The gateway that is looked for next.
    pub(super) left: Option<Unfinished>,
    /// A predecessor died, or may have.
    pub(super) heir: bool,
    pub(super) search: Search,
}

#[derive(Debug, Clone)]
pub(super) struct Standby {
    pub(super) behind: WaitingFor,
    pub(super) poll: Poll,
    /// When the owner was first found to be gone.
    pub(super) quiet_since: Option<Moment>,
    /// The last watched process that has ended. An owner recorded under its pid cannot be watched.
    pub(super) gone: Option<i32>,
    /// The counter of an owner that is not visible from here.
    pub(super) seen: Option<Seen>,
    /// `retry-now` does not wait for the quiet to last.
    pub(super) hasty: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum WaitingFor {
    /// A supervisor: it has the lease or the port claim, we have nothing.
    Owner { pid: Option<i32> },
    /// A gateway that no supervisor started. The lease is ours meanwhile, so that we are the one to take over.
    Gateway { pid: Option<i32> },
}

#[derive(Debug, Clone)]
pub(super) struct Adopting {
    /// What the record says of it.
    pub(super) left: Option<Unfinished>,
    pub(super) search: Search,
}

/// `Probing`: what a probe of the port settles besides whether it is free.
#[derive(Debug, Clone, Copy)]
pub(super) enum ProbePurpose {
    Nothing,
    /// The gateway exited with 78: is its port taken, or is its configuration wrong?
    Refusal(Run),
    /// The pre-start hook has run; the port may have been taken meanwhile.
    Prepared,
    /// The gateway exited with 0 before it ever answered: "I did not start", as older releases say of a duplicate.
    Unstarted(Run),
}

#[derive(Debug, Clone)]
pub(super) struct HeldExit {
    pub(super) pending: Pending,
    /// How the gateway ended, for the reason of an exit.
    pub(super) told: String,
}

#[derive(Debug, Clone)]
pub(super) struct Hooking {
    pub(super) ticket: u64,
    pub(super) call: Call,
    pub(super) began: Moment,
    pub(super) phase: HookPhase,
    pub(super) then: Then,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum HookPhase {
    Running {
        until: Moment,
    },
    /// SIGTERM is sent.
    Ending {
        until: Moment,
        cut: Cut,
    },
    /// SIGKILL is sent; what is left then is not waited for.
    Killing {
        until: Moment,
        cut: Cut,
    },
}

/// Why a hook was not left to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    TimedOut,
    /// What it was for is not wanted any more.
    Unwanted,
}

/// What comes after a hook.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// The gateway is started.
    Start,
    /// The end of the gateway is judged.
    Conclude(Box<Ending>),
    /// The port is probed, and the gateway started once more.
    Retry(Run),
    Exit(Outcome),
}

/// The end of a gateway of which nothing is left.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) child: Child,
    pub(super) run: Run,
    /// How long its process lived.
    pub(super) age: Duration,
    pub(super) why: StopReason,
    pub(super) death: ExitStatus,
    /// No request had asked for it by the time its tree was gone.
    pub(super) unasked: bool,
    /// The `cause` of its `gateway.exited`.
    pub(super) reason: &'static str,
    /// For the reason of an exit.
    pub(super) told: String,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Spawning {
    /// When its answer is lost.
    pub(super) until: Moment,
    /// That has been noticed once; an answer that came meanwhile is taken in first.
    pub(super) overdue: bool,
}

/// The gateway's process, from `Starting` to `Stopping`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) spawned: Moment,
    /// Another supervisor started it.
    pub(super) adopted: bool,
    /// It has answered, though it may not have come up yet.
    pub(super) answered: bool,
    /// The process of its tree that listens, if it was seen: a launcher need not exec the gateway.
    pub(super) listener: Option<i32>,
}

/// `Running`: how far it is proven that its tree is over the memory limit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Overuse {
    /// So many samples in a row were.
    Samples(u32),
    /// It is, and the evidence is waited for until then.
    Proven { excess: Excess, until: Moment },
}

/// How far a gateway is that has not come up yet.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    /// When its startup timeout began.
    pub(super) armed: Moment,
    /// How many probes failed, in all and since its last answer.
    pub(super) failed: u32,
    pub(super) missed: u32,
    pub(super) listening: bool,
    /// Its last complete answer, if that was not a gateway's.
    pub(super) alive: Option<Moment>,
    /// That it is alive and not healthy was reported.
    pub(super) degraded: bool,
    pub(super) stalls: StallWatch,
}

#[derive(Debug, Clone)]
pub(super) struct Examining {
    pub(super) child: Child,
    /// A probe that was under way may still bring a good answer.
    pub(super) poll: Poll,
    pub(super) was: Was,
    pub(super) hung: Hung,
    pub(super) until: Moment,
}

/// What the shell has found of a gateway that is examined.
#[derive(Debug, Clone, Default)]
pub(super) struct EvidenceFound {
    /// The file.
    pub(super) evidence: Option<String>,
    pub(super) conclusion: Option<Conclusion>,
}

/// The state in which it began to hang.
#[derive(Debug, Clone)]
pub(super) enum Was {
    Booting(Boot),
    Up { started: Moment, liveness: Liveness, stable: bool },
}

#[derive(Debug, Clone)]
pub(super) struct Stopping {
    pub(super) child: Child,
    /// When it came up, if it did.
    pub(super) started: Option<Moment>,
    pub(super) liveness: Liveness,
    pub(super) why: StopReason,
    pub(super) leader: Leader,
    pub(super) tree: TreePhase,
    pub(super) poll: Poll,
    /// The process that listens may not have heard of the SIGTERM.
    pub(super) unheard: bool,
    /// The installer of OpenClaw's package that is left to finish.
    pub(super) installing: Option<Installing>,
}

#[derive(Debug, Clone)]
pub(super) struct Installing {
    pub(super) since: Moment,
    /// `pid command` of each.
    pub(super) named: String,
}

/// Why a gateway ends. An intent that comes later outranks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Asked,
    Hung,
    Died,
    /// Its tree uses more than `--memory-max`.
    MemoryLimit,
    /// It died while no supervisor ran.
    Orphaned,
    /// The store does not confirm the lease.
    Unconfirmed,
    /// Another supervisor has the lease.
    LeaseLost,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Leader {
    Alive,
    Dead {
        death: ExitStatus,
        at: Moment,
        /// It ended by itself within its grace period.
        drained: bool,
        /// The `cause` of its `gateway.exited`.
        reason: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum TreePhase {
    /// SIGTERM is sent; the gateway drains until then, for as long as `grace`.
    Draining { until: Moment, grace: Duration },
    /// It exited with 0, as far as can be known, without a request: a gateway that answers on its port now may be a
    /// successor that it left. Until then it is looked at again if its process cannot be seen.
    Seeking { until: Moment },
    /// `Effect::KillTree` is under way. `told` is how many survivors of the last one were reported; `lost` says that the
    /// answer to the last one, or the news of the leader's death after it, has not come.
    Killing { told: u32, until: Moment, lost: bool },
    /// All but an installer of OpenClaw's package is gone; whether it has finished is looked at again then.
    Installing { again: Moment },
    /// The leader survived it; it is tried again then.
    Stubborn { again: Moment, told: u32 },
    /// Nothing is left, except perhaps the news of the leader's death.
    Gone { until: Moment },
}

// Beside the state.

/// The act that waits, if one does: each belongs to the present state, so that there is one at most.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    pub(super) basis: Basis,
    /// The youngest question to the store.
    pub(super) ticket: u64,
    pub(super) waiting: Option<Waiting>,
}

#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) act: Effect,
    pub(super) since: Moment,
    pub(super) answer: Answer,
}

/// What it waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// The record of this spawn.
    Record(Generation),
    /// The confirmation that was asked for then. The machine has slept for so long since.
    Confirmation { asked: Moment, slept: Duration },
}

/// Another supervisor has the lease: we end with this once our gateway is gone, which is killed at `by`.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) outcome: Outcome,
    pub(super) by: Moment,
}

/// The supervision is paused.
#[derive(Debug, Clone)]
pub(super) struct Paused {
    pub(super) until: Moment,
    pub(super) reason: String,
    /// Who asked, for people.
    pub(super) by: String,
}

/// The requests of the present gateway's time that were not served at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Merged {
    /// The restart that waits: the first of its requesters, and until when.
    pub(super) waiting: Option<(Requester, Moment)>,
    pub(super) last: Option<Requester>,
    /// How often in a row the last requester has asked.
    pub(super) count: u32,
    /// The next start was requested past every wait.
    pub(super) forced: bool,
}

/// How far the store vouches for the lease.
#[derive(Debug, Clone)]
pub(super) struct Confirmation {
    /// When the write of the last one began. Time that was slept over is taken off.
    pub(super) at: Moment,
    /// Since when it has been too old, if that was told.
    pub(super) overdue: Option<Moment>,
    pub(super) store: StoreState,
}

#[derive(Debug, Clone)]
pub(super) enum StoreState {
    Fine,
    /// It was told that the store does not answer.
    Silent,
    /// The store told why it cannot be written.
    Failed(String),
}

/// How far OpenClaw's own repair has come since a gateway last came up. It is tried once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    Untried,
    /// The next start will show what of the configuration it has changed.
    Fresh,
    Tried,
}

/// Equal fast deaths in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streak {
    pub(super) signal: i32,
    pub(super) count: u32,
    /// An earlier supervisor saw the first ones; their configuration and program are unknown.
    pub(super) recalled: bool,
}

/// The exit of the process that was started, while the shell looks for what it has left.
#[derive(Debug, Clone, Copy)]
pub(super) struct LauncherExit {
    pub(super) death: ExitStatus,
    pub(super) toll: ExitUsage,
    pub(super) until: Moment,
}

/// A start that waits for an update of the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    pub(super) since: Moment,
    pub(super) tries: u32,
}

impl Boot {
    pub(super) fn new(armed: Moment) -> Self {
        let stalls = StallWatch::default();
        Self { armed, failed: 0, missed: 0, listening: false, alive: None, degraded: false, stalls }
    }

    /// When something is due for it besides a probe: the end of its startup timeout, or of the window of one that
    /// answered at that end and has stopped since. A boot that answers is not ended for its time.
    pub(super) fn deadline(&self, policy: &Policy) -> Option<Moment> {
        let budget = self.armed.saturating_add(policy.startup_timeout);
        match self.alive {
            Some(_) if self.degraded && self.missed < FAILED_PROBES_MIN => None,
            Some(answered) if self.degraded => Some(budget.max(answered.saturating_add(policy.hang_after))),
            Some(_) | None => Some(budget),
        }
    }

    /// Whether it is alive all the same when its startup timeout is over.
    pub(super) fn is_alive(&self, now: Moment, policy: &Policy) -> bool {
        self.alive
            .is_some_and(|answered| self.missed < FAILED_PROBES_MIN || now < answered.saturating_add(policy.hang_after))
            && !policy.planted.is(Fault::DegradedIsHung)
    }
}

impl Child {
    pub(super) fn new(pid: i32, spawned: Moment, adopted: bool) -> Self {
        Self { pid, spawned, adopted, answered: false, listener: None }
    }
}

impl State {
    /// All is decided: only the search for strays may still go on.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Sweeping { .. } | Self::Exited => true,
            Self::Idle
            | Self::Leasing { .. }
            | Self::Clearing(_)
            | Self::Standby(_)
            | Self::Adopting(_)
            | Self::Probing { .. }
            | Self::BackingOff { .. }
            | Self::Awaiting(_)
            | Self::Hooking(_)
            | Self::Spawning(_)
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Examining(_)
            | Self::Stopping(_) => false,
        }
    }

    /// The probe or lease request that this state waits for or sends next.
    pub(super) fn poll_mut(&mut self) -> Option<&mut Poll> {
        match self {
            Self::Leasing { poll, .. }
            | Self::Probing { poll, .. }
            | Self::Starting { poll, .. }
            | Self::Running { poll, .. }
            | Self::Standby(Standby { poll, .. })
            | Self::Examining(Examining { poll, .. })
            | Self::Stopping(Stopping { poll, .. }) => Some(poll),
            Self::Idle
            | Self::Clearing(_)
            | Self::Adopting(_)
            | Self::BackingOff { .. }
            | Self::Awaiting(_)
            | Self::Hooking(_)
            | Self::Spawning(_)
            | Self::Sweeping { .. }
            | Self::Exited => None,
        }
    }
}
