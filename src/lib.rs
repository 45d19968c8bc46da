//! `openclaw-supervise`: keeps exactly one OpenClaw gateway alive.

pub mod platform;
