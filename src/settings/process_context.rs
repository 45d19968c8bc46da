//! What settings depend on beside the command line: the environment and a few facts about this process and machine.

use crate::host::manager::{self, Container, ProcessManager};
use crate::host::stderr;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// Looks up an environment variable.
pub type Environment = dyn Fn(&str) -> Option<OsString> + Send + Sync;

#[derive(Clone)]
pub struct ProcessContext {
    pub env: Arc<Environment>,
    /// The user's home directory when no variable names it.
    pub home: fn() -> Option<PathBuf>,
    /// The base of relative paths.
    pub cwd: PathBuf,
    /// Whether stderr is a terminal.
    pub terminal: bool,
    /// Whether stderr is a stream of systemd's journal.
    pub journal: bool,
    /// The container that it runs in.
    pub container: Option<Container>,
    /// What runs it, unless that is systemd or launchd.
    pub process_manager: Option<ProcessManager>,
    /// Whether launchd runs us, which restarts a job whatever its exit code.
    pub launchd: bool,
    /// This machine's address in a tailnet.
    pub tailnet: fn() -> Option<Ipv4Addr>,
}

impl ProcessContext {
    #[must_use]
    pub fn of_this_process() -> Self {
        Self {
            env: Arc::new(|name| std::env::var_os(name)),
            home: std::env::home_dir,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            terminal: std::io::stderr().is_terminal(),
            journal: stderr::is_journal(),
            container: manager::container().cloned(),
            process_manager: manager::process_manager(),
            launchd: manager::name() == "launchd",
            tailnet: tailnet_address,
        }
    }

    /// The same with these variables set.
    pub(super) fn with(&self, variables: impl IntoIterator<Item = (String, OsString)>) -> Self {
        let (own, inherited) = (variables.into_iter().collect::<BTreeMap<_, _>>(), Arc::clone(&self.env));
        Self { env: Arc::new(move |name| own.get(name).cloned().or_else(|| inherited(name))), ..self.clone() }
    }

    /// A variable without the white space around it; `None` if it is unset or empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let value = (self.env)(name)?;
        let value = value.to_str().map(|text| OsString::from(text.trim())).unwrap_or(value);
        Some(value).filter(|value| !value.is_empty())
    }
}

/// The first address of this machine in 100.64.0.0/10, the range that tailnets use.
fn tailnet_address() -> Option<Ipv4Addr> {
    nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let [first, second, ..] = address.octets();
        (first == 100 && second & 0xc0 == 64).then_some(address)
    })
}
