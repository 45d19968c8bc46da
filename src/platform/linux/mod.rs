//! Linux.

pub mod proc;
