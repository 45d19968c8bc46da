//! One file a verb.

pub mod probe;
pub mod run;
