//! Failing and slow system calls in every phase of a supervisor, and a run of chaos: no promise is broken, as seen from outside.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::disallowed_methods, reason = "tests wait by the clock, with a bound")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[path = "inject/calls.rs"]
mod calls;
#[path = "inject/chaos.rs"]
mod chaos;
#[path = "inject/notifier.rs"]
mod notifier;
#[path = "inject/phase.rs"]
mod phase;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;
#[path = "inject/sweep.rs"]
mod sweep;

/// A sample; with `INJECT=all` every case, and a table at the end. docs/TESTING.md says more.
#[test]
fn failing_and_slow_system_calls_break_no_promise() {
    sweep::run();
}

/// Half a minute of it; `CHAOS=30m CHAOS_SEED=7` says how long, and repeats a sequence.
#[test]
fn chaos_breaks_no_promise() {
    chaos::run_from_environment();
}
