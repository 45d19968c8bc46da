//! Processes, named by pid and start time, so that a reused pid is never taken for the one that was meant.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// One process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
}

/// What `/proc/PID/stat` says, as far as the tests need it.
pub(crate) struct Stat {
    pub(crate) state: String,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    start_time: u64,
}

/// The fields follow the last parenthesis, see proc(5): the name before it may hold anything.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let fields: Vec<_> = text.rsplit(')').next()?.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse().ok();
    Some(Stat {
        state: fields.first()?.to_string(),
        parent: number(4)?,
        group: number(5)?,
        session: number(6)?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    /// The living process of that pid.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = stat(pid)?;
        let process = Self { pid, start_time: stat.start_time };
        (!is_over(&stat)).then_some(process)
    }

    /// Whether it still runs. A zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !is_over(&stat))
    }

    /// Sends a signal, unless it is gone.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    pub(crate) fn kill(self) {
        self.signal(Signal::SIGKILL);
    }

    /// It and all its living descendants.
    pub(crate) fn tree(self) -> Vec<Self> {
        let all: Vec<_> = pids().into_iter().filter_map(Self::find).collect();
        let mut tree = vec![self];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            let is_child = |process: &&Self| stat(process.pid).is_some_and(|stat| stat.parent == parent.pid);
            tree.extend(all.iter().filter(is_child));
            next += 1;
        }
        tree
    }
}

fn is_over(stat: &Stat) -> bool {
    matches!(stat.state.as_str(), "Z" | "X")
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every living process that names this folder, or one below it, in its environment or among its arguments: with one it
/// was started, and the other stays with those who lose it. This process is never among them.
pub(crate) fn of_folder(folder: &str) -> Vec<Process> {
    let below = format!("{folder}/");
    let names = |text: &[u8]| text == folder.as_bytes() || text.starts_with(below.as_bytes());
    let carries = |pid: i32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let value = |text: &[u8]| text.iter().position(|&byte| byte == b'=').is_some_and(|at| names(&text[at + 1..]));
        read("cmdline").split(|&byte| byte == 0).any(names) || read("environ").split(|&byte| byte == 0).any(value)
    };
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let mut pids = pids();
    // The youngest first: in a storm they are gone a moment after they were listed.
    pids.reverse();
    pids.into_iter().filter(|&pid| pid != me && carries(pid)).filter_map(Process::find).collect()
}

/// `PID COMMAND` of each, for a panic.
pub(crate) fn describe(processes: &[Process]) -> String {
    let line = |process: &Process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        format!("{} {}", process.pid, String::from_utf8_lossy(&command).replace('\0', " "))
    };
    processes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The zombies among the children of a process.
pub(crate) fn zombies_of(parent: i32) -> Vec<i32> {
    pids().into_iter().filter(|&pid| stat(pid).is_some_and(|stat| stat.parent == parent && stat.state == "Z")).collect()
}
