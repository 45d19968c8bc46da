//! `doctor --fix`: what is ours and safe. A plan is made of the findings; a dry run only shows it.

use super::facts::service_manager::SystemdManager;
use super::facts::systemd::{self, UnitFacts};
use super::finding::{Advice, Finding, Level, Remedy};
use crate::commands::install::{self, ManagedFile};
use crate::commands::terminal::printable;
use crate::platform::folder::Folder;
use crate::platform::regular_file;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The drop-in of ours. Those of `systemctl edit` come after it and win.
const DROP_IN: &str = "doctor.conf";

/// In bytes: many times what a unit file has.
const TEXT_MAX: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum FixStep {
    Write { file: ManagedFile, replaces: Option<String> },
    Reload(SystemdManager),
    RemoveSocket(PathBuf),
    Chmod { dir: PathBuf, mode: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FixOutcome {
    /// A dry run.
    Planned,
    Done,
    Failed(String),
    /// Not ours to change: the reason.
    Left(String),
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Action {
    verb: &'static str,
    subject: String,
    /// The lines that are added and removed.
    diff: Vec<String>,
    outcome: FixOutcome,
}

impl Action {
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome, FixOutcome::Failed(_))
    }

    fn to_json(&self) -> Value {
        let (outcome, why) = match &self.outcome {
            FixOutcome::Planned => ("planned", None),
            FixOutcome::Done => ("done", None),
            FixOutcome::Failed(why) => ("failed", Some(why)),
            FixOutcome::Left(why) => ("left", Some(why)),
        };
        json!({ "action": self.verb, "subject": self.subject, "diff": self.diff, "outcome": outcome, "why": why })
    }

    fn to_text(&self) -> String {
        let (word, why) = match &self.outcome {
            FixOutcome::Planned => (format!("would {}", self.verb), String::new()),
            FixOutcome::Done => (past(self.verb).to_owned(), String::new()),
            FixOutcome::Failed(why) => (format!("cannot {}", self.verb), format!(": {why}")),
            FixOutcome::Left(why) => ("left".to_owned(), format!(": {why}")),
        };
        let head = format!("{word:<14} {}{}", printable(&self.subject), printable(&why));
        let lines = self.diff.iter().map(|line| format!("    {}", printable(line)));
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

fn past(verb: &str) -> &str {
    match verb {
        "write" => "wrote",
        "run" => "ran",
        "remove" => "removed",
        "chmod" => "changed mode of",
        other => other,
    }
}

pub(super) fn as_text(actions: &[Action]) -> String {
    if actions.is_empty() {
        return "nothing to mend that is ours".to_owned();
    }
    actions.iter().map(Action::to_text).collect::<Vec<_>>().join("\n")
}

pub(super) fn as_json(actions: &[Action]) -> Value {
    actions.iter().map(Action::to_json).collect()
}

/// Does what the findings allow. `unit`: the one that they are about.
pub(super) fn run(findings: &[Finding], unit: Option<&UnitFacts>, dry_run: bool) -> Vec<Action> {
    let (steps, mut actions) = plan(findings, unit);
    let mut has_failed = false;
    for step in steps {
        let outcome = match &step {
            _ if dry_run => FixOutcome::Planned,
            // Its files were not written.
            FixStep::Reload(_) if has_failed => continue,
            step => perform(step).map_or_else(|error| FixOutcome::Failed(error.to_string()), |()| FixOutcome::Done),
        };
        has_failed |= matches!(outcome, FixOutcome::Failed(_));
        actions.push(describe(&step, outcome));
    }
    actions
}

/// The steps in their order, and what is left alone.
fn plan(findings: &[Finding], unit: Option<&UnitFacts>) -> (Vec<FixStep>, Vec<Action>) {
    let (mut steps, mut left, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let mut needs_reload = false;
    let remedies =
        findings.iter().filter(|finding| finding.level != Level::Ok).filter_map(|finding| match &finding.fix {
            Some(Advice { remedy: Some(remedy), .. }) => Some(remedy),
            _ => None,
        });
    for remedy in remedies {
        match remedy {
            Remedy::Directives { section, lines: new } => lines.extend(new.iter().map(|line| (*section, line.clone()))),
            Remedy::Reload => needs_reload = true,
            Remedy::Renew(file) => steps.push(FixStep::Write { file: file.clone(), replaces: text_of(&file.path) }),
            Remedy::StaleSocket(path) => steps.push(FixStep::RemoveSocket(path.clone())),
            Remedy::Private(dir) => {
                let mode = fs::metadata(dir).map_or(0o700, |meta| meta.mode() & 0o7755);
                steps.push(FixStep::Chmod { dir: dir.clone(), mode });
            }
        }
    }
    let Some(unit) = unit else { return (steps, left) };
    // What the renewed unit has is missing no longer.
    let renewed: Vec<String> = steps
        .iter()
        .filter_map(text_to_be)
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let own = own_drop_in(unit);
    lines.retain(|(_, line)| !renewed.contains(line));
    lines.retain(|(_, line)| match set_elsewhere(unit, line, own.as_deref()) {
        Some(file) => {
            left.push(leave(line, format!("{} sets it, which is yours to change", file.display())));
            false
        }
        None => true,
    });
    let writes = !lines.is_empty() || steps.iter().any(|step| matches!(step, FixStep::Write { .. })) || needs_reload;
    if writes && let Some(why) = forbids(unit) {
        steps.retain(|step| !matches!(step, FixStep::Write { .. }));
        left.push(leave(unit.id(), why));
        return (steps, left);
    }
    if let Some(path) = own.filter(|_| !lines.is_empty()) {
        match install::drop_in(&path, &lines) {
            Some(file) => steps.push(FixStep::Write { replaces: text_of(&file.path), file }),
            None => left.push(leave(
                &path.display().to_string(),
                "it was not written by 'doctor --fix', or was edited since".to_owned(),
            )),
        }
    }
    if needs_reload || steps.iter().any(|step| matches!(step, FixStep::Write { .. })) {
        steps.push(FixStep::Reload(unit.manager.clone()));
    }
    (steps, left)
}

fn text_to_be(step: &FixStep) -> Option<&str> {
    match step {
        FixStep::Write { file, .. } => Some(&file.text),
        FixStep::Reload(_) | FixStep::RemoveSocket(_) | FixStep::Chmod { .. } => None,
    }
}

fn leave(subject: &str, why: String) -> Action {
    Action { verb: "leave", subject: subject.to_owned(), diff: Vec::new(), outcome: FixOutcome::Left(why) }
}

fn text_of(path: &Path) -> Option<String> {
    regular_file::head(path, TEXT_MAX).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Why the files of this unit are not to be changed by us.
fn forbids(unit: &UnitFacts) -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    match &unit.manager {
        _ if unit.is_masked() => Some("it is masked".to_owned()),
        _ if unit.is_transient() => Some("it is transient, and gone once it stops".to_owned()),
        SystemdManager::System if !is_root => {
            Some("a system unit needs root: sudo openclaw-supervise doctor --fix".to_owned())
        }
        SystemdManager::Account(user) => Some(format!("its files belong to {user}: run doctor --fix as {user}")),
        SystemdManager::System | SystemdManager::User => None,
    }
}

/// Where a drop-in of ours goes.
fn own_drop_in(unit: &UnitFacts) -> Option<PathBuf> {
    let folder = match &unit.manager {
        SystemdManager::System => PathBuf::from("/etc/systemd/system"),
        SystemdManager::User => {
            let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            named.or_else(|| Some(unit.manager.home()?.join(".config")))?.join("systemd/user")
        }
        SystemdManager::Account(_) => return None,
    };
    Some(folder.join(format!("{}.d", unit.id())).join(DROP_IN))
}

/// The drop-in of another origin that sets the directive of this line.
fn set_elsewhere(unit: &UnitFacts, line: &str, own: Option<&Path>) -> Option<PathBuf> {
    let name = line.split_once('=')?.0;
    let sets = |text: &str| {
        let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
        names.into_iter().any(|known| known == name)
    };
    let drop_ins = unit.get("DropInPaths").unwrap_or_default().split_whitespace().map(PathBuf::from);
    let mut others = drop_ins.filter(|path| Some(path.as_path()) != own);
    others.find(|path| text_of(path).is_some_and(|text| sets(&text)))
}

fn perform(step: &FixStep) -> io::Result<()> {
    match step {
        FixStep::Write { file, replaces } => {
            if let Some(text) = replaces {
                // systemd reads no file of this name.
                let path = PathBuf::from(format!("{}.bak", file.path.display()));
                ManagedFile { path, text: text.clone() }.write()?;
            }
            file.write()
        }
        FixStep::Reload(manager) => systemd::reload(manager).map_err(io::Error::other),
        FixStep::RemoveSocket(path) => {
            let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
            // By the descriptor of the directory: another user may be able to replace the path.
            let folder = Folder::open(dir).map_err(io::Error::other)?;
            if folder.meta_of(name)?.file_type().is_socket() { folder.remove(name) } else { Ok(()) }
        }
        FixStep::Chmod { dir, mode } => Folder::open(dir).map_err(io::Error::other)?.chmod(".", *mode),
    }
}

fn describe(step: &FixStep, outcome: FixOutcome) -> Action {
    let (verb, subject, diff) = match step {
        FixStep::Write { file, replaces } => {
            let backup = if replaces.is_some() {
                format!(" (the earlier one: {}.bak)", file.path.display())
            } else {
                String::new()
            };
            let diff = diff(replaces.as_deref().unwrap_or_default(), &file.text);
            ("write", format!("{}{backup}", file.path.display()), diff)
        }
        FixStep::Reload(manager) => ("run", format!("{} daemon-reload", manager.systemctl()), Vec::new()),
        FixStep::RemoveSocket(path) => ("remove", path.display().to_string(), Vec::new()),
        FixStep::Chmod { dir, mode } => ("chmod", format!("{} to {mode:o}", dir.display()), Vec::new()),
    };
    Action { verb, subject, diff, outcome }
}

/// The lines that go and come, in their order: those outside of a longest common subsequence.
fn diff(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (i, line) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            common[i][j] =
                if line == other { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::facts::systemd::tests::unit;
    use super::*;

    #[test]
    fn a_diff_has_the_lines_that_go_and_come() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), ["- b", "+ x", "+ d"]);
        assert_eq!(diff("", "a\n"), ["+ a"]);
        assert_eq!(diff("a\n", "a\n"), [""; 0]);
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("doctor-fix-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_a_drop_in_of_yours_sets_is_left_and_the_rest_goes_into_ours() {
        let folder = scratch("plan");
        let yours = folder.join("override.conf");
        fs::write(&yours, "[Service]\nKillMode=process\n").unwrap();
        let unit = unit(&[("KillMode", "process"), ("Delegate", "no"), ("DropInPaths", yours.to_str().unwrap())]);
        let findings = super::super::checks::directives::check(&unit, None);
        let (steps, left) = plan(&findings, Some(&unit));
        fs::remove_dir_all(folder).unwrap();
        let text = as_text(&left);
        assert!(text.contains("KillMode=mixed: ") && text.contains("override.conf sets it"), "{text}");
        if rustix::process::geteuid().is_root() {
            let [FixStep::Write { file, replaces: None }, FixStep::Reload(SystemdManager::System)] = &steps[..] else {
                panic!("{steps:?}")
            };
            assert!(file.path.ends_with("openclaw-supervise.service.d/doctor.conf"), "{}", file.path.display());
            assert!(file.text.ends_with("\n[Service]\nDelegate=yes\n"), "{}", file.text);
        } else {
            assert!(text.contains("needs root") && steps.is_empty(), "{text}");
        }
    }

    #[test]
    fn a_drop_in_of_ours_keeps_what_it_has_and_an_edited_one_is_left() {
        let folder = scratch("drop-in");
        let path = folder.join("doctor.conf");
        let first = install::drop_in(&path, &[("Service", "Delegate=yes".to_owned())]).unwrap();
        first.write().unwrap();
        let lines = [
            ("Unit", "StartLimitIntervalSec=0".to_owned()),
            ("Service", "Delegate=yes".to_owned()),
            ("Service", "KillMode=mixed".to_owned()),
        ];
        let second = install::drop_in(&path, &lines).unwrap();
        let body = second.text.split_once('\n').unwrap().1;
        assert_eq!(body, "[Unit]\nStartLimitIntervalSec=0\n[Service]\nDelegate=yes\nKillMode=mixed\n");
        fs::write(&path, first.text + "KillMode=none\n").unwrap();
        assert_eq!(install::drop_in(&path, &lines), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_step_is_performed_with_a_backup_and_a_failure_is_told() {
        let folder = scratch("perform");
        let (path, socket) = (folder.join("a.service"), folder.join("control.sock"));
        fs::write(&path, "old\n").unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let file = ManagedFile { path: path.clone(), text: "new\n".to_owned() };
        for step in [
            FixStep::Write { file, replaces: Some("old\n".to_owned()) },
            FixStep::RemoveSocket(socket.clone()),
            FixStep::Chmod { dir: folder.clone(), mode: 0o700 },
        ] {
            perform(&step).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!((read("a.service").as_str(), read("a.service.bak").as_str()), ("new\n", "old\n"));
        assert!(!socket.exists() && fs::metadata(&folder).unwrap().mode() & 0o777 == 0o700);
        fs::remove_dir_all(&folder).unwrap();
        assert!(perform(&FixStep::RemoveSocket(socket)).is_err());
    }

    #[test]
    fn each_outcome_is_told_in_text_and_json() {
        let step = FixStep::RemoveSocket(PathBuf::from("/s/control.sock"));
        let write = FixStep::Write {
            file: ManagedFile { path: PathBuf::from("/u/a.service"), text: "a\nc\n".to_owned() },
            replaces: Some("a\nb\n".to_owned()),
        };
        let actions = [
            describe(&write, FixOutcome::Planned),
            describe(&step, FixOutcome::Done),
            describe(&FixStep::Reload(SystemdManager::User), FixOutcome::Failed("no bus".to_owned())),
            describe(&FixStep::Chmod { dir: PathBuf::from("/s"), mode: 0o755 }, FixOutcome::Planned),
            leave("KillMode=mixed", "override.conf sets it".to_owned()),
        ];
        insta::assert_snapshot!(format!("{}\n{:#}\n{}", as_text(&actions), as_json(&actions), as_text(&[])));
    }
}
