//! Control groups, see cgroups(7): one leaf below our own group for each gateway, if we may make one. No controller is
//! enabled in it, so it changes nothing for the processes in it; and we stay where we are.

mod account;
mod cpu;
mod files;
mod leaf;
mod oom;
mod place;

pub use account::account_of;
pub(super) use cpu::{cpu_pressure_of, throttled_of};
pub use leaf::{Leaf, populated, remove_empty};
pub use oom::OomCount;
