//! One file a verb.

pub mod ask;
pub mod demo;
pub mod doctor;
pub mod events;
pub mod install;
pub mod probe;
mod record;
pub mod run;
pub mod status;
