//! `openclaw-supervise`: keeps exactly one OpenClaw gateway alive.
//!
//! A pure core decides ([`core`]), thin wings act ([`gateway`], [`host`]), and [`platform`] hides the kernel. The map
//! and the rules that hold it together are in `docs/ARCHITECTURE.md`.

pub use openclaw_supervise_core as core;

pub mod app;
pub mod cli;
pub mod commands;
pub mod gateway;
pub mod host;
pub mod platform;
pub mod settings;
pub mod store;
