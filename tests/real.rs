//! The real gateway from its npm package, two tests at a time. Those that need the machine to themselves have a file of
//! their own: `real_gateway.rs` and `real_breaker.rs`.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[path = "real/handoff.rs"]
mod handoff;
#[path = "systemd/machine.rs"]
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod machine;
#[path = "real/moved.rs"]
mod moved;
#[path = "real/service.rs"]
mod service;
#[path = "real/settings.rs"]
mod settings;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;
