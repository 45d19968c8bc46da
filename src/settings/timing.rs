//! The options that are numbers or words: times, counts, conflicts, and the log.

use super::value::{Source, Zero};
use super::{LeaseBasis, LogSettings, World};
use crate::core::Policy;
use crate::core::policy::OnConflict;
use crate::host::telemetry::Format;
use std::time::Duration;

/// All times and counts; the URL and the seed stay those of the defaults.
pub(super) fn resolve(source: &mut Source<'_>, world: &World) -> Policy {
    use Zero::{Allowed, Refused};
    let known = Policy::default();
    let auto = Duration::from_secs(match world {
        // A container runtime gives it ten.
        World { pid1: true, .. } => 8,
        // The ExitTimeOut of the gateway's own property list is 20.
        World { launchd: true, .. } => 15,
        // The gateway's own limit is 325 to 327.
        _ => 328,
    });
    let s = source;
    let exit_code = s.number(
        "--conflict-exit-code",
        |o| o.conflict_exit_code.as_ref(),
        u32::from(known.conflict_exit_code),
        1,
        u32::from(u8::MAX),
    );
    Policy {
        probe_timeout: s.duration("--probe-timeout", |o| o.probe_timeout.as_ref(), known.probe_timeout, Refused),
        startup_timeout: s.duration(
            "--startup-timeout",
            |o| o.startup_timeout.as_ref(),
            known.startup_timeout,
            Refused,
        ),
        probe_interval: s.duration("--probe-interval", |o| o.probe_interval.as_ref(), known.probe_interval, Refused),
        hang_after: s.duration("--hang-after", |o| o.hang_after.as_ref(), known.hang_after, Refused),
        stop_timeout: s.duration_or_auto("--stop-timeout", |o| o.stop_timeout.as_ref(), auto),
        hung_stop_timeout: s.duration(
            "--hung-stop-timeout",
            |o| o.hung_stop_timeout.as_ref(),
            known.hung_stop_timeout,
            Allowed,
        ),
        max_restarts: s.number("--max-restarts", |o| o.max_restarts.as_ref(), known.max_restarts, 0, u32::MAX),
        restart_window: s.duration("--restart-window", |o| o.restart_window.as_ref(), known.restart_window, Refused),
        backoff_max: s.duration("--backoff-max", |o| o.backoff_max.as_ref(), known.backoff_max, Refused),
        stable_after: s.duration("--stable-after", |o| o.stable_after.as_ref(), known.stable_after, Refused),
        boot_limit: s.number("--boot-limit", |o| o.boot_limit.as_ref(), known.boot_limit, 0, u32::MAX),
        boot_window: s.duration("--boot-window", |o| o.boot_window.as_ref(), known.boot_window, Refused),
        conflict_timeout: s.duration(
            "--conflict-timeout",
            |o| o.conflict_timeout.as_ref(),
            known.conflict_timeout,
            Allowed,
        ),
        conflict_exit_code: u8::try_from(exit_code).unwrap_or(known.conflict_exit_code),
        on_conflict: on_conflict(s, world),
        pre_start: known.pre_start,
        post_stop: known.post_stop,
        memory_max_kb: s.size_or_off("--memory-max", |o| o.memory_max.as_ref()),
        repair: repair(s),
        handoff: known.handoff,
        attended: world.terminal,
        url: known.url,
        messages: known.messages,
        seed: known.seed,
        planted: known.planted,
    }
}

/// What a boot may take: OpenClaw's doctor does the same migrations, and a cold start of Node comes on top.
const REPAIR_TIME_MAX: Duration = Duration::from_mins(5);

/// Whether a refused configuration is repaired, and how long that may take.
fn repair(source: &mut Source<'_>) -> Option<Duration> {
    let words = [("off", None), ("doctor", Some(REPAIR_TIME_MAX))];
    source.choice("--repair", |options| options.repair.as_ref(), &words).flatten()
}

/// Whether the time of a drain is ours to choose, so that an outer manager that has less is heeded.
pub(super) fn is_stop_timeout_auto(source: &mut Source<'_>) -> bool {
    source.given("--stop-timeout", |o| o.stop_timeout.as_ref()).is_none_or(|given| given.text() == Some("auto"))
}

/// Who starts us again whatever our exit code says gets a process that stays.
fn on_conflict(source: &mut Source<'_>, world: &World) -> OnConflict {
    let auto = if world.pid1 || world.launchd { OnConflict::Standby } else { OnConflict::Exit };
    let words = [("auto", auto), ("exit", OnConflict::Exit), ("standby", OnConflict::Standby)];
    source.choice("--on-conflict", |options| options.on_conflict.as_ref(), &words).unwrap_or(auto)
}

/// What shows that an owner lives.
pub(super) fn lease_basis(source: &mut Source<'_>) -> LeaseBasis {
    let words = [("auto", LeaseBasis::Auto), ("lock", LeaseBasis::Lock), ("heartbeat", LeaseBasis::Heartbeat)];
    source.choice("--lease", |options| options.lease.as_ref(), &words).unwrap_or(LeaseBasis::Auto)
}

/// What is logged, and how.
pub(super) fn log_settings(source: &mut Source<'_>, terminal: bool) -> LogSettings {
    let formats = [("text", Format::Text), ("json", Format::Json)];
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let default = if terminal { Format::Text } else { Format::Json };
    LogSettings {
        format: source.choice("--log-format", |options| options.log_format.as_ref(), &formats).unwrap_or(default),
        level: source
            .choice("--log-level", |options| options.log_level.as_ref(), &levels)
            .unwrap_or(tracing::Level::INFO),
    }
}
