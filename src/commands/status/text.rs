//! What `status` shows, as a few lines for a person.

use super::shown::{Elsewhere, Health, LastGateway, LastSupervisor, ProbeShown, Shown, StandbyShown};
use crate::core::report::human;
use crate::host::clock;
use crate::host::control::{LeaseReply, NextReply, RestartsReply, SupervisorReply};
use std::fmt::Display;
use std::time::Duration;

/// A few aligned lines for a person.
pub(super) fn as_text(shown: &Shown) -> String {
    let rows = [
        ("supervisor", Some(supervisor_text(shown))),
        ("gateway", Some(gateway_text(shown))),
        ("lease", Some(lease_text(&shown.lease, &shown.place()))),
        ("probe", shown.probe.as_ref().map(|probe| probe_text(probe, &shown.supervisor.url))),
        ("restarts", Some(restarts_text(&shown.restarts))),
        ("output", shown.supervisor.output.clone()),
        ("strays", strays_text(&shown.supervisor.strays)),
        ("next", next_text(shown)),
    ];
    let standbys = shown.standbys.iter().map(|standby| ("standby", Some(standby_text(standby))));
    let lines: Vec<String> = rows
        .into_iter()
        .chain(standbys)
        .filter_map(|(label, text)| Some(format!("{label:<11} {}", text?.replace(|c: char| c.is_control(), " "))))
        .collect();
    lines.join("\n")
}

fn strays_text(strays: &[String]) -> Option<String> {
    (!strays.is_empty()).then(|| format!("left: {}; --kill-strays ends them with the gateway", strays.join("; ")))
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

fn supervisor_text(shown: &Shown) -> String {
    let SupervisorReply { pid, version, state, since, manager, .. } = &shown.supervisor;
    let trouble = around(": ", shown.trouble.as_ref(), "");
    let place = shown.place();
    if shown.answered_by == "supervisor" {
        let about = phrase([
            pid.map(|pid| format!("pid {pid}{place}")),
            version.as_ref().map(|version| format!("version {version}")),
            manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
            since.as_ref().map(|since| format!("since {since}")),
        ]);
        return format!("{}: {about}", state.replace('_', " "));
    }
    if let Some(Elsewhere { heartbeat_age_ms, .. }) = &shown.elsewhere {
        let about = phrase([
            pid.map(|pid| format!("pid {pid}{place}")),
            since.as_ref().map(|since| format!("since {since}")),
            time(*heartbeat_age_ms).map(|age| format!("last heartbeat {age} ago")),
        ]);
        return format!("{state}: {about}{trouble}");
    }
    if state != "none" {
        return format!("{state}{}{trouble}", around(" (pid ", *pid, ")"));
    }
    let last = shown.last.supervisor.as_ref().map(|LastSupervisor { pid, host, end, ended_at_ms, .. }| {
        let end = end.as_deref().unwrap_or("how the last one ended is not known");
        let ago = ended_at_ms.and_then(|at| u64::try_from(clock::wall_ms().saturating_sub(at)).ok());
        let ago = around(", ", time(ago), " ago");
        format!("{end}{ago}{}", around(" (pid ", *pid, &format!("{})", around(" on ", host.as_ref(), ""))))
    });
    format!("not running{}{trouble}", around(": ", last, ""))
}

fn gateway_text(shown: &Shown) -> String {
    let Some(gateway) = &shown.gateway else {
        let last = shown.last.gateway.as_ref().map(|LastGateway { pid, generation, end, ended_at }| {
            let end = end.as_deref().unwrap_or("with an unknown status");
            format!(
                "gateway {generation}{} ended {end}{}",
                around(" (pid ", *pid, ")"),
                around(" at ", ended_at.as_ref(), "")
            )
        });
        let is_certain = shown.answered_by == "supervisor" || shown.is_in_view;
        let gateway = if is_certain { "not running" } else { "unknown" };
        return format!("{gateway}{}", around("; ", last, ""));
    };
    let healthy = gateway.healthy.map(|healthy| if healthy { "healthy" } else { "not healthy" });
    let is_unseen = shown.answered_by != "supervisor" && !shown.is_in_view;
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

fn standby_text(standby: &StandbyShown) -> String {
    let StandbyShown { pid, host, state, since, manager, why, .. } = standby;
    let about = phrase([
        pid.map(|pid| format!("pid {pid}{}", around(" on ", host.as_ref(), ""))),
        (state != "standby").then(|| state.clone()),
        manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
        since.as_ref().map(|since| format!("since {since}")),
    ]);
    format!("{about}{}", around(": ", why.as_ref(), ""))
}

fn probe_text(probe: &ProbeShown, url: &str) -> String {
    let ProbeShown { verdict, detail, ready, ready_detail, pid, command } = probe;
    let holder = pid.map(|pid| format!(" (pid {pid}, {})", command.as_deref().unwrap_or("unknown")));
    let ready = match ready {
        Some(true) => "; ready".to_owned(),
        Some(false) => around("; ", ready_detail.as_ref(), ""),
        None => String::new(),
    };
    format!("{verdict} at {url}: {detail}{}{ready}", holder.unwrap_or_default())
}

fn restarts_text(restarts: &RestartsReply) -> String {
    let RestartsReply { in_window: Some(count), max: Some(max), window_ms, for_memory } = restarts else {
        return "unknown".to_owned();
    };
    let for_memory = for_memory.filter(|count| *count > 0);
    format!(
        "{count} of {max}{}{}",
        around(" in the last ", time(*window_ms), ""),
        around("; ", for_memory, " for --memory-max")
    )
}

/// `None` while all is well: then the next step is one more probe.
fn next_text(shown: &Shown) -> Option<String> {
    let NextReply { action, at, in_ms, why } = &shown.next;
    let Some(action) = action else {
        let none = shown.supervisor.state == "none";
        let text = if none {
            "nothing will start it; run openclaw-supervise, or start its service"
        } else {
            "unknown: only the supervisor knows"
        };
        return Some(text.to_owned());
    };
    let gateway = shown.gateway.as_ref().filter(|_| shown.supervisor.state == "running");
    let is_well = shown.health == Health::Healthy && gateway.is_some_and(|gateway| gateway.healthy == Some(true));
    let why = why.as_ref().filter(|why| !why.is_empty());
    let text = format!(
        "{action}{}{}{}",
        around(" in ", time(*in_ms), ""),
        around(" (at ", at.as_ref(), ")"),
        around(": ", why, "")
    );
    // A restart that waits for its pace: the gateway is well and will be replaced.
    (!is_well || action == "restart the gateway").then_some(text)
}
