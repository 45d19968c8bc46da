//! The part that decides.
//!
//! A deterministic state machine without a clock, a process, a socket or a file: [`Supervisor::step`] takes the
//! monotonic time and one [`Event`] and appends the [`Effect`]s that the shell has to perform. Everything here knows
//! only `core` and `alloc`: the crate is `no_std`, so the compiler holds its purity.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod alert;
pub mod conclusion;
pub mod conflict;
pub mod effect;
pub mod endpoint;
pub mod event;
pub mod exit;
pub mod exit_status;
pub mod fault;
pub mod handoff;
pub mod history;
pub mod hook;
pub mod intent;
pub mod lease;
pub mod liveness;
pub mod notice;
pub mod observation;
mod pace;
pub mod policy;
mod prelude;
pub mod probe_history;
pub mod report;
pub mod restart_policy;
pub mod stall;
pub mod status;
pub mod supervisor;
pub mod tally;
mod units;
pub mod usage;

pub use conclusion::{Conclusion, Condition, IncidentCause};
pub use effect::{Effect, Installers, LeaseRequest, Outcome, ProbeScope};
pub use endpoint::{Endpoint, MoveReason, Moved};
pub use event::{
    Acquired, Contested, Event, Fingerprint, Layer, LeaseAnswer, OwnerPlan, Recovered, Remains, Request, Requester,
    SpawnFailure, TreeEnd,
};
pub use exit_status::ExitStatus;
pub use history::{Cause, Fact, History, LeftRecord, PastRun, Run, Settled, TreeRecord, Unfinished};
pub use hook::{Call, Hook, HookEnd};
pub use notice::Notice;
pub use observation::{Holder, Observation, Owner, Phase, Readiness, Verdict};
pub use policy::Policy;
pub use probe_history::{Excess, HangContext};
pub use report::Report;
pub use status::Status;
pub use supervisor::Supervisor;
pub use tally::Tally;
pub use units::{Generation, Moment};
pub use usage::{BlockedWrite, Depth, ExitUsage, Usage};
