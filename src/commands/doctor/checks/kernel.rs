//! The kernel, or the sandbox in front of it.

use crate::commands::doctor::finding::Finding;
use crate::platform::system_calls::Shortfall;

/// As `doctor` finds it: a sandbox around the supervisor alone is not visible.
pub(in super::super) fn system_calls(shortfall: Option<Shortfall>) -> Finding {
    let check = "kernel";
    match shortfall {
        None => Finding::ok(check, "has all system calls that are used"),
        Some(Shortfall { found, why, fix }) => Finding::warn(check, format!("missing: {found}"), why, fix),
    }
}
