//! What the core asks the shell to do.

use super::{Call, Contested, Depth, Fact, Generation, HangContext, Moved, Notice, Report};
use crate::prelude::*;
use core::time::Duration;

/// What a probe is for, and with that how much it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeScope {
    /// Who is on the port, before a spawn? Names the holder of anything that is not free.
    Port,
    /// Is it our child that answers? Asked until it has come up, and again after a missed probe, when another process may
    /// have taken the port. Tells whether the listener belongs to its tree.
    Listener(Generation),
    /// Is our child still serving? Looks at answers only, and for the listener's owner where the answer is not a gateway's.
    Liveness(Generation),
}

/// What to do with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseRequest {
    /// Take it if it is free. `unchanged` is a counter that has stood still for long enough, see `core::lease`.
    Take {
        /// As above.
        unchanged: Option<u64>,
    },
    /// See whether it is held, without taking it.
    Peek,
}

/// What a kill of a tree does with the package managers in it that install something: one that is killed leaves half an
/// installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installers {
    /// Those that replace OpenClaw's package are left with all that they started, and named in `TreeGone`. The others are asked
    /// to roll back.
    Finish,
    /// They get several times the grace of the others to end by SIGTERM: npm rolls back then.
    RollBack,
    /// They are killed as the others are.
    AsOthers,
}

/// How the supervisor ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The process exit code.
    pub code: u8,
    /// One line: what happened, who holds what, what to do.
    pub reason: String,
}

/// One thing for the shell to perform. Effects are performed in the order in which `step` appended them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Do this with the lease, then send `Leased` with the same ticket.
    Lease {
        /// Repeated in the answer.
        ticket: u64,
        /// What to do.
        ask: LeaseRequest,
    },
    /// Ask the living owner whether it is stopping, then send `OwnerAsked` with the same ticket.
    AskOwner {
        /// Repeated in the answer.
        ticket: u64,
        /// What it holds.
        what: Contested,
    },
    /// End the hooks that a dead supervisor left, with all that they started, then send `HooksCleared`.
    ClearHooks {
        /// A supervisor died, or may have, so that one of its hooks may just be starting.
        heir: bool,
    },
    /// Take hold of the gateway that the record calls by this number, then send `Adopted`, or `AdoptFailed`.
    Adopt {
        /// As above.
        generation: Generation,
    },
    /// Send `Departed` when this process ends. It is not ours; a later watch takes the place of an earlier one.
    Watch {
        /// Its process id.
        pid: i32,
    },
    /// Have the store remember this. It goes on if the store cannot.
    Remember {
        generation: Generation,
        /// What.
        fact: Fact,
    },
    /// Look at the port, then send `Probed` with the same ticket.
    Probe {
        /// Repeated in the answer; an answer to an older ticket is dropped.
        ticket: u64,
        /// What to look at.
        ask: ProbeScope,
    },
    /// From now on look at this endpoint, claim its port and name it in the lease.
    Follow(Moved),
    /// Write down that this gateway will be started, then send `Recorded`.
    Record {
        /// Its number.
        generation: Generation,
    },
    /// See whether the lease is still ours, and have its heartbeat go on. Then send `Confirmed`, or `LeaseLost`.
    Confirm {
        /// Repeated in the answer.
        ticket: u64,
    },
    /// Start a gateway, then send `Spawned` or `SpawnFailed`. Its `Record` has come before.
    Spawn {
        /// The number of the child to be.
        generation: Generation,
        /// Whether it is to be told not to leave a detached successor: a release that knows no handoff would.
        no_respawn: bool,
    },
    /// Find out whether the gateway's command line knows restart handoffs, then send `Negotiated`.
    Negotiate,
    /// Ask it whether the gateway with this process id had planned its restart, then send `Consumed`.
    Consume {
        /// Repeated in the answer.
        ticket: u64,
        /// The gateway that has exited.
        generation: Generation,
        /// Its process id.
        pid: i32,
    },
    /// Read what the gateway uses of the machine, then send `Measured`, if there is anything to read.
    Measure {
        generation: Generation,
        /// The process of its tree that listens, where that is known.
        listener: Option<i32>,
        /// How much is looked at.
        depth: Depth,
        /// Whether the memory of its whole tree is wanted.
        tree: bool,
    },
    /// Write down all that may tell why the gateway hangs, or what has its memory, then send `Examined`.
    Examine {
        generation: Generation,
        /// What is known already.
        case: Box<HangContext>,
    },
    /// The process that was started has exited. Look for the one that leads what is left of its tree, and take hold of
    /// it, then send `HeirSought`; its end is the next `LeaderExited`.
    SeekHeir {
        /// As below.
        generation: Generation,
        /// The process that has to be in what is left. `None` if any will do.
        listener: Option<i32>,
    },
    /// SIGTERM to the gateway process alone: it ends its own children in its own order.
    Terminate {
        /// Refused by the shell when it does not own this child any more.
        generation: Generation,
    },
    /// SIGTERM to this process of its tree, which listens and has not heard of the first one.
    TerminateListener {
        /// As above.
        generation: Generation,
        /// Its process id. Refused by the shell when it is no member of the tree.
        pid: i32,
    },
    /// SIGKILL to every member of the child's tree until none is left, then send `TreeGone`.
    KillTree {
        /// As above.
        generation: Generation,
        /// How long its members get to end by SIGTERM first; the leader gets none.
        grace: Duration,
        /// Whether processes that bear its id and were created outside its tree, or have a systemd unit of their own, are killed
        /// as well.
        strays: bool,
        /// What becomes of the installers in it.
        installers: Installers,
    },
    /// Call a hook, then send `HookEnded` with the same ticket once nothing of it is left.
    Hook {
        /// Repeated in the answer.
        ticket: u64,
        /// Which one, and what it is told.
        call: Call,
    },
    /// SIGTERM to the hook's process.
    EndHook {
        /// Its ticket.
        ticket: u64,
    },
    /// SIGKILL to all that the hook has started.
    KillHook {
        /// Its ticket.
        ticket: u64,
    },
    /// Send `SweepFinished` once no look for strays goes on.
    FinishSweep,
    /// Tell the service manager.
    Notify(Notice),
    /// Tell the world.
    Report(Report),
    /// The last effect there is.
    Exit(Outcome),
}
