//! macOS.

pub mod claim;
pub mod filesystem;
pub mod listener;
pub mod machine;
pub mod proc;
pub mod process;
