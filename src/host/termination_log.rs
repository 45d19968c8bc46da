//! The last words of a supervisor that fails, where Kubernetes looks for them: `kubectl describe pod` shows the file
//! (`terminationMessagePath`).

use super::manager;
use crate::platform::folder::Folder;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The default `terminationMessagePath`. The kubelet mounts a file there.
const DEFAULT: &str = "/dev/termination-log";

/// The kubelet shows no more of it.
const BYTES_MAX: usize = 4096;

/// A file system that hangs must not keep us from exiting.
const TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TerminationLog {
    /// [`DEFAULT`], in a container that has it.
    #[default]
    Auto,
    Off,
    /// Created if it is missing.
    File(PathBuf),
}

impl TerminationLog {
    /// Replaces the content of the file by one line.
    pub fn write(self, code: u8, reason: &str) {
        let (path, create) = match self {
            Self::Auto if manager::container().is_some() => (PathBuf::from(DEFAULT), OFlags::empty()),
            Self::File(path) => (path, OFlags::CREATE),
            Self::Auto | Self::Off => return,
        };
        let text = line(code, reason);
        let is_explicit = !create.is_empty();
        let (done, written) = mpsc::channel();
        let work = {
            let path = path.clone();
            move || {
                // After the timeout the receiver is gone.
                let _late = done.send(replace(&path, create, text.as_bytes()));
            }
        };
        let _unwritten = thread::Builder::new().name("last-words".to_owned()).spawn(work);
        match written.recv_timeout(TIME_MAX) {
            Err(_) => tracing::warn!("cannot write {}: it takes too long", path.display()),
            // What the kubelet mounts is there, or this is no pod.
            Ok(Err(error)) if is_explicit => tracing::warn!("cannot write {}: {error}", path.display()),
            Ok(Ok(()) | Err(_)) => {}
        }
    }
}

fn replace(path: &Path, create: OFlags, text: &[u8]) -> io::Result<()> {
    let folder = Folder::open(path.parent().unwrap_or(Path::new("/")))?;
    let mut file = folder.open_file(path.file_name().unwrap_or(OsStr::new(".")), OFlags::WRONLY | create)?;
    file.set_len(0)?;
    file.write_all(text)
}

fn line(code: u8, reason: &str) -> String {
    let reason = reason.trim().replace(char::is_control, " ");
    let mut line = format!("openclaw-supervise ended with exit code {code}: {reason}");
    line.truncate(line.floor_char_boundary(BYTES_MAX - 1));
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_words_are_one_line_of_at_most_4096_bytes() {
        assert_eq!(line(78, "a\nb \u{1b}c\n"), "openclaw-supervise ended with exit code 78: a b  c\n");
        let long = line(69, &"\u{e9}".repeat(4000));
        assert!(long.len() <= BYTES_MAX && long.ends_with("\u{e9}\n"), "{}", long.len());
    }

    #[test]
    fn only_the_last_words_stay_and_nothing_but_a_plain_file_is_written() {
        let folder = std::env::temp_dir().join(format!("ocs-last-words-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let folder = fs::canonicalize(folder).unwrap();
        let file = folder.join("file");
        assert!(replace(&file, OFlags::empty(), b"x").is_err(), "it is not created");
        replace(&file, OFlags::CREATE, b"a long line\n").unwrap();
        replace(&file, OFlags::empty(), b"short\n").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"short\n");
        std::os::unix::fs::symlink(&file, folder.join("link")).unwrap();
        for path in [folder.join("link"), folder.clone(), PathBuf::from("/dev/null")] {
            assert!(replace(&path, OFlags::CREATE, b"x").is_err(), "{}", path.display());
        }
        assert_eq!(fs::read(&file).unwrap(), b"short\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
