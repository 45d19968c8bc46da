//! The cached capabilities of OpenClaw's CLI, in a file beside the store for the next supervisor. Without it the first gateway
//! of each supervisor could leave a detached successor, and each start would cost one more cold start of Node.

use crate::core::handoff::Support;
use crate::platform::folder::Folder;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

const FILE: &str = "capabilities.json";

/// A real file has about 300 bytes.
const LENGTH_MAX: u64 = 64 * 1024;

/// The result of a `capabilities` call, with the fingerprints of the files for which it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Capability {
    /// The command line that was called.
    pub(super) command: String,
    pub(super) config: u64,
    pub(super) files: u64,
    pub(super) restart_handoff: bool,
    /// Why it is unsupported.
    pub(super) why: Option<String>,
}

impl Capability {
    /// A failed call may have had its reason in the configuration.
    pub(super) fn holds_for(&self, command: &str, files: u64, config: u64) -> bool {
        self.command == command && self.files == files && (self.restart_handoff || self.config == config)
    }

    pub(super) fn support(&self) -> Support {
        if self.restart_handoff {
            Support::Supported
        } else {
            Support::Unsupported(self.why.clone().unwrap_or_default())
        }
    }

    fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    folder: PathBuf,
}

impl Memory {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// `None` if the file is missing or malformed.
    pub(super) fn read(&self) -> Option<Capability> {
        let (folder, mut text) = (Folder::open(&self.folder).ok()?, Vec::new());
        folder.open_file(FILE, OFlags::RDONLY).ok()?.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes on a thread of its own, since a disk may take long. If that fails, the next supervisor asks again.
    pub(super) fn keep(&self, known: &Capability) {
        let (folder, text) = (self.folder.clone(), known.text());
        let writing = move || {
            if let Err(error) = write(&folder, text.as_bytes()) {
                tracing::debug!("cannot cache the capabilities of the OpenClaw CLI: {error}");
            }
        };
        let _detached = thread::Builder::new().name("capabilities".to_owned()).spawn(writing);
    }
}

/// Atomic.
fn write(folder: &Path, text: &[u8]) -> io::Result<()> {
    Folder::open(folder)?.replace(FILE, &format!("{FILE}.new"), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn known(why: Option<&str>) -> Capability {
        let command = "/bin/node /opt/openclaw.mjs".to_owned();
        let (restart_handoff, why) = (why.is_none(), why.map(str::to_owned));
        Capability { command, config: 7, files: u64::MAX, restart_handoff, why }
    }

    #[test]
    fn a_kept_capability_is_read_again_and_a_damaged_file_is_none() {
        let folder = std::env::temp_dir().join(format!("supervise-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let memory = Memory::in_folder(&folder);
        assert_eq!(memory.read(), None);
        for known in [known(None), known(Some("exit code 1"))] {
            write(&memory.folder, known.text().as_bytes()).unwrap();
            assert_eq!(memory.read(), Some(known));
        }
        let whole = fs::read(folder.join(FILE)).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"[]", b"{\"command\":1}", b"\xff"] {
            fs::write(folder.join(FILE), damaged).unwrap();
            assert_eq!(memory.read(), None, "{damaged:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
