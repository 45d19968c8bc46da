//! A stand-in for OpenClaw's command line. Its gateway is the stand-in gateway; what else it is asked is written down and
//! answered as the scene says.

use super::{PATIENCE, fake_gateway, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Answers `restart-handoff` as the files `capabilities` and `consume` say: as the stand-in gateway would where they are
/// not there, which knows the restarts that it has planned. `doctor` does what its file says, for a shell.
const SCRIPT: &str = r#"#!/bin/sh
note() {
    env > "$root/openclaw-env-$$"
    echo "$(date +%s%N) $$ $*" >> "$root/openclaw.log"
}
case "$1 $2 $3" in
"gateway restart-handoff "*) note "$@"; . "$root/$3" ;;
"doctor "*) note "$@"; . "$root/doctor"; exit ;;
esac
exec "$gateway" "$@"
"#;

/// One call of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Since 1970.
    pub(crate) at: Duration,
    pub(crate) pid: i32,
    pub(crate) words: String,
}

/// The program and its notes.
pub(crate) struct Openclaw {
    root: PathBuf,
}

impl Openclaw {
    pub(super) fn install(root: &Path) -> Self {
        let this = Self { root: root.to_owned() };
        for question in ["capabilities", "consume", "doctor"] {
            this.answer(question, "");
        }
        fs::create_dir_all(root.join("bin")).expect("a folder can be made");
        let (shown, gateway) = (root.display(), fake_gateway());
        let head = format!("#!/bin/sh\nroot='{shown}'\ngateway='{}'\n", gateway.display());
        let program = this.program();
        fs::write(&program, SCRIPT.replacen("#!/bin/sh\n", &head, 1)).expect("the folder can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is our file");
        this
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.root.join("bin/openclaw")
    }

    /// The words that start its gateway.
    pub(crate) fn words(&self, port: u16) -> Vec<String> {
        let program = self.program().display().to_string();
        [&program, "gateway", "run", "--port", &port.to_string()].map(str::to_owned).to_vec()
    }

    /// What the shell does when it is asked this, before or in place of the usual answer.
    pub(crate) fn answer(&self, question: &str, commands: &str) {
        let path = self.root.join(question);
        // Written aside and renamed: it is never seen half-written.
        let aside = self.root.join("aside-answer");
        fs::write(&aside, format!("{commands}\n")).and_then(|()| fs::rename(aside, path)).expect("it can be written");
    }

    /// The calls so far that had this among their words.
    pub(crate) fn calls(&self, word: &str) -> Vec<Call> {
        let text = fs::read_to_string(self.root.join("openclaw.log")).unwrap_or_default();
        let calls = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            let at = Duration::from_nanos(parts.next()?.parse().ok()?);
            Some(Call { at, pid: parts.next()?.parse().ok()?, words: parts.next()?.to_owned() })
        });
        calls.filter(|call| call.words.split(' ').any(|known| known == word)).collect()
    }

    /// Waits until there were so many.
    pub(crate) fn wait_calls(&self, word: &str, count: usize) -> Vec<Call> {
        let look = || Some(self.calls(word)).filter(|calls| calls.len() >= count);
        wait_for(&format!("{count} calls of {word}"), PATIENCE, || format!("{:?}", self.calls(word)), look)
    }

    /// The environment of a call.
    pub(crate) fn environment(&self, call: &Call) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.root.join(format!("openclaw-env-{}", call.pid))).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
    }
}
