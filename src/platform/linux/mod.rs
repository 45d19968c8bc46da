//! Linux.

mod by_pid;
pub mod cgroup;
pub mod claim;
mod clone;
pub mod filesystem;
mod handle;
pub mod inspection;
pub mod listener;
pub mod machine;
pub mod proc;
pub mod process;
pub mod rlimit_tag;
pub mod stall;
pub mod system_calls;
pub(super) mod time_namespace;
pub mod usage;
