//! Which unit starts us, whether it is enabled, and which program file it runs.

use crate::commands::doctor::facts::program::is_ours;
use crate::commands::doctor::facts::service_manager::{SystemdManager, user_name};
use crate::commands::doctor::facts::systemd::UnitFacts;
use crate::commands::doctor::finding::{Advice, Finding, Remedy};
use crate::commands::install::ManagedFile;
use crate::platform::proc;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// In bytes: larger than any build of ours.
const PROGRAM_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// The program file of a unit, compared with the one of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum ProgramFile {
    /// The same file, or a copy.
    Same,
    Other {
        ours: PathBuf,
    },
    Missing,
    Unknown,
}

/// The unit to examine among those that start us: the one that holds process `pid`, else the one that was asked for, else one
/// that runs or failed, else the one for the port of our own settings, else one that is enabled.
pub(in super::super) fn choose<'a>(
    units: &'a [&'a UnitFacts],
    pid: Option<i32>,
    is_asked_for: impl Fn(&UnitFacts) -> bool,
    is_on_port: impl Fn(&UnitFacts) -> bool,
) -> Option<&'a UnitFacts> {
    let cgroup = pid.and_then(proc::cgroup_of);
    let rank = |unit: &&&UnitFacts| {
        (
            pid.is_some() && unit.main_pid() == pid || cgroup.as_deref().is_some_and(|path| unit.holds(path)),
            // An instance that is not on exists only because `systemctl show` was asked for it.
            unit.is_active() || unit.is_enabled() || has_failed(unit) || !unit.id().contains('@'),
            is_asked_for(unit),
            unit.is_active() || has_failed(unit),
            is_on_port(unit),
            unit.is_active(),
            unit.is_enabled(),
            !unit.is_masked(),
            unit.id() == "openclaw-supervise.service",
        )
    };
    units.iter().rev().max_by_key(rank).copied()
}

fn has_failed(unit: &UnitFacts) -> bool {
    unit.get("ActiveState") == Some("failed")
}

/// `linger`: whether the services of the user outlive its last logout.
pub(in super::super) fn identity(unit: &UnitFacts, linger: Option<bool>) -> Vec<Finding> {
    let systemctl = unit.manager.systemctl();
    let mut findings = vec![loaded(unit)];
    if unit.get("LoadState").is_some_and(|state| state != "loaded") {
        return findings;
    }
    if unit.get("NeedDaemonReload") == Some("yes") {
        findings.push(Finding::warn(
            "daemon-reload",
            "the unit's files have changed since systemd read them",
            "the findings below are about what systemd has loaded, not about the files",
            Advice::with(format!("{systemctl} daemon-reload"), Remedy::Reload),
        ));
    }
    findings.push(if unit.is_transient() {
        Finding::warn(
            "at boot",
            format!("{} is transient", unit.id()),
            "it is gone once it stops, and nothing starts it at the next boot",
            "openclaw-supervise install",
        )
    } else if unit.is_enabled() || unit.get("WantedBy").is_some() {
        Finding::ok("at boot", format!("{} is enabled", unit.id()))
    } else {
        let state = unit.get("UnitFileState").unwrap_or("not enabled");
        Finding::warn(
            "at boot",
            format!("{} is {state}", unit.id()),
            "nothing starts it when the machine or the user manager starts",
            format!("{systemctl} enable --now {}", unit.id()),
        )
    });
    match &unit.manager {
        SystemdManager::System => {}
        SystemdManager::User => findings.push(lingers(&user_name().unwrap_or_else(|| "USER".to_owned()), linger)),
        SystemdManager::Account(user) => findings.push(lingers(user, linger)),
    }
    findings
}

fn loaded(unit: &UnitFacts) -> Finding {
    let state = unit.get("LoadState").unwrap_or("unknown");
    let fragment = unit.get("FragmentPath").unwrap_or("no file");
    if state != "loaded" {
        let why = if state == "masked" { "systemd refuses to start it" } else { "systemd cannot load its file" };
        let fix = match state {
            "masked" => format!("{} unmask {}", unit.manager.systemctl(), unit.id()),
            _ => format!("systemd-analyze verify {fragment}"),
        };
        return Finding::fail("unit", format!("{} is {state} ({fragment})", unit.id()), why, fix);
    }
    let drop_ins = unit.get("DropInPaths").map(|paths| format!(", with {paths}")).unwrap_or_default();
    // The finding `service` tells of a failure.
    let active = unit.get("ActiveState").filter(|state| *state != "failed").unwrap_or("loaded");
    Finding::ok("unit", format!("{} ({}) is {active}: {fragment}{drop_ins}", unit.id(), unit.manager.name()))
}

/// A unit that another version of `install` wrote. `file`: as this one would write it.
pub(in super::super) fn outdated(file: ManagedFile) -> Finding {
    Finding::warn(
        "unit file",
        format!("{} was written by another version of `install`", file.path.display()),
        "it lacks what has changed in the unit since",
        Advice::with("openclaw-supervise doctor --fix, or openclaw-supervise install", Remedy::Renew(file)),
    )
}

fn lingers(user: &str, linger: Option<bool>) -> Finding {
    match linger {
        Some(true) => Finding::ok("linger", format!("lingering is enabled for {user}")),
        Some(false) => Finding::warn(
            "linger",
            format!("lingering is disabled for {user}"),
            "systemd stops all services of the user at the last logout and starts them only at a login",
            format!("loginctl enable-linger {user}"),
        ),
        None => Finding::warn(
            "linger",
            "loginctl does not report whether lingering is enabled",
            "without lingering the service stops at the last logout",
            format!("loginctl enable-linger {user}"),
        ),
    }
}

/// Compares the program file of a unit with the one of this process.
pub(in super::super) fn program_file(unit: &UnitFacts) -> ProgramFile {
    let (Some((path, _)), Ok(ours)) = (unit.command(), std::env::current_exe()) else { return ProgramFile::Unknown };
    let (Ok(theirs), Ok(own)) = (fs::metadata(&path), fs::metadata(&ours)) else {
        return if path.is_absolute() && fs::symlink_metadata(&path).is_err() {
            ProgramFile::Missing
        } else {
            ProgramFile::Unknown
        };
    };
    let same = (theirs.dev(), theirs.ino()) == (own.dev(), own.ino());
    let is_small = theirs.size() <= PROGRAM_SIZE_MAX && theirs.size() == own.size();
    if same || is_small && matches!((fs::read(&path), fs::read(&ours)), (Ok(a), Ok(b)) if a == b) {
        return ProgramFile::Same;
    }
    ProgramFile::Other { ours }
}

/// Whether a file was replaced after the process was started from it. `None` for a unit that starts us through another
/// program, as its process never ran that file.
pub(in super::super) fn was_replaced(pid: i32, path: &Path) -> Option<bool> {
    // /proc/PID/exe leads to the original file even if that was removed or renamed over.
    if !is_ours(path) {
        return None;
    }
    let running = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let installed = fs::metadata(path).ok()?;
    Some((running.dev(), running.ino()) != (installed.dev(), installed.ino()))
}

/// `replaced`: as by [`was_replaced`].
pub(in super::super) fn program(unit: &UnitFacts, program: &ProgramFile, replaced: Option<bool>) -> Finding {
    let path = unit.command().map(|(path, _)| path.display().to_string()).unwrap_or_default();
    match program {
        ProgramFile::Missing => Finding::fail(
            "program",
            format!("{path} does not exist"),
            "the unit fails with 203/EXEC",
            format!(
                "install -m 755 {} {path}",
                std::env::current_exe().map_or("openclaw-supervise".to_owned(), |ours| ours.display().to_string())
            ),
        ),
        _ if replaced == Some(true) => Finding::warn(
            "program",
            format!("{path} was replaced after the supervisor was started"),
            "the earlier version is still running",
            format!("{} restart {}", unit.manager.systemctl(), unit.id()),
        ),
        ProgramFile::Other { ours } if unit.runs_us() && path.contains("openclaw-supervise") => Finding::warn(
            "program",
            format!("the unit runs {path}, and this is {}", ours.display()),
            "two builds may differ in their options and behaviour",
            format!("install -m 755 {} {path}", ours.display()),
        ),
        ProgramFile::Same => Finding::ok("program", format!("{path} (this program)")),
        ProgramFile::Other { .. } | ProgramFile::Unknown => {
            Finding::ok("program", format!("{path} starts this supervisor"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::facts::systemd::tests::unit;

    #[test]
    fn a_unit_has_to_be_loaded_current_and_enabled() {
        let cases = [
            ("enabled", &[][..]),
            ("not found", &[("LoadState", "not-found")]),
            ("masked", &[("LoadState", "masked")]),
            ("bad setting", &[("LoadState", "bad-setting")]),
            ("changed", &[("NeedDaemonReload", "yes")]),
            ("disabled", &[("UnitFileState", "disabled")]),
            ("wanted", &[("UnitFileState", "static"), ("WantedBy", "bare.target")]),
            ("drop-ins", &[("DropInPaths", "/etc/x.d/a.conf /etc/x.d/b.conf")]),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, changes)| (case, identity(&unit(changes), Some(false))))));
    }

    #[test]
    fn a_user_unit_needs_lingering() {
        let mut of_user = unit(&[]);
        of_user.manager = SystemdManager::User;
        let user = user_name().unwrap();
        insta::assert_snapshot!(
            listing([("yes", Some(true)), ("no", Some(false)), ("unknown", None)].map(|(case, linger)| {
                (case, identity(&of_user, linger).into_iter().filter(|finding| finding.check == "linger").collect())
            }))
            .replace(&user, "USER")
        );
    }

    #[test]
    fn the_unit_has_to_run_a_program_that_exists_and_is_this_one() {
        let other = || ProgramFile::Other { ours: PathBuf::from("/home/me/openclaw-supervise") };
        let ours = std::env::current_exe().unwrap().display().to_string();
        insta::assert_snapshot!(
            listing(
                [
                    ("same", ProgramFile::Same, None),
                    ("same as at the start", ProgramFile::Same, Some(false)),
                    ("replaced", ProgramFile::Same, Some(true)),
                    ("other", other(), Some(false)),
                    ("missing", ProgramFile::Missing, None),
                    ("missing since the start", ProgramFile::Missing, Some(true)),
                    ("unknown", ProgramFile::Unknown, None),
                ]
                .map(|(case, file, replaced)| (case, vec![program(&unit(&[]), &file, replaced)]))
            )
            .replace(&ours, "OURS")
        );
    }

    #[test]
    fn a_program_file_is_compared_by_its_inode_and_its_content() {
        let exec = |path: &Path| format!("{{ path={} ; argv[]=x ; ignore_errors=no ; }}", path.display());
        let ours = std::env::current_exe().unwrap();
        assert_eq!(program_file(&unit(&[("ExecStart", &exec(&ours))])), ProgramFile::Same);
        assert_eq!(program_file(&unit(&[("ExecStart", &exec(Path::new("/nowhere/x")))])), ProgramFile::Missing);
        let shell = unit(&[("ExecStart", &exec(Path::new("/bin/sh")))]);
        assert_eq!(program_file(&shell), ProgramFile::Other { ours: ours.clone() });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_was_replaced_after_the_start_is_noticed() {
        let me = i32::try_from(std::process::id()).unwrap();
        let folder = std::env::temp_dir().join(format!("doctor-replaced-{me}"));
        let path = folder.join("openclaw-supervise");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &path).unwrap();
        let before = was_replaced(me, &path);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "the next one").unwrap();
        let after = was_replaced(me, &path);
        fs::remove_dir_all(folder).unwrap();
        assert_eq!((before, after), (Some(false), Some(true)));
        assert_eq!(was_replaced(me, &path), None, "it is gone");
        assert_eq!(was_replaced(me, Path::new("/bin/sh")), None, "it starts us, and is another program");
    }

    #[test]
    fn the_unit_of_the_process_is_examined_before_that_of_the_port_and_that_before_one_that_is_on() {
        let named = |name: &str, changes: &[(&str, &str)]| unit(&[&[("Id", name)], changes].concat());
        let (off, on) =
            (named("a.service", &[("UnitFileState", "disabled")]), named("b.service", &[("MainPID", "-7")]));
        let running = named("c.service", &[("UnitFileState", "disabled"), ("MainPID", "2147483647")]);
        let units = [&off, &on, &running];
        let chosen = |pid, port: &str| choose(&units, pid, |unit| unit.id() == port, |_| false).map(UnitFacts::id);
        assert_eq!(chosen(Some(i32::MAX), "a.service"), Some("c.service"));
        assert_eq!(chosen(None, "a.service"), Some("a.service"));
        assert_eq!(chosen(None, "none"), Some("b.service"));
        assert!(choose(&[], None, |_| true, |_| true).is_none());
        // The default port was not asked for: what runs or failed comes first.
        for state in ["active", "failed"] {
            let busy = named("d.service", &[("ActiveState", state), ("UnitFileState", "disabled")]);
            let units = [&off, &on, &busy];
            let chosen = choose(&units, None, |_| false, |unit| unit.id() == "a.service");
            assert_eq!(chosen.map(UnitFacts::id), Some("d.service"), "{state}");
        }
        // Any account could have an instance of a template.
        let unused = named("a@root.service", &[("UnitFileState", "disabled")]);
        let units = [&unused, &on];
        assert_eq!(
            choose(&units, None, |unit| unit.id() == "a@root.service", |_| false).map(UnitFacts::id),
            Some("b.service")
        );
    }
}
