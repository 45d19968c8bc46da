//! How a gateway is started: its command and its environment.

use crate::core::{Fingerprint, Generation};
use crate::platform::hash::fnv1a;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// The variable with the instance id: set for the gateway alone, and inherited by all that it starts.
pub const INSTANCE: &str = "OPENCLAW_SUPERVISE_INSTANCE";

/// Names the call of a hook that a process descends from.
pub const HOOK: &str = "OPENCLAW_SUPERVISE_HOOK";

/// Tell a gateway that it is supervised: it leaves no detached successor, and exits with 0 for a restart.
pub(super) const OWNED: [(&str, &str); 2] =
    [("OPENCLAW_SUPERVISOR_MODE", "external"), ("OPENCLAW_SERVICE_REPAIR_POLICY", "external")];

/// Variables that would make a gateway believe that systemd or launchd owns it, or let it talk to our own manager in our
/// name. With `OPENCLAW_SERVICE_MARKER` a starting gateway even kills others on its port.
const HINTS: [&str; 24] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    // The channel of a parent that runs Node, such as pm2: a gateway would take its descriptor for one of its own.
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NOTIFY_SOCKET",
    "OPENCLAW_LAUNCHD_LABEL",
    "OPENCLAW_SERVICE_KIND",
    "OPENCLAW_SERVICE_MARKER",
    // The URLs in them are secrets.
    "OPENCLAW_SUPERVISE_HEARTBEAT_URL",
    HOOK,
    "OPENCLAW_SUPERVISE_NOTIFY",
    "OPENCLAW_SYSTEMD_UNIT",
    "OPENCLAW_WRAPPER",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XPC_SERVICE_NAME",
];

/// Keeps a gateway from leaving a detached successor after an update: it restarts in place then.
const NO_RESPAWN: &str = "OPENCLAW_NO_RESPAWN";

/// The gateway to start.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'a> {
    /// Counts the gateways of this configuration.
    pub generation: Generation,
    /// From [`new_instance`].
    pub instance: &'a str,
    /// Whether it does not support the handoff, and must be kept from leaving a successor.
    pub no_respawn: bool,
    /// The state of its files before the start.
    pub fingerprint: Fingerprint,
}

/// How to start a gateway.
#[derive(Debug, Clone)]
pub struct Launch {
    /// [`key_of`] our lease key. The instance ids of all our gateways begin with it, which proves that a supervisor of this
    /// configuration started them.
    pub key: String,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Those of the program.
    pub arguments: Vec<OsString>,
    /// The gateway's configuration file.
    pub config: PathBuf,
    /// The settings that were given to us, as the variables in which the gateway looks for them.
    pub exports: Vec<(&'static str, OsString)>,
}

impl Launch {
    /// The command as text, to be recorded with a gateway and compared with that of a later launch.
    #[must_use]
    pub fn text(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn command(&self, birth: Birth<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        scrub(&mut command);
        command.envs(OWNED).env(INSTANCE, birth.instance).envs(self.exports.iter().map(|(name, value)| (name, value)));
        if birth.no_respawn {
            command.env(NO_RESPAWN, "1");
        }
        command
    }
}

/// Removes from the environment of a child what is about us alone, or secret.
pub(super) fn scrub(command: &mut Command) {
    for hint in HINTS {
        command.env_remove(hint);
    }
}

/// The key of a configuration: the 64-bit FNV-1a hash of its lease key. It has to be the same in every release.
#[must_use]
pub fn key_of(lease_key: &str) -> String {
    format!("{:016x}", fnv1a(lease_key.bytes()))
}

/// The entry in the environment of everything that a gateway starts.
pub(super) fn entry(instance: &str) -> String {
    format!("{INSTANCE}={instance}")
}
