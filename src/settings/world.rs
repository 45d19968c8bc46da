//! What an invocation finds around itself.

use super::listener::tailnet_address;
use crate::host::manager;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Looks a variable of the environment up.
pub type Environment = dyn Fn(&str) -> Option<OsString>;

/// Everything outside the command line that settings depend on.
pub struct World {
    /// The environment.
    pub env: Box<Environment>,
    /// The user's home directory when no variable names it.
    pub home: fn() -> Option<PathBuf>,
    /// What relative paths start from.
    pub cwd: PathBuf,
    /// Whether stderr is a terminal.
    pub terminal: bool,
    /// Whether we are process 1, and with that a container's whole life.
    pub pid1: bool,
    /// Whether launchd runs us: it starts a job that ended again, whatever its exit code.
    pub launchd: bool,
    /// This machine's address in a tailnet.
    pub tailnet: fn() -> Option<Ipv4Addr>,
}

impl World {
    /// The one that this process is in.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            env: Box::new(|name| std::env::var_os(name)),
            home: std::env::home_dir,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            terminal: std::io::stderr().is_terminal(),
            pid1: std::process::id() == 1,
            launchd: manager::name() == "launchd",
            tailnet: tailnet_address,
        }
    }

    /// A variable that is set to something: an empty one counts as unset. White space around a text is dropped.
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        let value = (self.env)(name)?;
        let value = value.to_str().map(|text| OsString::from(text.trim())).unwrap_or(value);
        Some(value).filter(|value| !value.is_empty())
    }
}
