//! What the shell tells the core.

use super::conclusion::Conclusion;
use super::handoff::{HandoffVerdict, Support};
use super::lease::Basis;
use super::{ExitStatus, ExitUsage, Generation, History, Holder, HookEnd, Observation, Usage};
use crate::prelude::*;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A request of an operator or a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// End the gateway and the supervisor.
    Stop,
    /// Drain the gateway and start a new one.
    Restart,
    /// End the supervisor alone and leave the gateway.
    Detach,
    /// Do not wait for what is planned: try now. Only the limit of unclean boots still applies.
    Retry,
    /// The same, past that limit and the pace of requested restarts.
    RetryForced,
    /// [`Request::Restart`], past the same.
    RestartForced,
}

impl Request {
    /// Its name on the command line and on the control socket; `detach` is neither, only a signal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Detach => "detach",
            Self::Retry => "retry-now",
            Self::RestartForced => "restart --force",
            Self::RetryForced => "retry-now --force",
        }
    }
}

/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_hours(24);

/// A pause of the supervision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseRequest {
    /// For how long.
    pub period: Duration,
    /// Why, for people. May be empty.
    pub reason: String,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// How the request came, such as `SIGTERM`.
    pub how: String,
    /// The asking process, where the kernel or the socket names it.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its command line, if it still lived when we looked.
    pub command: Option<String>,
    /// Whether it belongs to the gateway's tree or a hook. `None` if that was not looked at, or it was gone by then.
    #[serde(default)]
    pub inside: Option<bool>,
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)?;
        match (&self.command, self.pid) {
            (Some(command), Some(pid)) => write!(f, " from pid {pid} ({command})"),
            (None, Some(pid)) => write!(f, " from pid {pid}"),
            _ => Ok(()),
        }?;
        if self.inside == Some(true) { f.write_str(", of the gateway's own tree") } else { Ok(()) }
    }
}

/// Stands for the state of files: the same number, the same files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of the gateway's configuration.
    pub config: u64,
    /// Of its program and the package that this belongs to.
    pub program: u64,
}

/// Why no process could be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpawnFailure {
    /// The program is not there or cannot be executed.
    Program(String),
    /// The machine refused: no memory, no processes, no descriptors.
    Resources(String),
    /// Its files are being replaced: an update is under way.
    Updating(String),
}

/// What shows that a process belongs to a gateway. Each alone is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    /// It is in the control group that was made for this gateway.
    Cgroup,
    /// It shares the gateway's session or process group.
    Group,
    /// It descends from the gateway, or was orphaned by a descendant and came to us, its reaper.
    Descent,
    /// It bears the gateway's instance id in its environment.
    Instance,
    /// It was seen as a member before.
    Record,
}

impl Layer {
    /// Its name in the event log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Group => "group",
            Self::Descent => "descent",
            Self::Instance => "instance",
            Self::Record => "record",
        }
    }
}

/// What the end of a process tree looked like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TreeEnd {
    /// How many processes had to be killed.
    pub members: u32,
    /// How many of them had left the gateway's process group.
    pub escaped: u32,
    /// How many were still there when the time for killing was over.
    pub survivors: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// `pid command` of the first few of them.
    pub commands: Vec<String>,
    /// How many of them each layer saw; a layer that saw none is left out.
    pub found_by: Vec<(Layer, u32)>,
    /// `pid command` of the survivors, and what the kernel says they wait for.
    pub left: Vec<String>,
    /// `pid command` of the installers of OpenClaw's package that were left to finish: the tree is not gone before they are.
    #[serde(default)]
    pub installing: Vec<String>,
    /// The command lines of the first few installers that were ended half-way.
    #[serde(default)]
    pub cut_short: Vec<String>,
    /// `pid command (unit)` of the first few processes that bear the id, or descend from a member, and were not killed: they
    /// were created outside, or have a systemd unit of their own.
    pub strays: Vec<String>,
}

impl TreeEnd {
    /// How many members each layer saw, such as `cgroup 8`.
    pub(crate) fn found_by_texts(&self) -> Vec<String> {
        self.found_by.iter().map(|(layer, count)| format!("{} {count}", layer.name())).collect()
    }
}

/// An owner who left the lease without giving it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Its process id, where a row named it.
    pub pid: Option<i32>,
    /// Why it counts as gone.
    pub why: String,
}

/// The lease is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquired {
    /// How often it has changed hands.
    pub epoch: u64,
    /// What keeps it for us.
    pub basis: Basis,
    /// Who had to be taken for gone.
    pub recovered: Option<Recovered>,
    /// What the store remembers. Nothing where `trouble` says why.
    pub past: History,
    /// Why the store could not be read: lock and claim hold all the same.
    pub trouble: Option<String>,
}

/// What another supervisor holds and we need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contested {
    /// The lease of this state directory.
    Lease,
    /// The lock of the port that our gateway would listen on.
    PortClaim,
}

impl Contested {
    /// Its name in the event log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::PortClaim => "port claim",
        }
    }
}

/// What became of an attempt on the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAnswer {
    /// It is ours.
    Acquired(Box<Acquired>),
    /// A living supervisor has it, or has claimed the port.
    Contended {
        /// That supervisor, where it can be seen.
        owner: Option<Holder>,
        /// What it holds.
        what: Contested,
    },
    /// Whether its owner is alive cannot be told from here.
    Unclear {
        /// Its owner's counter.
        beat: u64,
        /// Its owner.
        owner: Option<Holder>,
    },
    /// Its owner holds it in a way that cannot be judged from here, so nothing is taken.
    Unjudged {
        /// The owner and the way out.
        why: String,
    },
    /// A peek found no owner.
    Free,
    /// It cannot be had now: a full disk, a file system that does not answer.
    Failed(String),
    /// It cannot be had here at all: a folder of another user, or one that cannot be written; a store of a newer version.
    Refused(String),
}

/// What a living owner says about its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerPlan {
    /// It could not be asked, or did not say.
    Unknown,
    /// It has not been asked to stop.
    Stays,
    /// It is stopping, and gone within this time.
    Ends(Duration),
}

/// What is left of another supervisor's gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remains {
    /// Its leader lives, and with it the gateway.
    Leader {
        /// The leader's process id.
        pid: i32,
        /// What is different from a gateway that we would start, in words.
        differs: Option<String>,
    },
    /// Its leader is gone, and others of its tree are not.
    Orphans {
        /// The process id that the leader had, where that was recorded.
        pid: Option<i32>,
    },
    /// Nothing, as far as can be seen.
    Nothing {
        /// The process id that the leader had, if there ever was one.
        pid: Option<i32>,
    },
    /// Nothing, and it may run where it cannot be seen: on another machine or in another pid namespace.
    Unseen {
        /// The process id that the leader has or had there.
        pid: i32,
    },
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The shell is ready: signal handlers stand.
    Start,
    /// The deadline has come.
    Tick,
    /// An attempt on the lease is over.
    Leased {
        /// The ticket of its `Effect::Lease`.
        ticket: u64,
        /// How.
        answer: LeaseAnswer,
    },
    /// The owner of the lease or of the port claim was asked whether it stays.
    OwnerAsked {
        /// The ticket of its `Effect::AskOwner`.
        ticket: u64,
        /// Its answer.
        plan: OwnerPlan,
    },
    /// Another supervisor took the lease: our gateway has to end.
    LeaseLost {
        /// The new owner, where it can be seen.
        owner: Option<Holder>,
        /// How it came to that.
        why: String,
    },
    /// The store has made the counter of our lease go on, and that is durable.
    LeaseConfirmed {
        /// How long ago the write began, on a clock that goes on while the machine sleeps.
        age: Duration,
    },
    /// The store cannot be written.
    StoreFailed {
        /// Why.
        why: String,
    },
    /// It can be written again, and all that was missing is.
    StoreReturned,
    /// `Effect::ClearHooks` is done.
    HooksCleared {
        /// Why the hooks of a dead supervisor could not be looked for.
        trouble: Option<String>,
    },
    /// An earlier gateway was looked for.
    Adopted {
        /// Its number.
        generation: Generation,
        /// What is left of it.
        remains: Remains,
    },
    /// An earlier gateway could not be looked for: no descriptors, no memory, `/proc` cannot be read.
    AdoptFailed {
        /// Its number.
        generation: Generation,
        /// Why.
        why: String,
    },
    /// The process of `Effect::Watch` has ended, or was not there.
    Departed {
        /// Its process id.
        pid: i32,
    },
    /// A probe is back.
    Probed {
        /// The ticket of its `Effect::Probe`.
        ticket: u64,
        /// What it saw.
        sighting: Observation,
    },
    /// The start of this gateway is on record, or cannot be.
    Recorded {
        /// Its number.
        generation: Generation,
    },
    /// The lease was ours when the store looked.
    Confirmed {
        /// The ticket of its `Effect::Confirm`.
        ticket: u64,
    },
    /// The gateway process exists.
    Spawned {
        /// Its number.
        generation: Generation,
        /// Its process id.
        pid: i32,
        /// Its configuration and its program, as they were just before.
        fingerprint: Fingerprint,
    },
    /// It does not.
    SpawnFailed {
        /// Its number.
        generation: Generation,
        /// Why.
        failure: SpawnFailure,
    },
    /// The gateway process ended. Its tree may live on.
    LeaderExited {
        /// Its number.
        generation: Generation,
        /// How it ended.
        death: ExitStatus,
        /// What it has used.
        toll: ExitUsage,
    },
    /// `Effect::SeekHeir` is done.
    HeirSought {
        /// The gateway's number.
        generation: Generation,
        /// The process that leads what is left of its tree. `None` if there is none.
        pid: Option<i32>,
    },
    /// What the gateway uses now.
    Measured {
        /// Its number.
        generation: Generation,
        /// As above.
        sample: Usage,
    },
    /// `Effect::Examine` is done.
    Examined {
        /// Its number.
        generation: Generation,
        /// Where the evidence was written; nothing if it could not be.
        evidence: Option<String>,
        /// What it comes down to; nothing if nothing was gathered.
        #[serde(default)]
        conclusion: Option<Conclusion>,
    },
    /// `KillTree` is done.
    TreeGone {
        /// Its number.
        generation: Generation,
        /// What was found.
        end: TreeEnd,
    },
    /// Processes that bore the instance id of an earlier gateway were found and ended after its tree was gone.
    StraysKilled {
        generation: Generation,
        /// What was found.
        end: TreeEnd,
    },
    /// No look for strays goes on.
    SweepFinished,
    /// A hook is over, and nothing of it is left.
    HookEnded {
        /// The ticket of its `Effect::Hook`.
        ticket: u64,
        /// How.
        end: HookEnd,
    },
    /// `Effect::Negotiate` is done.
    Negotiated {
        /// What it found.
        support: Support,
    },
    /// `Effect::Consume` is done.
    Consumed {
        /// Its ticket.
        ticket: u64,
        /// What the gateway's command line says.
        word: HandoffVerdict,
    },
    /// Before a spawn: our standard output or error has lost its reader, so that the gateway writes to this file, or has one
    /// again.
    OutputMoved {
        /// The file. `None` if both streams work.
        to: Option<String>,
    },
    /// The outer manager was asked how long it gives us to stop, and this is what of it a gateway may use.
    StopBudget {
        /// As above.
        timeout: Duration,
    },
    /// An operator or a manager requests something.
    Requested {
        /// What.
        request: Request,
        /// Who.
        by: Requester,
    },
    /// Hands off for a while, or hands on again.
    PauseRequested {
        /// For how long, and why. `None` ends the pause.
        pause: Option<PauseRequest>,
        /// Who.
        by: Requester,
    },
    /// The machine slept: the boot-time clock ran ahead of the monotonic one.
    ClockJumped {
        /// By how much.
        by: Duration,
    },
}

impl Event {
    /// The child that the event speaks of.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Adopted { generation, .. }
            | Self::AdoptFailed { generation, .. }
            | Self::Recorded { generation }
            | Self::Spawned { generation, .. }
            | Self::SpawnFailed { generation, .. }
            | Self::LeaderExited { generation, .. }
            | Self::HeirSought { generation, .. }
            | Self::Measured { generation, .. }
            | Self::Examined { generation, .. }
            | Self::TreeGone { generation, .. } => Some(*generation),
            Self::Start
            | Self::Tick
            | Self::PauseRequested { .. }
            | Self::Leased { .. }
            | Self::OwnerAsked { .. }
            | Self::LeaseLost { .. }
            | Self::LeaseConfirmed { .. }
            | Self::StoreFailed { .. }
            | Self::StoreReturned
            | Self::HooksCleared { .. }
            | Self::Confirmed { .. }
            | Self::SweepFinished
            | Self::Departed { .. }
            | Self::Probed { .. }
            | Self::StraysKilled { .. }
            | Self::HookEnded { .. }
            | Self::Negotiated { .. }
            | Self::Consumed { .. }
            | Self::OutputMoved { .. }
            | Self::StopBudget { .. }
            | Self::Requested { .. }
            | Self::ClockJumped { .. } => None,
        }
    }
}
