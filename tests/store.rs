//! The store with real files, locks, sockets, threads and processes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "store/heartbeat.rs"]
mod heartbeat;
#[path = "store/history.rs"]
mod history;
#[path = "store/kit.rs"]
mod kit;
#[path = "store/lease.rs"]
mod lease;
#[path = "store/replaced.rs"]
mod replaced;
#[path = "support/root.rs"]
mod root;
#[path = "store/trouble.rs"]
mod trouble;
