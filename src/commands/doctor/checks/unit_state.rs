//! What systemd says of a unit of ours now: whether it failed, since when, and what starts it again.

use crate::commands::doctor::facts::store::Ended;
use crate::commands::doctor::facts::systemd::UnitFacts;
use crate::commands::doctor::finding::Finding;
use crate::core::exit;

const CHECK: &str = "service";

/// systemd could not execute the program, see "Process Exit Codes" in systemd.exec(5).
const EXIT_EXEC: u8 = 203;

/// How the main process of a unit ended, see `waitid(2)`.
enum MainEnd {
    Code(u8),
    Signal(String),
}

impl MainEnd {
    fn of(unit: &UnitFacts) -> Option<Self> {
        let status: i32 = unit.get("ExecMainStatus")?.parse().ok()?;
        match unit.get("ExecMainCode")? {
            "1" => u8::try_from(status).ok().map(Self::Code),
            "2" | "3" => {
                let name =
                    nix::sys::signal::Signal::try_from(status).map_or("an unknown signal", |signal| signal.as_str());
                Some(Self::Signal(format!("{name} (signal {status})")))
            }
            _ => None,
        }
    }
}

/// `recorded`: how the supervisor of this unit ended, as its store has it.
pub(in super::super) fn check(unit: &UnitFacts, recorded: Option<&Ended>) -> Finding {
    let name = format!("{} ({})", unit.id(), unit.manager.name());
    let since = unit.moment("StateChangeTimestampMonotonic");
    match (unit.get("ActiveState"), unit.get("SubState")) {
        (Some("failed"), _) => failed(unit, &name, recorded).since(since),
        (Some("activating"), Some("auto-restart")) => restarting(unit, &name, recorded, since),
        (Some("inactive"), _) => inactive(unit, &name).since(since),
        (Some(state @ ("activating" | "deactivating" | "reloading")), _) => {
            Finding::ok(CHECK, format!("{name} is {state}")).since(since)
        }
        (state, _) => Finding::ok(CHECK, format!("{name} is {}", state.unwrap_or("unknown"))).since(since),
    }
}

fn failed(unit: &UnitFacts, name: &str, recorded: Option<&Ended>) -> Finding {
    let (systemctl, id) = (unit.manager.systemctl(), unit.id());
    let (result, end) = (unit.get("Result").unwrap_or("unknown"), MainEnd::of(unit));
    let how = match &end {
        Some(MainEnd::Code(code)) => format!(": exit code {code}"),
        Some(MainEnd::Signal(signal)) => format!(": killed by {signal}"),
        None => String::new(),
    };
    let found = format!("{name} has failed{how} (Result={result})");
    let start = format!("{systemctl} start {id}");
    let log = unit.manager.journalctl(id);
    let is_limit = result == "start-limit-hit";
    let code = match end {
        Some(MainEnd::Code(code)) => Some(code),
        _ => None,
    };
    let reason = recorded.filter(|ended| code == Some(ended.code)).map(|ended| ended.reason.clone());
    let (why, fix) = match code {
        _ if is_limit => (
            "it ended too often in too short a time, and systemd starts it no more".to_owned(),
            format!("{log} -n 50; then {systemctl} reset-failed {id} && {start}"),
        ),
        Some(exit::EX_CONFIG) => (
            reason.unwrap_or_else(|| {
                "another gateway or program has the port, or the gateway refuses its configuration; the log says which"
                    .to_owned()
            }),
            format!("correct that ({log} -n 50), then {start}"),
        ),
        Some(exit::USAGE) => (
            "an option or a variable of the unit is wrong, so the supervisor never started".to_owned(),
            format!("{log} -n 5; correct it, then {start}"),
        ),
        Some(exit::GAVE_UP) => (
            reason.unwrap_or_else(|| "the restart budget is spent".to_owned()),
            format!("correct the cause ({log} -n 50), then {start}"),
        ),
        Some(EXIT_EXEC) => {
            ("systemd could not execute its program".to_owned(), format!("see the finding `program`, then {start}"))
        }
        _ => (
            reason.unwrap_or_else(|| "the supervisor is down, and the gateway with it".to_owned()),
            format!("{log} -n 50; then {start}"),
        ),
    };
    Finding::fail(CHECK, found, why, fix)
}

/// Between two starts by systemd.
fn restarting(unit: &UnitFacts, name: &str, recorded: Option<&Ended>, since: Option<i64>) -> Finding {
    let pause = unit.time("RestartUSec").and_then(|pause| i64::try_from(pause.as_millis()).ok());
    let until = since.zip(pause).map(|(since, pause)| since.saturating_add(pause));
    let log = unit.manager.journalctl(unit.id());
    let finding = match MainEnd::of(unit) {
        Some(MainEnd::Code(0)) => Finding::warn(
            CHECK,
            format!("{name} ended cleanly, and systemd is about to start it again"),
            "a service that is to stay down has to be stopped by its manager",
            format!("{} stop {}", unit.manager.systemctl(), unit.id()),
        ),
        Some(MainEnd::Code(code)) => {
            let reason = recorded.filter(|ended| ended.code == code).map(|ended| ended.reason.clone());
            Finding::fail(
                CHECK,
                format!("{name} ended with exit code {code}, and systemd is about to start it again"),
                reason.unwrap_or_else(|| "no gateway is supervised until then".to_owned()),
                format!("{log} -n 50"),
            )
        }
        Some(MainEnd::Signal(signal)) => Finding::fail(
            CHECK,
            format!("{name} was killed by {signal}, and systemd is about to start it again"),
            "no gateway is supervised until then",
            format!("{log} -n 50"),
        ),
        None => Finding::ok_since(CHECK, format!("{name} is about to be started"), "systemd waits for RestartSec"),
    };
    finding.since(since).until(until)
}

/// A stop on request leaves the result `success`; one that never ran since the boot has no time of its start.
fn inactive(unit: &UnitFacts, name: &str) -> Finding {
    let start = format!("{} start {}", unit.manager.systemctl(), unit.id());
    let has_run = unit.moment("ActiveEnterTimestampMonotonic").is_some();
    if !unit.is_enabled() {
        return Finding::ok_since(CHECK, format!("{name} is not running"), "it is not enabled");
    }
    if unit.get("ConditionResult") == Some("no") {
        let why = "a condition or an assertion of the unit does not hold";
        let fix = format!("{} status {}", unit.manager.systemctl(), unit.id());
        return Finding::fail(CHECK, format!("{name} is enabled, but was skipped"), why, fix);
    }
    if has_run {
        let why = "it was stopped on request; it starts again at the next boot";
        return Finding::warn(CHECK, format!("{name} is enabled and stopped"), why, start);
    }
    let why = "it has not been started since the machine or the user manager started, so no gateway is supervised";
    Finding::fail(CHECK, format!("{name} is enabled, but not running"), why, start)
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::facts::systemd::tests::unit;

    /// What it is, the properties of the unit, and the end on record.
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<Ended>);

    #[test]
    fn each_state_of_a_unit_is_told_with_its_cause_and_what_to_do() {
        let ended = |code, reason: &str| Some(Ended { at_ms: 1, code, reason: reason.to_owned() });
        let failed = |status, result| {
            [("ActiveState", "failed"), ("ExecMainCode", "1"), ("ExecMainStatus", status), ("Result", result)]
        };
        let cases: [Case; 14] = [
            ("running", &[("ActiveState", "active")], None),
            ("starting", &[("ActiveState", "activating"), ("SubState", "start")], None),
            ("stopped on request", &[("ActiveEnterTimestampMonotonic", "1")], None),
            ("never started", &[("ActiveEnterTimestampMonotonic", "0")], None),
            ("skipped", &[("ConditionResult", "no")], None),
            ("not enabled", &[("UnitFileState", "disabled")], None),
            ("refused", &failed("78", "exit-code"), ended(78, "the gateway exited with 78")),
            ("refused, not on record", &failed("78", "exit-code"), ended(0, "stopped as asked")),
            ("usage", &failed("2", "exit-code"), None),
            ("gave up", &failed("69", "exit-code"), None),
            ("no program", &failed("203", "exit-code"), None),
            ("start limit", &failed("1", "start-limit-hit"), None),
            (
                "killed",
                &[("ActiveState", "failed"), ("ExecMainCode", "2"), ("ExecMainStatus", "9"), ("Result", "watchdog")],
                None,
            ),
            (
                "about to be started again",
                &[
                    ("ActiveState", "activating"),
                    ("SubState", "auto-restart"),
                    ("ExecMainCode", "1"),
                    ("ExecMainStatus", "69"),
                ],
                ended(69, "6 restarts within 1h"),
            ),
        ];
        insta::assert_snapshot!(listing(
            cases.map(|(case, changes, ended)| (case, vec![check(&unit(changes), ended.as_ref())]))
        ));
    }
}
