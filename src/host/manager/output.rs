//! Where a person finds the gateway's output, which goes to our own stdout and stderr.

use super::unit::Unit;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// OpenClaw's own log file, unless its configuration names another.
const OWN_LOG: &str = "/tmp/openclaw/openclaw-*.log";

/// Completes "see the gateway's output ...". `manager` is [`super::name`]; `has_own_log` means that the gateway is OpenClaw, which
/// also writes [`OWN_LOG`].
#[must_use]
pub fn where_shown(manager: &str, has_own_log: bool) -> String {
    let unit = Unit::ours().filter(|_| is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr()));
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

/// Device and inode of our standard error.
fn stderr() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether stderr is the stream in `JOURNAL_STREAM`. The variable alone proves nothing: it is inherited, and a parent may
/// have redirected our output.
fn is_journal(stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let stream = stream.and_then(|stream| stream.split_once(':'));
    let stream = stream.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    stream.is_some() && stream == stderr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_goes_to_the_journal_only_if_device_and_inode_match() {
        for (stream, stderr, expected) in [
            (Some("8:1234"), Some((8, 1234)), true),
            (Some("8:1234"), Some((8, 1235)), false),
            (Some("8:1234"), None, false),
            (Some("8"), Some((8, 8)), false),
            (Some("x:y"), None, false),
            (None, None, false),
        ] {
            assert_eq!(is_journal(stream, stderr), expected, "{stream:?} {stderr:?}");
        }
    }
}
