//! What keeps a process from its work cannot be seen here without the rights of a debugger.

use std::time::Duration;

/// Not known.
#[must_use]
pub fn waited(_pid: i32) -> Option<Duration> {
    None
}

/// Not known.
#[must_use]
pub fn turns(_pid: i32) -> Option<u64> {
    None
}

/// Not known.
#[must_use]
pub fn pressure(_pid: i32) -> Option<Duration> {
    None
}

/// There are no control groups.
#[must_use]
pub fn throttled(_pid: i32) -> Option<Duration> {
    None
}

/// Not known.
#[must_use]
pub fn blocked_write(_pid: i32) -> Option<(&'static str, String)> {
    None
}

/// Not known.
#[must_use]
pub fn readers_of(_file: &str) -> Vec<i32> {
    Vec::new()
}
