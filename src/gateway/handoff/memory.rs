//! The cached capabilities of OpenClaw's CLI, in a file beside the store for the next supervisor. Without it the first gateway
//! of each supervisor could leave a detached successor, and each start would cost one more cold start of Node.

use crate::core::handoff::Support;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    path: PathBuf,
}

impl Memory {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// `None` if the file is missing or malformed.
    pub(super) fn read(&self) -> Option<Capability> {
        let mut text = Vec::new();
        File::open(&self.path).ok()?.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes on a thread of its own, since a disk may take long. If that fails, the next supervisor asks again.
    pub(super) fn keep(&self, known: &Capability) {
        let (path, text) = (self.path.clone(), known.text());
        let writing = move || {
            if let Err(error) = write(&path, text.as_bytes()) {
                tracing::debug!("cannot cache the capabilities of the OpenClaw CLI: {error}");
            }
        };
        let _detached = thread::Builder::new().name("capabilities".to_owned()).spawn(writing);
    }
}

/// Atomic.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            write(&memory.path, known.text().as_bytes()).unwrap();
            assert_eq!(memory.read(), Some(known));
        }
        let whole = fs::read(&memory.path).unwrap();
        for damaged in [&whole[..whole.len() / 2], b"", b"[]", b"{\"command\":1}", b"\xff"] {
            fs::write(&memory.path, damaged).unwrap();
            assert_eq!(memory.read(), None, "{damaged:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
