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
        let all = all();
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

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Process::find(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Every living process with a variable of exactly this `NAME=value`, or with a value in a folder below it. This one
/// is never among them.
pub(crate) fn with_environment(variable: &str) -> Vec<Process> {
    let below = format!("{variable}/");
    let carries = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        variables.any(|text| text == variable.as_bytes() || text.starts_with(below.as_bytes()))
    };
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    all().into_iter().filter(|process| process.pid != me && carries(process)).collect()
}
