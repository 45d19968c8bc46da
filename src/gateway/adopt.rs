//! What is left of a gateway that another supervisor started.
//!
//! A supervisor that was killed or detached leaves its gateway behind. The next one finds it by the record (pid and
//! start time identify a process until the next boot) or, if the supervisor died before it wrote them, by the instance
//! id in the environment of the gateway and of everything that it started.

use super::launch::{INSTANCE, Launch, entry};
use super::spawn::ProcessKind;
use super::tree::{Tree, is_of_user};
use crate::core::{LeftRecord, Remains, TreeRecord};
use crate::platform::cgroup::Leaf;
use crate::platform::environment::ProcessEnvironment;
use crate::platform::kill;
use crate::platform::proc::{self, Stat};
use crate::platform::process::Handle;
use crate::platform::rlimit_tag::RlimitTag;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The pauses before the searches through all processes: between fork(2) and execve(2) a process does not carry its id
/// yet, and in the middle of execve(2) it has no environment at all.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(100)];

/// This many suffice if only orphans can be left: they have had their id for long.
const LOOKS_FOR_ORPHANS: usize = 2;

/// The settings that a gateway reads from its environment: with other values the same program is another gateway.
const SETTINGS: [&str; 4] = ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_PROFILE", "OPENCLAW_GATEWAY_PORT"];

/// What was found, and a hold on it. [`super::process::Gateway::adopt`] takes it.
#[derive(Debug)]
pub struct Found {
    pub(super) instance: String,
    pub(super) leader: Option<Arc<Handle>>,
    pub(super) leaf: Option<Arc<Leaf>>,
    pub(super) tree: Tree,
    remains: Remains,
}

impl Found {
    #[must_use]
    pub fn remains(&self) -> &Remains {
        &self.remains
    }

    /// The instance id of the gateway.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Pid and start time of the leader, if it lives.
    #[must_use]
    pub fn leader(&self) -> Option<(i32, u64)> {
        self.leader.as_ref().map(|leader| (leader.pid(), leader.start_time()))
    }

    fn with_leader(leader: Handle, trace: &LeftRecord, launch: &Launch) -> Self {
        let differs = difference(leader.pid(), trace.command.as_deref(), launch);
        let remains = Remains::Leader { pid: leader.pid(), differs };
        Self::new(Some(Arc::new(leader)), remains, trace)
    }

    fn without_leader(remains: Remains, trace: &LeftRecord) -> Self {
        Self::new(None, remains, trace)
    }

    fn new(leader: Option<Arc<Handle>>, remains: Remains, trace: &LeftRecord) -> Self {
        let (instance, members) = (trace.instance.clone(), known(trace));
        let pid = leader.as_ref().map(|leader| leader.pid());
        let leaf = Leaf::find(&ProcessKind::Gateway.leaf_name(&instance), pid).map(Arc::new);
        // Under another supervisor's limits it has another one.
        let is_its_own = |tag: &RlimitTag| pid.is_some_and(|pid| tag.is_on(pid));
        let tag = ProcessKind::Gateway.tag_of(&instance).filter(is_its_own);
        let tree = match &leader {
            // A successor that a gateway of ours has left: the orphans of both come to us.
            Some(leader) if kill::is_child(leader.pid()) => {
                Tree::inherited_by(leader, entry(&instance), members).led_by(leader)
            }
            Some(leader) => Tree::adopted(leader, entry(&instance), members).led_by(leader),
            None => Tree::orphaned(former_leader(&remains), entry(&instance), members),
        };
        let mut tree = tree.with(leaf.clone(), tag).known_by(&trace.tree);
        if !matches!(remains, Remains::Nothing { .. } | Remains::Unseen { .. }) {
            tree.remember();
        }
        Self { instance, leader, leaf, tree, remains }
    }
}

fn former_leader(remains: &Remains) -> Option<i32> {
    match *remains {
        Remains::Leader { pid, .. } => Some(pid),
        Remains::Orphans { pid } | Remains::Nothing { pid } => pid,
        Remains::Unseen { .. } => None,
    }
}

/// The members on record. Their pids are meaningless after a reboot and in another pid namespace.
fn known(left: &LeftRecord) -> &[(i32, u64)] {
    if left.has_our_pids { &left.tree.members } else { &[] }
}

/// Looks for the gateway of a record. `holder` is the owner of its port: one that the record does not name is above it.
///
/// # Errors
/// The processes cannot be listed: what is left is then unknown.
pub async fn find(left: &LeftRecord, launch: &Launch, holder: Option<i32>) -> io::Result<Found> {
    let (left, launch) = (left.clone(), launch.clone());
    proc::run(move || find_recorded(&left, &launch, holder)).await?
}

#[expect(clippy::disallowed_methods, reason = "it runs on a worker")]
fn find_recorded(left: &LeftRecord, launch: &Launch, holder: Option<i32>) -> io::Result<Found> {
    let recorded = left.pid.zip(left.start_time).filter(|_| left.has_our_pids);
    if let Some((pid, start_time)) = recorded
        && let Some(leader) = hold(pid, start_time)?
    {
        return Ok(Found::with_leader(leader, left, launch));
    }
    let looks = if recorded.is_some() { LOOKS_FOR_ORPHANS } else { LOOKS.len() };
    for pause in LOOKS.into_iter().take(looks) {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let uid = left.tree.uid;
        let mut bearers = bearers(uid, |instance| instance == left.instance)?.into_values().next().unwrap_or_default();
        bearers.extend(in_leaf_of(left, &bearers));
        // In another time namespace it has another start time.
        let is_recorded =
            |process: &&Stat| recorded.is_some_and(|(pid, _)| process.pid == pid && process.session == pid);
        let leader = match holder.and_then(|holder| leader_above(holder, &bearers)).or(bearers.iter().find(is_recorded))
        {
            Some(leader) => hold(leader.pid, leader.start_time)?,
            // A leader that is known to have ended is not searched for in its own orphans.
            None if recorded.is_some() => None,
            None => leader_of(&bearers)?,
        };
        if let Some(leader) = leader {
            return Ok(Found::with_leader(leader, left, launch));
        }
        if !bearers.is_empty() || known(left).iter().any(|&member| is_alive(member)) {
            return Ok(Found::without_leader(Remains::Orphans { pid: left.pid }, left));
        }
    }
    let remains = match left.pid {
        Some(pid) if left.is_elsewhere => Remains::Unseen { pid },
        pid => Remains::Nothing { pid },
    };
    Ok(Found::without_leader(remains, left))
}

/// The processes in the control group of this gateway that do not have its id. A child that is stuck in execve(2) has
/// no other proof before its pid is on record.
fn in_leaf_of(left: &LeftRecord, known: &[Stat]) -> Vec<Stat> {
    let leaf = Leaf::find(&ProcessKind::Gateway.leaf_name(&left.instance), None);
    let pids = leaf.and_then(|leaf| leaf.members().ok()).unwrap_or_default().into_iter();
    let others = pids.filter(|pid| known.iter().all(|process| process.pid != *pid));
    others.filter_map(|pid| proc::stat(pid).ok().filter(|process| !process.is_dead())).collect()
}

/// Looks for any gateway of this configuration, without a record. The one that `holder`, the owner of its port, belongs to
/// counts; of several without such a holder the youngest that has a leader. `instance` and `known` are of the
/// gateway before it: its processes are orphans where no gateway is found.
///
/// # Errors
/// As [`find`].
pub async fn find_by_key(
    launch: &Launch,
    holder: Option<i32>,
    instance: &str,
    known: &TreeRecord,
) -> io::Result<Found> {
    let (launch, instance, known) = (launch.clone(), instance.to_owned(), known.clone());
    proc::run(move || find_unrecorded(&launch, holder, &instance, &known)).await?
}

fn find_unrecorded(launch: &Launch, holder: Option<i32>, instance: &str, known: &TreeRecord) -> io::Result<Found> {
    let prefix = format!("{}-", launch.key);
    let mut gateways = Vec::new();
    for (instance, processes) in bearers(known.uid, |instance| instance.starts_with(&prefix))? {
        let is_above = holder.is_some_and(|holder| leader_above(holder, &processes).is_some());
        let leader = leader_for(holder, &processes)?;
        gateways.push((is_above && leader.is_some(), instance, leader));
    }
    let rank = |leader: &Option<Handle>| leader.as_ref().map(Handle::start_time);
    let likeliest = gateways.into_iter().max_by_key(|(is_holders, _, leader)| (*is_holders, rank(leader)));
    let Some((_, instance, leader)) = likeliest else {
        let is_left = known.members.iter().any(|&member| is_alive(member));
        let (tree, instance) = (known.clone(), instance.to_owned());
        let trace = LeftRecord { instance, has_our_pids: is_left, tree, ..LeftRecord::default() };
        let remains = if is_left { Remains::Orphans { pid: None } } else { Remains::Nothing { pid: None } };
        return Ok(Found::without_leader(remains, &trace));
    };
    let trace = LeftRecord { instance, has_our_pids: true, tree: known.clone(), ..LeftRecord::default() };
    Ok(match leader {
        Some(leader) => Found::with_leader(leader, &trace, launch),
        None => Found::without_leader(Remains::Orphans { pid: None }, &trace),
    })
}

/// Whether this process descends from a gateway that a supervisor with this key started. Any user may write the key, which
/// is no secret, into an environment: it counts for a process of our own user, and of `uid`.
pub(super) fn bears_key(pid: i32, key: &str, uid: Option<u32>) -> bool {
    let environment = proc::environment_of(pid);
    let instance = environment.as_ref().and_then(|environment| environment.get(INSTANCE));
    instance.is_some_and(|instance| {
        instance.strip_prefix(key.as_bytes()).is_some_and(|random| random.starts_with(b"-")) && is_of_user(pid, uid)
    })
}

/// Every living process of our user or this one with a wanted instance id, by that id, except ourselves.
fn bearers(uid: Option<u32>, is_wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, Vec<Stat>>> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = BTreeMap::<String, Vec<Stat>>::new();
    let instance = |environment: &ProcessEnvironment| String::from_utf8(environment.get(INSTANCE)?.to_vec()).ok();
    for (process, instance) in proc::survey(move |process| process.pid != me && !process.is_dead(), instance)? {
        let instance = instance.flatten().filter(|instance| is_wanted(instance));
        if let Some(instance) = instance.filter(|_| is_of_user(process.pid, uid)) {
            found.entry(instance).or_default().push(process);
        }
    }
    Ok(found)
}

/// The leader that the holder of the port belongs to, or the likeliest one.
fn leader_for(holder: Option<i32>, bearers: &[Stat]) -> io::Result<Option<Handle>> {
    match holder.and_then(|holder| leader_above(holder, bearers)) {
        Some(leader) => hold(leader.pid, leader.start_time),
        None => leader_of(bearers),
    }
}

/// The leader among the processes with the id of one gateway, if it still lives.
fn leader_of(bearers: &[Stat]) -> io::Result<Option<Handle>> {
    match likeliest_leader(bearers) {
        Some(leader) => hold(leader.pid, leader.start_time),
        None => Ok(None),
    }
}

/// The leader that the owner of the port belongs to: the leader of a session that is highest above it, or is it itself. A
/// detached successor has helpers of its predecessor beside it, and these were there before it.
fn leader_above(holder: i32, bearers: &[Stat]) -> Option<&Stat> {
    let find = |pid: i32| bearers.iter().find(|bearer| bearer.pid == pid);
    // A parent is older than its child: if the walk does not end, a pid was reused meanwhile.
    let lineage = std::iter::successors(find(holder), |process| find(process.parent)).take(bearers.len());
    lineage.filter(|process| process.session == process.pid).last()
}

/// The oldest session leader with a parent that does not carry the id. Start times alone are too coarse to tell.
fn likeliest_leader(bearers: &[Stat]) -> Option<&Stat> {
    let is_child = |process: &Stat| bearers.iter().any(|bearer| bearer.pid == process.parent);
    let leaders = bearers.iter().filter(|process| process.session == process.pid);
    leaders.min_by_key(|process| (is_child(process), process.start_time))
}

/// Takes hold of the process with this pid and start time, if it lives.
fn hold(pid: i32, start_time: u64) -> io::Result<Option<Handle>> {
    match Handle::open(pid) {
        Ok(handle) => {
            Ok(Some(handle).filter(|handle| handle.start_time() == start_time && is_alive((pid, start_time))))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(None),
        // One that cannot be looked at may live: it is looked at again, and not replaced.
        Err(error) => Err(error),
    }
}

fn is_alive((pid, start_time): (i32, u64)) -> bool {
    proc::stat(pid).is_ok_and(|process| process.start_time == start_time && !process.is_dead())
}

/// What is different from a gateway that we would start, in words. The kernel does not show the command that was given
/// to execve(2) for a script, so that it is compared with the record.
fn difference(leader: i32, recorded: Option<&str>, launch: &Launch) -> Option<String> {
    let mut words = Vec::new();
    if recorded.is_some_and(|recorded| recorded != launch.text()) {
        words.push("another command line".to_owned());
    }
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    if let (Some(its), Some(our)) = (proc::cgroup_of(leader).map(above_leaf), proc::cgroup_of(me))
        && its != our
    {
        words.push(format!("another cgroup ({})", its.escape_debug()));
    }
    if let Some(environment) = proc::environment_of(leader) {
        let another = SETTINGS.iter().filter(|name| !is_same(name, &environment, launch));
        words.extend(another.map(|name| format!("another {name}")));
    }
    match words.split_last() {
        None => None,
        Some((last, [])) => Some(last.clone()),
        Some((last, others)) => Some(format!("{} and {last}", others.join(", "))),
    }
}

/// The group in which the leaf of a gateway was made, where it is in one.
fn above_leaf(cgroup: String) -> String {
    let prefix = ProcessKind::Gateway.leaf_prefix();
    match cgroup.rsplit_once('/') {
        Some(("", leaf)) if leaf.starts_with(prefix) => "/".to_owned(),
        Some((above, leaf)) if leaf.starts_with(prefix) => above.to_owned(),
        _ => cgroup,
    }
}

/// Whether the leader was given the value that we would give. An empty variable is none, as it is to the gateway.
fn is_same(name: &str, environment: &ProcessEnvironment, launch: &Launch) -> bool {
    let exported = launch.exports.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
    let our = exported.or_else(|| std::env::var_os(name)).unwrap_or_default();
    OsStr::from_bytes(environment.get(name).unwrap_or_default()) == our
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::proc::ProcessState;

    #[test]
    fn a_leaf_is_no_other_control_group_than_the_one_that_it_was_made_in() {
        for (cgroup, above) in [
            ("/a.service/openclaw-gateway-0-1", "/a.service"),
            ("/openclaw-gateway-0-1", "/"),
            ("/a.service", "/a.service"),
            ("/", "/"),
        ] {
            assert_eq!(above_leaf(cgroup.to_owned()), above, "{cgroup}");
        }
    }

    fn stat(pid: i32, parent: i32, session: i32, start_time: u64) -> Stat {
        Stat { pid, state: ProcessState::Other, parent, group: session, session, start_time }
    }

    #[test]
    fn the_leader_leads_a_session_and_descends_from_no_other_bearer() {
        let (leader, broker, helper, daemon) =
            (stat(90, 1, 90, 5), stat(20, 90, 20, 5), stat(30, 1, 90, 4), stat(40, 1, 40, 6));
        for (bearers, expected) in [
            (vec![broker, helper, daemon, leader], Some(90)),
            (vec![daemon, leader], Some(90)),
            (vec![helper], None),
            (vec![], None),
        ] {
            assert_eq!(likeliest_leader(&bearers).map(|leader| leader.pid), expected, "{bearers:?}");
        }
    }

    #[test]
    fn the_leader_of_a_holder_is_above_it_despite_an_older_session_leader() {
        let (helper, successor, worker) = (stat(10, 1, 10, 1), stat(50, 1, 50, 7), stat(60, 50, 50, 8));
        let all = [helper, successor, worker, stat(70, 71, 70, 9), stat(71, 70, 71, 9)];
        for (holder, expected) in [(50, Some(50)), (60, Some(50)), (10, Some(10)), (99, None)] {
            assert_eq!(leader_above(holder, &all).map(|leader| leader.pid), expected, "{holder}");
        }
        assert!(leader_above(70, &all).is_some(), "and a circle ends");
    }
}
