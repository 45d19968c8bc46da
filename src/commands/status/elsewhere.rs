//! The service of another account or with another store, where nothing of this program is at the place of our own settings.

use super::observe::{EarlierLook, NEITHER, observe};
use super::sentence::sentence;
use super::shown::{FoundShown, Health, Shown, UnitShown, Urgency, View};
use crate::cli::shell_word;
use crate::commands::doctor::installed::{self, Installed, InstalledTarget, InstalledUnit};
use crate::commands::start::SEARCH_TIME_MAX;
use crate::commands::terminal::Terminal;
use crate::platform::thread::BlockingCall;
use crate::settings::{StatusSettings, Subject};

/// The most services that are looked into.
const FOUND_MAX: usize = 16;

/// Observes the store of our settings; if nothing is there and none was named, that of the service that is found. Returns the
/// settings that were used.
pub(super) async fn find(settings: &StatusSettings, terminal: &Terminal) -> (StatusSettings, Shown) {
    let mut shown = observe(settings, terminal, &EarlierLook::default()).await;
    if shown.supervisor.state != "none" {
        return (settings.clone(), shown);
    }
    // At the limit of processes there is no thread for it.
    let found = BlockingCall::default().run(SEARCH_TIME_MAX, installed::all).await.unwrap_or_default();
    let is_own = |one: &&Installed| store_of(one) == Some(settings.subject.store_dir.as_path());
    if let Some(own) = found.iter().find(is_own) {
        shown.unit = own.unit.clone().map(UnitShown::from);
        return (settings.clone(), shown);
    }
    let is_blank = shown.answered_by == NEITHER && shown.trouble.is_none() && !settings.is_target_named;
    match found.as_slice() {
        [one] if is_blank => only(settings, shown, one, terminal).await,
        many @ [_, ..] if is_blank => {
            shown.found = list(settings, many, terminal).await;
            (shown.health, shown.severity) = (Health::Unknown, Urgency::Warning);
            shown.sentence = several(&shown.supervisor.store_dir, &shown.found, many.len());
            (settings.clone(), shown)
        }
        _ => (settings.clone(), shown),
    }
}

pub(super) fn several(store_dir: &str, found: &[FoundShown], count: usize) -> String {
    let is_any_known = found.iter().any(|one| one.store_dir.is_some());
    let advice = if is_any_known {
        ": name one with --store-dir"
    } else {
        ", and their settings cannot be read from here; try `sudo openclaw-supervise status`"
    };
    format!("nothing is on record in {store_dir}, and {count} supervisors of this program are on this machine{advice}")
}

fn store_of(one: &Installed) -> Option<&std::path::Path> {
    one.target.as_ref().map(|target| target.store_dir.as_path())
}

/// `openclaw-supervise.service of user bob`
fn name_of(one: &Installed) -> String {
    let name = one.unit.as_ref().map_or("a supervisor", |unit| unit.name.as_str());
    let user = one.user.as_ref().map(|user| format!(" of user {user}"));
    format!("{name}{}", user.unwrap_or_default())
}

/// The settings with the store of another service.
fn settings_for(settings: &StatusSettings, target: &InstalledTarget) -> StatusSettings {
    let InstalledTarget { store_dir, config_path, endpoint } = target.clone();
    let options = format!(" --store-dir {}", shell_word(store_dir.as_os_str()));
    let subject = Subject { store_dir, config_path, options, ..settings.subject.clone() };
    StatusSettings { subject, endpoint, ..settings.clone() }
}

async fn only(
    settings: &StatusSettings,
    mut blank: Shown,
    one: &Installed,
    terminal: &Terminal,
) -> (StatusSettings, Shown) {
    let name = name_of(one);
    let Some(target) = &one.target else {
        "unreachable".clone_into(&mut blank.supervisor.state);
        blank.supervisor.pid = one.pid;
        let pid = one.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        blank.trouble = Some(format!("{name} is on this machine{pid}, and its settings cannot be read from here"));
        blank.view = if rustix::process::geteuid().is_root() { View::Partial } else { View::Forbidden };
        blank.health = Health::Unknown;
        blank.unit = one.unit.clone().map(UnitShown::from);
        blank.supervisor.store_dir.clear();
        let words = if settings.json { &Terminal::utc() } else { terminal };
        (blank.severity, blank.sentence) = sentence(&blank, words);
        return (settings.clone(), blank);
    };
    let settings = settings_for(settings, target);
    let mut shown = observe(&settings, terminal, &EarlierLook::default()).await;
    shown.unit = shown.unit.or_else(|| one.unit.clone().map(UnitShown::from));
    shown.sentence = format!("{name}: {}", shown.sentence);
    shown.found = vec![found_of(one, Some(&shown))];
    (settings, shown)
}

async fn list(settings: &StatusSettings, many: &[Installed], terminal: &Terminal) -> Vec<FoundShown> {
    let mut found = Vec::new();
    for one in many.iter().take(FOUND_MAX) {
        let shown = match &one.target {
            Some(target) => Some(observe(&settings_for(settings, target), terminal, &EarlierLook::default()).await),
            None => None,
        };
        found.push(found_of(one, shown.as_ref()));
    }
    found
}

fn found_of(one: &Installed, shown: Option<&Shown>) -> FoundShown {
    FoundShown {
        name: name_of(one),
        manager: one.unit.as_ref().map(|unit| unit.manager.clone()),
        user: one.user.clone(),
        pid: one.pid,
        store_dir: one.target.as_ref().map(|target| target.store_dir.to_string_lossy().into_owned()),
        sentence: shown.map(|shown| shown.sentence.clone()),
        health: shown.map_or(Health::Unknown, |shown| shown.health),
    }
}

impl From<InstalledUnit> for UnitShown {
    fn from(unit: InstalledUnit) -> Self {
        let InstalledUnit { name, manager, load, active, sub, result, file } = unit;
        Self { name, manager, load, active, sub, result, file }
    }
}
