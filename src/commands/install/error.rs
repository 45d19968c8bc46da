//! Why a service could not be installed or removed.

use crate::core::exit;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Each says whether anything was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody who runs services speaks systemctl or launchctl here.
    #[error(
        "there is no {0} on PATH, so no service can be installed; nothing was changed; have whatever starts services here \
         run 'openclaw-supervise run'"
    )]
    NoManager(&'static str),
    /// It is there and does not answer.
    #[error("'{order}' failed: {complaint}; nothing was changed; {advice}")]
    Unreachable {
        /// What was asked.
        order: String,
        /// What it said.
        complaint: String,
        /// What to do.
        advice: String,
    },
    /// The machine's services are not this user's.
    #[error(
        "a service of the machine is root's to change; nothing was changed; call 'sudo {program} {0} --system ...', or leave \
         --system out", program = .1.display()
    )]
    NotRoot(&'static str, PathBuf),
    /// There is no such user.
    #[error("this machine has no account {0:?}; nothing was changed; create it, or name another with --run-as")]
    NoAccount(String),
    /// `sudo` keeps the home of whoever calls it.
    #[error(
        "the home {} is not {user}'s: the service would be another user's, with files of {user}; nothing was changed; call it \
         without sudo, or with a HOME of {user}'s", home.display()
    )]
    OthersHome {
        /// That of `HOME`.
        home: PathBuf,
        /// Who asks.
        user: String,
    },
    /// The service could not start.
    #[error(
        "cannot find {program} for {user}, neither in the usual places of its home nor in PATH ({}); nothing was changed; \
         install it there or in /usr/local/bin, or name another: openclaw-supervise install ... -- COMMAND",
        path.to_string_lossy()
    )]
    NoCommand {
        /// What was looked for.
        program: String,
        /// For whom.
        user: String,
        /// That of whoever asks.
        path: OsString,
    },
    /// A `LaunchDaemon` would need a user, a home and a keychain that it has not.
    #[error(
        "there is no service of the machine on macOS, only one of a user; nothing was changed; call it as that user, \
         without sudo and --system"
    )]
    NoDaemon,
    /// A file in our place is not ours.
    #[error(
        "{} was not written by 'openclaw-supervise install', or was edited since; nothing was changed; keep settings in a \
         drop-in, or give --force to take it over", .0.display()
    )]
    Foreign(PathBuf),
    /// OpenClaw has a service of its own for this gateway.
    #[error(
        "OpenClaw's own service {} is there and would start a second gateway; nothing was changed; remove it with \
         'openclaw gateway stop' and 'openclaw gateway uninstall', or keep it and have it start this program: 'openclaw \
         gateway install --wrapper {} --force'", .0.display(), .1.display()
    )]
    Rival(PathBuf, PathBuf),
    /// That service starts this program already.
    #[error(
        "OpenClaw's own service {} starts this program already, and needs no second one; nothing was changed; for a unit of \
         our own in its place: 'openclaw gateway uninstall' first", .0.display()
    )]
    Wrapped(PathBuf),
    /// A service of ours for the same gateway, of the other scope.
    #[error(
        "{} is a service of this program for the same gateway, and two of them would compete; nothing was changed; remove \
         that one first: {}", .0.display(), .1
    )]
    Twin(PathBuf, String),
    /// What should be removed goes on.
    #[error(
        "{0} cannot be stopped: it still runs, and does not start again at the next boot; its files are left where they are; \
         see its log, and call it again"
    )]
    Running(String),
    /// launchd ends a job at the latest after its `ExitTimeOut`.
    #[error(
        "{0} still drains, or launchd does not let go of it; it does not start again until the next login; its plist is left \
         where it is; see its log, and call it again"
    )]
    Drains(String),
    /// Another file has it started all the same.
    #[error(
        "{name} is still there: {} starts it, which is not where this looked; remove it there, or call it again with the \
         XDG_CONFIG_HOME of the installation", path.display()
    )]
    Elsewhere {
        /// The service.
        name: String,
        /// Its file.
        path: PathBuf,
    },
    /// A word that no service file can hold.
    #[error(
        "{0:?} cannot stand in a service file: it has a control character or is not UTF-8; nothing was changed; give it in \
         another way"
    )]
    Word(String),
    /// systemd takes the path of a program as it stands, but its name for a variable.
    #[error("a unit cannot start {}: its path has a dollar sign; nothing was changed; put it elsewhere", .0.display())]
    Dollar(PathBuf),
    /// We do not know where we are.
    #[error("cannot tell where this program is: {0}; nothing was changed; start it by its path")]
    Program(io::Error),
    /// The file we were started from is gone or was replaced.
    #[error("{} is not there any more; nothing was changed; call the program where it is now", .0.display())]
    Gone(PathBuf),
    /// A file could not be written, read or removed.
    #[error("cannot {what} {}: {error}; mend that and call it again", path.display())]
    File {
        /// Read, write or remove it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The manager refused; and how far we were.
    #[error("'{0}' failed: {1}; {2}")]
    Refused(String, String, &'static str),
    /// The terminal is gone.
    #[error("cannot write to stdout: {0}; give it a place with room")]
    Stdout(#[from] io::Error),
}

impl Error {
    /// What the program ends with for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NoCommand { .. }) { exit::EX_CONFIG } else { exit::FAILURE }
    }
}

/// What the kernel said about a file.
pub(super) fn file(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::File { what, path: path.to_owned(), error }
}
