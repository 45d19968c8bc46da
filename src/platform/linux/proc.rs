//! What `/proc` says about processes, see proc(5).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

mod files;
mod reader;
mod survey;
mod walk;

use crate::platform::environment::ProcessEnvironment;
pub use crate::platform::stat::{ProcessState, Stat, Surveyed};
use crate::platform::{clock, command_line};
pub use files::is_foreign;
pub(super) use files::path_of;
use files::{STAT_LENGTH_MAX, is_shortage, letter_of, parse_stat, read};
pub(super) use reader::guarded;
pub use reader::{is_left_behind, is_stuck, run, was_left_behind};
pub use survey::{processes, survey};
pub use walk::Walk;

/// Reads `/proc/PID/stat`.
///
/// # Errors
/// ENOENT or ESRCH if it is gone; EMFILE and the like; `TimedOut` if such a read is stuck.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // The kernel fills a large buffer in one read. `fs::read` would begin with small ones, for the size of a file in
    // /proc is 0.
    let mut line = [0; STAT_LENGTH_MAX];
    let path = path_of(pid, "stat")?;
    let length = guarded(pid, || File::open(path)?.read(&mut line))?;
    let parsed = parse_stat(&line[..length]).ok_or(io::ErrorKind::InvalidData)?;
    Ok(parsed.0)
}

/// The tick that it is now, in the unit of start times. A process that was started in an earlier tick than the one in
/// which it was seen alive is named by its pid and its start time; a younger one may share both with a later process.
#[must_use]
pub fn tick() -> u64 {
    // SAFETY: sysconf(3) takes a number and touches nothing.
    let hertz = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(0);
    // The clock of start times, of our own time namespace as these are.
    let now = clock::boot();
    now.as_secs() * hertz + u64::from(now.subsec_nanos()) * hertz / 1_000_000_000
}

/// What a process that does not exit is doing: its state, and the kernel function in which it waits if we may know.
#[must_use]
pub fn condition_of(pid: i32) -> Option<String> {
    let path = path_of(pid, "stat").ok()?;
    let state = guarded(pid, || Ok(letter_of(&path))).ok()??;
    let place = guarded(pid, || fs::read_to_string(format!("/proc/{pid}/wchan"))).unwrap_or_default();
    Some(match place.trim() {
        "" | "0" => format!("state {state}"),
        place => format!("state {state}, waiting in {place}"),
    })
}

/// The children of this process, of all its threads; an orphan that a subreaper inherits counts as one of them.
pub fn children() -> io::Result<Vec<i32>> {
    listed_children().or_else(|_| children_by_walk())
}

/// The same from the kernel's own lists alone. It fails on a kernel without `CONFIG_PROC_CHILDREN`, or when a thread
/// ends in the meantime. proc(5) warns that a child may be missed while one before it in the list is reaped; where the
/// list has one entry that is not reaped, there is no such child, for new ones are added at its end.
pub(super) fn listed_children() -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    if is_foreign() {
        return Ok(all);
    }
    for task in fs::read_dir("/proc/self/task")? {
        all.extend(numbers(&read(task?.path().join("children"))?));
    }
    Ok(all)
}

/// The children of any process, without those of a thread that ends in the meantime.
///
/// # Errors
/// No `CONFIG_PROC_CHILDREN`; EMFILE and the like; ENOENT if the process is gone.
pub fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let tasks = path_of(pid, "task")?;
    // Most processes have one thread, and the folder tells their number without a look into it.
    if fs::metadata(&tasks)?.nlink() == 3
        && let Ok(list) = read(format!("{tasks}/{pid}/children"))
    {
        return Ok(numbers(&list).collect());
    }
    let mut all = Vec::new();
    for task in fs::read_dir(tasks)? {
        let task = task?.path();
        match read(task.join("children")) {
            Ok(list) => all.extend(numbers(&list)),
            Err(error) if is_shortage(&error) || task.exists() => return Err(error),
            Err(_) => {}
        }
    }
    Ok(all)
}

fn numbers(list: &[u8]) -> impl Iterator<Item = i32> {
    list.split(u8::is_ascii_whitespace).filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
}

fn children_by_walk() -> io::Result<Vec<i32>> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    Ok(processes()?.into_iter().filter(|process| process.parent == me).map(|process| process.pid).collect())
}

/// The command line of a process; its name in brackets if it has none (a zombie, a kernel thread) or if that read is
/// stuck; `None` if it is gone. Control characters are replaced, so that the result stays one line in a log.
#[must_use]
pub fn command_of(pid: i32) -> Option<String> {
    let digest = |line: &mut Vec<u8>| command_line::of_arguments(line.split(|&byte| byte == 0));
    let name = || Some(command_line::of_name(name_of(pid)?.as_bytes()));
    survey::ask(pid, "cmdline", digest).flatten().or_else(name)
}

/// The name of a process: of its program file or script, of at most 15 bytes, unless it has set another one. It takes no lock
/// of that process.
#[must_use]
pub fn name_of(pid: i32) -> Option<String> {
    let name = fs::read(path_of(pid, "comm").ok()?).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// The environment that a process was started with; `None` if it cannot be read, or if that read is stuck.
/// Between fork(2) and execve(2) it is that of the parent; in the middle of an execve(2), and of a zombie, it is empty.
#[must_use]
pub fn environment_of(pid: i32) -> Option<ProcessEnvironment> {
    survey::ask(pid, "environ", |bytes| ProcessEnvironment::new(std::mem::take(bytes)))
}

/// Whether that environment holds this `NAME=value`. What cannot be read holds nothing.
#[must_use]
pub fn environ_has(pid: i32, entry: &str) -> bool {
    environment_of(pid).is_some_and(|environment| environment.has(entry))
}

/// The cgroup of a process as service managers see it: its path in the second version's tree, or in the one that systemd
/// keeps beside the first version's controllers.
#[must_use]
pub fn cgroup_of(pid: i32) -> Option<String> {
    parse_cgroup(&String::from_utf8_lossy(&read(path_of(pid, "cgroup").ok()?).ok()?))
}

/// Lines of `hierarchy:controllers:path`, see cgroups(7). With both versions mounted the second one's tree may be left
/// unused, with all processes at its root.
fn parse_cgroup(lines: &str) -> Option<String> {
    let path = |prefix: &str| lines.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
    let (unified, systemd) = (path(":"), path("name=systemd:"));
    unified.filter(|path| *path != "/").or(systemd).or(unified).map(str::to_owned)
}

/// The working directory of a process; its file system is not asked.
#[must_use]
pub fn working_directory_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(path_of(pid, "cwd").ok()?).ok()
}

/// The files that a process has open for writing; their file systems are not asked.
#[must_use]
pub fn written_files_of(pid: i32) -> Vec<PathBuf> {
    let Ok(entries) = path_of(pid, "fd").and_then(fs::read_dir) else { return Vec::new() };
    // The mode of the link is that of the open file.
    let is_written = |link: &Path| fs::symlink_metadata(link).is_ok_and(|meta| meta.mode() & 0o200 != 0);
    let links = entries.flatten().map(|entry| entry.path()).filter(|link| is_written(link));
    links.filter_map(|link| fs::read_link(link).ok()).collect()
}

/// The real user of a process. A program that is set-user-id does not change it, and the owner of `/proc/PID`, which is root
/// for a process that may not be dumped, does not show it.
#[must_use]
pub fn real_uid_of(pid: i32) -> Option<u32> {
    status_field(pid, b"Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether a process is the first one of a pid namespace, which inherits all orphans there.
#[must_use]
pub fn is_first_of_namespace(pid: i32) -> bool {
    status_field(pid, b"NSpid:").is_some_and(|pids| pids.split_ascii_whitespace().next_back() == Some("1"))
}

/// Whether SIGTERM does nothing to a process.
#[must_use]
pub fn ignores_sigterm(pid: i32) -> bool {
    has_signal(pid, b"SigIgn:", libc::SIGTERM)
}

/// Whether a process has not taken a signal yet that was sent to it.
#[must_use]
pub fn has_pending(pid: i32, signal: i32) -> bool {
    has_signal(pid, b"ShdPnd:", signal)
}

fn has_signal(pid: i32, mask: &[u8], signal: i32) -> bool {
    let mask = status_field(pid, mask).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// The value of a line of `/proc/PID/status`.
fn status_field(pid: i32, name: &[u8]) -> Option<String> {
    let path = path_of(pid, "status").ok()?;
    let status = guarded(pid, || read(&path)).ok()?;
    let value = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The effective user of a process.
#[must_use]
pub fn uid_of(pid: i32) -> Option<u32> {
    fs::metadata(path_of(pid, "").ok()?).ok().map(|meta| meta.uid())
}

/// Any bytes in a file of a process.
///
/// # Panics
/// If what goes into a log is more than one short line, or a variable is not found.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_any(bytes: &[u8]) {
    let _stat = parse_stat(bytes);
    let _children = numbers(bytes).count();
    let _cgroup = parse_cgroup(&String::from_utf8_lossy(bytes));
    let lines = [command_line::of_arguments(bytes.split(|&byte| byte == 0)), Some(command_line::of_name(bytes))];
    for line in lines.into_iter().flatten() {
        assert!(line.chars().count() <= 163 && !line.chars().any(char::is_control), "{line:?}");
    }
    let environment = ProcessEnvironment::new(bytes.to_vec());
    for entry in bytes.split(|&byte| byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok()) {
        assert!(environment.has(entry));
        assert!(entry.split_once('=').is_none_or(|(name, _)| environment.get(name).is_some()), "{entry:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_that_of_the_tree_in_which_managers_keep_services() {
        for (lines, expected) in [
            ("0::/system.slice/a.service\n", Some("/system.slice/a.service")),
            ("9:name=systemd:/a.service\n4:memory:/x\n0::/\n", Some("/a.service")),
            ("9:name=systemd:/a.service\n0::/b:c\n", Some("/b:c")),
            ("4:memory:/x\n0::/\n", Some("/")),
            ("4:memory:/x\n", None),
            ("", None),
        ] {
            assert_eq!(parse_cgroup(lines).as_deref(), expected, "{lines}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>, line in "[0-9]{1,10} \\([a-z) (]{0,5}\\) [A-Z]?( -?[0-9]{1,20}){0,25}", name in "[A-Z]{0,3}=?[a-z\0=]{0,9}") {
            for bytes in [&bytes, line.as_bytes(), name.as_bytes()] {
                read_any(bytes);
            }
        }
    }

    #[test]
    fn we_find_ourselves() {
        let me = i32::try_from(std::process::id()).expect("a pid is positive");
        assert_eq!(stat(me).expect("we exist").pid, me);
        assert!(processes().expect("/proc can be read").iter().any(|process| process.pid == me));
        assert!(command_of(me).expect("we have a command").contains("openclaw_supervise"));
        assert!(condition_of(me).expect("we are in some state").starts_with("state "));
    }

    #[test]
    fn the_tick_is_that_of_a_process_that_starts_now() {
        let before = tick();
        let mut child = std::process::Command::new("true").spawn().expect("true can be started");
        let start_time = stat(child.id().cast_signed()).expect("a zombie is listed too").start_time;
        let after = tick();
        child.wait().expect("it is our child");
        assert!((before..=after).contains(&start_time), "{before} {start_time} {after}");
    }
}
