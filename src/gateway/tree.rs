//! Everything that a gateway has started, and its end.
//!
//! A gateway starts its broker in a session of its own and everything that agents run in further groups, so a signal
//! to a process group ends a fraction of it. What shows that a process is a member:
//! - it is in the control group that was made for this gateway;
//! - it shares the leader's session or process group, for as long as that number is known to be the leader's: a leader
//!   of ours keeps it until we reap it, which we do last; an adopted one keeps it while it lives;
//! - it descends from a member. As a subreaper (prctl(2)) we inherit the orphans of our own gateways, but not only them:
//!   a container runtime leaves other processes to PID 1, and a shell may have had children before it became us by exec.
//!   If an orphan can come from elsewhere it needs further proof, the rlimit tag at least. The orphans of an adopted tree
//!   come to another reaper, and are known by the tag alone; all orphans on macOS come to init;
//! - it has the instance id of this gateway in its environment;
//! - it was seen as a member before. A pid and a start time name a process only if that was older than the clock tick in
//!   which it was seen; a younger one is held.
//!
//! A pid that was read somewhere may be another process by now. So everything is judged again before a signal is sent,
//! on what is read while the process is held: by a pidfd, or as our child in a [`Turn`](process::Turn), in which nothing
//! is reaped.
//!
//! Most methods read `/proc`, which may block: they belong into a [`proc::run`].

mod around;
mod grace;
mod kill;
mod members;
mod membership;
mod memory;
mod reaper;
mod scan;
mod spare;
mod strays;
mod target;
#[cfg(test)]
mod tests;
mod toll;
mod units;

pub use members::{Orphans, Tree};
pub(super) use strays::is_of_user;
