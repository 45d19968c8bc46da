//! What was found out about OpenClaw's command line, for the next supervisor: a file beside the store. Without it the first
//! gateway of each supervisor could leave a detached successor, and each start would cost a cold start of Node more.

use super::Known;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

const FILE: &str = "capabilities.json";

/// It has some 300 bytes.
const LENGTH_MAX: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
}

impl Memory {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// What it says. A file that says something else is as good as none.
    pub(super) fn read(&self) -> Option<Known> {
        let mut text = Vec::new();
        File::open(&self.path).ok()?.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
        from_json(&serde_json::from_slice(&text).ok()?)
    }

    /// Keeps this, on a thread of its own: a disk may take long. Where it cannot be kept, the next supervisor asks.
    pub(super) fn keep(&self, known: &Known) {
        let (path, text) = (self.path.clone(), format!("{:#}\n", to_json(known)));
        let writing = move || {
            if let Err(error) = write(&path, text.as_bytes()) {
                tracing::debug!("cannot keep what the gateway's command line can be asked: {error}");
            }
        };
        let _detached = thread::Builder::new().name("capabilities".to_owned()).spawn(writing);
    }
}

/// Whole, or not at all.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(aside, path)
}

fn to_json(known: &Known) -> Value {
    let Known { line, files, config, lack } = known;
    json!({ "command": line, "files": files, "config": config, "restart_handoff": lack.is_none(), "why": lack })
}

fn from_json(value: &Value) -> Option<Known> {
    let why = || value["why"].as_str().map(str::to_owned);
    Some(Known {
        line: value["command"].as_str()?.to_owned(),
        files: value["files"].as_u64()?,
        config: value["config"].as_u64()?,
        lack: if value["restart_handoff"].as_bool()? { None } else { Some(why()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(lack: Option<&str>) -> Known {
        let line = "/bin/node /opt/openclaw.mjs".to_owned();
        Known { line, files: u64::MAX, config: 7, lack: lack.map(str::to_owned) }
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_damaged_is_none() {
        let folder = std::env::temp_dir().join(format!("supervise-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let memory = Memory::in_folder(&folder);
        assert_eq!(memory.read(), None);
        for known in [known(None), known(Some("exit code 1"))] {
            write(&memory.path, format!("{:#}\n", to_json(&known)).as_bytes()).unwrap();
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
