//! The state machine, seen from outside: events in, effects out, on a virtual clock.

#[path = "../support/fake_shell.rs"]
mod fake_shell;
#[path = "../scenarios/world.rs"]
mod world;

#[path = "../scenarios/adopt.rs"]
mod adopt;
#[path = "../scenarios/alive.rs"]
mod alive;
#[path = "../scenarios/evidence.rs"]
mod evidence;
#[path = "../scenarios/failing.rs"]
mod failing;
#[path = "../scenarios/handoff.rs"]
mod handoff;
#[path = "../scenarios/health.rs"]
mod health;
#[path = "../scenarios/history.rs"]
mod history;
#[path = "../scenarios/hooks.rs"]
mod hooks;
#[path = "../scenarios/installer.rs"]
mod installer;
#[path = "../scenarios/launcher.rs"]
mod launcher;
#[path = "../scenarios/lease.rs"]
mod lease;
#[path = "../scenarios/memory.rs"]
mod memory;
#[path = "../scenarios/moved.rs"]
mod moved;
#[path = "../scenarios/notices.rs"]
mod notices;
#[path = "../scenarios/pace.rs"]
mod pace;
#[path = "../scenarios/pause.rs"]
mod pause;
#[path = "../scenarios/port.rs"]
mod port;
#[path = "../scenarios/requests.rs"]
mod requests;
#[path = "../scenarios/stall.rs"]
mod stall;
#[path = "../scenarios/standby.rs"]
mod standby;
#[path = "../scenarios/stop.rs"]
mod stop;
#[path = "../scenarios/successor.rs"]
mod successor;
#[path = "../scenarios/walk.rs"]
mod walk;
#[path = "../scenarios/work.rs"]
mod work;
