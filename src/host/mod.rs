//! Who talks to us, and who hears from us.

pub mod clock;
pub mod control;
pub mod journal;
mod line_queue;
pub mod log_file;
pub mod manager;
pub mod metrics;
pub mod notify;
pub mod signals;
pub mod stderr;
pub mod telemetry;
pub mod termination_log;
pub mod webhook;
