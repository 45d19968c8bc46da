//! Calls of systemctl, launchctl and loginctl. Each call that changes something is printed.

use super::error::Error;
use crate::commands::progress;
use crate::platform::thread::BlockingCall;
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::{Uid, User};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" };

/// What a failed call means.
#[derive(Debug, Clone, Copy)]
pub(super) enum OnFailure {
    /// There may have been nothing to do.
    Ignore,
    /// An error; its message ends with what has been changed so far.
    Abort(&'static str),
}

pub(super) fn systemctl(settings: &ServiceSettings) -> &'static [&'static str] {
    match settings.scope {
        Scope::User => &["systemctl", "--user"],
        Scope::Machine { .. } => &["systemctl"],
    }
}

/// The launchd domain of this user's jobs.
pub(super) fn domain() -> String {
    format!("gui/{}", Uid::effective())
}

pub(super) fn check_installed(settings: &ServiceSettings) -> Result<(), Error> {
    which::which_in(PROGRAM, Some(&settings.path), "/").map(|_| ()).map_err(|_| Error::NoManager(PROGRAM))
}

/// To be called before anything is changed.
pub(super) fn check_reachable(settings: &ServiceSettings) -> Result<(), Error> {
    let domain = domain();
    let command = if cfg!(target_os = "macos") {
        vec!["launchctl", "print", &domain]
    } else {
        [systemctl(settings), &["show", "--property=Version"]].concat()
    };
    let answer = run(&command).map(|_| ());
    answer.map_err(|output| Error::ManagerUnreachable { command: command.join(" "), output, advice: advice(settings) })
}

/// The likely reason why the manager is unreachable, and the remedy.
fn advice(settings: &ServiceSettings) -> String {
    let (uid, user) = (Uid::effective(), user_name());
    if cfg!(target_os = "macos") {
        return format!(
            "launch agents of {user} run only while {user} is logged in to the desktop: log in there first"
        );
    }
    let has_runtime = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|folder| !folder.is_empty());
    match settings.scope {
        Scope::User if !has_runtime => format!(
            "XDG_RUNTIME_DIR is not set, as after su or sudo: log in as {user} directly, or 'sudo loginctl enable-linger \
             {user}' and 'export XDG_RUNTIME_DIR=/run/user/{uid}'; without systemd have your init system run \
             'openclaw-supervise run'"
        ),
        Scope::User => format!(
            "no systemd user manager runs for {user}: start one with 'sudo loginctl enable-linger {user}'; without systemd \
             have your init system run 'openclaw-supervise run'"
        ),
        Scope::Machine { .. } => {
            "systemd seems not to be the init system here: have yours run 'openclaw-supervise run'".to_owned()
        }
    }
}

/// The name of the effective user, or its uid.
pub(super) fn user_name() -> String {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    user.map_or_else(|| Uid::effective().to_string(), |user| user.name)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnitState {
    active_state: String,
    file_state: String,
    /// Its unit file.
    pub(super) path: Option<PathBuf>,
}

impl UnitState {
    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim().to_owned()
        };
        let path = Some(value("FragmentPath")).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { active_state: value("ActiveState"), file_state: value("UnitFileState"), path }
    }

    /// Running, stopping, or waiting for its next start.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.active_state.as_str(), "" | "inactive" | "failed")
    }

    pub(super) fn is_enabled(&self) -> bool {
        matches!(self.file_state.as_str(), "enabled" | "enabled-runtime" | "linked" | "linked-runtime")
    }
}

/// Empty if systemd does not answer.
pub(super) fn show(manager: &[impl AsRef<str>], unit: &str) -> UnitState {
    let words = ["show", "--property=ActiveState,UnitFileState,FragmentPath", unit];
    let words: Vec<&str> = manager.iter().map(AsRef::as_ref).chain(words).collect();
    run(&words).map_or_else(|_| UnitState::default(), |output| UnitState::parse(&output))
}

pub(super) fn is_active(manager: &[impl AsRef<str>], unit: &str) -> bool {
    show(manager, unit).is_active()
}

/// Whether launchd has loaded the job.
pub(super) fn is_loaded(label: &str) -> bool {
    run(&["launchctl", "print", &format!("{}/{label}", domain())]).is_ok()
}

/// Whether the user's services stop with the last session.
pub(super) fn is_lingering_off(user: &str) -> bool {
    run(&["loginctl", "show-user", user, "--property=Linger", "--value"]).is_ok_and(|output| output.trim() == "no")
}

/// Prints and runs a command that changes something; a dry run only prints it.
pub(super) fn change(
    settings: &ServiceSettings,
    words: &[&str],
    on_failure: OnFailure,
    out: &mut impl Write,
) -> Result<(), Error> {
    change_by(settings, words, on_failure, out, run)
}

/// The same for one that returns when the service has started or stopped: on a terminal it shows what it waits for.
pub(super) fn change_slowly(
    settings: &ServiceSettings,
    words: &[&str],
    (store_dir, waiting): (&Path, impl Fn(Duration) -> String),
    on_failure: OnFailure,
    out: &mut impl Write,
) -> Result<(), Error> {
    change_by(settings, words, on_failure, out, |words| {
        let owned: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let call = move || run(&owned.iter().map(String::as_str).collect::<Vec<_>>());
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return run(words) };
        runtime.block_on(progress::beside(store_dir, waiting, async {
            // The service manager has limits of its own.
            BlockingCall::default().run(Duration::MAX, call).await.unwrap_or_else(|error| Err(error.to_string()))
        }))
    })
}

fn change_by(
    settings: &ServiceSettings,
    words: &[&str],
    on_failure: OnFailure,
    out: &mut impl Write,
    run: impl FnOnce(&[&str]) -> Result<String, String>,
) -> Result<(), Error> {
    let line = words.join(" ");
    if settings.dry_run {
        return Ok(writeln!(out, "would run  {line}")?);
    }
    writeln!(out, "running    {line}")?;
    out.flush()?;
    match (run(words), on_failure) {
        (Ok(_), _) | (Err(_), OnFailure::Ignore) => Ok(()),
        (Err(output), OnFailure::Abort(then)) => Err(Error::ManagerFailed(line, output, then)),
    }
}

/// Returns stdout, or as the error what the program wrote to stderr.
fn run(words: &[&str]) -> Result<String, String> {
    let Some((program, words)) = words.split_first() else { return Ok(String::new()) };
    match Command::new(program).args(words).stdin(Stdio::null()).output() {
        Ok(answer) if answer.status.success() => Ok(String::from_utf8_lossy(&answer.stdout).into_owned()),
        Ok(answer) => {
            let stderr = String::from_utf8_lossy(&answer.stderr).trim().replace('\n', " ");
            Err(if stderr.is_empty() { answer.status.to_string() } else { stderr })
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_state_but_inactive_and_failed_is_active() {
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
                UnitState::parse(&format!("FragmentPath=/x/y.service\nActiveState={state}\nUnitFileState=enabled\n"));
            assert_eq!(shown.is_active(), active, "{state}");
            assert!(shown.is_enabled() && shown.path.is_some());
        }
        assert_eq!(UnitState::parse("FragmentPath=\nUnitFileState=\n"), UnitState::default());
    }
}
