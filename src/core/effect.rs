//! What the core asks the shell to do.

use super::{Generation, Report};

/// What a probe is for, and with that how much it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Who is on the port, before a spawn? Names the holder of anything that is not free.
    Port,
    /// Is it our child that answers? Asked until it has come up, and again after a missed probe, when somebody else may
    /// have taken the port. Tells whether the listener belongs to its tree.
    Listener(Generation),
    /// Is our child still serving? Looks at answers only.
    Liveness(Generation),
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
    /// Look at the port, then send `Probed` with the same ticket.
    Probe {
        /// Repeated in the answer; an answer to an older ticket is dropped.
        ticket: u64,
        /// What to look at.
        ask: Ask,
    },
    /// Start the gateway, then send `Spawned` or `SpawnFailed`.
    Spawn {
        /// The number of the child to be.
        generation: Generation,
    },
    /// SIGTERM to the gateway process alone: it ends its own children in its own order.
    Terminate {
        /// Refused by the shell when it does not own this child any more.
        generation: Generation,
    },
    /// SIGKILL to every member of the child's tree until none is left, then send `TreeGone`.
    KillTree {
        /// As above.
        generation: Generation,
    },
    /// Tell the world.
    Report(Report),
    /// The last effect there is.
    Exit(Outcome),
}
