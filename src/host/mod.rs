//! Who talks to us, and who hears from us.

pub mod clock;
pub mod control;
pub mod journal;
pub mod manager;
pub mod notify;
pub mod signals;
pub mod stderr;
pub mod telemetry;
pub mod webhook;
