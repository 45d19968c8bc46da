//! Who holds the port, who holds the lease, and whether the supervisor answers.

use super::finding::Finding;
use super::store::Store;
use crate::core::lease::Life;
use crate::core::{Observation, Phase, Verdict};

/// What the supervisor's socket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Supervisor {
    /// It answers.
    Answers { pid: Option<i32>, state: String },
    /// No socket, or nobody behind it.
    Absent,
    /// Somebody is there, and there is no answer.
    Trouble { pid: Option<i32>, why: String },
    /// It is this user's, who alone may ask.
    Hidden(String),
}

/// Who has the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lease {
    /// Nobody has ever had it.
    Unused,
    /// It was given back, or its owner is gone.
    Free,
    Held {
        pid: Option<i32>,
        life: Life,
    },
    Unreadable(String),
    /// It is this user's, who alone may look.
    Hidden(String),
}

/// Who has the holder of the port in a control group of his.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keeper {
    Nobody,
    /// The unit that counts.
    Unit(String),
    /// That unit runs, and whose the port is cannot be seen from here.
    Perhaps(String),
}

/// All that was seen.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) url: String,
    pub(super) sighting: Observation,
    pub(super) store: Store,
    pub(super) keeper: Keeper,
}

/// All three checks.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![supervisor(facts), lease(facts), port(facts)]
}

fn named(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

fn supervisor(facts: &Facts) -> Finding {
    let check = "supervisor";
    match &facts.store.supervisor {
        Supervisor::Answers { pid, state } => Finding::ok(check, format!("{}{}", state.replace('_', " "), named(*pid))),
        Supervisor::Absent if matches!(facts.store.lease, Lease::Held { life: Life::Alive, .. }) => Finding::warn(
            check,
            "it runs, and has no control socket",
            "`status`, `restart` and `stop` cannot reach it",
            "see the first lines of its log",
        ),
        Supervisor::Absent => Finding::ok(check, "none runs"),
        Supervisor::Trouble { pid, why } => Finding::fail(
            check,
            format!(
                "{why}{}",
                if pid.is_some_and(|pid| why.contains(&pid.to_string())) { String::new() } else { named(*pid) }
            ),
            "nobody watches the gateway while its supervisor stands still, and a user who may not ask learns nothing",
            "ask as the user who runs it, or as root; if it hangs, end it: the next one adopts the gateway",
        ),
        Supervisor::Hidden(user) => hidden(check, user),
    }
}

fn lease(facts: &Facts) -> Finding {
    let check = "lease";
    match &facts.store.lease {
        Lease::Unused => Finding::ok(check, "never taken"),
        Lease::Free => Finding::ok(check, "free"),
        Lease::Held { pid, life: Life::Alive } => Finding::ok(check, format!("held{}", named(*pid))),
        Lease::Held { pid, .. } => Finding::warn(
            check,
            format!("held{}, and whether its owner lives cannot be told from here", named(*pid)),
            "a start waits for as long as its heartbeat goes on, and half a minute more",
            "see on the machine or in the container that holds it",
        ),
        Lease::Unreadable(why) => {
            Finding::fail(check, why.clone(), "a start needs it", "give the store directory to the user who runs it")
        }
        Lease::Hidden(user) => hidden(check, user),
    }
}

fn hidden(check: &'static str, user: &str) -> Finding {
    let why = "another user's processes and files show only to root";
    Finding::warn(check, format!("it is {user}'s"), why, format!("ask as {user}, or as root"))
}

/// Whether a supervisor of ours is in charge of what is on the port.
fn is_in_charge(facts: &Facts) -> bool {
    matches!(facts.store.supervisor, Supervisor::Answers { .. }) || matches!(facts.keeper, Keeper::Unit(_))
}

/// What is in good hands as far as can be told, and could be in better ones.
fn kept(facts: &Facts, found: &str) -> Option<Finding> {
    let check = "port";
    match (&facts.keeper, facts.sighting.verdict) {
        (Keeper::Unit(unit), Verdict::Foreign) => {
            let why = format!("it is {unit} that has the port, and no gateway answers there");
            Some(Finding::warn(check, found, why, "openclaw-supervise events"))
        }
        (Keeper::Perhaps(unit), verdict) if !matches!(verdict, Verdict::Free | Verdict::Inconclusive) => {
            let why = format!("{unit} runs, and whether the port is its gateway's cannot be seen from here");
            Some(Finding::warn(check, found, why, "ask as the user who runs it, or as root"))
        }
        _ => None,
    }
}

fn port(facts: &Facts) -> Finding {
    let check = "port";
    let Facts { url, sighting, .. } = facts;
    let holder =
        sighting.holder().map(|holder| format!(" (pid {}, {})", holder.pid, holder.command)).unwrap_or_default();
    let found = format!("{url}: {}, {}{holder}", sighting.verdict, sighting.detail);
    let whose = sighting.holder().map(|holder| holder.pid);
    let on_record = facts.store.gateway.is_some() && whose == facts.store.gateway;
    if let Some(finding) = kept(facts, &found) {
        return finding;
    }
    match sighting.verdict {
        Verdict::Free if facts.store.gateway.is_none() => Finding::ok(check, found),
        Verdict::Free => Finding::warn(
            check,
            found,
            "a gateway runs and does not listen: it boots, ends, or has lost its listener",
            "openclaw-supervise status",
        ),
        Verdict::Gateway(Phase::Started | Phase::Unknown) if is_in_charge(facts) => Finding::ok(check, found),
        Verdict::Gateway(Phase::Starting) | Verdict::Draining | Verdict::Booting if is_in_charge(facts) => {
            Finding::ok_since(check, found, "it is on its way")
        }
        Verdict::Gateway(_) | Verdict::Draining | Verdict::Booting if on_record => Finding::warn(
            check,
            found,
            "it is ours, and nobody supervises it just now",
            "start the supervisor: it adopts the gateway as it is",
        ),
        Verdict::Gateway(_) | Verdict::Draining | Verdict::Booting => Finding::fail(
            check,
            found,
            "it is a gateway that is not ours: a start of the supervisor leaves it alone and ends with 78",
            format!("openclaw gateway stop{}", whose.map(|pid| format!(", or kill {pid}")).unwrap_or_default()),
        ),
        Verdict::Silent if is_in_charge(facts) => Finding::warn(
            check,
            found,
            "a gateway that hangs or is very busy; the supervisor acts on it",
            "openclaw-supervise events",
        ),
        Verdict::Silent | Verdict::Foreign => {
            let pid = whose.map_or_else(|| "the program that holds it".to_owned(), |pid| format!("pid {pid}"));
            let fix = format!("stop {pid}, or give the gateway another port with --port");
            Finding::fail(check, found, "no gateway can listen there, and a start ends with 78", fix)
        }
        Verdict::Inconclusive => {
            let why = "this program could not look; the supervisor may fail for the same reason";
            Finding::warn(check, found, why, "ulimit -n 1024, or free some memory, and ask again")
        }
    }
}

/// The config as a person sees it, and what the supervisor serves.
pub(super) fn agreement(counts: u16, asked: u16, whose: &str) -> Option<Finding> {
    (counts != asked).then(|| {
        Finding::warn(
            "port",
            format!("{whose} is for port {counts}, and here the settings mean {asked}"),
            "clients that read the same config look for the gateway at the other one",
            format!("gateway.port: {counts} in the gateway's config, or the other port there"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::core::{Holder, Owner};

    const ANSWERS: Supervisor = Supervisor::Answers { pid: Some(1), state: String::new() };
    const HELD: Lease = Lease::Held { pid: Some(1), life: Life::Alive };

    fn facts(verdict: Verdict, supervisor: Supervisor, lease: Lease, gateway: Option<i32>) -> Facts {
        let holder = Holder { pid: 7, command: "node gateway".to_owned(), uid: None };
        let owner = if verdict == Verdict::Free { Owner::Unseen } else { Owner::Other(holder) };
        let sighting = Observation { verdict, owner, detail: "a detail".to_owned(), readiness: None };
        let store = Store { supervisor, lease, url: None, gateway };
        Facts { url: "ws://127.0.0.1:1".to_owned(), sighting, store, keeper: Keeper::Nobody }
    }

    #[test]
    fn what_the_unit_may_have_is_nobodys_to_kill() {
        let mut facts = facts(Verdict::Gateway(Phase::Started), Supervisor::Absent, Lease::Unused, None);
        for verdict in [
            Verdict::Gateway(Phase::Started),
            Verdict::Gateway(Phase::Starting),
            Verdict::Draining,
            Verdict::Booting,
            Verdict::Silent,
            Verdict::Foreign,
        ] {
            facts.sighting.verdict = verdict;
            for (keeper, fails) in [
                (Keeper::Nobody, true),
                (Keeper::Unit("x.service".to_owned()), false),
                (Keeper::Perhaps("x.service".to_owned()), false),
            ] {
                facts.keeper = keeper;
                assert_eq!(port(&facts).level == Level::Fail, fails, "{facts:?}");
            }
        }
    }

    #[test]
    fn the_port_has_to_be_free_or_to_be_held_by_a_gateway_in_good_hands() {
        let started = Verdict::Gateway(Phase::Started);
        for (verdict, supervisor, gateway, level) in [
            (Verdict::Free, Supervisor::Absent, None, Level::Ok),
            (Verdict::Free, ANSWERS, Some(7), Level::Warn),
            (started, ANSWERS, Some(7), Level::Ok),
            (Verdict::Gateway(Phase::Unknown), ANSWERS, Some(7), Level::Ok),
            (Verdict::Gateway(Phase::Starting), ANSWERS, Some(7), Level::Ok),
            (Verdict::Draining, ANSWERS, Some(7), Level::Ok),
            (started, Supervisor::Absent, Some(7), Level::Warn),
            (started, Supervisor::Absent, None, Level::Fail),
            (started, Supervisor::Absent, Some(8), Level::Fail),
            (Verdict::Booting, Supervisor::Absent, None, Level::Fail),
            (Verdict::Silent, ANSWERS, Some(7), Level::Warn),
            (Verdict::Silent, Supervisor::Absent, None, Level::Fail),
            (Verdict::Foreign, ANSWERS, None, Level::Fail),
            (Verdict::Foreign, Supervisor::Absent, None, Level::Fail),
            (Verdict::Inconclusive, Supervisor::Absent, None, Level::Warn),
        ] {
            let facts = facts(verdict, supervisor, Lease::Free, gateway);
            let finding = port(&facts);
            assert_eq!(finding.level, level, "{facts:?}");
            assert_eq!(finding.found.contains("(pid 7, node gateway)"), verdict != Verdict::Free);
        }
    }

    #[test]
    fn the_supervisor_has_to_answer_if_it_is_there() {
        let silent = Supervisor::Trouble { pid: Some(1), why: "silent".to_owned() };
        for (supervised, lease, level) in [
            (ANSWERS, HELD, Level::Ok),
            (Supervisor::Absent, Lease::Free, Level::Ok),
            (Supervisor::Absent, HELD, Level::Warn),
            (silent, HELD, Level::Fail),
            (Supervisor::Hidden("alice".to_owned()), Lease::Hidden("alice".to_owned()), Level::Warn),
        ] {
            assert_eq!(
                supervisor(&facts(Verdict::Free, supervised.clone(), lease, None)).level,
                level,
                "{supervised:?}"
            );
        }
    }

    #[test]
    fn the_lease_has_to_be_readable_and_its_owner_known() {
        for (held, level) in [
            (Lease::Unused, Level::Ok),
            (Lease::Free, Level::Ok),
            (HELD, Level::Ok),
            (Lease::Held { pid: None, life: Life::Unknown }, Level::Warn),
            (Lease::Unreadable("no".to_owned()), Level::Fail),
            (Lease::Hidden("alice".to_owned()), Level::Warn),
        ] {
            assert_eq!(lease(&facts(Verdict::Free, Supervisor::Absent, held.clone(), None)).level, level, "{held:?}");
        }
    }

    #[test]
    fn two_ports_are_told_of() {
        assert_eq!(agreement(1, 1, "x.service"), None);
        assert!(agreement(1, 2, "x.service").unwrap().found.contains("port 1, and here the settings mean 2"));
    }
}
