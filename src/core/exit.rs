//! The exit codes, as service managers are told them.

/// Stopped on request, or detached; `probe`: it is as asked.
pub const OK: u8 = 0;
/// A failure that may pass, such as a full disk or a file system that does not answer; `probe`: it is not as asked.
pub const FAILURE: u8 = 1;
/// The command line or the environment is wrong.
pub const USAGE: u8 = 2;
/// The restart budget is spent: `EX_UNAVAILABLE` of `sysexits.h`.
pub const GAVE_UP: u8 = 69;
/// Another start will not help: a duplicate, a port conflict, the gateway's configuration, a missing command, a folder
/// that cannot be written.
/// `EX_CONFIG` of `sysexits.h`, which OpenClaw's own unit names in `RestartPreventExitStatus`.
pub const EX_CONFIG: u8 = 78;
