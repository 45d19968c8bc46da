//! A container around us: its limits, how long it lets us stop, and where the state lies.

use super::directives::{DRAIN_MAX, MARGIN};
use super::finding::Finding;
use crate::core::report::human;
use crate::platform::{filesystem, proc};
use crate::settings::LeaseBasis;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// A gateway that does nothing has 0.4 GB resident; with its tools, and a boot that migrates, it needs more.
const MEMORY_MIN: u64 = 1024 * MIB;

/// Node alone has a dozen threads, each tool that it starts as many again.
const PIDS_MIN: u64 = 256;

/// With half a processor a cold boot takes minutes.
const CPU_PERCENT_MIN: u64 = 50;

/// What docker and Kubernetes wait for after SIGTERM when nobody says anything.
const GRACE: &str = "docker 10 s, Kubernetes 30 s";

/// What is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// How it shows that this is a container.
    pub(super) sign: Option<String>,
    /// What process 1 is.
    pub(super) init: Option<String>,
    /// In bytes.
    pub(super) memory_max: Option<u64>,
    pub(super) pids_max: Option<u64>,
    /// In percent of one processor.
    pub(super) cpu_percent: Option<u64>,
    /// `--max-old-space-size`, in bytes.
    pub(super) heap: Option<u64>,
    /// `--memory-max`, in bytes.
    pub(super) memory_limit: Option<u64>,
    /// Ours, where the runtime stops us and nobody else.
    pub(super) stop_timeout: Option<Duration>,
}

/// Looks around.
pub(super) fn gather(
    node_options: Option<&OsStr>,
    memory_limit_kb: Option<u64>,
    stop_timeout: Option<Duration>,
) -> Facts {
    let files = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| Path::new(file).exists());
    let kubernetes = || std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "KUBERNETES_SERVICE_HOST is set");
    let init = proc::command_of(1);
    let is_init = init.as_deref().is_some_and(is_ours);
    let sign = files.or_else(kubernetes).or(is_init.then_some("this program is process 1"));
    let limit = |file: &str| of_group(file).and_then(|text| text.trim().parse().ok());
    Facts {
        sign: sign.map(str::to_owned),
        init,
        memory_max: limit("memory.max"),
        pids_max: limit("pids.max"),
        cpu_percent: of_group("cpu.max").as_deref().and_then(percent),
        heap: node_options.and_then(OsStr::to_str).and_then(heap),
        memory_limit: memory_limit_kb.map(|kb| kb * 1024),
        stop_timeout,
    }
}

/// The file of our own control group, else of the nearest one above that has it.
fn of_group(file: &str) -> Option<String> {
    let own = proc::cgroup_of(i32::try_from(std::process::id()).ok()?)?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    own.ancestors()
        .take_while(|group| group.starts_with(root))
        .find_map(|group| fs::read_to_string(group.join(file)).ok())
}

/// `QUOTA PERIOD` of `cpu.max`, in percent of one processor.
fn percent(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (quota, period) = (words.next()??, words.next()??);
    quota.checked_mul(100)?.checked_div(period)
}

/// What `NODE_OPTIONS` say of the heap; Node takes dashes and underscores for the same.
fn heap(options: &str) -> Option<u64> {
    let (_, size) = options
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .rfind(|(name, _)| name.replace('_', "-") == "--max-old-space-size")?;
    size.parse::<u64>().ok()?.checked_mul(MIB)
}

/// Whether a command line begins with this program.
pub(super) fn is_ours(command: &str) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    Path::new(program).file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("openclaw-supervise"))
}

/// Limits and grace; outside a container there is one line to say.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(sign) = &facts.sign else { return vec![Finding::ok("container", "none that shows")] };
    let mut findings = vec![init(facts, sign), memory(facts)];
    findings.extend(facts.stop_timeout.map(grace));
    findings
        .extend([limit_of_ours(facts), heap_of_node(facts), processes(facts), processor(facts)].into_iter().flatten());
    findings
}

fn init(facts: &Facts, sign: &str) -> Finding {
    let check = "container";
    let init = facts.init.as_deref().unwrap_or("unknown");
    let found = format!("{sign}, process 1 is {init}");
    let reaps = ["tini", "dumb-init", "catatonit", "docker-init", "podman-init", "s6-svscan", "systemd", "init"];
    let program =
        init.split_whitespace().next().and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    if is_ours(init) || program.is_some_and(|name| reaps.contains(&name)) {
        return Finding::ok(check, found);
    }
    let why = "it gets the SIGTERM of a stop, and the orphans; a shell passes neither on";
    Finding::warn(check, found, why, r#"ENTRYPOINT ["openclaw-supervise"]"#)
}

/// The runtime's own patience is told to nobody in the container.
fn grace(own: Duration) -> Finding {
    let check = "stop time";
    let needs = own.saturating_add(MARGIN).as_secs();
    let full = DRAIN_MAX.saturating_add(MARGIN * 2).as_secs();
    if own >= DRAIN_MAX {
        let why = format!("it has to be less than the runtime's grace, which does not show in here ({GRACE})");
        let fix = format!("stop_grace_period: {needs}s, or terminationGracePeriodSeconds: {needs}");
        return Finding { fix: Some(fix), ..Finding::ok_since(check, format!("our stop timeout {}", human(own)), why) };
    }
    Finding::warn(
        check,
        format!("our stop timeout {}, the gateway's drain {}", human(own), human(DRAIN_MAX)),
        format!("a longer drain is cut off, so that it ends within the runtime's grace ({GRACE})"),
        format!(
            "OPENCLAW_SUPERVISE_STOP_TIMEOUT={}s with stop_grace_period: {full}s, or terminationGracePeriodSeconds: {full}",
            DRAIN_MAX.as_secs() + 1
        ),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

fn memory(facts: &Facts) -> Finding {
    let check = "memory";
    let Some(max) = facts.memory_max else { return Finding::ok(check, "no limit") };
    let found = format!("memory.max {}", mebibytes(max));
    if max >= MEMORY_MIN {
        return Finding::ok(check, found);
    }
    let why = "a gateway alone has some 400 MiB resident, and with its tools comes to this limit";
    Finding::warn(check, found, why, "mem_limit: 2g, or resources.limits.memory: 2Gi")
}

fn limit_of_ours(facts: &Facts) -> Option<Finding> {
    let (max, own) = facts.memory_max.zip(facts.memory_limit)?;
    let (check, found) = ("memory", format!("--memory-max {}, memory.max {}", mebibytes(own), mebibytes(max)));
    // Nine tenths, which is where the kernel begins to have trouble.
    if own <= max / 10 * 9 {
        return Some(Finding::ok(check, found));
    }
    let why = "the kernel ends the gateway before we can drain it";
    Some(Finding::warn(check, found, why, format!("--memory-max {}M", max / MIB / 10 * 8)))
}

fn heap_of_node(facts: &Facts) -> Option<Finding> {
    let (max, heap) = facts.memory_max.zip(facts.heap)?;
    let (check, found) = ("memory", format!("Node's heap {}, memory.max {}", mebibytes(heap), mebibytes(max)));
    if heap <= max / 4 * 3 {
        return Some(Finding::ok(check, found));
    }
    let why = "Node tidies up when its heap is full, and the kernel ends it before that";
    Some(Finding::warn(check, found, why, format!("NODE_OPTIONS=--max-old-space-size={}", max / MIB / 4 * 3)))
}

fn processes(facts: &Facts) -> Option<Finding> {
    let max = facts.pids_max?;
    let (check, found) = ("processes", format!("pids.max {max}"));
    if max >= PIDS_MIN {
        return Some(Finding::ok(check, found));
    }
    Some(Finding::warn(check, found, "threads count as well, and Node has a dozen of them", "pids_limit: 1024"))
}

fn processor(facts: &Facts) -> Option<Finding> {
    let percent = facts.cpu_percent?;
    let (check, found) = ("processor", format!("cpu.max {percent}% of one"));
    if percent >= CPU_PERCENT_MIN {
        return Some(Finding::ok(check, found));
    }
    let why = "a boot takes minutes, and a busy gateway looks like one that hangs";
    Some(Finding::warn(check, found, why, "cpus: 1.0, or resources.limits.cpu: 1"))
}

/// Where the state is: whether its locks can be trusted, and what follows for the lease.
pub(super) fn state(folder: &Path, lease: LeaseBasis) -> Finding {
    let place = nearest(folder);
    file_system(folder, filesystem::without_dependable_locks(&place).ok().flatten(), lease)
}

/// The part of a path that is there.
fn nearest(folder: &Path) -> PathBuf {
    folder.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn file_system(folder: &Path, network: Option<&str>, lease: LeaseBasis) -> Finding {
    let check = "state";
    let shown = folder.display();
    match network {
        None => Finding::ok(check, format!("{shown} is on a local file system")),
        Some(name) if lease == LeaseBasis::Lock => Finding::warn(
            check,
            format!("{shown} is on {name}, with --lease lock"),
            "two machines may both get the lock, and with it two gateways one state",
            "leave --lease and OPENCLAW_SUPERVISE_LEASE out",
        ),
        Some(name) => Finding::warn(
            check,
            format!("{shown} is on {name}"),
            "the heartbeat decides who has the lease: half a minute passes before another takes over, and SQLite's own \
             locks there are the server's word",
            "a local disk for --store-dir and --state-dir where one machine alone runs the gateway",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn facts() -> Facts {
        Facts {
            sign: Some("/.dockerenv".to_owned()),
            init: Some("openclaw-supervise run".to_owned()),
            stop_timeout: Some(Duration::from_secs(328)),
            ..Facts::default()
        }
    }

    fn bad(facts: &Facts) -> Vec<&'static str> {
        check(facts).iter().filter(|finding| finding.level != Level::Ok).map(|finding| finding.check).collect()
    }

    #[test]
    fn outside_a_container_nothing_is_asked_of_one() {
        assert_eq!(check(&Facts { sign: None, ..facts() }), [Finding::ok("container", "none that shows")]);
    }

    #[test]
    fn each_limit_that_is_too_low_is_found_and_no_other() {
        let gib = |count: u64| Some(count * 1024 * MIB);
        for (facts, expected) in [
            (facts(), &[][..]),
            (Facts { stop_timeout: None, ..facts() }, &[]),
            (Facts { stop_timeout: Some(Duration::from_secs(8)), ..facts() }, &["stop time"]),
            (Facts { init: Some("/bin/sh -c openclaw-supervise".to_owned()), ..facts() }, &["container"]),
            (Facts { init: Some("/sbin/tini -- openclaw-supervise".to_owned()), ..facts() }, &[]),
            (Facts { memory_max: Some(512 * MIB), ..facts() }, &["memory"]),
            (Facts { memory_max: gib(2), memory_limit: Some(1500 * MIB), heap: gib(1), ..facts() }, &[]),
            (Facts { memory_max: gib(2), memory_limit: gib(2), ..facts() }, &["memory"]),
            (Facts { memory_max: gib(2), heap: gib(2), ..facts() }, &["memory"]),
            (Facts { heap: gib(64), memory_limit: gib(64), ..facts() }, &[]),
            (Facts { pids_max: Some(100), ..facts() }, &["processes"]),
            (Facts { pids_max: Some(1024), cpu_percent: Some(100), ..facts() }, &[]),
            (Facts { cpu_percent: Some(20), ..facts() }, &["processor"]),
        ] {
            assert_eq!(bad(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_numbers_for_docker_and_for_kubernetes_stand_there() {
        let short = grace(Duration::from_secs(8)).fix.unwrap();
        assert_eq!(
            short,
            "OPENCLAW_SUPERVISE_STOP_TIMEOUT=328s with stop_grace_period: 337s, or terminationGracePeriodSeconds: 337"
        );
        let long = grace(Duration::from_secs(328));
        assert_eq!(long.fix.as_deref(), Some("stop_grace_period: 333s, or terminationGracePeriodSeconds: 333"));
        assert_eq!(long.level, Level::Ok);
    }

    #[test]
    fn limits_are_read_as_the_kernel_and_node_write_them() {
        assert_eq!((percent("50000 100000\n"), percent("max 100000"), percent("")), (Some(50), None, None));
        assert_eq!(heap("--trace --max-old-space-size=2048"), Some(2048 * MIB));
        assert_eq!(heap("--max_old_space_size=1 --max-old-space-size=2"), Some(2 * MIB));
        assert_eq!((heap("--max-old-space-size=x"), heap("")), (None, None));
    }

    #[test]
    fn a_state_on_a_network_file_system_is_told_of() {
        let level = |network, lease| file_system(Path::new("/s"), network, lease).level;
        assert_eq!(level(None, LeaseBasis::Auto), Level::Ok);
        assert_eq!(level(Some("nfs"), LeaseBasis::Auto), Level::Warn);
        let forced = file_system(Path::new("/s"), Some("nfs"), LeaseBasis::Lock);
        assert!(forced.fix.unwrap().contains("--lease"));
        assert_eq!(nearest(Path::new("/nowhere/to/be/found")), Path::new("/"));
    }
}
