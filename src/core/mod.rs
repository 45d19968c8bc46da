//! The part that decides.
//!
//! A deterministic state machine without a clock, a process, a socket or a file: [`Supervisor::step`] takes the
//! monotonic time and one [`Event`] and appends the [`Effect`]s that the shell has to perform. Everything here knows
//! only `std`, and of that neither processes nor network, files, environment, threads nor clocks; `tests/tidy.rs`
//! holds it to that.

pub mod conflict;
pub mod effect;
pub mod event;
pub mod exit;
pub mod fault;
pub mod handoff;
pub mod hook;
pub mod intent;
pub mod lease;
pub mod liveness;
pub mod notice;
pub mod past;
pub mod policy;
pub mod report;
pub mod restart_policy;
pub mod sample;
pub mod sighting;
pub mod status;
pub mod supervisor;
pub mod trail;

pub use effect::{Ask, Effect, LeaseAsk, Outcome};
pub use event::{
    Acquired, Death, Event, Fingerprint, Layer, LeaseAnswer, Recovered, Remains, Request, Requester, SpawnFailure,
    TreeEnd,
};
pub use hook::{Call, Hook, HookEnd};
pub use notice::Notice;
pub use past::{Fact, Left, Past, PastRun, Settled};
pub use policy::Policy;
pub use report::Report;
pub use sample::{Sample, Toll};
pub use sighting::{Holder, Owner, Phase, Readiness, Sighting, Verdict};
pub use status::Status;
pub use supervisor::Supervisor;
pub use trail::Case;

/// A reading of the monotonic clock, as the time since that clock's own zero. Only differences mean anything.
pub type Moment = std::time::Duration;

/// Counts the gateways of one store, from 1. Every event about a child and every effect on one
/// carries it, so that news of a past child can never touch the present one.
pub type Generation = u64;
