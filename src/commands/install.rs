//! `install` and `uninstall`: the service that runs us, written, enabled and removed again. Nothing is overwritten that
//! somebody else wrote, and nobody's gateway is ended for it.

mod job;
mod record;
mod unit;

use crate::core::exit;
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::{Uid, User};
use record::{Found, Planned};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a service could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody who runs services speaks systemctl or launchctl here.
    #[error(
        "there is no {0} on PATH, so no service can be installed; nothing was changed; have whatever starts services here \
         run 'openclaw-supervise run'"
    )]
    NoManager(&'static str),
    /// The machine's services are not this user's.
    #[error(
        "a service of the machine is root's to change; nothing was changed; call it with sudo, or leave --system out"
    )]
    NotRoot,
    /// A launch daemon would need a user, a home and a keychain that it has not.
    #[error("there is no service of the machine on macOS, only one of a user; nothing was changed; leave --system out")]
    NoDaemon,
    /// A file in our place is not ours.
    #[error(
        "{} was not written by 'openclaw-supervise install', or was edited since; nothing was changed; keep settings in a \
         drop-in, or give --force to take it over", .0.display()
    )]
    Foreign(PathBuf),
    /// OpenClaw has a service of its own for this gateway.
    #[error(
        "OpenClaw's own service {} is installed and would start a second gateway; nothing was changed; remove it with \
         'openclaw gateway uninstall', or keep it and have it start this program: 'openclaw gateway install --wrapper {} \
         --force'", .0.display(), .1.display()
    )]
    Rival(PathBuf, PathBuf),
    /// A word that no service file can hold.
    #[error(
        "{0:?} cannot stand in a service file: it has a control character or is not UTF-8; nothing was changed; give it in another way"
    )]
    Word(String),
    /// We do not know where we are.
    #[error("cannot tell where this program is: {0}; nothing was changed; start it by its path")]
    Program(io::Error),
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
    /// The manager refused.
    #[error("'{0}' failed: {1}; the files are written: mend that and call it again, or take them back with uninstall")]
    Refused(String, String),
    /// The terminal is gone.
    #[error("cannot write to stdout: {0}; give it a place with room")]
    Stdout(#[from] io::Error),
}

fn file(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::File { what, path: path.to_owned(), error }
}

/// One call of the manager.
struct Order<'a> {
    words: Vec<&'a str>,
    /// Whether all depends on it.
    counts: bool,
}

fn order<'a>(words: &[&'a str], counts: bool) -> Order<'a> {
    Order { words: words.to_vec(), counts }
}

/// Writes the service, enables it and starts it.
pub fn install(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    check(settings)?;
    let program = std::env::current_exe().map_err(Error::Program)?;
    let rival = rival(settings);
    if let Some(rival) = rival {
        return Err(Error::Rival(rival, program));
    }
    let (path, mut remarks) = search_path(settings);
    if program.components().any(|part| part.as_os_str() == "target") {
        let advice = "is in a build folder, and gone with it: install from where the program is to stay";
        remarks.push(format!("{} {advice}", program.display()));
    }
    let files = if cfg!(target_os = "macos") {
        vec![job::plan(settings, &program, &path)?]
    } else {
        unit::plan(settings, &program, &path)?
    };
    let mut news = Vec::new();
    for planned in files {
        let found = record::look(&planned.path, Some(&planned.text));
        match found.map_err(|error| file("read", &planned.path, error))? {
            Found::Foreign if !settings.force => return Err(Error::Foreign(planned.path)),
            Found::Same => writeln!(out, "unchanged  {}", planned.path.display())?,
            Found::Nothing | Found::Ours | Found::Foreign => news.push(planned),
        }
    }
    for planned in &news {
        write_out(settings, planned, out)?;
    }
    for remark in remarks.iter().chain(&left_out(settings)) {
        writeln!(out, "note       {remark}")?;
    }
    let name = if cfg!(target_os = "macos") { job::label(settings) } else { unit::name(settings) };
    if cfg!(target_os = "macos") {
        let (domain, place) = (domain(), job::place(settings).display().to_string());
        let job = format!("{domain}/{name}");
        // One that is loaded already goes on with its old file until it is loaded anew.
        let orders =
            [order(&["launchctl", "bootout", &job], false), order(&["launchctl", "bootstrap", &domain, &place], true)];
        call_all(settings, &orders, out)?;
    } else {
        let systemctl = systemctl(settings);
        let reload = [systemctl, &["daemon-reload"]].concat();
        let enable = [systemctl, &["enable", "--now", &name]].concat();
        call_all(settings, &[order(&reload, true), order(&enable, true)], out)?;
        tell_next(settings, &name, out)?;
    }
    Ok(exit::OK)
}

/// Stops the service and removes it.
pub fn uninstall(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    check(settings)?;
    let (places, top) = if cfg!(target_os = "macos") {
        (vec![job::place(settings)], settings.home.join("Library"))
    } else {
        (unit::places(settings), unit::top(settings))
    };
    for place in &places {
        let found = record::look(place, None).map_err(|error| file("read", place, error))?;
        if found == Found::Foreign && !settings.force {
            return Err(Error::Foreign(place.clone()));
        }
    }
    let name = if cfg!(target_os = "macos") { job::label(settings) } else { unit::name(settings) };
    let systemctl = systemctl(settings);
    if cfg!(target_os = "macos") {
        let job = format!("{}/{name}", domain());
        call_all(settings, &[order(&["launchctl", "bootout", &job], false)], out)?;
    } else {
        call_all(settings, &[order(&[systemctl, &["disable", "--now", &name]].concat(), false)], out)?;
    }
    for place in &places {
        if is_shared(settings, place) {
            writeln!(out, "kept       {}: other instances of it are enabled", place.display())?;
        } else if settings.dry_run {
            writeln!(out, "would remove {}", place.display())?;
        } else if record::remove(place, &top).map_err(|error| file("remove", place, error))? {
            writeln!(out, "removed    {}", place.display())?;
        } else {
            writeln!(out, "not there  {}", place.display())?;
        }
    }
    if !cfg!(target_os = "macos") {
        let reload = [systemctl, &["daemon-reload"]].concat();
        let forget = [systemctl, &["reset-failed", &name]].concat();
        call_all(settings, &[order(&reload, true), order(&forget, false)], out)?;
    }
    writeln!(out, "The gateway's state, and our records in its folder 'supervise', are kept.")?;
    Ok(exit::OK)
}

/// Whether anything can be done here at all.
fn check(settings: &ServiceSettings) -> Result<(), Error> {
    let manager = if cfg!(target_os = "macos") { "launchctl" } else { "systemctl" };
    let is_machine = matches!(settings.scope, Scope::Machine { .. });
    if is_machine && cfg!(target_os = "macos") {
        return Err(Error::NoDaemon);
    }
    if is_machine && !Uid::effective().is_root() && !settings.dry_run {
        return Err(Error::NotRoot);
    }
    find(settings, OsStr::new(manager)).map(|_| ()).ok_or(Error::NoManager(manager))
}

fn find(settings: &ServiceSettings, program: &OsStr) -> Option<PathBuf> {
    which::which_in(program, Some(&settings.path), "/").ok()
}

/// OpenClaw's own service, where its file is.
fn rival(settings: &ServiceSettings) -> Option<PathBuf> {
    let path = if cfg!(target_os = "macos") {
        job::rival(settings)
    } else {
        unit::folder(settings).join(unit::rival(settings))
    };
    path.exists().then_some(path)
}

/// The template goes with its last instance.
fn is_shared(settings: &ServiceSettings, place: &Path) -> bool {
    let Scope::Machine { user } = &settings.scope else { return false };
    let Some((stem, _)) = place.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once("@.")) else {
        return false;
    };
    let own = format!("{stem}@{user}.service");
    let wants = std::fs::read_dir(unit::folder(settings).join("multi-user.target.wants"));
    let names = wants.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.into_iter().any(|name| name.starts_with(&format!("{stem}@")) && name != own)
}

/// The folders of OpenClaw and of its Node, then the usual ones; and what is to be said of that.
fn search_path(settings: &ServiceSettings) -> (OsString, Vec<String>) {
    const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    /// Their folders hold the number of a version.
    const SWITCHES: [&str; 6] = ["/.nvm/", "/fnm", "/.volta/", "/mise/", "/.asdf/", "/n/versions/"];
    let (mut folders, mut remarks) = (Vec::new(), Vec::new());
    let openclaw = settings.program.clone().unwrap_or_else(|| OsString::from("openclaw"));
    for program in [openclaw.as_os_str(), OsStr::new("node")] {
        let found = find(settings, program);
        let Some(folder) = found.as_deref().and_then(Path::parent).map(Path::to_owned) else {
            remarks.push(format!("{} is not on this PATH; name its folder in a drop-in", program.to_string_lossy()));
            continue;
        };
        let text = folder.to_string_lossy();
        if SWITCHES.iter().any(|switch| text.contains(switch)) {
            remarks.push(format!("PATH names {text}, which is of one version of Node: install again after a switch"));
        }
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.extend(USUAL.map(PathBuf::from).into_iter().filter(|usual| !folders.contains(usual)).collect::<Vec<_>>());
    (std::env::join_paths(folders).unwrap_or_else(|_| settings.path.clone()), remarks)
}

/// What of this shell the service will not have.
fn left_out(settings: &ServiceSettings) -> Option<String> {
    (!settings.left_out.is_empty()).then(|| {
        format!(
            "{} of this shell are not the service's: give them as options, or in a drop-in",
            settings.left_out.join(", ")
        )
    })
}

fn write_out(settings: &ServiceSettings, planned: &Planned, out: &mut impl Write) -> Result<(), Error> {
    let Planned { path, text } = planned;
    if settings.dry_run {
        writeln!(out, "would write {}:", path.display())?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    planned.write().map_err(|error| file("write", path, error))?;
    Ok(writeln!(out, "wrote      {}", path.display())?)
}

fn systemctl(settings: &ServiceSettings) -> &'static [&'static str] {
    match settings.scope {
        Scope::User => &["systemctl", "--user"],
        Scope::Machine { .. } => &["systemctl"],
    }
}

fn domain() -> String {
    format!("gui/{}", Uid::effective())
}

/// Calls the manager, and shows each call.
fn call_all(settings: &ServiceSettings, orders: &[Order<'_>], out: &mut impl Write) -> Result<(), Error> {
    for Order { words, counts } in orders {
        let line = words.join(" ");
        if settings.dry_run {
            writeln!(out, "would call {line}")?;
            continue;
        }
        writeln!(out, "calling    {line}")?;
        out.flush()?;
        let answer = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
        let complaint = match answer {
            Ok(answer) if answer.status.success() => continue,
            Ok(answer) => String::from_utf8_lossy(&answer.stderr).trim().replace('\n', " "),
            Err(error) => error.to_string(),
        };
        if *counts {
            return Err(Error::Refused(line, complaint));
        }
    }
    Ok(())
}

/// What a person wants to know next.
fn tell_next(settings: &ServiceSettings, name: &str, out: &mut impl Write) -> Result<(), Error> {
    let manager = systemctl(settings).join(" ");
    let journal = manager.replace("systemctl", "journalctl");
    writeln!(out, "next       {manager} status {name}; {journal} -u {name} -f; openclaw-supervise doctor")?;
    if settings.scope != Scope::User || settings.dry_run {
        return Ok(());
    }
    let Some(user) = User::from_uid(Uid::effective()).ok().flatten() else { return Ok(()) };
    let asked = Command::new("loginctl").args(["show-user", &user.name, "--property=Linger", "--value"]).output();
    if asked.is_ok_and(|answer| answer.stdout.trim_ascii() == b"no") {
        let name = user.name;
        writeln!(out, "note       it ends with your last session: 'sudo loginctl enable-linger {name}' keeps it")?;
    }
    Ok(())
}
