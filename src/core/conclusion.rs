//! What kept a gateway from answering, in one line: from the samples of the last window, and from what the kernel shows of it
//! before it is killed. See docs/INCIDENTS.md.

use super::probe_history::{Excess, HangContext};
use super::{BlockedWrite, Holder, Usage};
use crate::prelude::*;
use crate::units::{human, mebibytes};
use core::fmt::Write;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The parts of a window that a thread must have run, or waited for a processor, for that to be the cause: one in so many.
/// With less of both it waited for something else.
const BUSY_PART: u32 = 20;
const STARVED_PART: u32 = 2;

/// Memory pressure (PSI `some avg10`, in percent) from which a process with pages on swap waits for those pages.
const PRESSURE_MIN: u32 = 10;

/// The part of its limit, in percent, from which a control group counts as full: the kernel reclaims all the time there.
const FULL_PERCENT: u64 = 95;

/// What the kernel shows of the process that listens. What it does not show is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// The state of its first thread, see `/proc/PID/status` in proc(5).
    pub state: Option<char>,
    /// The process that traces it.
    pub tracer: Option<Holder>,
    /// The kernel function in which it waits; `None` also if it runs.
    pub wchan: Option<String>,
    /// Whether it runs outside of any system call.
    pub is_in_user_mode: bool,
    pub rss_kb: Option<u64>,
    pub swapped_kb: Option<u64>,
    /// What its control group uses, and the limit of that.
    pub group_kb: Option<(u64, u64)>,
    /// Memory pressure of its control group, else of the machine, in percent.
    pub memory_pressure: Option<u32>,
    /// Connections that it has not accepted.
    pub waiting: Option<u64>,
    /// The largest process of its tree, and how many the tree has.
    pub largest: Option<(Holder, u64)>,
    pub members: usize,
}

/// The kind of a [`Conclusion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IncidentCause {
    Stopped,
    Traced,
    Frozen,
    BlockedWrite,
    SwappedOut,
    DiskWait,
    NoProcessor,
    Busy,
    MemoryFull,
    Idle,
    Waiting,
    OverLimit,
    Unknown,
}

impl IncidentCause {
    /// Its name in the event log and in incidents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Frozen => "frozen",
            Self::BlockedWrite => "blocked_write",
            Self::SwappedOut => "swapped_out",
            Self::DiskWait => "disk_wait",
            Self::NoProcessor => "no_processor",
            Self::Busy => "busy",
            Self::MemoryFull => "memory_full",
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::OverLimit => "over_limit",
            Self::Unknown => "unknown",
        }
    }
}

/// What an incident comes down to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    pub cause: IncidentCause,
    /// One line.
    pub text: String,
}

/// What the samples of a window add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    wall: Duration,
    cpu: Option<Duration>,
    waited: Option<Duration>,
    throttled: Option<Duration>,
    major_faults: Option<u64>,
}

impl Spent {
    /// From the first sample after the last good probe to the last one.
    fn of(case: &HangContext) -> Self {
        let is_late = |ago: Duration| case.last_good.is_none_or(|good| ago <= good);
        let mut samples = case.samples.iter().filter(|(ago, _)| is_late(*ago));
        let Some((began, first)) = samples.next() else { return Self::default() };
        let (ended, last) = samples.next_back().map_or((began, first), |(ended, last)| (ended, last));
        let used = |of: fn(&Usage) -> Option<Duration>| Some(of(last)?.saturating_sub(of(first)?));
        Self {
            wall: began.saturating_sub(*ended),
            cpu: used(|usage| usage.cpu),
            waited: used(|usage| usage.waited),
            throttled: used(|usage| usage.throttled).filter(|time| !time.is_zero()),
            major_faults: last.major_faults.zip(first.major_faults).map(|(last, first)| last.saturating_sub(first)),
        }
    }

    fn is_part(self, time: Option<Duration>, part: u32) -> bool {
        !self.wall.is_zero() && time.is_some_and(|time| time.saturating_mul(part) >= self.wall)
    }

    /// Such as `58s of CPU in 60s`.
    fn cpu_text(self) -> Option<String> {
        let cpu = self.cpu.filter(|_| !self.wall.is_zero())?;
        Some(format!("{} of CPU in {}", human(cpu), human(self.wall)))
    }
}

impl Conclusion {
    /// `condition` is `None` where the kernel was not asked, or did not answer in time.
    #[must_use]
    pub fn of(case: &HangContext, condition: Option<&Condition>) -> Self {
        let unseen = Condition::default();
        let seen = condition.unwrap_or(&unseen);
        let spent = Spent::of(case);
        if let Some(excess) = case.excess {
            return Self::over_limit(excess, seen);
        }
        held(seen)
            .or_else(|| blocked(case.samples.last().and_then(|(_, last)| last.blocked.as_ref())))
            .or_else(|| on_disk(seen, spent))
            .or_else(|| at_work(seen, spent))
            .or_else(|| asleep(seen, spent))
            .unwrap_or_else(|| unknown(seen, spent))
    }

    /// The conclusion of a gateway that is replaced for its memory.
    #[must_use]
    pub fn over_limit(excess: Excess, seen: &Condition) -> Self {
        let Excess { tree_rss_kb, limit_kb } = excess;
        let mut text = format!("over its memory limit: {} of {}", mebibytes(tree_rss_kb), mebibytes(limit_kb));
        if let Some((largest, rss_kb)) = &seen.largest {
            let plural = if seen.members == 1 { "process" } else { "processes" };
            let _infallible = write!(
                text,
                " in {} {plural}, the largest of them {} with {}",
                seen.members,
                named(largest),
                mebibytes(*rss_kb)
            );
        }
        concluded(IncidentCause::OverLimit, text)
    }
}

fn concluded(cause: IncidentCause, text: impl Into<String>) -> Conclusion {
    Conclusion { cause, text: text.into() }
}

fn named(holder: &Holder) -> String {
    format!("pid {} ({})", holder.pid, holder.command)
}

/// What does not let it run: a signal, a tracer, the freezer of its control group.
fn held(seen: &Condition) -> Option<Conclusion> {
    let is_stopped = matches!(seen.state, Some('T' | 't'));
    // The freezers of both versions of control groups.
    if matches!(seen.wchan.as_deref(), Some("do_freezer_trap" | "__refrigerator")) {
        let text = "frozen by the freezer of its control group (cgroup.freeze; docker pause does that)";
        return Some(concluded(IncidentCause::Frozen, text));
    }
    match &seen.tracer {
        Some(tracer) if is_stopped => {
            Some(concluded(IncidentCause::Traced, format!("stopped by a debugger or tracer: {}", named(tracer))))
        }
        _ if seen.state == Some('t') => {
            Some(concluded(IncidentCause::Traced, "stopped by a debugger or tracer (state t)"))
        }
        _ if is_stopped => {
            // The kernel records no sender.
            Some(concluded(IncidentCause::Stopped, "stopped by a signal, such as SIGSTOP (state T)"))
        }
        _ => None,
    }
}

fn blocked(blocked: Option<&BlockedWrite>) -> Option<Conclusion> {
    let BlockedWrite { stream, file, reader } = blocked?;
    let reader = reader.as_ref().map_or_else(
        || "the process that should read it cannot be seen from here".to_owned(),
        |reader| format!("{} does not read it", named(reader)),
    );
    let text = format!("blocked in a write to its {stream}, a full pipe or terminal ({file}): {reader}");
    Some(concluded(IncidentCause::BlockedWrite, text))
}

/// Pages or blocks that have to come from a disk first.
fn on_disk(seen: &Condition, spent: Spent) -> Option<Conclusion> {
    let is_waiting = seen.state == Some('D');
    let pressure = seen.memory_pressure.unwrap_or(0);
    let swapped = seen.swapped_kb.unwrap_or(0);
    let is_mostly_swapped = swapped > 0 && swapped >= seen.rss_kb.unwrap_or(u64::MAX);
    let faults = spent.major_faults.filter(|faults| *faults > 0);
    let faults_text = faults.map_or_else(String::new, |faults| format!(", {faults} major page faults"));
    if swapped > 0 && (is_waiting || faults.is_some()) && (is_mostly_swapped || pressure >= PRESSURE_MIN) {
        let text = format!(
            "swapped out: {} of it are on swap and {} in memory{faults_text}, memory pressure {pressure}%",
            mebibytes(swapped),
            seen.rss_kb.map_or_else(|| "an unknown part".to_owned(), mebibytes),
        );
        return Some(concluded(IncidentCause::SwappedOut, text));
    }
    is_waiting.then(|| {
        let place = seen.wchan.as_ref().map_or_else(String::new, |wchan| format!(" in {wchan}"));
        concluded(
            IncidentCause::DiskWait,
            format!("waiting for a disk or a network file system (uninterruptible, state D{place}){faults_text}"),
        )
    })
}

/// It runs, or would if it got a processor.
fn at_work(seen: &Condition, spent: Spent) -> Option<Conclusion> {
    let full = full(seen);
    if spent.is_part(spent.waited, STARVED_PART) {
        let waited = human(spent.waited.unwrap_or_default());
        let mut text = format!("no processor: it could run and waited for one for {waited} of {}", human(spent.wall));
        if let Some(throttled) = spent.throttled {
            let _infallible = write!(
                text,
                "; the CPU limit of its control group throttled it for {}: raise that limit",
                human(throttled)
            );
        }
        return Some(concluded(IncidentCause::NoProcessor, text));
    }
    if spent.is_part(spent.cpu, BUSY_PART) {
        let place = if seen.is_in_user_mode { ", in no system call" } else { "" };
        let text = format!(
            "event loop busy in JavaScript or native code: {}{place}{}",
            spent.cpu_text().unwrap_or_default(),
            full.map_or_else(String::new, |full| format!("; {full}, where garbage collection takes all time")),
        );
        return Some(concluded(IncidentCause::Busy, text));
    }
    full.map(|full| concluded(IncidentCause::MemoryFull, full))
}

fn full(seen: &Condition) -> Option<String> {
    let (used, limit) = seen.group_kb.filter(|(_, limit)| *limit > 0)?;
    let percent = used.saturating_mul(100).checked_div(limit)?;
    (percent >= FULL_PERCENT).then(|| {
        format!(
            "memory near its limit: its control group uses {} of {} ({percent}%)",
            mebibytes(used),
            mebibytes(limit)
        )
    })
}

/// It waits for something that never comes.
fn asleep(seen: &Condition, spent: Spent) -> Option<Conclusion> {
    let wchan = seen.wchan.as_deref().filter(|_| seen.state == Some('S'))?;
    let used = spent.cpu_text().map_or_else(String::new, |used| format!(", {used}"));
    Some(match wchan {
        _ if wchan.contains("epoll") || wchan == "ep_poll" => {
            let text = match seen.waiting {
                Some(waiting @ 1..) => format!(
                    "event loop idle in epoll_wait{used}, and {waiting} connections are not accepted: it no longer \
                     listens for them"
                ),
                _ => {
                    format!("event loop idle in epoll_wait{used}: no request reaches it, or its answers are held back")
                }
            };
            concluded(IncidentCause::Idle, text)
        }
        _ if wchan.starts_with("futex") => concluded(
            IncidentCause::Waiting,
            format!("its event loop waits for a lock or for another of its threads (futex){used}"),
        ),
        "do_wait" | "do_wait4" => concluded(
            IncidentCause::Waiting,
            format!("its event loop waits for the end of a child process ({wchan}){used}"),
        ),
        _ => concluded(IncidentCause::Waiting, format!("its event loop waits in the kernel function {wchan}{used}")),
    })
}

fn unknown(seen: &Condition, spent: Spent) -> Conclusion {
    let facts = [
        seen.state.map(|state| format!("state {state}")),
        seen.wchan.as_ref().map(|wchan| format!("waits in {wchan}")),
        spent.cpu_text(),
        seen.memory_pressure.map(|pressure| format!("memory pressure {pressure}%")),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    let facts = if facts.is_empty() { "nothing could be seen of it".to_owned() } else { facts.join(", ") };
    concluded(IncidentCause::Unknown, format!("unknown: {facts}"))
}

#[cfg(test)]
mod tests;
