//! The process that we own, and the port that it serves.

pub mod adopt;
pub mod endpoint;
pub mod event_command;
mod exit_watch;
pub mod handoff;
pub mod heap;
pub mod hooks;
pub mod incident;
pub mod insiders;
pub mod installer;
mod launch;
pub mod openclaw;
pub mod probe;
pub mod process;
pub mod program;
pub mod sample;
mod spawn;
pub mod state_lock;
pub mod tree;
pub mod verb;
