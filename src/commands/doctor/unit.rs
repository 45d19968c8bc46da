//! Which unit runs us, whether it will at the next boot, and whether what it runs is this program.

use super::finding::Finding;
use super::systemd::{Manager, Unit};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger than any build of ours.
const PROGRAM_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// The files that matter for who runs what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// The unit runs the very file, or a copy of it.
    Same,
    /// Another file than the one that looks.
    Other { ours: PathBuf },
    /// No such file.
    Missing,
    /// It cannot be told.
    Unknown,
}

/// The unit among those that run us which counts: whose process it is, else the one on this port, else one that is on.
pub(super) fn choose<'a>(
    units: &'a [&'a Unit],
    pid: Option<i32>,
    is_on_port: impl Fn(&Unit) -> bool,
) -> Option<&'a Unit> {
    let cgroup = pid.and_then(crate::platform::proc::cgroup_of);
    let rank = |unit: &&&Unit| {
        (
            pid.is_some() && unit.main_pid() == pid || cgroup.as_deref().is_some_and(|path| unit.holds(path)),
            // An instance that nobody has made is no service: it is there because somebody asked.
            unit.is_active() || unit.is_enabled() || !unit.id().contains('@'),
            is_on_port(unit),
            unit.is_active(),
            unit.is_enabled(),
            unit.id() == "openclaw-supervise.service",
        )
    };
    units.iter().rev().max_by_key(rank).copied()
}

/// Where it comes from, and whether it is on.
pub(super) fn identity(unit: &Unit, linger: Option<bool>) -> Vec<Finding> {
    let systemctl = unit.manager.systemctl();
    let mut findings = vec![loaded(unit)];
    if unit.get("LoadState").is_some_and(|state| state != "loaded") {
        return findings;
    }
    if unit.get("NeedDaemonReload") == Some("yes") {
        findings.push(Finding::warn(
            "daemon-reload",
            "the unit's files have changed since systemd read them",
            "what follows is what systemd knows, not what stands in the files",
            format!("{systemctl} daemon-reload"),
        ));
    }
    findings.push(if unit.is_enabled() || unit.get("WantedBy").is_some() {
        Finding::ok("at boot", format!("{} is enabled", unit.id()))
    } else {
        let state = unit.get("UnitFileState").unwrap_or("not enabled");
        Finding::warn(
            "at boot",
            format!("{} is {state}", unit.id()),
            "nothing starts it when the machine or the user's manager starts",
            format!("{systemctl} enable --now {}", unit.id()),
        )
    });
    if unit.manager == Manager::User {
        findings.push(lingers(linger));
    }
    findings
}

fn loaded(unit: &Unit) -> Finding {
    let state = unit.get("LoadState").unwrap_or("unknown");
    let fragment = unit.get("FragmentPath").unwrap_or("no file");
    if state != "loaded" {
        let why = if state == "masked" { "systemd refuses to start it" } else { "systemd cannot use its file" };
        let fix = match state {
            "masked" => format!("{} unmask {}", unit.manager.systemctl(), unit.id()),
            _ => format!("systemd-analyze verify {fragment}"),
        };
        return Finding::fail("unit", format!("{} is {state} ({fragment})", unit.id()), why, fix);
    }
    let drop_ins = unit.get("DropInPaths").map(|paths| format!(", with {paths}")).unwrap_or_default();
    let active = unit.get("ActiveState").unwrap_or("unknown");
    Finding::ok("unit", format!("{} of {}, {active}: {fragment}{drop_ins}", unit.id(), unit.manager.name()))
}

fn lingers(linger: Option<bool>) -> Finding {
    let user = super::systemd::user_name().unwrap_or_else(|| "USER".to_owned());
    match linger {
        Some(true) => Finding::ok("linger", format!("{user} lingers")),
        Some(false) => Finding::warn(
            "linger",
            format!("{user} does not linger"),
            "with the last logout systemd ends all services of the user, and starts them at a login only",
            format!("loginctl enable-linger {user}"),
        ),
        None => Finding::warn(
            "linger",
            "loginctl does not say whether this user lingers",
            "without it the service ends with the last logout",
            format!("loginctl enable-linger {user}"),
        ),
    }
}

/// Which program it starts, by the files themselves.
pub(super) fn look_at_program(unit: &Unit) -> Program {
    let (Some((path, _)), Ok(ours)) = (unit.command(), std::env::current_exe()) else { return Program::Unknown };
    let (Ok(theirs), Ok(own)) = (fs::metadata(&path), fs::metadata(&ours)) else {
        return if path.is_absolute() && fs::symlink_metadata(&path).is_err() {
            Program::Missing
        } else {
            Program::Unknown
        };
    };
    let same = (theirs.dev(), theirs.ino()) == (own.dev(), own.ino());
    let is_small = theirs.size() <= PROGRAM_SIZE_MAX && theirs.size() == own.size();
    if same || is_small && matches!((fs::read(&path), fs::read(&ours)), (Ok(a), Ok(b)) if a == b) {
        return Program::Same;
    }
    Program::Other { ours }
}

/// Whether the file of a running program is no longer the one that it was started from. Who starts us through another
/// program has a process of another file from the beginning.
pub(super) fn was_replaced(pid: i32, path: &Path) -> Option<bool> {
    // The link of a file that was removed or renamed over leads to it all the same.
    if !super::systemd::is_ours(path.as_os_str()) {
        return None;
    }
    let running = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let installed = fs::metadata(path).ok()?;
    Some((running.dev(), running.ino()) != (installed.dev(), installed.ino()))
}

/// What that means. `replaced`: whether a running one was started from an earlier file.
pub(super) fn program(unit: &Unit, program: &Program, replaced: Option<bool>) -> Finding {
    let path = unit.command().map(|(path, _)| path.display().to_string()).unwrap_or_default();
    match program {
        Program::Missing => Finding::fail(
            "program",
            format!("{path} does not exist"),
            "the unit ends with 203/EXEC before we can say a word",
            format!(
                "install -m 755 {} {path}",
                std::env::current_exe().map_or("openclaw-supervise".to_owned(), |ours| ours.display().to_string())
            ),
        ),
        _ if replaced == Some(true) => Finding::warn(
            "program",
            format!("{path} was replaced since the supervisor was started"),
            "the earlier one still runs",
            format!("{} restart {}", unit.manager.systemctl(), unit.id()),
        ),
        Program::Other { ours } if unit.runs_us() && path.contains("openclaw-supervise") => Finding::warn(
            "program",
            format!("the unit runs {path}, and you asked {}", ours.display()),
            "two builds may understand the same options differently",
            format!("install -m 755 {} {path}", ours.display()),
        ),
        Program::Same => Finding::ok("program", format!("{path}, the same as this one")),
        Program::Other { .. } | Program::Unknown => Finding::ok("program", format!("{path} starts us")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::systemd::tests::unit;
    use super::*;

    fn worst(findings: &[Finding]) -> (Level, &'static str) {
        let worst = findings.iter().rev().max_by_key(|finding| finding.level).unwrap();
        (worst.level, worst.check)
    }

    #[test]
    fn a_unit_has_to_be_loaded_as_its_files_say_and_enabled() {
        for (changes, expected) in [
            (&[][..], (Level::Ok, "unit")),
            (&[("LoadState", "not-found")], (Level::Fail, "unit")),
            (&[("LoadState", "masked")], (Level::Fail, "unit")),
            (&[("LoadState", "bad-setting")], (Level::Fail, "unit")),
            (&[("NeedDaemonReload", "yes")], (Level::Warn, "daemon-reload")),
            (&[("UnitFileState", "disabled")], (Level::Warn, "at boot")),
            (&[("UnitFileState", "static"), ("WantedBy", "bare.target")], (Level::Ok, "unit")),
        ] {
            assert_eq!(worst(&identity(&unit(changes), None)), expected, "{changes:?}");
        }
    }

    #[test]
    fn the_files_that_make_up_a_unit_are_named() {
        let found = &identity(&unit(&[("DropInPaths", "/etc/x.d/a.conf /etc/x.d/b.conf")]), None)[0].found;
        for part in ["openclaw-supervise.service", "/etc/systemd/system/", "/etc/x.d/a.conf /etc/x.d/b.conf", "machine"]
        {
            assert!(found.contains(part), "{found}");
        }
    }

    #[test]
    fn a_service_of_a_user_needs_a_user_who_lingers() {
        let mut of_user = unit(&[]);
        of_user.manager = Manager::User;
        for (linger, level) in [(Some(true), Level::Ok), (Some(false), Level::Warn), (None, Level::Warn)] {
            let findings = identity(&of_user, linger);
            let found = findings.iter().find(|finding| finding.check == "linger").unwrap();
            assert_eq!(found.level, level);
            let enables = |fix: &String| fix.starts_with("loginctl enable-linger ");
            assert_eq!(found.fix.as_ref().is_some_and(enables), level == Level::Warn);
        }
        assert!(identity(&unit(&[]), Some(false)).iter().all(|finding| finding.check != "linger"));
    }

    #[test]
    fn the_unit_has_to_run_a_program_that_is_there_and_is_this_one() {
        let other = || Program::Other { ours: PathBuf::from("/home/me/openclaw-supervise") };
        for (what, replaced, level) in [
            (Program::Same, None, Level::Ok),
            (Program::Same, Some(false), Level::Ok),
            (Program::Same, Some(true), Level::Warn),
            (other(), Some(false), Level::Warn),
            (Program::Missing, None, Level::Fail),
            (Program::Missing, Some(true), Level::Fail),
            (Program::Unknown, None, Level::Ok),
        ] {
            assert_eq!(program(&unit(&[]), &what, replaced).level, level, "{what:?} {replaced:?}");
        }
    }

    #[test]
    fn a_program_is_the_same_if_it_is_the_file_or_a_copy_of_it() {
        let exec = |path: &Path| format!("{{ path={} ; argv[]=x ; ignore_errors=no ; }}", path.display());
        let ours = std::env::current_exe().unwrap();
        assert_eq!(look_at_program(&unit(&[("ExecStart", &exec(&ours))])), Program::Same);
        assert_eq!(look_at_program(&unit(&[("ExecStart", &exec(Path::new("/nowhere/x")))])), Program::Missing);
        let shell = unit(&[("ExecStart", &exec(Path::new("/bin/sh")))]);
        assert_eq!(look_at_program(&shell), Program::Other { ours: ours.clone() });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_knows_the_file_that_it_was_started_from() {
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
    fn the_unit_that_counts_is_the_one_of_the_process_then_that_of_the_port_then_one_that_is_on() {
        let named = |name: &str, changes: &[(&str, &str)]| unit(&[&[("Id", name)], changes].concat());
        let (off, on) =
            (named("a.service", &[("UnitFileState", "disabled")]), named("b.service", &[("MainPID", "-7")]));
        let running = named("c.service", &[("UnitFileState", "disabled"), ("MainPID", "2147483647")]);
        let units = [&off, &on, &running];
        let chosen = |pid, port: &str| choose(&units, pid, |unit| unit.id() == port).map(Unit::id);
        assert_eq!(chosen(Some(i32::MAX), "a.service"), Some("c.service"));
        assert_eq!(chosen(None, "a.service"), Some("a.service"));
        assert_eq!(chosen(None, "none"), Some("b.service"));
        assert!(choose(&[], None, |_| true).is_none());
        // Each account might have an instance of a template.
        let nobodys = named("a@root.service", &[("UnitFileState", "disabled")]);
        let units = [&nobodys, &on];
        assert_eq!(choose(&units, None, |unit| unit.id() == "a@root.service").map(Unit::id), Some("b.service"));
    }
}
