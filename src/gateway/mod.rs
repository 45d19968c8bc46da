//! The process that we own, and the port that it serves.

pub mod endpoint;
pub mod probe;
pub mod process;
pub mod tree;
