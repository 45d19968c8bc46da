//! `install` and `uninstall`: writes, enables and removes the service that runs us. Never overwrites a file of other origin
//! without `--force`, and never stops a gateway of another service.

mod conflicting_service;
mod error;
mod job;
mod managed_file;
mod manager;
mod search_path;
mod unit;

pub use error::Error;
pub use managed_file::ManagedFile;

use super::terminal::span;
use crate::core::exit;
use crate::core::report::human;
use crate::settings::{Scope, ServiceSettings};
use conflicting_service::Harmless;
use managed_file::FileState;
use manager::{OnFailure, change, change_slowly, domain, is_active, systemctl};
use nix::unistd::{Uid, User};
use search_path::SearchPath;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

const AFTER_WRITE: OnFailure =
    OnFailure::Abort("the files were written; fix that and run it again, or remove them with uninstall");

const AFTER_REMOVAL: OnFailure = OnFailure::Abort("the files were removed; fix that and run it again");

/// The polling interval for a job that is being unloaded.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A unit file that an earlier version of `install` wrote and that was not edited since, as this version would write it.
#[must_use]
pub fn renewal(path: &Path) -> Option<ManagedFile> {
    let there = managed_file::read(path).filter(|there| managed_file::is_ours(there))?;
    Some(ManagedFile { path: path.to_owned(), text: unit::renewed(path, &there)? })
}

/// A drop-in of ours with these lines, each with the name of its section, besides those that it has already. `None` if the file
/// there is of other origin, or was edited.
#[must_use]
pub fn drop_in(path: &Path, lines: &[(&'static str, String)]) -> Option<ManagedFile> {
    let there = managed_file::read(path);
    if there.as_ref().is_some_and(|there| !managed_file::is_ours(there)) || (there.is_none() && path.is_symlink()) {
        return None;
    }
    let mut body = String::new();
    for section in ["Unit", "Service"] {
        let head = format!("[{section}]");
        let inside = there.iter().flat_map(|text| text.lines().skip_while(|line| *line != head).skip(1));
        let known = inside.take_while(|line| !line.starts_with('[')).map(str::to_owned);
        let new = lines.iter().filter(|(of, _)| *of == section).map(|(_, line)| line.clone());
        let mut all: Vec<String> = known.collect();
        all.extend(new.filter(|line| !all.contains(line)).collect::<Vec<_>>());
        if !all.is_empty() {
            body = format!("{body}{head}\n{}\n", all.join("\n"));
        }
    }
    Some(ManagedFile { path: path.to_owned(), text: unit::signed(&body) })
}

/// Writes, enables and starts the service.
pub fn install(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    let program = own_path(settings)?;
    let found = SearchPath::of(settings);
    let obstacles = obstacles(settings, &program, &found)?;
    let harmless = conflicting_service::check(settings, &program)?;
    let files = if cfg!(target_os = "macos") {
        vec![job::plan(settings, &program, &found.path)?]
    } else {
        let has_other_port = harmless.iter().any(|service| matches!(service, Harmless::OtherPort(..)));
        unit::plan(settings, &program, &found.path, has_other_port)?
    };
    let (mut outdated, mut up_to_date) = (Vec::new(), Vec::new());
    for file in files {
        let state = managed_file::inspect(&file.path, Some(&file.text));
        match state.map_err(on_file("read", &file.path))? {
            FileState::Foreign if !settings.force => return Err(Error::ForeignFile(file.path)),
            FileState::UpToDate => up_to_date.push(file.path),
            FileState::Missing | FileState::Ours | FileState::Foreign => outdated.push(file),
        }
    }
    if !settings.dry_run {
        manager::check_reachable(settings)?;
    }
    let was_active = is_running(settings);
    for path in &up_to_date {
        writeln!(out, "unchanged  {}", path.display())?;
    }
    for file in &outdated {
        write_file(settings, file, out)?;
    }
    let warnings = found.warnings.into_iter().chain(search_path::warnings_about(settings, &program));
    let notes =
        settings.notes.iter().cloned().chain(warnings).chain(harmless.iter().map(note_on)).chain(left_out(settings));
    for note in notes {
        writeln!(out, "note       {note}")?;
    }
    let stale = was_active && !outdated.is_empty();
    if cfg!(target_os = "macos") {
        start_job(settings, was_active, out)?;
    } else {
        let (systemctl, name) = (systemctl(settings), unit::name(settings));
        if !outdated.is_empty() {
            change(settings, &[systemctl, &["daemon-reload"]].concat(), AFTER_WRITE, out)?;
        }
        let limit = human(settings.startup_timeout);
        let waiting =
            |spent| format!("the gateway boots: {} of at most {limit}; Ctrl-C leaves it to systemd", span(spent));
        let words = [systemctl, &["enable", "--now", &name]].concat();
        change_slowly(settings, &words, (&store_of(settings).unwrap_or_default(), waiting), AFTER_WRITE, out)?;
    }
    for obstacle in obstacles {
        writeln!(out, "note       without --dry-run this would fail: {obstacle}")?;
    }
    print_next(settings, stale, out)?;
    Ok(exit::OK)
}

/// Runs the checks that fail an installation; a dry run returns their messages instead.
fn obstacles(settings: &ServiceSettings, program: &Path, found: &SearchPath) -> Result<Vec<String>, Error> {
    check_scope(settings)?;
    let checks = [
        check_rights(settings, "install", program),
        check_user(settings),
        check_home(settings),
        manager::check_installed(settings),
        check_command(settings, found),
    ];
    let mut obstacles = settings.obstacles.clone();
    for failed in checks.into_iter().filter_map(Result::err) {
        if !settings.dry_run {
            return Err(failed);
        }
        obstacles.push(failed.to_string());
    }
    Ok(obstacles)
}

/// `run` searches its command on the caller's PATH, but a system service runs as another user.
fn check_command(settings: &ServiceSettings, found: &SearchPath) -> Result<(), Error> {
    match (&settings.scope, &found.missing) {
        (Scope::Machine { user }, Some(program)) => {
            Err(Error::NoCommand { program: program.clone(), user: user.clone(), path: settings.path.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether the home directory belongs to the caller, and what there is of the one for the unit: sudo may keep the
/// `XDG_CONFIG_HOME` of another user.
fn check_home(settings: &ServiceSettings) -> Result<(), Error> {
    let is_others = |path: &Path, ours: &[u32]| fs::metadata(path).is_ok_and(|meta| !ours.contains(&meta.uid()));
    let (us, root) = (Uid::effective().as_raw(), 0);
    let folder = if cfg!(target_os = "macos") { settings.home.clone() } else { unit::folder(settings) };
    let there = folder.ancestors().find(|path| path.exists()).filter(|there| is_others(there, &[us, root]));
    let home = Some(settings.home.as_path()).filter(|home| is_others(home, &[us]));
    match home.or(there).filter(|_| settings.scope == Scope::User) {
        Some(other) => Err(Error::OtherUsersHome { home: other.to_owned(), user: manager::user_name() }),
        None => Ok(()),
    }
}

/// Stops and removes the service.
pub fn uninstall(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    check_scope(settings)?;
    if !settings.dry_run {
        check_rights(settings, "uninstall", &own_path(settings)?)?;
        check_home(settings)?;
    }
    for note in &settings.notes {
        writeln!(out, "note       {note}")?;
    }
    let (paths, top) = if cfg!(target_os = "macos") {
        (vec![job::path(settings)], settings.home.join("Library"))
    } else {
        (unit::paths(settings), unit::top(settings))
    };
    for path in &paths {
        let state = managed_file::inspect(path, None).map_err(on_file("read", path))?;
        if state == FileState::Foreign && !settings.force {
            return Err(Error::ForeignFile(path.clone()));
        }
    }
    // Without a manager nothing runs, so the files can go.
    let has_manager = manager::check_installed(settings).is_ok();
    if has_manager {
        if !settings.dry_run {
            manager::check_reachable(settings)?;
        }
        stop(settings, paths.iter().any(|path| path.exists()), out)?;
    }
    for path in &paths {
        if is_shared(settings, path) {
            writeln!(out, "kept       {}: other instances use it", path.display())?;
        } else {
            remove(settings, path, &top, out)?;
        }
    }
    if !cfg!(target_os = "macos") {
        let (folder, name) = (unit::folder(settings), unit::name(settings));
        // In case `disable` could not.
        for link in managed_file::enabling_links(&folder, OsStr::new(&name)).collect::<Vec<_>>() {
            remove(settings, &link, &top, out)?;
        }
        if has_manager {
            let systemctl = systemctl(settings);
            change(settings, &[systemctl, &["daemon-reload"]].concat(), AFTER_REMOVAL, out)?;
            change(settings, &[systemctl, &["reset-failed", &name]].concat(), OnFailure::Ignore, out)?;
        }
        for drop_in in managed_file::drop_ins(&folder, &name).iter().filter(|path| !paths.contains(path)) {
            writeln!(out, "kept       {}: your own drop-in", drop_in.display())?;
        }
    }
    for log in job::logs(settings).iter().filter(|log| cfg!(target_os = "macos") && log.exists()) {
        writeln!(out, "kept       {}: its log", log.display())?;
    }
    if let Some(store) = store_of(settings).filter(|store| store.is_dir()) {
        writeln!(out, "kept       {}: the history of your gateway", store.display())?;
    }
    if has_manager && !settings.dry_run && !cfg!(target_os = "macos") {
        check_elsewhere(settings, &paths, out)?;
    }
    Ok(exit::OK)
}

/// Fails if the service is still enabled or running from a file that `install` did not write, e.g. that of a package.
fn check_elsewhere(settings: &ServiceSettings, paths: &[PathBuf], out: &mut impl Write) -> Result<(), Error> {
    let name = unit::name(settings);
    let state = manager::show(systemctl(settings), &name);
    let Some(path) = state.path.clone().filter(|path| !paths.contains(path)) else { return Ok(()) };
    if state.is_enabled() || state.is_active() {
        return Err(Error::Elsewhere { name, path });
    }
    Ok(writeln!(out, "kept       {}: not written by 'install', and not enabled", path.display())?)
}

/// Stops and disables the service. Its files stay until it has stopped: a service that runs without its files is hard to
/// find.
fn stop(settings: &ServiceSettings, has_files: bool, out: &mut impl Write) -> Result<(), Error> {
    if cfg!(target_os = "macos") {
        let job = format!("{}/{}", domain(), job::label(settings));
        change(settings, &["launchctl", "bootout", &job], OnFailure::Ignore, out)?;
        if !settings.dry_run && !wait_for_unload(settings) {
            return Err(Error::StillLoaded(job));
        }
    } else {
        let (systemctl, name) = (systemctl(settings), unit::name(settings));
        let verb: &[&str] = if has_files { &["disable", "--now", &name] } else { &["stop", &name] };
        let waiting = |spent| format!("the gateway drains: {}; Ctrl-C leaves it to systemd", span(spent));
        let words = [systemctl, verb].concat();
        change_slowly(settings, &words, (&store_of(settings).unwrap_or_default(), waiting), OnFailure::Ignore, out)?;
    }
    if !settings.dry_run && is_running(settings) {
        return Err(Error::StillRunning(name_of(settings)));
    }
    Ok(())
}

/// `bootout` returns while the job still drains.
fn wait_for_unload(settings: &ServiceSettings) -> bool {
    for _ in 0..job::exit_time_out() {
        if !is_running(settings) {
            return true;
        }
        std::thread::park_timeout(POLL_INTERVAL);
    }
    !is_running(settings)
}

/// Loads the job unless it is loaded; a loaded one keeps its old file until it is restarted.
fn start_job(settings: &ServiceSettings, is_loaded: bool, out: &mut impl Write) -> Result<(), Error> {
    if is_loaded {
        return Ok(());
    }
    let (domain, path) = (domain(), job::path(settings).display().to_string());
    change(settings, &["launchctl", "bootstrap", &domain, &path], AFTER_WRITE, out)
}

/// Our own path: the one that we were started by if it is a link to this program, since a package manager moves that link to
/// the next version.
fn own_path(settings: &ServiceSettings) -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::NoOwnPath)?;
    let Ok(own) = fs::metadata(&program) else { return Err(Error::Moved(program)) };
    let is_same = |path: &PathBuf| {
        let is_straight = !path.components().any(|part| part == Component::ParentDir);
        is_straight && fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (own.dev(), own.ino()))
    };
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let named = if called.components().count() > 1 {
        std::path::absolute(&called).ok()
    } else {
        which::which_in(&called, Some(&settings.path), "/").ok()
    };
    Ok(named.filter(|path| path.is_absolute()).filter(is_same).unwrap_or(program))
}

fn check_scope(settings: &ServiceSettings) -> Result<(), Error> {
    let is_supported = settings.scope == Scope::User || !cfg!(target_os = "macos");
    if is_supported { Ok(()) } else { Err(Error::NoDaemon) }
}

fn check_rights(settings: &ServiceSettings, verb: &'static str, program: &Path) -> Result<(), Error> {
    let may = settings.scope == Scope::User || Uid::effective().is_root();
    if may { Ok(()) } else { Err(Error::NotRoot(verb, program.to_owned())) }
}

/// Not for `uninstall`: a user may be removed before its service.
fn check_user(settings: &ServiceSettings) -> Result<(), Error> {
    match &settings.scope {
        Scope::Machine { user } if !User::from_name(user).is_ok_and(|found| found.is_some()) => {
            Err(Error::NoUser(user.clone()))
        }
        _ => Ok(()),
    }
}

fn name_of(settings: &ServiceSettings) -> String {
    if cfg!(target_os = "macos") { job::label(settings) } else { unit::name(settings) }
}

fn is_running(settings: &ServiceSettings) -> bool {
    if cfg!(target_os = "macos") {
        return manager::is_loaded(&job::label(settings));
    }
    is_active(systemctl(settings), &unit::name(settings))
}

/// Whether other instances use this template.
fn is_shared(settings: &ServiceSettings, path: &Path) -> bool {
    let Scope::Machine { user } = &settings.scope else { return false };
    let Some((stem, _)) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once("@.")) else {
        return false;
    };
    let (prefix, own) = (format!("{stem}@"), format!("{stem}@{user}.service"));
    let folder = unit::folder(settings);
    let names = [folder.clone(), folder.join("multi-user.target.wants")].into_iter().flat_map(fs::read_dir).flatten();
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others = names.filter(|name| name.starts_with(&prefix) && !name.starts_with(&own));
    others.any(|name| !name.starts_with(&format!("{prefix}.")))
}

/// A note on the variables of this shell that the service will not have.
fn left_out(settings: &ServiceSettings) -> Option<String> {
    (!settings.left_out.is_empty()).then(|| {
        format!(
            "the service does not inherit {} from this shell: pass them as options, or set them in a drop-in",
            settings.left_out.join(", ")
        )
    })
}

fn note_on(service: &Harmless) -> String {
    match service {
        Harmless::Inactive(path) => format!(
            "OpenClaw's own service {} exists, neither enabled nor running: remove it with 'openclaw gateway uninstall'",
            path.display()
        ),
        Harmless::OtherPort(path, port) => {
            format!("OpenClaw's own service {} is for port {port} and is left alone", path.display())
        }
    }
}

fn on_file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { action, path, error }
}

fn write_file(settings: &ServiceSettings, file: &ManagedFile, out: &mut impl Write) -> Result<(), Error> {
    let ManagedFile { path, text } = file;
    if settings.dry_run {
        writeln!(out, "would write {}:", path.display())?;
        return Ok(out.write_all(text.as_bytes())?);
    }
    file.write().map_err(on_file("write", path))?;
    Ok(writeln!(out, "wrote      {}", path.display())?)
}

fn remove(settings: &ServiceSettings, path: &Path, top: &Path, out: &mut impl Write) -> Result<(), Error> {
    let shown = path.display();
    if settings.dry_run {
        writeln!(out, "would remove {shown}")?;
    } else if managed_file::remove(path, top).map_err(on_file("remove", path))? {
        writeln!(out, "removed    {shown}")?;
    } else {
        writeln!(out, "not found  {shown}")?;
    }
    Ok(())
}

/// The store of the service, as far as its command line says.
fn store_of(settings: &ServiceSettings) -> Option<PathBuf> {
    let value = |option: &str| {
        let at = settings.words.iter().position(|word| word == option)?;
        settings.words.get(at + 1).map(PathBuf::from)
    };
    let home = match &settings.scope {
        Scope::User => settings.home.clone(),
        Scope::Machine { user } => User::from_name(user).ok().flatten()?.dir,
    };
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    let state = || value("--state-dir").unwrap_or_else(|| home.join(format!(".openclaw{profile}")));
    Some(value("--store-dir").unwrap_or_else(|| state().join("supervise")))
}

/// `stale`: the running service was started from the old files.
fn print_next(settings: &ServiceSettings, stale: bool, out: &mut impl Write) -> Result<(), Error> {
    let name = name_of(settings);
    let manager = systemctl(settings).join(" ");
    if stale {
        let renew = if cfg!(target_os = "macos") {
            let (domain, path) = (domain(), job::path(settings));
            format!("launchctl bootout {domain}/{name} && launchctl bootstrap {domain} {}", path.display())
        } else {
            format!("{manager} restart {name}")
        };
        writeln!(
            out,
            "note       the running service still has the old settings: '{renew}' drains and restarts the gateway"
        )?;
    }
    if cfg!(target_os = "macos") {
        writeln!(out, "next       launchctl print {}/{name}; openclaw-supervise doctor", domain())?;
        return Ok(());
    }
    let journal = manager.replace("systemctl", "journalctl");
    writeln!(out, "next       {manager} status {name}; {journal} -u {name} -f; openclaw-supervise doctor")?;
    let user = manager::user_name();
    if settings.scope == Scope::User && !settings.dry_run && manager::is_lingering_off(&user) {
        writeln!(
            out,
            "note       the service stops when you log out; to keep it running: sudo loginctl enable-linger {user}"
        )?;
    }
    Ok(())
}
