//! The supervisor's socket, the lease and the port.

use crate::commands::doctor::facts::store::{LeaseFacts, SocketFacts, StoreFacts};
use crate::commands::doctor::finding::{Advice, Finding, Remedy};
use crate::core::lease::Life;
use crate::core::{Observation, Owner, Phase, Verdict};

/// Whether the process on the port belongs to the control group of the examined unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum PortUnit {
    No,
    Yes(String),
    /// The unit is running, and the owner of the port cannot be seen from here.
    Unknown(String),
}

#[derive(Debug, Clone)]
pub(in super::super) struct GatewayFacts {
    pub(in super::super) url: String,
    pub(in super::super) port: u16,
    pub(in super::super) observation: Observation,
    pub(in super::super) store: StoreFacts,
    pub(in super::super) unit: PortUnit,
    pub(in super::super) holder: HolderFacts,
    /// What a command needs that is about this store; empty for the default one.
    pub(in super::super) store_option: String,
}

impl GatewayFacts {
    fn ask(&self, verb: &str) -> String {
        format!("openclaw-supervise {verb}{}", self.store_option)
    }
}

/// The process on the port, as far as its pid and command do not say it.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct HolderFacts {
    pub(in super::super) user: Option<String>,
    /// Its systemd service, and the command that stops that.
    pub(in super::super) service: Option<(String, String)>,
}

pub(in super::super) fn check(facts: &GatewayFacts) -> Vec<Finding> {
    [Some(supervisor(facts)), Some(lease(facts)), permissions(facts), Some(port(facts))].into_iter().flatten().collect()
}

/// Others who may write to the directory of the records could replace them.
fn permissions(facts: &GatewayFacts) -> Option<Finding> {
    let (mode, owner) = facts.store.mode?;
    let dir = &facts.store.dir;
    let is_ours = owner == rustix::process::geteuid().as_raw();
    if !is_ours || mode & 0o022 == 0 {
        return None;
    }
    let shown = dir.display();
    let chmod = format!("chmod go-w {shown}");
    let fix: Advice = match facts.store.lease {
        // As /tmp is, which belongs to all.
        _ if mode & 0o1000 != 0 => "name a directory of its own with --store-dir".into(),
        // Nothing shows that it is a store.
        LeaseFacts::Unused => chmod.into(),
        LeaseFacts::Free | LeaseFacts::Held { .. } | LeaseFacts::Unreadable(_) | LeaseFacts::Forbidden(_) => {
            Advice::with(chmod, Remedy::Private(dir.clone()))
        }
    };
    Some(Finding::warn(
        "store",
        format!("{shown} can be written to by others (mode {mode:o})"),
        "they could replace the records of the supervisor",
        fix,
    ))
}

fn named(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

fn supervisor(facts: &GatewayFacts) -> Finding {
    let check = "supervisor";
    match &facts.store.socket {
        SocketFacts::Answers { pid, state } => {
            Finding::ok(check, format!("{}{}", state.replace('_', " "), named(*pid)))
        }
        SocketFacts::Absent if matches!(facts.store.lease, LeaseFacts::Held { life: Life::Alive, .. }) => {
            Finding::warn(
                check,
                "running without a control socket",
                "`status`, `restart` and `stop` cannot reach it",
                "see the start of its log",
            )
        }
        SocketFacts::Absent if matches!(facts.store.lease, LeaseFacts::Held { .. }) => {
            Finding::ok(check, "cannot be asked from here: the lease is held elsewhere")
        }
        SocketFacts::Absent => match &facts.store.stale_socket {
            Some(path) => Finding::warn(
                check,
                format!("not running, and {} is left of one that is gone", path.display()),
                "other programs take it for a supervisor that does not answer",
                Advice::with(format!("rm {}", path.display()), Remedy::StaleSocket(path.clone())),
            ),
            None => Finding::ok(check, "not running"),
        },
        SocketFacts::Failed { pid, why } => Finding::fail(
            check,
            format!(
                "{why}{}",
                if pid.is_some_and(|pid| why.contains(&pid.to_string())) { String::new() } else { named(*pid) }
            ),
            "either the supervisor hangs and does not watch the gateway, or your user may not connect",
            "run doctor as its user or as root; if the supervisor hangs, kill it: the next one adopts the gateway",
        ),
        SocketFacts::Forbidden(user) => forbidden(check, user),
    }
}

fn lease(facts: &GatewayFacts) -> Finding {
    let check = "lease";
    match &facts.store.lease {
        LeaseFacts::Unused => Finding::ok(check, "never taken"),
        LeaseFacts::Free => Finding::ok(check, "free"),
        LeaseFacts::Held { pid, life: Life::Alive } => Finding::ok(check, format!("held{}", named(*pid))),
        LeaseFacts::Held { pid, .. } => Finding::warn(
            check,
            format!("held{}, but whether its owner is alive cannot be seen from here", named(*pid)),
            "a start waits until its heartbeat has been still for half a minute",
            "check the machine or the container of the owner",
        ),
        LeaseFacts::Unreadable(why) => Finding::fail(
            check,
            why.clone(),
            "the supervisor cannot start without it",
            "give the store directory to the user that runs the supervisor",
        ),
        LeaseFacts::Forbidden(user) => forbidden(check, user),
    }
}

fn forbidden(check: &'static str, user: &str) -> Finding {
    let why = "only root may inspect the processes and files of another user";
    Finding::warn(check, format!("belongs to user {user}"), why, run_as(user))
}

fn run_as(user: &str) -> String {
    let or_root = if user == "root" { "" } else { " or as root" };
    format!("run doctor as {user}{or_root}")
}

/// Whether a running supervisor of ours owns the port.
fn is_supervised(facts: &GatewayFacts) -> bool {
    matches!(facts.store.socket, SocketFacts::Answers { .. }) || matches!(facts.unit, PortUnit::Yes(_))
}

/// The findings where the port belongs to the examined unit, or may belong to it.
fn of_unit(facts: &GatewayFacts, found: &str) -> Option<Finding> {
    let check = "port";
    match (&facts.unit, facts.observation.verdict) {
        (PortUnit::Yes(unit), Verdict::Foreign | Verdict::Malformed) => {
            let why = format!("the port belongs to {unit}, and no gateway answers there");
            Some(Finding::warn(check, found, why, facts.ask("events")))
        }
        (PortUnit::Unknown(unit), verdict) if !matches!(verdict, Verdict::Free | Verdict::Inconclusive) => {
            let why = format!("{unit} is running, but whether the port belongs to it cannot be seen from here");
            Some(Finding::warn(check, found, why, "run doctor as its user or as root"))
        }
        _ => None,
    }
}

/// The finding where the supervisor and the process on the port belong to one other user.
fn of_other_user(facts: &GatewayFacts, found: &str) -> Option<Finding> {
    let SocketFacts::Forbidden(user) = &facts.store.socket else { return None };
    let why = format!("whether it is the gateway of the supervisor of {user} cannot be seen from here");
    let is_theirs = facts.holder.user.as_ref() == Some(user) && facts.observation.verdict != Verdict::Inconclusive;
    is_theirs.then(|| Finding::warn("port", found, why, run_as(user)))
}

/// The command that ends the process on the port; `None` if that cannot be seen.
fn ending(facts: &GatewayFacts) -> Option<String> {
    let by_pid = || facts.observation.holder().map(|holder| format!("kill {}", holder.pid));
    facts.holder.service.as_ref().map(|(_, stop)| stop.clone()).or_else(by_pid)
}

fn port(facts: &GatewayFacts) -> Finding {
    let check = "port";
    let GatewayFacts { url, observation, .. } = facts;
    let user = facts.holder.user.as_ref().map(|user| format!(", user {user}")).unwrap_or_default();
    let service = facts.holder.service.as_ref().map(|(name, _)| format!(", unit {name}")).unwrap_or_default();
    let holder = match &observation.owner {
        Owner::Ours(holder) | Owner::Other(holder) => {
            format!(" (pid {}{user}{service}, {})", holder.pid, holder.command)
        }
        Owner::Hidden { uid } => match &facts.holder.user {
            Some(user) => format!(" (a process of user {user})"),
            None => format!(" (a process of uid {uid})"),
        },
        Owner::Unseen => String::new(),
    };
    let found = format!("{url}: {}, {}{holder}", observation.verdict, observation.detail);
    let pid = observation.holder().map(|holder| holder.pid);
    let on_record = facts.store.gateway.is_some() && pid == facts.store.gateway;
    if let Some(finding) = of_unit(facts, &found).or_else(|| of_other_user(facts, &found)) {
        return finding;
    }
    match observation.verdict {
        Verdict::Free if facts.store.gateway.is_none() => Finding::ok(check, found),
        Verdict::Free => Finding::warn(
            check,
            found,
            "the gateway is running but not listening: it is booting, stopping, or has lost its listener",
            facts.ask("status"),
        ),
        Verdict::Gateway(Phase::Started | Phase::Unknown) if is_supervised(facts) => Finding::ok(check, found),
        Verdict::Gateway(Phase::Starting) | Verdict::Draining | Verdict::Booting if is_supervised(facts) => {
            Finding::ok_since(check, found, "the gateway is booting or draining")
        }
        Verdict::Gateway(_) | Verdict::Draining | Verdict::Booting if on_record => unsupervised(facts, found),
        Verdict::Gateway(_) | Verdict::Draining | Verdict::Booting => Finding::fail(
            check,
            found,
            "this gateway is not ours: a supervisor that starts leaves it alone and exits with 78",
            format!("openclaw gateway stop{}", ending(facts).map(|end| format!(", or {end}")).unwrap_or_default()),
        ),
        Verdict::Silent if is_supervised(facts) && (facts.store.gateway.is_some() || facts.unit != PortUnit::No) => {
            Finding::warn(
                check,
                found,
                "the gateway hangs or is very busy; the supervisor handles it",
                facts.ask("events"),
            )
        }
        Verdict::Foreign if on_record && is_supervised(facts) => Finding::warn(
            check,
            found,
            "the gateway is alive and not healthy; the supervisor does not replace it for that",
            format!("see the gateway's output, and {}", facts.ask("status")),
        ),
        Verdict::Silent | Verdict::Foreign | Verdict::Malformed => {
            let find = || format!("find its holder (sudo ss -ltnp 'sport = :{}') and stop it", facts.port);
            let fix = format!("{}, or choose another port with --port", ending(facts).unwrap_or_else(find));
            Finding::fail(check, found, "no gateway can listen there, and the supervisor exits with 78", fix)
        }
        Verdict::Inconclusive => {
            let why = "the probe could not run; the supervisor may fail for the same reason";
            Finding::warn(check, found, why, "ulimit -n 1024, or free some memory, and run doctor again")
        }
    }
}

/// The gateway on record serves, and no supervisor answers.
fn unsupervised(facts: &GatewayFacts, found: String) -> Finding {
    let (why, fix) = if facts.store.running().is_some() {
        ("this gateway is ours, and its supervisor does not answer", facts.ask("status"))
    } else {
        let start = "start the supervisor: it adopts the gateway without a restart";
        ("this gateway is ours, but no supervisor is running", start.to_owned())
    };
    Finding::warn("port", found, why, fix)
}

/// The port of the supervisor against the port in the settings of `doctor`.
pub(in super::super) fn agreement(served: u16, ours: u16, service: &str) -> Option<Finding> {
    (served != ours).then(|| {
        Finding::warn(
            "port",
            format!("{service} serves port {served}, but the settings here say {ours}"),
            "clients that read the same config connect to the other port",
            format!("set gateway.port: {served} in the gateway's config, or change the port of the service"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::finding::Level;
    use crate::core::Holder;

    const HELD: LeaseFacts = LeaseFacts::Held { pid: Some(1), life: Life::Alive };

    fn answers() -> SocketFacts {
        SocketFacts::Answers { pid: Some(1), state: "running".to_owned() }
    }

    fn facts(verdict: Verdict, socket: SocketFacts, lease: LeaseFacts, gateway: Option<i32>) -> GatewayFacts {
        let holder = Holder { pid: 7, command: "node gateway".to_owned(), uid: None };
        let owner = if verdict == Verdict::Free { Owner::Unseen } else { Owner::Other(holder) };
        let observation = Observation { verdict, owner, detail: "a detail".to_owned(), readiness: None, moved: None };
        let store = StoreFacts { gateway, ..StoreFacts::empty(socket, lease) };
        let (url, holder) = ("ws://127.0.0.1:1".to_owned(), HolderFacts::default());
        GatewayFacts { url, port: 1, observation, store, unit: PortUnit::No, holder, store_option: String::new() }
    }

    #[test]
    fn a_port_that_belongs_to_the_unit_never_fails() {
        let mut facts = facts(Verdict::Gateway(Phase::Started), SocketFacts::Absent, LeaseFacts::Unused, None);
        let mut cases = Vec::new();
        for verdict in [
            Verdict::Gateway(Phase::Started),
            Verdict::Gateway(Phase::Starting),
            Verdict::Draining,
            Verdict::Booting,
            Verdict::Silent,
            Verdict::Foreign,
        ] {
            facts.observation.verdict = verdict;
            for unit in ["x.service".to_owned()].map(|id| [PortUnit::Yes(id.clone()), PortUnit::Unknown(id)]).concat() {
                facts.unit = unit;
                assert_ne!(port(&facts).level, Level::Fail, "{facts:?}");
                cases.push((format!("{verdict:?} {:?}", facts.unit), vec![port(&facts)]));
            }
        }
        insta::assert_snapshot!(listing(cases));
    }

    #[test]
    fn a_gateway_of_the_user_of_the_store_is_no_stranger() {
        let (socket, lease) = (SocketFacts::Forbidden("alice".to_owned()), LeaseFacts::Forbidden("alice".to_owned()));
        let mut facts = facts(Verdict::Gateway(Phase::Started), socket, lease, None);
        for (user, level) in [("alice", Level::Warn), ("bob", Level::Fail)] {
            facts.holder.user = Some(user.to_owned());
            assert_eq!(port(&facts).level, level, "{user}");
        }
    }

    #[test]
    fn a_supervisor_that_does_not_answer_is_not_told_to_be_missing() {
        let frozen = SocketFacts::Failed { pid: Some(8), why: "silent".to_owned() };
        for (socket, why) in
            [(frozen, "its supervisor does not answer"), (SocketFacts::Absent, "no supervisor is running")]
        {
            let facts = facts(Verdict::Gateway(Phase::Started), socket, LeaseFacts::Free, Some(7));
            assert!(port(&facts).why.is_some_and(|told| told.ends_with(why)), "{why}");
        }
    }

    #[test]
    fn only_a_directory_that_is_a_store_has_its_mode_changed() {
        let us = rustix::process::geteuid().as_raw();
        let finding = |mode, lease| {
            let mut facts = facts(Verdict::Free, SocketFacts::Absent, lease, None);
            (facts.store.mode, facts.store.dir) = (Some((mode, us)), "/s".into());
            permissions(&facts).and_then(|finding| finding.fix)
        };
        let changes = |mode, lease| finding(mode, lease).is_some_and(|fix| fix.remedy.is_some());
        assert!(changes(0o777, LeaseFacts::Free));
        assert!(!changes(0o777, LeaseFacts::Unused) && !changes(0o1777, LeaseFacts::Free));
        assert_eq!(finding(0o1777, LeaseFacts::Unused).unwrap().text, "name a directory of its own with --store-dir");
        assert_eq!(finding(0o755, LeaseFacts::Free), None);
    }

    #[test]
    fn the_port_has_to_be_free_or_to_belong_to_a_supervised_gateway() {
        let started = Verdict::Gateway(Phase::Started);
        let cases = [
            (Verdict::Free, SocketFacts::Absent, None),
            (Verdict::Free, answers(), Some(7)),
            (started, answers(), Some(7)),
            (Verdict::Gateway(Phase::Unknown), answers(), Some(7)),
            (Verdict::Gateway(Phase::Starting), answers(), Some(7)),
            (Verdict::Draining, answers(), Some(7)),
            (started, SocketFacts::Absent, Some(7)),
            (started, SocketFacts::Absent, None),
            (started, SocketFacts::Absent, Some(8)),
            (Verdict::Booting, SocketFacts::Absent, None),
            (Verdict::Silent, answers(), Some(7)),
            (Verdict::Silent, SocketFacts::Absent, None),
            (Verdict::Foreign, answers(), None),
            (Verdict::Foreign, answers(), Some(7)),
            (Verdict::Malformed, SocketFacts::Absent, None),
            (Verdict::Foreign, SocketFacts::Absent, None),
            (Verdict::Inconclusive, SocketFacts::Absent, None),
        ];
        insta::assert_snapshot!(listing(cases.map(|(verdict, socket, gateway)| {
            let case = format!("{verdict:?}, {socket:?}, gateway {gateway:?}");
            (case, vec![port(&facts(verdict, socket, LeaseFacts::Free, gateway))])
        })));
    }

    #[test]
    fn a_supervisor_that_runs_has_to_answer_and_the_lease_to_be_readable() {
        let failed = |why: &str| SocketFacts::Failed { pid: Some(1), why: why.to_owned() };
        let forbidden = || "alice".to_owned();
        let cases = [
            (answers(), HELD),
            (SocketFacts::Absent, LeaseFacts::Unused),
            (SocketFacts::Absent, LeaseFacts::Free),
            (SocketFacts::Absent, HELD),
            (failed("no answer"), LeaseFacts::Held { pid: None, life: Life::Unknown }),
            (failed("pid 1 does not answer"), LeaseFacts::Unreadable("cannot open /s".to_owned())),
            (SocketFacts::Forbidden(forbidden()), LeaseFacts::Forbidden(forbidden())),
        ];
        insta::assert_snapshot!(listing(cases.map(|(socket, lease)| {
            let case = format!("{socket:?}, {lease:?}");
            let facts = facts(Verdict::Free, socket, lease, None);
            (case, check(&facts).into_iter().filter(|finding| finding.check != "port").collect())
        })));
    }

    #[test]
    fn the_user_and_the_unit_of_the_process_on_the_port_are_named() {
        let mut facts = facts(Verdict::Foreign, SocketFacts::Absent, LeaseFacts::Unused, None);
        facts.holder.user = Some("www-data".to_owned());
        let without = port(&facts);
        facts.holder.service = Some(("nginx.service".to_owned(), "systemctl stop nginx.service".to_owned()));
        let with = port(&facts);
        facts.observation.owner = Owner::Hidden { uid: 33 };
        facts.holder.service = None;
        insta::assert_snapshot!(listing([
            ("user", vec![without]),
            ("unit", vec![with]),
            ("hidden", vec![port(&facts)])
        ]));
    }

    #[test]
    fn two_different_ports_are_found() {
        assert_eq!(agreement(1, 1, "x.service"), None);
        insta::assert_snapshot!(listing([("two", agreement(1, 2, "x.service").into_iter().collect())]));
    }
}
