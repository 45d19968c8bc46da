//! The sentence of a report, for people.

use super::{Exited, Report, human};
use crate::core::HookEnd;
use crate::core::event::{Death, Recovered, TreeEnd};
use std::fmt;

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
            Self::GatewayHung { .. }
            | Self::StartupTimedOut { .. }
            | Self::LivenessMissed { .. }
            | Self::LivenessRecovered { .. } => self.tell_health(f),
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
                write!(f, "the {what} is held by pid {} ({})", owner.pid, owner.command)
            }
            Self::LeaseContended { owner: None, what } => {
                write!(f, "the {what} is held by a process that cannot be seen from here")
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
            Self::GatewayHung { generation, last_good: Some(ago), failed_probes, why } => {
                let ago = human(*ago);
                write!(f, "gateway {generation}: {why}; last good probe {ago} ago, {failed_probes} failed since")
            }
            Self::GatewayHung { generation, last_good: None, failed_probes, why } => {
                write!(f, "gateway {generation}: {why}; {failed_probes} probes failed")
            }
            Self::StartupTimedOut { generation, budget } => {
                write!(f, "gateway {generation} did not come up within {}", human(*budget))
            }
            Self::LivenessMissed { generation, detail } => write!(f, "gateway {generation} missed a probe: {detail}"),
            Self::LivenessRecovered { generation, after } => {
                write!(f, "gateway {generation} answers again after {}", human(*after))
            }
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
        }
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, pid, death, uptime, cause, .. } = self;
        write!(f, "gateway {generation} (pid {pid}) ended with {death} after {}: {cause}", human(*uptime))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core_dumped: false } => write!(f, "signal {number}"),
            Self::Signal { number, core_dumped: true } => write!(f, "signal {number} (core dumped)"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}
