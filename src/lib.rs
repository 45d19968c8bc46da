//! `openclaw-supervise`: keeps exactly one OpenClaw gateway alive.

pub mod core;
pub mod gateway;
pub mod platform;
