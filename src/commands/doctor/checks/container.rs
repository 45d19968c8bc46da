//! The limits of a container, its grace period, and the file system of the state.

use super::{DRAIN_MAX, MARGIN};
use crate::commands::doctor::facts::container::{ContainerFacts, MIB, runs_us};
use crate::commands::doctor::finding::Finding;
use crate::core::report::human;
use crate::store::BasisChoice;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// An idle gateway has 0.4 GB resident; its tools, and a boot that migrates, need more.
const MEMORY_MIN: u64 = 1024 * MIB;

/// Node has a dozen threads, and each tool that it starts as many again. Threads count.
const PIDS_MIN: u64 = 256;

/// With half a CPU a cold boot takes minutes.
const CPU_PERCENT_MIN: u64 = 50;

/// The default time between SIGTERM and SIGKILL.
const GRACE: &str = "docker 10 s, Kubernetes 30 s";

pub(in super::super) fn check(facts: &ContainerFacts) -> Vec<Finding> {
    let mut findings = match &facts.sign {
        Some(sign) => vec![init(facts, sign)],
        None => vec![Finding::ok("container", "not in a container")],
    };
    findings.extend(memory(facts));
    findings.extend(facts.stop_timeout.filter(|_| facts.sign.is_some()).map(grace));
    findings
        .extend([limit_of_ours(facts), heap_of_node(facts), processes(facts), processor(facts)].into_iter().flatten());
    findings
}

fn init(facts: &ContainerFacts, sign: &str) -> Finding {
    let check = "container";
    let init = facts.init.as_deref().unwrap_or("unknown");
    let found = format!("{sign}, process 1 is {init}");
    let reaps = [
        "tini",
        "dumb-init",
        "catatonit",
        "docker-init",
        "podman-init",
        "s6-svscan",
        "systemd",
        "init",
        "pause",
        "supervisord",
    ];
    let program =
        init.split_whitespace().next().and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    if facts.ends_with_us || runs_us(init) || program.is_some_and(|name| reaps.contains(&name)) {
        return Finding::ok(check, found);
    }
    let why = "process 1 receives the SIGTERM of a stop and has to reap orphans; a shell does neither";
    Finding::warn(check, found, why, r#"ENTRYPOINT ["openclaw-supervise"]"#)
}

/// The grace period of the runtime is not visible inside.
fn grace(own: Duration) -> Finding {
    let check = "stop time";
    let needs = own.saturating_add(MARGIN).as_secs();
    let full = DRAIN_MAX.saturating_add(MARGIN * 2).as_secs();
    if own >= DRAIN_MAX {
        let why =
            format!("the grace period of the runtime, which is not visible from inside, has to be longer ({GRACE})");
        let fix = format!("stop_grace_period: {needs}s, or terminationGracePeriodSeconds: {needs}");
        return Finding {
            fix: Some(fix.into()),
            ..Finding::ok_since(check, format!("stop timeout {}", human(own)), why)
        };
    }
    Finding::warn(
        check,
        format!("stop timeout {}, gateway drain {}", human(own), human(DRAIN_MAX)),
        format!("a longer drain is cut short to end within the grace period of the runtime ({GRACE})"),
        format!(
            "OPENCLAW_SUPERVISE_STOP_TIMEOUT={}s with stop_grace_period: {full}s, or terminationGracePeriodSeconds: {full}",
            DRAIN_MAX.as_secs() + 1
        ),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

/// How to raise a limit, in a container and elsewhere.
fn raise(facts: &ContainerFacts, container: &str, unit: &str) -> String {
    if facts.sign.is_some() {
        container.to_owned()
    } else {
        format!("{unit} (of the unit or slice that sets the limit)")
    }
}

fn memory(facts: &ContainerFacts) -> Option<Finding> {
    let check = "memory";
    let Some(max) = facts.limits.memory else { return facts.sign.as_ref().map(|_| Finding::ok(check, "no limit")) };
    let found = format!("memory limit {}", mebibytes(max));
    if max >= MEMORY_MIN {
        return Some(Finding::ok(check, found));
    }
    let why = "an idle gateway uses about 400 MiB, and its tools reach this limit";
    let fix = raise(facts, "mem_limit: 2g, or resources.limits.memory: 2Gi", "MemoryMax=2G");
    Some(Finding::warn(check, found, why, fix))
}

fn limit_of_ours(facts: &ContainerFacts) -> Option<Finding> {
    let (max, own) = facts.limits.memory.zip(facts.memory_limit)?;
    let (check, found) = ("memory", format!("--memory-max {}, memory limit {}", mebibytes(own), mebibytes(max)));
    // Above nine tenths the kernel reclaims memory all the time.
    if own <= max / 10 * 9 {
        return Some(Finding::ok(check, found));
    }
    let why = "the kernel OOM killer ends the gateway before the supervisor can drain it";
    Some(Finding::warn(check, found, why, format!("--memory-max {}M", max / MIB / 10 * 8)))
}

fn heap_of_node(facts: &ContainerFacts) -> Option<Finding> {
    let (max, heap) = facts.limits.memory.zip(facts.heap)?;
    let (check, found) = ("memory", format!("Node.js heap {}, memory limit {}", mebibytes(heap), mebibytes(max)));
    if heap <= max / 4 * 3 {
        return Some(Finding::ok(check, found));
    }
    let why = "Node.js frees memory when its heap is full; the kernel OOM killer ends it before that";
    Some(Finding::warn(check, found, why, format!("--max-heap {}M", max / MIB / 4 * 3)))
}

fn processes(facts: &ContainerFacts) -> Option<Finding> {
    let max = facts.limits.pids?;
    let (check, found) = ("processes", format!("limit of {max} processes"));
    if max >= PIDS_MIN {
        return Some(Finding::ok(check, found));
    }
    let fix = raise(facts, "pids_limit: 1024", "TasksMax=1024");
    Some(Finding::warn(check, found, "threads count too, and Node.js alone has a dozen", fix))
}

fn processor(facts: &ContainerFacts) -> Option<Finding> {
    let percent = facts.limits.cpu_percent?;
    let (check, found) = ("processor", format!("limit of {percent}% of one CPU"));
    if percent >= CPU_PERCENT_MIN {
        return Some(Finding::ok(check, found));
    }
    let why = "a boot takes minutes, and a busy gateway looks hung";
    let fix = raise(facts, "cpus: 1.0, or resources.limits.cpu: 1", "CPUQuota=100%");
    Some(Finding::warn(check, found, why, fix))
}

/// `network`: the file system of the store, if locks cannot be trusted on it.
pub(in super::super) fn state(folder: &Path, network: Option<&str>, lease: BasisChoice) -> Finding {
    let check = "state";
    let shown = folder.display();
    match network {
        None => Finding::ok(check, format!("{shown} is on a local file system")),
        Some(name) if lease == BasisChoice::Lock => Finding::warn(
            check,
            format!("{shown} is on {name}, with --lease lock"),
            "two machines may both get the lock and run two gateways on one state",
            "remove --lease and OPENCLAW_SUPERVISE_LEASE",
        ),
        Some(name) => Finding::warn(
            check,
            format!("{shown} is on {name}"),
            "the lease depends on a heartbeat: a takeover takes half a minute longer, and SQLite depends on the locks of \
             the server",
            "use a local disk for --store-dir and --state-dir if only one machine runs the gateway",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::platform::group_limits::GroupLimits;

    fn facts() -> ContainerFacts {
        ContainerFacts {
            sign: Some("/.dockerenv".to_owned()),
            init: Some("openclaw-supervise run".to_owned()),
            stop_timeout: Some(Duration::from_secs(328)),
            ..ContainerFacts::default()
        }
    }

    fn limited(memory: Option<u64>, pids: Option<u64>, cpu_percent: Option<u64>) -> ContainerFacts {
        ContainerFacts { limits: GroupLimits { memory, pids, cpu_percent }, ..facts() }
    }

    #[test]
    fn each_limit_that_is_too_low_is_found_and_no_other() {
        let gib = |count: u64| Some(count * 1024 * MIB);
        let cases = [
            ("no container", ContainerFacts { sign: None, ..facts() }),
            (
                "no container, little memory",
                ContainerFacts { sign: None, stop_timeout: None, ..limited(Some(512 * MIB), Some(100), Some(20)) },
            ),
            ("all well", facts()),
            ("no stop timeout", ContainerFacts { stop_timeout: None, ..facts() }),
            ("short stop timeout", ContainerFacts { stop_timeout: Some(Duration::from_secs(8)), ..facts() }),
            ("shell", ContainerFacts { init: Some("/bin/sh -c openclaw-supervise".to_owned()), ..facts() }),
            (
                "shared pid namespace",
                ContainerFacts { init: Some("node server".to_owned()), ends_with_us: true, ..facts() },
            ),
            ("tini", ContainerFacts { init: Some("/sbin/tini -- openclaw-supervise".to_owned()), ..facts() }),
            ("little memory", limited(Some(512 * MIB), None, None)),
            (
                "enough memory",
                ContainerFacts { memory_limit: Some(1500 * MIB), heap: gib(1), ..limited(gib(2), None, None) },
            ),
            ("high --memory-max", ContainerFacts { memory_limit: gib(2), ..limited(gib(2), None, None) }),
            ("large heap", ContainerFacts { heap: gib(2), ..limited(gib(2), None, None) }),
            ("no memory limit", ContainerFacts { heap: gib(64), memory_limit: gib(64), ..facts() }),
            ("few processes", limited(None, Some(100), None)),
            ("enough of both", limited(None, Some(1024), Some(100))),
            ("little CPU", limited(None, None, Some(20))),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, facts)| (case, check(&facts)))));
    }

    #[test]
    fn a_state_on_a_network_file_system_is_found() {
        let state = |network, lease| vec![state(Path::new("/s"), network, lease)];
        insta::assert_snapshot!(listing([
            ("local", state(None, BasisChoice::Auto)),
            ("NFS", state(Some("nfs"), BasisChoice::Auto)),
            ("NFS with a lock", state(Some("nfs"), BasisChoice::Lock)),
        ]));
    }
}
