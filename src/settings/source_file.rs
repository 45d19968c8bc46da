//! The files of the gateway that say where it listens. What we cannot read is a warning: the gateway reads them itself.

use crate::platform::regular_file;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is read that changes while it is read, and the pause between two tries.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// What a look at the files has met.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// All that were looked at; they need not exist.
    pub(super) files: Vec<PathBuf>,
    /// One line each, the file and its line first.
    pub(super) problems: Vec<String>,
    /// Whether a file ends too early or makes no sense, as one does that is being written.
    pub(super) is_half_written: bool,
}

impl Findings {
    /// The bytes of a file. `None` if there is none, or it cannot be read, which is a problem.
    pub(super) fn read(&mut self, path: &Path, longest: u64) -> Option<Vec<u8>> {
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
        match read_unchanged(path, longest) {
            Ok(bytes) => Some(bytes),
            // A file where the state directory should be is reported as such.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(error) => {
                self.problems.push(format!("{}: cannot be read: {error}", path.display()));
                None
            }
        }
    }
}

/// Reads again if the file was changed or replaced meanwhile; the last try counts in any case.
#[expect(clippy::disallowed_methods, reason = "the settings are read before the loop begins, or on a worker")]
fn read_unchanged(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let (bytes, before) = read_once(path, longest)?;
        let after = path.metadata().ok().as_ref().map(state_of);
        if tries == 0 || after == Some(before) {
            return Ok(bytes);
        }
        std::thread::sleep(PAUSE);
    }
}

fn read_once(path: &Path, longest: u64) -> io::Result<(Vec<u8>, [i64; 6])> {
    let file = regular_file::open(path)?;
    let before = file.metadata()?;
    let bytes = read_at_most(&file, longest)?;
    Ok((bytes, state_of(&before)))
}

fn read_at_most(file: &File, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("it is larger than {} KiB", longest / 1024)));
    }
    Ok(bytes)
}

/// What changes with the contents of a file, or with the file at a path.
fn state_of(meta: &Metadata) -> [i64; 6] {
    let (inode, size) = (meta.ino().cast_signed(), meta.size().cast_signed());
    [inode, size, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("source-file-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_no_plain_file_is_a_problem_and_a_missing_one_is_none() {
        let folder = folder("kinds");
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(folder.join("long"), [b'x'; 2049]).unwrap();
        fs::write(folder.join("fits"), [b'x'; 2048]).unwrap();
        for (path, expected) in [
            (folder.join("missing"), None),
            (folder.join("fits/below"), None),
            (fifo.clone(), Some("it is not a regular file")),
            (folder.clone(), Some("it is not a regular file")),
            (PathBuf::from("/dev/zero"), Some("it is not a regular file")),
            (folder.join("long"), Some("it is larger than 2 KiB")),
        ] {
            let mut findings = Findings::default();
            assert_eq!(findings.read(&path, 2048), None, "{}", path.display());
            let problem = expected.map(|why| format!("{}: cannot be read: {why}", path.display()));
            assert_eq!(findings.problems, problem.into_iter().collect::<Vec<_>>());
            assert_eq!(findings.files, [path]);
        }
        assert_eq!(Findings::default().read(&folder.join("fits"), 2048).map(|bytes| bytes.len()), Some(2048));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_grew_or_was_replaced_meanwhile_is_noticed() {
        let folder = folder("changes");
        let path = folder.join("config");
        fs::write(&path, "{").unwrap();
        let (_, before) = read_once(&path, 9).unwrap();
        assert_eq!(state_of(&path.metadata().unwrap()), before);
        fs::write(&path, "{}").unwrap();
        let grown = state_of(&path.metadata().unwrap());
        fs::write(folder.join("new"), "[]").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        let replaced = state_of(&path.metadata().unwrap());
        assert!(grown != before && replaced[0] != grown[0], "{before:?} {grown:?} {replaced:?}");
        assert_eq!(read_unchanged(&path, 9).unwrap(), b"[]");
        fs::remove_dir_all(folder).unwrap();
    }
}
