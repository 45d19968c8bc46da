//! The sentence of a report, for people.

use super::{Exited, HungReport, Report, human};
use crate::event::{ExitStatus, Recovered, TreeEnd};
use crate::prelude::*;
use crate::{HookEnd, Readiness};
use core::fmt;

impl fmt::Display for Report {
    /// One sentence for people, without the name of the event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorStarted { version, pid, manager: "unknown" } => {
                write!(f, "openclaw-supervise {version} is pid {pid}")
            }
            Self::SupervisorStarted { version, pid, manager } => {
                write!(f, "openclaw-supervise {version} is pid {pid}, run by {manager}")
            }
            Self::SupervisorStopped { exit_code, reason } => write!(f, "exit code {exit_code}: {reason}"),
            Self::LeaseAcquireStarted
            | Self::LeaseContended { .. }
            | Self::LeaseRecovered(_)
            | Self::LeaseAcquired { .. }
            | Self::LeaseReleased { .. }
            | Self::LeaseLost { .. }
            | Self::StoreMovedAside { .. }
            | Self::StoreAvailable => self.tell_tenure(f),
            Self::LeaseTimedOut { why }
            | Self::StoreUnavailable { why }
            | Self::StandbyEntered { why }
            | Self::StandbyLeft { why }
            | Self::RestartGaveUp { why, .. } => f.write_str(why),
            Self::VerdictChanged { from: Some(from), to, detail } => write!(f, "{from} -> {to}: {detail}"),
            Self::VerdictChanged { from: None, to, detail } => write!(f, "{to}: {detail}"),
            Self::ConflictDetected { kind, holder: Some(holder) } => {
                write!(f, "the port is held ({kind}) by pid {} ({})", holder.pid, holder.command)
            }
            Self::ConflictDetected { kind, holder: None } => {
                write!(f, "the port is held ({kind}) by a process that cannot be seen from here")
            }
            Self::ConflictResolved => f.write_str("the port is free again"),
            Self::GatewaySpawned { .. }
            | Self::SpawnFailed { .. }
            | Self::GatewayAdopted { .. }
            | Self::GatewayListening { .. }
            | Self::GatewayStarted { .. } => self.tell_birth(f),
            Self::GatewayExited(exited) => exited.fmt(f),
            Self::GatewayHung(_)
            | Self::StartupTimedOut { .. }
            | Self::LivenessMissed { .. }
            | Self::LivenessRecovered { .. }
            | Self::LivenessExtended { .. }
            | Self::ReadinessChanged { .. }
            | Self::MemoryExceeded { .. } => self.tell_health(f),
            Self::ClockJumped { by } => write!(f, "this machine or this process stood still for {}", human(*by)),
            Self::RestartRequested { by }
            | Self::RetryRequested { by }
            | Self::StopRequested { by }
            | Self::DetachRequested { by } => {
                write!(f, "asked by {by}")
            }
            Self::DetachRefused { why } => write!(f, "staying: {why}"),
            Self::RestartScheduled { delay, why } => write!(f, "in {}: {why}", human(*delay)),
            Self::StopEscalated { why, .. } => write!(f, "ending the whole tree with SIGKILL: {why}"),
            Self::HandoffAccepted { .. }
            | Self::HandoffMissing { .. }
            | Self::HandoffRejected { .. }
            | Self::HandoffUnsupported { .. }
            | Self::HandoffTimedOut { .. }
            | Self::SuccessorFound { .. } => self.tell_handoff(f),
            Self::TreeKilled { end, .. } => end.fmt(f),
            Self::HookStarted { .. } | Self::HookFinished { .. } | Self::HookTimedOut { .. } => self.tell_hook(f),
            Self::SignalReceived { by, .. } => by.fmt(f),
        }
    }
}

impl Report {
    /// Those of the lease and the store.
    fn tell_tenure(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseAcquireStarted => f.write_str("looking for another supervisor of this gateway"),
            Self::LeaseContended { owner: Some(owner), what } => {
                write!(f, "the {} is held by pid {} ({})", what.name(), owner.pid, owner.command)
            }
            Self::LeaseContended { owner: None, what } => {
                write!(f, "the {} is held by a process that cannot be seen from here", what.name())
            }
            Self::LeaseRecovered(Recovered { pid: Some(pid), why }) => write!(f, "taken over from pid {pid}: {why}"),
            Self::LeaseRecovered(Recovered { pid: None, why }) => write!(f, "taken over: {why}"),
            Self::LeaseAcquired { epoch } => write!(f, "this supervisor owns the gateway, epoch {epoch}"),
            Self::LeaseReleased { epoch } => write!(f, "given back, epoch {epoch}"),
            Self::LeaseLost { owner: Some(owner), why } => {
                write!(f, "taken by pid {} ({}): {why}", owner.pid, owner.command)
            }
            Self::LeaseLost { owner: None, why } => write!(f, "taken by somebody else: {why}"),
            Self::StoreMovedAside { to, why } => write!(f, "damaged ({why}); moved to {to}, and begun anew"),
            Self::StoreAvailable => f.write_str("records are kept again"),
            _ => Ok(()),
        }
    }

    /// Those of a gateway's beginning.
    fn tell_birth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GatewaySpawned { generation, pid, attempt } => {
                write!(f, "gateway {generation} is pid {pid}, attempt {attempt}")
            }
            Self::SpawnFailed { generation, why } => write!(f, "gateway {generation} could not be started: {why}"),
            Self::GatewayAdopted { generation, pid, age, differs: None } => {
                write!(f, "gateway {generation} (pid {pid}, {} old) goes on under this supervisor", human(*age))
            }
            Self::GatewayAdopted { generation, pid, age, differs: Some(differs) } => write!(
                f,
                "gateway {generation} (pid {pid}, {} old) goes on under this supervisor until its next restart, with {differs}",
                human(*age)
            ),
            Self::GatewayListening { generation, .. } => write!(f, "gateway {generation} answers and is warming up"),
            Self::GatewayStarted { generation, boot, .. } => {
                write!(f, "gateway {generation} is up after {}", human(*boot))
            }
            _ => Ok(()),
        }
    }

    /// Those of exits that a gateway may have planned.
    fn tell_handoff(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HandoffAccepted { generation, reason } => {
                write!(f, "gateway {generation} had planned its restart ({reason}): it costs no budget")
            }
            Self::HandoffMissing { generation } => {
                write!(f, "gateway {generation} exited with 0 and left no word that it wanted to be started again")
            }
            Self::HandoffRejected { generation, reason } => {
                write!(f, "gateway {generation} left a word on its restart that does not hold: {reason}")
            }
            Self::HandoffUnsupported { reason, .. } => {
                write!(f, "this gateway cannot be asked whether it planned an exit: {reason}")
            }
            Self::HandoffTimedOut { reason, .. } => write!(f, "whether an exit was planned is not known: {reason}"),
            Self::SuccessorFound { generation, pid, command } => {
                write!(f, "gateway {generation} left a successor that serves: pid {pid} ({command}); it is kept")
            }
            _ => Ok(()),
        }
    }

    /// Those of a hook.
    fn tell_hook(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HookStarted { hook, generation } => write!(f, "{} hook of gateway {generation}", hook.name()),
            Self::HookFinished { hook, end, elapsed, .. } => {
                write!(f, "the {} hook {end} after {}", hook.name(), human(*elapsed))
            }
            Self::HookTimedOut { hook, timeout, .. } => {
                write!(f, "the {} hook took longer than {} and is being ended", hook.name(), human(*timeout))
            }
            _ => Ok(()),
        }
    }

    /// Those of a gateway's health.
    fn tell_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GatewayHung(hung) => fmt::Display::fmt(hung, f),
            Self::StartupTimedOut { generation, budget } => {
                write!(f, "gateway {generation} did not come up within {}", human(*budget))
            }
            Self::LivenessMissed { generation, detail } => write!(f, "gateway {generation} missed a probe: {detail}"),
            Self::LivenessRecovered { generation, after } => {
                write!(f, "gateway {generation} answers again after {}", human(*after))
            }
            Self::LivenessExtended { generation, cpu, by } => write!(
                f,
                "gateway {generation} does not answer, but its event loop used {} of CPU meanwhile: it gets {} more, once",
                human(*cpu),
                human(*by)
            ),
            Self::ReadinessChanged { generation, readiness: Readiness { ready, detail } } => {
                let ready = if *ready { "ready" } else { "not ready" };
                write!(f, "gateway {generation} is {ready}: {detail}")
            }
            Self::MemoryExceeded { generation, tree_rss_kb, limit_kb } => write!(
                f,
                "the processes of gateway {generation} have {} resident, more than the {} of --memory-max, three times \
                 in a row: it is drained and replaced",
                mebibytes(*tree_rss_kb),
                mebibytes(*limit_kb)
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for TreeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, escaped, survivors, elapsed, commands, left, .. } = self;
        let elapsed = human(*elapsed);
        write!(f, "{members} processes killed in {elapsed}, {escaped} of them outside the gateway's group")?;
        match (*survivors, left.is_empty()) {
            (0, _) => write!(f, ": {}", commands.join("; ")),
            (left, true) => write!(f, ", {left} left: {}", commands.join("; ")),
            (_, false) => write!(f, ", {survivors} left: {}", left.join("; ")),
        }
    }
}

impl fmt::Display for HookEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(death) => write!(f, "ended with {death}"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::Postponed(why) => write!(f, "was not called: {why}"),
        }
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, pid, death, uptime, cause, toll } = self;
        write!(f, "gateway {generation} (pid {pid}) ended with {death} after {}: {cause}", human(*uptime))?;
        match (toll.max_rss_kb.map(mebibytes), toll.cpu.map(human)) {
            (Some(peak), Some(cpu)) => write!(f, "; it had {peak} resident at its peak and used {cpu} of CPU"),
            (Some(peak), None) => write!(f, "; it had {peak} resident at its peak"),
            (None, Some(cpu)) => write!(f, "; it used {cpu} of CPU"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for HungReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, last_good, failed_probes, why, evidence } = self;
        match last_good.map(human) {
            Some(ago) => {
                write!(f, "gateway {generation}: {why}; last good probe {ago} ago, {failed_probes} failed since")
            }
            None => write!(f, "gateway {generation}: {why}; {failed_probes} probes failed"),
        }?;
        evidence.as_ref().map_or(Ok(()), |path| write!(f, "; what was found is in {path}"))
    }
}

/// An amount of memory as a person would say it.
fn mebibytes(kb: u64) -> String {
    format!("{} MiB", kb.div_ceil(1024))
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core_dumped } => {
                let more = [signal_name(*number), core_dumped.then_some("core dumped")];
                let more: Vec<_> = more.into_iter().flatten().collect();
                write!(f, "signal {number}")?;
                if more.is_empty() { Ok(()) } else { write!(f, " ({})", more.join(", ")) }
            }
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// The name of a signal whose number is the same on every system that we run on, or of one that ends gateways here.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        7 if cfg!(target_os = "linux") => "SIGBUS",
        31 if cfg!(target_os = "linux") => "SIGSYS",
        10 if cfg!(target_os = "macos") => "SIGBUS",
        12 if cfg!(target_os = "macos") => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_by_its_name_where_it_has_one() {
        let death = |number, core_dumped| ExitStatus::Signal { number, core_dumped }.to_string();
        assert_eq!(death(11, true), "signal 11 (SIGSEGV, core dumped)");
        assert_eq!(death(9, false), "signal 9 (SIGKILL)");
        assert_eq!((death(34, false), death(34, true)), ("signal 34".into(), "signal 34 (core dumped)".into()));
    }
}
