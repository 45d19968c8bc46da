//! The one line of a test that needs root.

use nix::unistd::Uid;

/// Fails the test with one line unless root runs it. `why` is what takes the right.
#[track_caller]
pub(crate) fn needs_root(why: &str) {
    assert!(Uid::effective().is_root(), "needs root: {why}; run `sudo -E cargo test`");
}
