//! The program as its users meet it: built, started as a process, and looked at from the outside. One promise, one file.

#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test binary uses its part of the kit")]
mod support;

mod adopt;
mod alerts;
mod alive;
mod bad_input;
mod blind;
mod conflict;
mod control;
mod crash;
mod crash_points;
mod death;
mod demo;
mod doctor;
mod drills;
mod duplicate;
mod evidence;
mod fatal;
mod handoff;
mod hang;
mod heartbeat;
mod history;
mod hooks;
mod inits;
mod inside;
mod install;
mod kill_and_start;
mod launcher;
mod lease;
mod lost_output;
mod managers;
mod memory;
mod moved;
mod moved_program;
mod namespaces;
mod notify;
mod old_kernel;
mod output;
mod pid1;
mod probe;
mod reaper;
mod refused;
mod repair;
mod replaced;
mod replay;
mod restart;
mod secrets;
mod settings;
mod sick;
mod stand_in;
mod standby;
mod start;
mod stop;
mod store;
mod store_lost;
mod successor;
mod terminal;
mod tini;
mod tree;
mod update;
mod volume;
mod warming;
