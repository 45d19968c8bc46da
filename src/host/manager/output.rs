//! Where a person finds the gateway's output, which goes to our own stdout and stderr.

use super::unit::Unit;
use crate::host::stderr;
use std::io::{self, IsTerminal};

/// OpenClaw's own log file, unless its configuration names another.
const OWN_LOG: &str = "/tmp/openclaw/openclaw-*.log";

/// Completes "see the gateway's output ...". `manager` is [`super::name`]; `has_own_log` means that the gateway is OpenClaw, which
/// also writes [`OWN_LOG`].
#[must_use]
pub fn where_shown(manager: &str, has_own_log: bool) -> String {
    let unit = Unit::ours().filter(|_| stderr::is_journal());
    let place = match unit {
        Some(unit) => format!("in the journal ('{}')", unit.journalctl()),
        None if manager == "pm2" => "in PM2's log ('pm2 logs')".to_owned(),
        None if manager == "supervisord" => "in supervisord's log ('supervisorctl tail NAME stderr')".to_owned(),
        None if manager == "container" && !io::stderr().is_terminal() => {
            "in the container's log ('docker logs', 'kubectl logs --previous')".to_owned()
        }
        None if manager == "launchd" => "in the file that the job names as StandardErrorPath".to_owned(),
        None => "above".to_owned(),
    };
    if has_own_log { format!("{place}, and in {OWN_LOG}") } else { place }
}
