//! The process that we own, and the port that it serves.

pub mod adopt;
pub mod endpoint;
pub mod hooks;
pub mod probe;
pub mod process;
pub mod state_lock;
pub mod tree;
