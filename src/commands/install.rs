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
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How an error ends when the files are there.
const WRITTEN: Failure =
    Failure::Fatal("the files are written: mend that and call it again, or take them back with uninstall");

/// How one ends when they are gone.
const REMOVED: Failure = Failure::Fatal("the files are removed: mend that and call it again");

/// Writes the service, enables it and starts it.
pub fn install(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    let program = own_path()?;
    check_rights(settings, "install", &program)?;
    manager::is_there(settings)?;
    let idle = rival::check(settings, &program)?;
    let (path, remarks) = search_path::search_path(settings);
    let files = if cfg!(target_os = "macos") {
        vec![job::plan(settings, &program, &path)?]
    } else {
        unit::plan(settings, &program, &path)?
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
    let notes = remarks.into_iter().chain(search_path::remarks_on(settings, &program));
    for note in notes.chain(idle.iter().map(note_on_idle)).chain(left_out(settings)) {
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
    tell_next(settings, stale, out)?;
    Ok(exit::OK)
}

/// Stops the service and removes it.
pub fn uninstall(settings: &ServiceSettings, out: &mut impl Write) -> Result<u8, Error> {
    check_rights(settings, "uninstall", &own_path()?)?;
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
    if let Some(store) = stores(settings) {
        writeln!(out, "kept       {}, our records among the gateway's state", store.display())?;
    }
    Ok(exit::OK)
}

/// Stops the service, and has it not start again. Its files stay until it has ended: a service that runs without them
/// is one that nobody finds.
fn end(settings: &ServiceSettings, has_files: bool, out: &mut impl Write) -> Result<(), Error> {
    if cfg!(target_os = "macos") {
        let job = format!("{}/{}", domain(), job::label(settings));
        order(settings, &["launchctl", "bootout", &job], Failure::Expected, out)?;
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

/// Loads the job, if it is not: one that runs goes on with its old file.
fn start_job(settings: &ServiceSettings, is_loaded: bool, out: &mut impl Write) -> Result<(), Error> {
    if is_loaded {
        return Ok(());
    }
    let (domain, place) = (domain(), job::place(settings).display().to_string());
    order(settings, &["launchctl", "bootstrap", &domain, &place], WRITTEN, out)
}

/// Where we are, for good.
fn own_path() -> Result<PathBuf, Error> {
    let program = std::env::current_exe().map_err(Error::Program)?;
    if program.is_file() { Ok(program) } else { Err(Error::Gone(program)) }
}

/// Whether the one who asks may do it, for a user who exists.
fn check_rights(settings: &ServiceSettings, verb: &'static str, program: &Path) -> Result<(), Error> {
    let Scope::Machine { user } = &settings.scope else { return Ok(()) };
    if cfg!(target_os = "macos") {
        return Err(Error::NoDaemon);
    }
    if settings.dry_run {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err(Error::NotRoot(verb, program.to_owned()));
    }
    // Its account may have gone before its service.
    if verb == "install" && !User::from_name(user).is_ok_and(|found| found.is_some()) {
        return Err(Error::NoAccount(user.clone()));
    }
    Ok(())
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

fn note_on_idle(rival::Idle(path): &rival::Idle) -> String {
    format!(
        "OpenClaw's own service {} is there, neither enabled nor running: remove it with 'openclaw gateway uninstall'",
        path.display()
    )
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
