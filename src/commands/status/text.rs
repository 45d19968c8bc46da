//! What `status` shows, for a person: a sentence, then a table.

use super::observe::NEITHER;
use super::past::WallTime;
use super::sentence::first_part;
use super::shown::{
    Elsewhere, FoundShown, Health, LastGateway, LastSupervisor, ProbeShown, Shown, StandbyShown, UnitShown, Urgency,
    View,
};
use crate::cli::shell_word;
use crate::commands::terminal::{Style, Terminal};
use crate::core::report::human;
use crate::host::control::{LeaseReply, NextReply, RestartsReply, SupervisorReply};
use jiff::Timestamp;
use std::fmt::Display;
use std::io;
use std::time::Duration;

impl Urgency {
    fn style(self) -> Style {
        match self {
            Self::Info => Style::Green,
            Self::Warning => Style::Yellow,
            Self::Error => Style::Red,
        }
    }
}

/// The whole output of one look.
pub(super) fn printed(shown: &Shown, is_json: bool, terminal: &Terminal) -> io::Result<String> {
    if is_json { Ok(serde_json::to_string(shown)?) } else { Ok(as_text(shown, terminal)) }
}

/// A few aligned lines for a person.
pub(super) fn as_text(shown: &Shown, terminal: &Terminal) -> String {
    let sentence = terminal.paragraph(&shown.sentence, Some(shown.severity.style()));
    let text = Text { shown, terminal };
    let past = &shown.last.past;
    let failing = (!shown.failing.is_empty()).then_some(Style::Yellow);
    let gateway = match shown.health {
        Health::Healthy => None,
        Health::Unhealthy | Health::NotRunning => Some(Style::Red),
        Health::Unknown => Some(Style::Yellow),
    };
    let mut rows = vec![
        ("supervisor", Some(text.supervisor()), None),
        ("gateway", Some(text.gateway()), gateway),
        ("lease", Some(lease_text(&shown.lease, &shown.place())), None),
        ("probe", shown.probe.as_ref().map(|probe| probe_text(probe, &shown.supervisor.url)), None),
    ];
    rows.extend(shown.failing.iter().map(|check| {
        let since = around(" since ", past.unready_since.map(|at| text.when(at)), "");
        if check.is_channel {
            ("channel", Some(format!("{} is not connected{since}", check.name)), failing)
        } else {
            ("not ready", Some(format!("{}{since}", check.name)), failing)
        }
    }));
    rows.extend([
        ("restarts", Some(text.restarts(&shown.restarts)), None),
        ("restarted", text.restarted(), None),
        ("last end", text.last_end(), None),
        ("incident", text.incident(), None),
        ("heap", heap_text(&shown.supervisor), None),
        ("output", shown.supervisor.output.clone(), None),
        ("strays", strays_text(&shown.supervisor.strays), None),
        ("installation", installation_text(&shown.supervisor.cut_short), failing),
        ("next", text.next(), None),
        ("unit", shown.unit.as_ref().map(unit_text), None),
        ("store", Some(store_text(shown)).filter(|text| !text.is_empty()), None),
    ]);
    rows.extend(shown.standbys.iter().map(|standby| ("standby", Some(text.standby(standby)), None)));
    rows.extend(shown.found.iter().filter(|_| shown.found.len() > 1).map(|one| ("found", Some(found_text(one)), None)));
    let rows: Vec<_> = rows.into_iter().filter_map(|(label, text, style)| Some((label, text?, style))).collect();
    format!("{sentence}\n\n{}", terminal.table(&rows))
}

/// The limit of the JavaScript heap.
fn heap_text(supervisor: &SupervisorReply) -> Option<String> {
    let source = supervisor.heap_source.as_ref()?;
    Some(supervisor.heap_mib.map_or_else(|| source.clone(), |mib| format!("up to {mib} MiB ({source})")))
}

fn strays_text(strays: &[String]) -> Option<String> {
    (!strays.is_empty()).then(|| format!("left: {}; --kill-strays ends them with the gateway", strays.join("; ")))
}

fn installation_text(commands: &[String]) -> Option<String> {
    (!commands.is_empty()).then(|| format!("killed half-way; run it again: {}", commands.join("; ")))
}

fn store_text(shown: &Shown) -> String {
    format!("{}{}", shown.supervisor.store_dir, around(" of user ", shown.store_user.as_ref(), ""))
}

fn found_text(one: &FoundShown) -> String {
    let look = |dir: &String| format!("; `openclaw-supervise status --store-dir {}`", shell_word(dir.as_ref()));
    let store = one.store_dir.as_ref().map_or_else(|| "; its settings cannot be read from here".to_owned(), look);
    format!("{}{}{}{store}", one.name, around(" (", one.manager.as_ref(), ")"), around(": ", one.sentence.as_ref(), ""))
}

fn unit_text(unit: &UnitShown) -> String {
    let UnitShown { name, manager, load, active, sub, result, file } = unit;
    let state = match (active, sub) {
        (Some(active), Some(sub)) => Some(format!("{active} ({sub})")),
        (Some(active), None) => Some(active.clone()),
        (None, _) => Some("its state is unknown".to_owned()),
    };
    let about = phrase([
        load.clone().filter(|load| load != "loaded"),
        state,
        result.as_ref().filter(|result| *result != "success").map(|result| format!("result {result}")),
        file.clone(),
    ]);
    format!("{name} ({manager}): {about}")
}

fn time(ms: Option<u64>) -> Option<String> {
    ms.map(|ms| human(Duration::from_millis(ms)))
}

fn mebibytes(kb: Option<u64>) -> Option<String> {
    kb.map(|kb| format!("{} MiB", kb.div_ceil(1024)))
}

/// The known parts as one phrase.
fn phrase(parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// `before`, the value and `after`, or nothing.
fn around<T: Display>(before: &str, value: Option<T>, after: &str) -> String {
    value.map(|value| format!("{before}{value}{after}")).unwrap_or_default()
}

struct Text<'a> {
    shown: &'a Shown,
    terminal: &'a Terminal,
}

impl Text<'_> {
    /// `02:14:07 (12 min ago)`
    fn when(&self, WallTime(at): WallTime) -> String {
        format!("{} ({})", self.terminal.time(at), self.terminal.relative(at))
    }

    /// The same of a time in RFC 3339.
    fn when_stamped(&self, stamp: &str) -> String {
        let at = stamp.parse::<Timestamp>();
        at.map_or_else(|_| stamp.to_owned(), |at| self.when(WallTime(at.as_millisecond())))
    }

    fn supervisor(&self) -> String {
        let shown = self.shown;
        let SupervisorReply { pid, version, state, since, manager, .. } = &shown.supervisor;
        let trouble = around(": ", shown.trouble.as_ref(), "");
        let place = shown.place();
        let since = since.as_ref().map(|since| format!("since {}", self.when_stamped(since)));
        if shown.answered_by == "supervisor" {
            let about = phrase([
                pid.map(|pid| format!("pid {pid}{place}")),
                version.as_ref().map(|version| format!("version {version}")),
                manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
                since,
            ]);
            return format!("{}: {about}", state.replace('_', " "));
        }
        if let Some(Elsewhere { heartbeat_age_ms, .. }) = &shown.elsewhere {
            let about = phrase([
                pid.map(|pid| format!("pid {pid}{place}")),
                since,
                time(*heartbeat_age_ms).map(|age| format!("last heartbeat {age} ago")),
            ]);
            return format!("{state}: {about}{trouble}");
        }
        if state != "none" {
            return format!("{state}{}{trouble}", around(" (pid ", *pid, ")"));
        }
        let last = shown.last.supervisor.as_ref().map(|LastSupervisor { pid, host, end, ended_at_ms, .. }| {
            let end = end.as_deref().map_or("how the last one ended is not known", first_part);
            let ago = around(", ", ended_at_ms.map(|at| self.terminal.relative(at)), "");
            format!("{end}{ago}{}", around(" (pid ", *pid, &format!("{})", around(" on ", host.as_ref(), ""))))
        });
        format!("not running{}{trouble}", around(": ", last, ""))
    }

    fn gateway(&self) -> String {
        let shown = self.shown;
        let Some(gateway) = &shown.gateway else {
            let last = shown.last.gateway.as_ref().map(|LastGateway { pid, generation, end, ended_at_ms, .. }| {
                let end = end.as_deref().unwrap_or("with an unknown status");
                format!(
                    "gateway {generation}{} ended {end}{}",
                    around(" (pid ", *pid, ")"),
                    around(" at ", ended_at_ms.map(|at| self.when(WallTime(at))), "")
                )
            });
            let is_owner = shown.answered_by == "supervisor" && shown.supervisor.state != "standby";
            let is_certain = is_owner || shown.view == View::Full;
            let gateway = if is_certain { "not running" } else { "unknown" };
            return format!("{gateway}{}", around("; ", last, ""));
        };
        let healthy = gateway.healthy.map(|healthy| if healthy { "healthy" } else { "not healthy" });
        let is_unseen = shown.answered_by != "supervisor" && shown.view != View::Full;
        phrase([
            Some(format!("{}{}", gateway.generation, around(": pid ", gateway.pid, &shown.place()))),
            is_unseen.then(|| "cannot be seen from here, no end on record".to_owned()),
            time(gateway.age_ms).map(|age| format!("{age} old")),
            time(gateway.up_ms).map(|up| format!("up for {up}")),
            healthy.map(str::to_owned),
            gateway.adopted.filter(|adopted| *adopted).map(|_| "adopted".to_owned()),
            mebibytes(gateway.rss_kb).map(|size| format!("{size} resident")),
            mebibytes(gateway.tree_rss_kb).map(|size| format!("{size} with its children")),
            time(gateway.loop_cpu_ms).map(|cpu| format!("{cpu} of CPU")),
        ])
    }

    fn standby(&self, standby: &StandbyShown) -> String {
        let StandbyShown { pid, host, state, since, manager, why, .. } = standby;
        let about = phrase([
            pid.map(|pid| format!("pid {pid}{}", around(" on ", host.as_ref(), ""))),
            (state != "standby").then(|| state.clone()),
            manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
            since.as_ref().map(|since| format!("since {}", self.when_stamped(since))),
        ]);
        format!("{about}{}", around(": ", why.as_ref(), ""))
    }

    fn restarts(&self, restarts: &RestartsReply) -> String {
        let RestartsReply { in_window: Some(count), max: Some(max), window_ms, for_memory, free_in_ms, .. } = restarts
        else {
            return "unknown".to_owned();
        };
        let free = free_in_ms.map(|ms| self.terminal.now_ms().saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)));
        let free = free.map(|at| {
            let left = max.saturating_sub(*count);
            format!("; {left} left, one more at {} ({})", self.terminal.time(at), self.terminal.relative(at))
        });
        let for_memory = for_memory.filter(|count| *count > 0);
        format!(
            "{count} of {max}{}{}{}",
            around(" in the last ", time(*window_ms), ""),
            free.unwrap_or_default(),
            around("; ", for_memory, " for --memory-max")
        )
    }

    fn restarted(&self) -> Option<String> {
        let restart = self.shown.last.past.restart.as_ref()?;
        let by = restart.requester();
        Some(format!("gateway {} at {} {}{by}", restart.generation, self.when(restart.at), restart.cause))
    }

    fn last_end(&self) -> Option<String> {
        let exit = self.shown.last.past.exit.as_ref()?;
        Some(format!("{}, at {}", exit.sentence(), self.when(exit.at)))
    }

    fn incident(&self) -> Option<String> {
        let incident = self.shown.last.past.incident.as_ref()?;
        let what = incident.conclusion.as_ref().or(incident.why.as_ref());
        let file = incident.evidence.as_deref().unwrap_or("no evidence was saved");
        let generation = incident.generation;
        Some(format!("gateway {generation} at {}: {file}{}", self.when(incident.at), around("; ", what, "")))
    }

    /// `None` while all is well: then the next step is one more probe.
    fn next(&self) -> Option<String> {
        let shown = self.shown;
        let NextReply { action, at, in_ms, of_ms, then, why } = &shown.next;
        let Some(action) = action else {
            if shown.found.len() > 1 {
                return None;
            }
            let none = shown.supervisor.state == "none";
            return Some(if none { self.next_without() } else { "unknown: only the supervisor knows".to_owned() });
        };
        let gateway = shown.gateway.as_ref().filter(|_| shown.supervisor.state == "running");
        let is_well = shown.health == Health::Healthy && gateway.is_some_and(|gateway| gateway.healthy == Some(true));
        let why = why.as_ref().filter(|why| !why.is_empty());
        let at = at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
        let text = format!(
            "{action}{}{}{}{}{}",
            around(" in ", time(*in_ms), ""),
            around(" (at ", at.map(|at| self.terminal.time(at.as_millisecond())), ")"),
            around(", after at most ", time(*of_ms), " in all"),
            around(", then ", then.as_ref(), ""),
            around(": ", why, "")
        );
        // A restart that waits for its pace: the gateway is well and will be replaced.
        (!is_well || action == "restart the gateway").then_some(text)
    }

    fn next_without(&self) -> String {
        match &self.shown.unit {
            Some(UnitShown { name, active: Some(active), sub, .. }) if active == "activating" => {
                format!("{name} starts it again{}", around(" (", sub.as_ref(), ")"))
            }
            _ if self.shown.lacks_service => {
                let was_run = self.shown.answered_by != NEITHER;
                let before = if was_run { ", with the options and the command of before" } else { "" };
                let run = self.shown.command("run");
                format!("nothing will start it, and no service of it is found; run {run}{before}")
            }
            _ => format!("nothing will start it; run {}, or start its service", self.shown.command("start-now")),
        }
    }
}

fn lease_text(lease: &LeaseReply, place: &str) -> String {
    let epoch = lease.epoch.map(|epoch| format!("epoch {epoch}"));
    match lease.held {
        Some(true) => phrase([Some(format!("held{}", around(" by pid ", lease.owner_pid, place))), epoch]),
        Some(false) => phrase([Some("free".to_owned()), epoch.map(|epoch| format!("last {epoch}"))]),
        None if lease.owner_pid.is_some() => {
            phrase([Some(format!("taken{} and not released", around(" by pid ", lease.owner_pid, place))), epoch])
        }
        None => "unknown".to_owned(),
    }
}

fn probe_text(probe: &ProbeShown, url: &str) -> String {
    let ProbeShown { verdict, detail, ready, ready_detail, pid, command, user } = probe;
    let user = around(", user ", user.as_ref(), "");
    let holder = pid.map(|pid| format!(" (pid {pid}, {}{user})", command.as_deref().unwrap_or("unknown")));
    let ready = match ready {
        Some(true) => "; ready".to_owned(),
        Some(false) => around("; ", ready_detail.as_ref(), ""),
        None => String::new(),
    };
    format!("{verdict} at {url}: {detail}{}{ready}", holder.unwrap_or_default())
}
