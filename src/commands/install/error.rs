//! Why a service could not be installed or removed.

use crate::core::exit;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Each message says whether anything was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} not found on PATH, so no service can be installed; nothing was changed; have your init system run \
         'openclaw-supervise run'"
    )]
    NoManager(&'static str),
    #[error("'{command}' failed: {output}; nothing was changed; {advice}")]
    ManagerUnreachable { command: String, output: String, advice: String },
    #[error(
        "system services need root; nothing was changed; run 'sudo {program} {0} --system ...', or leave --system out",
        program = .1.display()
    )]
    NotRoot(&'static str, PathBuf),
    #[error("this machine has no user {0:?}; nothing was changed; create it, or name another with --run-as")]
    NoUser(String),
    /// sudo keeps HOME.
    #[error(
        "the home directory {} does not belong to {user}: the service would run as another user with files of {user}; \
         nothing was changed; run it without sudo, or with HOME and XDG_CONFIG_HOME of {user}", home.display()
    )]
    OtherUsersHome { home: PathBuf, user: String },
    #[error(
        "cannot find {program} for {user}, neither in its home directory nor in PATH ({}); nothing was changed; install it \
         there or in /usr/local/bin, or name another: openclaw-supervise install ... -- COMMAND",
        path.to_string_lossy()
    )]
    NoCommand { program: String, user: String, path: OsString },
    /// A `LaunchDaemon` would need a user, a home and a keychain, which it does not have.
    #[error(
        "macOS has only user services here, no system services; nothing was changed; run it as that user, without sudo and \
         --system"
    )]
    NoDaemon,
    #[error(
        "{} was not written by 'openclaw-supervise install', or was edited since; nothing was changed; keep settings in a \
         drop-in, or replace it with --force", .0.display()
    )]
    ForeignFile(PathBuf),
    #[error(
        "OpenClaw's own service {} is enabled or running and would start a second gateway; nothing was changed; remove it \
         with 'openclaw gateway stop' and 'openclaw gateway uninstall', or keep it and make it start this program: 'openclaw \
         gateway install --wrapper {} --force'", .0.display(), .1.display()
    )]
    OpenclawService(PathBuf, PathBuf),
    #[error(
        "OpenClaw's own service {} already starts this program; nothing was changed; to install a service of our own \
         instead, run 'openclaw gateway uninstall' first", .0.display()
    )]
    AlreadyWrapped(PathBuf),
    /// A service of ours in the other scope, and the command that removes it.
    #[error(
        "{} already starts this program for the same gateway, and the two would compete; nothing was changed; remove it \
         first: {}", .0.display(), .1
    )]
    OtherScope(PathBuf, String),
    #[error(
        "{0} is still running and cannot be stopped; it will not start at the next boot; its files were kept; see its log, \
         then run it again"
    )]
    StillRunning(String),
    /// launchd kills a job after its `ExitTimeOut`.
    #[error(
        "{0} is still draining, or launchd has not unloaded it; it will not start before the next login; its plist was kept; \
         see its log, then run it again"
    )]
    StillLoaded(String),
    #[error(
        "{name} is still enabled or running from {}, which this command does not manage; remove it there, or run it again \
         with the XDG_CONFIG_HOME of the installation", path.display()
    )]
    Elsewhere { name: String, path: PathBuf },
    #[error(
        "{0:?} cannot be written to a service file: it has a control character or is not UTF-8; nothing was changed; give \
         it in another way"
    )]
    Unquotable(String),
    /// systemd.service(5): the path of the program is not subject to `$$` escapes.
    #[error("systemd cannot start {}: its path has a dollar sign; nothing was changed; move it elsewhere", .0.display())]
    DollarInPath(PathBuf),
    #[error("cannot find the path of this program: {0}; nothing was changed; start it by its absolute path")]
    NoOwnPath(io::Error),
    #[error("{} does not exist any more; nothing was changed; run the program from where it is now", .0.display())]
    Moved(PathBuf),
    #[error("cannot {action} {}: {error}; fix that and run it again", path.display())]
    File { action: &'static str, path: PathBuf, error: io::Error },
    /// The command, its output, and what has been changed so far.
    #[error("'{0}' failed: {1}; {2}")]
    ManagerFailed(String, String, &'static str),
    #[error("cannot write to stdout: {0}; redirect it to a writable file")]
    Stdout(#[from] io::Error),
}

impl Error {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NoCommand { .. }) { exit::EX_CONFIG } else { exit::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_failed_what_was_changed_and_what_to_do() {
        let unit = || PathBuf::from("/etc/systemd/system/x.service");
        let program = || PathBuf::from("/opt/openclaw-supervise");
        let text = str::to_owned;
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let all = [
            Error::NoManager("systemctl"),
            Error::ManagerUnreachable {
                command: text("systemctl show"),
                output: text("no bus"),
                advice: text("log in as alice"),
            },
            Error::NotRoot("install", program()),
            Error::NoUser(text("alice")),
            Error::OtherUsersHome { home: PathBuf::from("/home/bob"), user: text("root") },
            Error::NoCommand { program: text("openclaw"), user: text("alice"), path: OsString::from("/usr/bin") },
            Error::NoDaemon,
            Error::ForeignFile(unit()),
            Error::OpenclawService(unit(), program()),
            Error::AlreadyWrapped(unit()),
            Error::OtherScope(unit(), text("'sudo systemctl disable --now x.service'")),
            Error::StillRunning(text("x.service")),
            Error::StillLoaded(text("gui/501/x")),
            Error::Elsewhere { name: text("x.service"), path: unit() },
            Error::Unquotable(text("a\nb")),
            Error::DollarInPath(PathBuf::from("/opt/$x")),
            Error::NoOwnPath(denied()),
            Error::Moved(program()),
            Error::File { action: "write", path: unit(), error: denied() },
            Error::ManagerFailed(text("systemctl enable x"), text("no start"), "the files were written"),
            Error::Stdout(denied()),
        ];
        let lines = all.iter().map(|error| format!("{} {error}", error.exit_code())).collect::<Vec<_>>();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
