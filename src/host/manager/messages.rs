//! Where what a gateway writes is to be read: it inherits our own output.

use super::unit::Unit;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Where OpenClaw keeps a log of its own, unless its configuration names another place.
const OWN_LOG: &str = "/tmp/openclaw/openclaw-*.log";

/// In the words that follow "its own messages". `is_openclaw` says whether it has a log of its own.
#[must_use]
pub fn place_of_messages(is_openclaw: bool) -> String {
    let unit = Unit::ours().filter(|_| is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), stderr()));
    let place = match unit {
        Some(unit) => format!("are shown by '{}'", unit.journalctl()),
        None if std::process::id() == 1 => {
            "are in the container's log ('docker logs', 'kubectl logs --previous')".to_owned()
        }
        None if super::name() == "launchd" => "are in the file that the job names as StandardErrorPath".to_owned(),
        None => "stand above".to_owned(),
    };
    if is_openclaw { format!("{place}, and by default in {OWN_LOG}") } else { place }
}

/// Device and inode of our standard error.
fn stderr() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// Whether that is what systemd has connected to the journal. What it says of the stream is inherited by all that we may be
/// started from, with an output of its own.
fn is_journal(stream: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let told = stream.and_then(|stream| stream.split_once(':'));
    let told = told.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    told.is_some() && told == stderr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_has_only_what_is_connected_to_it() {
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
