//! `install` and `uninstall`: the service that runs us, written, enabled and removed again. Nothing is overwritten that
//! somebody else wrote, and nobody's gateway is ended for it.

mod error;
mod job;
mod manager;
mod record;
mod rival;
mod search_path;
mod unit;

pub use error::Error;

use crate::core::exit;
use crate::settings::{Scope, ServiceSettings};
use error::file;
use manager::{Failure, domain, is_active, order, systemctl};
use nix::unistd::{Uid, User};
use record::{Found, Planned};
use rival::Beside;
use search_path::SearchPath;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// How an error ends when the files are there.
const WRITTEN: Failure =
    Failure::Fatal("the files are written: mend that and call it again, or take them back with uninstall");

/// How one ends when they are gone.
const REMOVED: Failure = Failure::Fatal("the files are removed: mend that and call it again");

/// Between two looks at a job that ends.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Writes the service, enables it and starts it.
pub fn install(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    let program = own_path(settings)?;
    let found = SearchPath::of(settings);
    let obstacles = obstacles(settings, &program, &found)?;
    let beside = rival::check(settings, &program)?;
    let files = if cfg!(target_os = "macos") {
        vec![job::plan(settings, &program, &found.path)?]
    } else {
        let is_beside = beside.iter().any(|one| matches!(one, Beside::Elsewhere(..)));
        unit::plan(settings, &program, &found.path, is_beside)?
    };
    let (mut news, mut same) = (Vec::new(), Vec::new());
    for planned in files {
        let found = record::look(&planned.path, Some(&planned.text));
        match found.map_err(|error| file("read", &planned.path, error))? {
            Found::Foreign if !settings.force => return Err(Error::Foreign(planned.path)),
            Found::Same => same.push(planned.path),
            Found::Nothing | Found::Ours | Found::Foreign => news.push(planned),
        }
    }
    if !settings.dry_run {
        manager::check_answer(settings)?;
    }
    let was_active = is_running(settings);
    for path in &same {
        writeln!(out, "unchanged  {}", path.display())?;
    }
    for planned in &news {
        write_out(settings, planned, out)?;
    }
    let remarks = found.remarks.into_iter().chain(search_path::remarks_on(settings, &program));
    let notes =
        settings.notes.iter().cloned().chain(remarks).chain(beside.iter().map(note_on)).chain(left_out(settings));
    for note in notes {
        writeln!(out, "note       {note}")?;
    }
    let stale = was_active && !news.is_empty();
    if cfg!(target_os = "macos") {
        start_job(settings, was_active, out)?;
    } else {
        let (systemctl, name) = (systemctl(settings), unit::name(settings));
        if !news.is_empty() {
            order(settings, &[systemctl, &["daemon-reload"]].concat(), WRITTEN, out)?;
        }
        order(settings, &[systemctl, &["enable", "--now", &name]].concat(), WRITTEN, out)?;
    }
    for obstacle in obstacles {
        writeln!(out, "note       without --dry-run it would stop here: {obstacle}")?;
    }
    tell_next(settings, stale, out)?;
    Ok(exit::OK)
}

/// What a dry run tells, and everything else stops for.
fn obstacles(settings: &ServiceSettings, program: &Path, found: &SearchPath) -> Result<Vec<String>, Error> {
    check_scope(settings)?;
    let checks = [
        check_rights(settings, "install", program),
        check_account(settings),
        check_home(settings),
        manager::is_there(settings),
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

/// `run` looks for its command in the shell of whoever asks; a service of the machine is another's.
fn check_command(settings: &ServiceSettings, found: &SearchPath) -> Result<(), Error> {
    match (&settings.scope, &found.missing) {
        (Scope::Machine { user }, Some(program)) => {
            Err(Error::NoCommand { program: program.clone(), user: user.clone(), path: settings.path.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether the home is that of whoever asks, whose service it is to be.
fn check_home(settings: &ServiceSettings) -> Result<(), Error> {
    let owner = fs::metadata(&settings.home).map(|meta| meta.uid());
    let is_others = owner.is_ok_and(|owner| owner != Uid::effective().as_raw());
    if settings.scope == Scope::User && is_others {
        return Err(Error::OthersHome { home: settings.home.clone(), user: manager::user_name() });
    }
    Ok(())
}

/// Stops the service and removes it.
pub fn uninstall(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    check_scope(settings)?;
    if !settings.dry_run {
        check_rights(settings, "uninstall", &own_path(settings)?)?;
        check_home(settings)?;
    }
    for note in &settings.notes {
        writeln!(out, "note       {note}")?;
    }
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
    // Without a manager nothing of it runs, and its files can go.
    let has_manager = manager::is_there(settings).is_ok();
    if has_manager {
        if !settings.dry_run {
            manager::check_answer(settings)?;
        }
        end(settings, places.iter().any(|place| place.exists()), out)?;
    }
    for place in &places {
        if is_shared(settings, place) {
            writeln!(out, "kept       {}: other instances of it are there", place.display())?;
        } else {
            remove(settings, place, &top, out)?;
        }
    }
    if !cfg!(target_os = "macos") {
        let (folder, name) = (unit::folder(settings), unit::name(settings));
        // What `disable` does, where it could not.
        for link in record::links(&folder, OsStr::new(&name)).collect::<Vec<_>>() {
            remove(settings, &link, &top, out)?;
        }
        if has_manager {
            let systemctl = systemctl(settings);
            order(settings, &[systemctl, &["daemon-reload"]].concat(), REMOVED, out)?;
            order(settings, &[systemctl, &["reset-failed", &name]].concat(), Failure::Expected, out)?;
        }
        for left in record::drop_ins(&folder, &name).iter().filter(|left| !places.contains(left)) {
            writeln!(out, "kept       {}, which is yours", left.display())?;
        }
    }
    for log in job::logs(settings).iter().filter(|log| cfg!(target_os = "macos") && log.exists()) {
        writeln!(out, "kept       {}, its log", log.display())?;
    }
    if let Some(store) = stores(settings) {
        writeln!(out, "kept       {}, our records among the gateway's state", store.display())?;
    }
    if has_manager && !settings.dry_run && !cfg!(target_os = "macos") {
        look_elsewhere(settings, &places, out)?;
    }
    Ok(exit::OK)
}

/// Whether the manager has the service from another file than ours, which is not ours to remove.
fn look_elsewhere(settings: &ServiceSettings, places: &[PathBuf], out: &mut impl Write) -> Result<(), Error> {
    let name = unit::name(settings);
    let shown = manager::show(systemctl(settings), &name);
    let Some(path) = shown.path.clone().filter(|path| !places.contains(path)) else { return Ok(()) };
    if shown.is_enabled() || shown.is_active() {
        return Err(Error::Elsewhere { name, path });
    }
    Ok(writeln!(out, "kept       {}, which 'install' did not write; nothing starts it", path.display())?)
}

/// Stops the service, and has it not start again. Its files stay until it has ended: a service that runs without them
/// is one that nobody finds.
fn end(settings: &ServiceSettings, has_files: bool, out: &mut impl Write) -> Result<(), Error> {
    if cfg!(target_os = "macos") {
        let job = format!("{}/{}", domain(), job::label(settings));
        order(settings, &["launchctl", "bootout", &job], Failure::Expected, out)?;
        if !settings.dry_run && !has_gone(settings) {
            return Err(Error::Drains(job));
        }
    } else {
        let (systemctl, name) = (systemctl(settings), unit::name(settings));
        let verb: &[&str] = if has_files { &["disable", "--now", &name] } else { &["stop", &name] };
        order(settings, &[systemctl, verb].concat(), Failure::Expected, out)?;
    }
    if !settings.dry_run && is_running(settings) {
        return Err(Error::Running(name_of(settings)));
    }
    Ok(())
}

/// Waits for the end of a job: `bootout` comes back while it drains.
fn has_gone(settings: &ServiceSettings) -> bool {
    for _ in 0..job::exit_time_out() {
        if !is_running(settings) {
            return true;
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    !is_running(settings)
}

/// Loads the job, if it is not: one that runs goes on with its old file.
fn start_job(settings: &ServiceSettings, is_loaded: bool, out: &mut impl Write) -> Result<(), Error> {
    if is_loaded {
        return Ok(());
    }
    let (domain, place) = (domain(), job::place(settings).display().to_string());
    order(settings, &["launchctl", "bootstrap", &domain, &place], WRITTEN, out)
}

/// Where we are, for good: by the name that we were called by, where that is a link to this program. A package manager
/// moves it to the next version.
fn own_path(settings: &ServiceSettings) -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::Program)?;
    let Ok(own) = fs::metadata(&program) else { return Err(Error::Gone(program)) };
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

/// Whether there can be such a service here.
fn check_scope(settings: &ServiceSettings) -> Result<(), Error> {
    let is_there = settings.scope == Scope::User || !cfg!(target_os = "macos");
    if is_there { Ok(()) } else { Err(Error::NoDaemon) }
}

/// Whether the one who asks may do it.
fn check_rights(settings: &ServiceSettings, verb: &'static str, program: &Path) -> Result<(), Error> {
    let may = settings.scope == Scope::User || Uid::effective().is_root();
    if may { Ok(()) } else { Err(Error::NotRoot(verb, program.to_owned())) }
}

/// Whether it is for a user who exists. For `uninstall` that does not matter: an account may go before its service.
fn check_account(settings: &ServiceSettings) -> Result<(), Error> {
    match &settings.scope {
        Scope::Machine { user } if !User::from_name(user).is_ok_and(|found| found.is_some()) => {
            Err(Error::NoAccount(user.clone()))
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

/// The template goes with its last instance.
fn is_shared(settings: &ServiceSettings, place: &Path) -> bool {
    let Scope::Machine { user } = &settings.scope else { return false };
    let Some((stem, _)) = place.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once("@.")) else {
        return false;
    };
    let (prefix, own) = (format!("{stem}@"), format!("{stem}@{user}.service"));
    let folder = unit::folder(settings);
    let names = [folder.clone(), folder.join("multi-user.target.wants")].into_iter().flat_map(fs::read_dir).flatten();
    let names = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others = names.filter(|name| name.starts_with(&prefix) && !name.starts_with(&own));
    others.any(|name| !name.starts_with(&format!("{prefix}.")))
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

fn note_on(beside: &Beside) -> String {
    match beside {
        Beside::Idle(path) => format!(
            "OpenClaw's own service {} is there, neither enabled nor running: remove it with 'openclaw gateway uninstall'",
            path.display()
        ),
        Beside::Elsewhere(path, port) => {
            format!("OpenClaw's own service {} is for port {port}, and is left alone", path.display())
        }
    }
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

fn remove(settings: &ServiceSettings, place: &Path, top: &Path, out: &mut impl Write) -> Result<(), Error> {
    let shown = place.display();
    if settings.dry_run {
        writeln!(out, "would remove {shown}")?;
    } else if record::remove(place, top).map_err(|error| file("remove", place, error))? {
        writeln!(out, "removed    {shown}")?;
    } else {
        writeln!(out, "not there  {shown}")?;
    }
    Ok(())
}

/// Our records, where they are without an option that says otherwise.
fn stores(settings: &ServiceSettings) -> Option<PathBuf> {
    let home = match &settings.scope {
        Scope::User => settings.home.clone(),
        Scope::Machine { user } => User::from_name(user).ok().flatten()?.dir,
    };
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    Some(home.join(format!(".openclaw{profile}/supervise"))).filter(|store| store.is_dir())
}

/// What a person wants to know next. `stale`: what runs was started from the old files.
fn tell_next(settings: &ServiceSettings, stale: bool, out: &mut impl Write) -> Result<(), Error> {
    let name = name_of(settings);
    let manager = systemctl(settings).join(" ");
    if stale {
        let renew = if cfg!(target_os = "macos") {
            let (domain, place) = (domain(), job::place(settings));
            format!("launchctl bootout {domain}/{name} && launchctl bootstrap {domain} {}", place.display())
        } else {
            format!("{manager} restart {name}")
        };
        writeln!(
            out,
            "note       what runs was started before this change: '{renew}' drains the gateway and starts it anew"
        )?;
    }
    if cfg!(target_os = "macos") {
        writeln!(out, "next       launchctl print {}/{name}; openclaw-supervise doctor", domain())?;
        return Ok(());
    }
    let journal = manager.replace("systemctl", "journalctl");
    writeln!(out, "next       {manager} status {name}; {journal} -u {name} -f; openclaw-supervise doctor")?;
    let user = manager::user_name();
    if settings.scope == Scope::User && !settings.dry_run && manager::ends_with_session(&user) {
        writeln!(out, "note       it ends with your last session: 'sudo loginctl enable-linger {user}' keeps it")?;
    }
    Ok(())
}
