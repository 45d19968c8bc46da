//! The calls of systemctl, launchctl and loginctl: each one that changes something is shown.

use super::error::Error;
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::{Uid, User};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Who runs the services of this machine.
const PROGRAM: &str = if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" };

/// What follows from a call that fails.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure {
    /// Nothing: there may have been nothing to do.
    Expected,
    /// An error, which ends with these words on how far we were.
    Fatal(&'static str),
}

/// How the manager of this scope is spoken to.
pub(super) fn systemctl(settings: &ServiceSettings) -> &'static [&'static str] {
    match settings.scope {
        Scope::User => &["systemctl", "--user"],
        Scope::Machine { .. } => &["systemctl"],
    }
}

/// Where launchd has the jobs of this user.
pub(super) fn domain() -> String {
    format!("gui/{}", Uid::effective())
}

/// Whether the manager is there.
pub(super) fn is_there(settings: &ServiceSettings) -> Result<(), Error> {
    which::which_in(PROGRAM, Some(&settings.path), "/").map(|_| ()).map_err(|_| Error::NoManager(PROGRAM))
}

/// Whether it answers; asked before anything is changed.
pub(super) fn check_answer(settings: &ServiceSettings) -> Result<(), Error> {
    let domain = domain();
    let order = if cfg!(target_os = "macos") {
        vec!["launchctl", "print", &domain]
    } else {
        [systemctl(settings), &["show", "--property=Version"]].concat()
    };
    let answer = call(&order).map(|_| ());
    answer.map_err(|complaint| Error::Unreachable { order: order.join(" "), complaint, advice: advice(settings) })
}

/// Why a manager does not answer, from what can be seen from here.
fn advice(settings: &ServiceSettings) -> String {
    let (uid, user) = (Uid::effective(), user_name());
    if cfg!(target_os = "macos") {
        return format!("agents of {user} run while {user} is logged in at the screen: log in there first");
    }
    let has_runtime = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !folder.is_empty());
    match settings.scope {
        Scope::User if !has_runtime => format!(
            "XDG_RUNTIME_DIR is not set, as after su or sudo: log in as {user} itself, or 'sudo loginctl enable-linger \
             {user}' and 'export XDG_RUNTIME_DIR=/run/user/{uid}'; without systemd have whatever starts services here run \
             'openclaw-supervise run'"
        ),
        Scope::User => format!(
            "{user} has no manager of services that runs: 'sudo loginctl enable-linger {user}' starts one; without systemd \
             have whatever starts services here run 'openclaw-supervise run'"
        ),
        Scope::Machine { .. } => "systemd does not run this machine, it seems: have whatever starts services here run \
             'openclaw-supervise run'"
            .to_owned(),
    }
}

/// The name of who asks.
pub(super) fn user_name() -> String {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    user.map_or_else(|| Uid::effective().to_string(), |user| user.name)
}

/// What systemd has of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    active: String,
    file: String,
    /// Where its file is.
    pub(super) path: Option<PathBuf>,
}

impl Shown {
    fn read(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim().to_owned()
        };
        let path = Some(value("FragmentPath")).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { active: value("ActiveState"), file: value("UnitFileState"), path }
    }

    /// Whether it runs, ends, or waits for its next start.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.active.as_str(), "" | "inactive" | "failed")
    }

    /// Whether something starts it.
    pub(super) fn is_enabled(&self) -> bool {
        matches!(self.file.as_str(), "enabled" | "enabled-runtime" | "linked" | "linked-runtime")
    }
}

/// Asks systemd about a unit; nothing where it does not answer.
pub(super) fn show(manager: &[impl AsRef<str>], unit: &str) -> Shown {
    let words = ["show", "--property=ActiveState,UnitFileState,FragmentPath", unit];
    let words: Vec<&str> = manager.iter().map(AsRef::as_ref).chain(words).collect();
    call(&words).map_or_else(|_| Shown::default(), |said| Shown::read(&said))
}

/// Whether systemd has that unit running, or about to.
pub(super) fn is_active(manager: &[impl AsRef<str>], unit: &str) -> bool {
    show(manager, unit).is_active()
}

/// Whether launchd has that job.
pub(super) fn is_loaded(label: &str) -> bool {
    call(&["launchctl", "print", &format!("{}/{label}", domain())]).is_ok()
}

/// Whether a user's services end with the last session, as far as we are told.
pub(super) fn ends_with_session(user: &str) -> bool {
    let mut asked = Command::new("loginctl");
    asked.args(["show-user", user, "--property=Linger", "--value"]).stdin(Stdio::null());
    asked.output().is_ok_and(|answer| answer.stdout.trim_ascii() == b"no")
}

/// Calls the manager for a change, and shows the call.
pub(super) fn order(
    settings: &ServiceSettings,
    words: &[&str],
    failure: Failure,
    out: &mut impl Write,
) -> Result<(), Error> {
    let line = words.join(" ");
    if settings.dry_run {
        return Ok(writeln!(out, "would call {line}")?);
    }
    writeln!(out, "calling    {line}")?;
    out.flush()?;
    match (call(words), failure) {
        (Ok(_), _) | (Err(_), Failure::Expected) => Ok(()),
        (Err(complaint), Failure::Fatal(then)) => Err(Error::Refused(line, complaint, then)),
    }
}

/// Calls a program, and brings what it said, or complained about.
fn call(words: &[&str]) -> Result<String, String> {
    let Some((program, words)) = words.split_first() else { return Ok(String::new()) };
    match Command::new(program).args(words).stdin(Stdio::null()).output() {
        Ok(answer) if answer.status.success() => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer.stderr).trim().replace('\n', " ");
            Err(if said.is_empty() { answer.status.to_string() } else { said })
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_at_rest_is_active() {
        for (state, active) in [
            ("inactive", false),
            ("failed", false),
            ("active", true),
            ("reloading", true),
            ("activating", true),
            ("deactivating", true),
            ("", false),
        ] {
            let shown =
                Shown::read(&format!("FragmentPath=/x/y.service\nActiveState={state}\nUnitFileState=enabled\n"));
            assert_eq!(shown.is_active(), active, "{state}");
            assert!(shown.is_enabled() && shown.path.is_some());
        }
        assert_eq!(Shown::read("FragmentPath=\nUnitFileState=\n"), Shown::default());
    }
}
