//! macOS.

pub mod listener;
pub mod proc;
pub mod process;
