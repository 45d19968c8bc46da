//! What becomes of a gateway whose supervisor is gone: real processes that are no children of ours.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use openclaw_supervise::core::{Event, ExitStatus, ExitUsage, Fingerprint, LeftRecord, Remains, TreeEnd, TreeRecord};
use openclaw_supervise::gateway::adopt::{Found, find, find_by_key};
use openclaw_supervise::gateway::process::{
    Birth, Gateway, INSTANCE, Launch, Sweep, key_of, new_instance, watch_departure,
};
use openclaw_supervise::gateway::tree::Orphans;
use openclaw_supervise::platform::proc;
use openclaw_supervise::platform::process::Handle;
#[cfg(target_os = "linux")]
use openclaw_supervise::platform::process::{Setup, spawn};
#[cfg(target_os = "linux")]
use openclaw_supervise::platform::rlimit_tag::RlimitTag;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// Processes that a test has started, by pid and start time; it takes them along when it ends.
#[derive(Default)]
struct Started(Vec<(i32, u64)>);

impl Drop for Started {
    fn drop(&mut self) {
        for &(pid, start_time) in &self.0 {
            if let Ok(handle) = Handle::open(pid)
                && handle.start_time() == start_time
            {
                handle.kill().ok();
            }
        }
    }
}

impl Started {
    /// Runs `script` in a shell that leads a session of its own and whose parent has ended.
    async fn orphan(&mut self, instance: &str, script: &str) -> i32 {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sh -c \"$0\" >/dev/null 2>&1 </dev/null & echo $!", script]);
        let output = command.env(INSTANCE, instance).output().unwrap();
        let pid = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let is_script = || !proc::command_of(pid).unwrap().starts_with("setsid");
        until(|| proc::stat(pid).is_ok_and(|leader| leader.session == pid) && is_script()).await;
        self.0.push((pid, start_time(pid)));
        pid
    }

    /// The one descendant of `root` whose command is exactly this.
    async fn descendant(&mut self, root: i32, command: &str) -> i32 {
        let find = || {
            let all = proc::processes().unwrap();
            let mut tree = vec![root];
            while let Some(more) =
                all.iter().find(|process| tree.contains(&process.parent) && !tree.contains(&process.pid))
            {
                tree.push(more.pid);
            }
            tree.into_iter().find(|&pid| proc::command_of(pid).as_deref() == Some(command))
        };
        until(|| find().is_some()).await;
        let pid = find().unwrap();
        self.0.push((pid, start_time(pid)));
        pid
    }
}

/// Waits until every running process is older than a clock tick: a younger one goes into no snapshot.
async fn grow_older() {
    let now = proc::tick();
    until(|| proc::tick() > now).await;
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, met).await.unwrap();
}

fn start_time(pid: i32) -> u64 {
    proc::stat(pid).unwrap().start_time
}

fn is_alive(pid: i32) -> bool {
    proc::stat(pid).is_ok_and(|process| !process.is_dead())
}

async fn kill(pid: i32) {
    Handle::open(pid).unwrap().kill().unwrap();
    until(|| !is_alive(pid)).await;
}

fn launch(test: &str) -> Launch {
    let key = key_of(&format!("{test} {}", std::process::id()));
    let (program, config) = ("/bin/gateway".into(), "/nowhere".into());
    Launch { key, program, arguments: vec!["run".into()], config, exports: Vec::new() }
}

fn trace(instance: &str, pid: i32) -> LeftRecord {
    LeftRecord {
        instance: instance.to_owned(),
        pid: Some(pid),
        start_time: Some(start_time(pid)),
        has_our_pids: true,
        command: Some("/bin/gateway run".to_owned()),
        ..LeftRecord::default()
    }
}

fn leader(pid: i32, differs: Option<&str>) -> Remains {
    Remains::Leader { pid, differs: differs.map(str::to_owned) }
}

fn adopt(found: Found) -> (Gateway, Receiver<Event>) {
    let (events, inbox) = channel(8);
    (Gateway::adopt(7, found, &events).unwrap(), inbox)
}

async fn next(inbox: &mut Receiver<Event>) -> Event {
    timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap()
}

async fn kill_tree(gateway: &Gateway) -> TreeEnd {
    let (events, mut inbox) = channel(8);
    gateway.kill_tree(Sweep::Now, || Duration::ZERO, &events);
    let Event::TreeGone { generation: 7, end } = next(&mut inbox).await else { panic!("not its end") };
    end
}

#[tokio::test]
async fn a_leader_on_record_is_adopted_and_its_end_has_no_status() {
    let (launch, mut started) = (launch("on record"), Started::default());
    let instance = new_instance(&launch.key);
    let pid = started.orphan(&instance, "sleep 600; true").await;

    let found = find(&trace(&instance, pid), &launch, None).await.unwrap();
    assert_eq!(*found.remains(), leader(pid, None));
    assert_eq!((found.instance(), found.leader()), (instance.as_str(), Some((pid, start_time(pid)))));
    let (gateway, mut inbox) = adopt(found);
    assert_eq!((gateway.pid(), gateway.start_time(), gateway.generation()), (Some(pid), Some(start_time(pid)), 7));
    kill(pid).await;
    let end = next(&mut inbox).await;
    assert_eq!(end, Event::LeaderExited { generation: 7, death: ExitStatus::Unknown, toll: ExitUsage::default() });
    assert!(kill_tree(&gateway).await.members >= 1, "its child went on");
    gateway.release();
}

#[tokio::test]
async fn what_is_different_is_said_in_words() {
    let (launch, mut started) = (launch("different"), Started::default());
    let instance = new_instance(&launch.key);
    let pid = started.orphan(&instance, "exec sleep 600; true").await;
    until(|| proc::command_of(pid).as_deref() == Some("sleep 600")).await;
    let other_port = Launch { exports: vec![("OPENCLAW_GATEWAY_PORT", "1".into())], ..launch.clone() };
    let other_all =
        Launch { arguments: Vec::new(), exports: vec![("OPENCLAW_STATE_DIR", "/x".into())], ..other_port.clone() };
    for (launch, expected) in [
        (&launch, None),
        (&other_port, Some("another OPENCLAW_GATEWAY_PORT")),
        (&other_all, Some("another command line and another OPENCLAW_STATE_DIR")),
    ] {
        let found = find(&trace(&instance, pid), launch, None).await.unwrap();
        assert_eq!(*found.remains(), leader(pid, expected));
    }
}

#[tokio::test]
async fn a_recycled_pid_is_neither_adopted_nor_touched() {
    let (launch, mut started) = (launch("recycled"), Started::default());
    let pid = started.orphan(&new_instance("0123456789abcdef"), "sleep 600; true").await;
    let child = started.descendant(pid, "sleep 600").await;
    let mut stale = trace(&new_instance(&launch.key), pid);
    stale.start_time = stale.start_time.map(|time| time - 1);
    stale.tree.members = vec![(child, start_time(child) - 1)];

    let found = find(&stale, &launch, None).await.unwrap();
    assert_eq!(*found.remains(), Remains::Nothing { pid: Some(pid) });
    let (gateway, _inbox) = adopt(found);
    gateway.terminate().await.unwrap();
    assert_eq!(gateway.known().await.unwrap().members, []);
    assert_eq!(kill_tree(&gateway).await.members, 0);
    gateway.release();

    // Nor after a boot, whatever it says, nor where the number of a dead leader's session went to others.
    stale = trace(&stale.instance, pid);
    stale.tree.members = vec![(child, start_time(child))];
    stale.has_our_pids = false;
    let found = find(&stale, &launch, None).await.unwrap();
    assert_eq!(*found.remains(), Remains::Nothing { pid: Some(pid) });
    assert_eq!(kill_tree(&adopt(found).0).await.members, 0);
    assert!(is_alive(pid) && is_alive(child));
}

#[tokio::test]
async fn a_leader_that_could_not_be_recorded_is_known_by_its_instance() {
    let (launch, mut started) = (launch("unrecorded"), Started::default());
    let instance = new_instance(&launch.key);
    let pid = started.orphan(&instance, "setsid sleep 600 & sleep 601; true").await;
    let daemon = started.descendant(pid, "sleep 600").await;
    started.descendant(pid, "sleep 601").await;
    until(|| proc::stat(daemon).unwrap().session == daemon).await;

    let left = LeftRecord { instance: instance.clone(), ..LeftRecord::default() };
    assert_eq!(*find(&left, &launch, None).await.unwrap().remains(), leader(pid, None));
    let unknown = LeftRecord { instance: new_instance(&launch.key), ..LeftRecord::default() };
    assert_eq!(*find(&unknown, &launch, None).await.unwrap().remains(), Remains::Nothing { pid: None });

    let lost = find_by_key(&launch, None, "", &TreeRecord::default()).await.unwrap();
    assert_eq!((lost.remains(), lost.instance()), (&leader(pid, None), instance.as_str()));
    let (gateway, mut inbox) = adopt(lost);
    let end = kill_tree(&gateway).await;
    assert_eq!((end.members, end.escaped, end.survivors), (3, 1, 0), "{end:?}");
    assert!(matches!(next(&mut inbox).await, Event::LeaderExited { generation: 7, death: ExitStatus::Unknown, .. }));
    assert_eq!(
        *find_by_key(&launch, None, "", &TreeRecord::default()).await.unwrap().remains(),
        Remains::Nothing { pid: None }
    );
}

#[tokio::test]
async fn of_several_gateways_of_a_lost_store_the_youngest_that_has_a_leader_counts() {
    let (launch, mut started) = (launch("several"), Started::default());
    let (old, young) = (new_instance(&launch.key), new_instance(&launch.key));
    started.orphan(&old, "sleep 600; true").await;
    // A clock tick lies between the two, or their start times would be the same.
    let before = started.0[0].1;
    let now = || {
        let mut child = Command::new("true").spawn().unwrap();
        let start_time = start_time(child.id().cast_signed());
        child.wait().unwrap();
        start_time
    };
    until(|| now() > before).await;
    let pid = started.orphan(&young, "sleep 600; true").await;
    let found = find_by_key(&launch, None, "", &TreeRecord::default()).await.unwrap();
    assert_eq!((found.remains(), found.instance()), (&leader(pid, None), young.as_str()));
    kill_tree(&adopt(found).0).await;
    let found = find_by_key(&launch, None, "", &TreeRecord::default()).await.unwrap();
    assert_eq!(found.instance(), old);
    kill_tree(&adopt(found).0).await;
}

#[tokio::test]
async fn orphans_of_a_dead_leader_are_found_and_no_other_process_is_touched() {
    let (launch, mut started) = (launch("orphans"), Started::default());
    let instance = new_instance(&launch.key);
    let script = format!("setsid sleep 600 & sleep 601 & env -u {INSTANCE} sleep 602 & env -i sleep 603 & wait");
    let pid = started.orphan(&instance, &script).await;
    let daemon = started.descendant(pid, "sleep 600").await;
    let child = started.descendant(pid, "sleep 601").await;
    // These two bear no id. One is on record; the other has nothing but the group and the session of the dead leader.
    let recorded = started.descendant(pid, "sleep 602").await;
    let unproven = started.descendant(pid, "sleep 603").await;
    let stranger = started.orphan(&format!("{instance}0"), "exec sleep 600; true").await;
    let mut left = trace(&instance, pid);
    left.tree.members = vec![(recorded, start_time(recorded)), (unproven, start_time(unproven) + 1)];
    kill(pid).await;

    let found = find(&left, &launch, None).await.unwrap();
    assert_eq!((found.remains(), found.leader()), (&Remains::Orphans { pid: Some(pid) }, None));
    let (gateway, _inbox) = adopt(found);
    assert_eq!((gateway.pid(), gateway.start_time()), (None, None));
    gateway.terminate().await.unwrap();
    assert!([daemon, child, recorded].into_iter().all(is_alive), "without a leader there is no process to ask to stop");
    let end = kill_tree(&gateway).await;
    assert_eq!((end.members, end.escaped, end.survivors), (3, 1, 0), "{end:?}");
    for gone in [daemon, child, recorded] {
        assert!(!is_alive(gone));
    }
    assert_eq!(proc::stat(unproven).unwrap().group, pid);
    assert!(is_alive(unproven) && is_alive(stranger));
    gateway.release();
}

#[tokio::test]
async fn the_session_of_an_adopted_leader_proves_nothing_once_that_one_is_dead() {
    let (launch, mut started) = (launch("session"), Started::default());
    let instance = new_instance(&launch.key);
    // A parent that reaps it: a zombie's number is still its own.
    let script = "trap 'env -i sleep 602 &' USR1; sleep 600 & wait; wait; wait";
    let mut parent = Command::new("sh");
    parent.args(["-c", "setsid sh -c \"$0\" >/dev/null 2>&1 & echo $!; exec >/dev/null; wait", script]);
    let mut parent = parent.env(INSTANCE, &instance).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let pid = std::io::read_to_string(parent.stdout.take().unwrap()).unwrap().trim().parse().unwrap();
    until(|| proc::stat(pid).unwrap().session == pid).await;
    started.0.push((pid, start_time(pid)));
    let child = started.descendant(pid, "sleep 600").await;
    let (gateway, _inbox) = adopt(find(&trace(&instance, pid), &launch, None).await.unwrap());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGUSR1).unwrap();
    let unproven = started.descendant(pid, "sleep 602").await;
    kill(pid).await;
    parent.wait().unwrap();
    assert!(proc::stat(pid).is_err());

    let end = kill_tree(&gateway).await;
    assert_eq!((end.members, end.survivors), (1, 0), "{end:?}");
    assert!(!is_alive(child) && is_alive(unproven));
    assert_eq!(proc::stat(unproven).unwrap().session, pid);
}

#[tokio::test]
async fn a_deaf_tree_of_many_sessions_is_killed_to_the_last_process() {
    let (launch, mut started) = (launch("deaf"), Started::default());
    let instance = new_instance(&launch.key);
    let kid = "setsid sh -c \"trap '' TERM; setsid sleep 600 & sleep 601 & wait\" &";
    let wiped = format!("setsid env -i sh -c \"trap '' TERM; sleep 602 & wait\" & env -u {INSTANCE} sleep 603 &");
    let pid = started.orphan(&instance, &format!("trap '' TERM; {kid} {kid} {wiped} wait; wait")).await;
    for command in ["sleep 602", "sleep 603"] {
        started.descendant(pid, command).await;
    }
    let tree = || {
        proc::processes()
            .unwrap()
            .into_iter()
            .filter(|process| !process.is_dead() && proc::environ_has(process.pid, &format!("{INSTANCE}={instance}")))
    };
    until(|| tree().count() == 7).await;

    let (gateway, mut inbox) = adopt(find(&trace(&instance, pid), &launch, None).await.unwrap());
    grow_older().await;
    let seen = gateway.known().await.unwrap().members;
    assert_eq!(seen.len(), 10, "{seen:?}");
    gateway.terminate().await.unwrap();
    let end = kill_tree(&gateway).await;
    assert_eq!((end.members, end.survivors), (10, 0), "{end:?}");
    assert!(!seen.into_iter().any(|(pid, _)| is_alive(pid)));
    assert_eq!(tree().count(), 0);
    assert!(matches!(next(&mut inbox).await, Event::LeaderExited { generation: 7, death: ExitStatus::Unknown, .. }));
}

#[tokio::test]
async fn a_leader_that_ends_before_it_is_adopted_is_heard_of() {
    let (launch, mut started) = (launch("too late"), Started::default());
    let instance = new_instance(&launch.key);
    let pid = started.orphan(&instance, "exec sleep 600; true").await;
    let found = find(&trace(&instance, pid), &launch, None).await.unwrap();
    kill(pid).await;
    let (gateway, mut inbox) = adopt(found);
    gateway.terminate().await.unwrap();
    assert!(matches!(next(&mut inbox).await, Event::LeaderExited { generation: 7, death: ExitStatus::Unknown, .. }));
    assert_eq!(kill_tree(&gateway).await.members, 0);
    gateway.release();
}

#[tokio::test]
async fn an_adopted_gateway_that_is_our_child_all_the_same_has_a_status_and_is_reaped_in_the_end() {
    let launch = launch("child");
    let instance = new_instance(&launch.key);
    let mut command = Command::new("sh");
    command.args(["-c", "read line; exit 7"]).env(INSTANCE, &instance).stdin(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let pid = child.id().cast_signed();
    let (gateway, mut inbox) = adopt(find(&trace(&instance, pid), &launch, None).await.unwrap());
    drop(child.stdin.take());
    let Event::LeaderExited { death: ExitStatus::Code(7), toll, .. } = next(&mut inbox).await else {
        panic!("not its end")
    };
    assert!(toll.max_rss_kb.is_some() && toll.cpu.is_some(), "{toll:?}");
    assert!(proc::stat(pid).unwrap().is_dead(), "its number stays taken");
    gateway.release();
    assert_eq!(child.try_wait().unwrap_err().raw_os_error(), Some(10), "ECHILD: it was reaped");
}

#[tokio::test]
async fn a_snapshot_follows_the_tree_and_keeps_what_has_left_it() {
    let (launch, mut started) = (launch("snapshot"), Started::default());
    let instance = new_instance(&launch.key);
    let script = format!("sh -c 'setsid env -u {INSTANCE} sleep 600 & wait' & sleep 601 & wait; sleep 602");
    let pid = started.orphan(&instance, &script).await;
    let daemon = started.descendant(pid, "sleep 600").await;
    let child = started.descendant(pid, "sleep 601").await;
    let (gateway, _inbox) = adopt(find(&trace(&instance, pid), &launch, None).await.unwrap());
    let parent = proc::stat(daemon).unwrap().parent;
    let pids = |seen: Vec<(i32, u64)>| seen.into_iter().map(|(pid, _)| pid).collect::<Vec<_>>();
    let mut expected = [pid, parent, daemon, child];
    expected.sort_unstable();
    grow_older().await;
    assert_eq!(pids(gateway.known().await.unwrap().members), expected);

    // Its parent gone, in a session of its own and without an id it can be known from the snapshot alone.
    kill(parent).await;
    kill(child).await;
    let last = started.descendant(pid, "sleep 602").await;
    let mut expected = [pid, daemon, last];
    expected.sort_unstable();
    grow_older().await;
    assert_eq!(pids(gateway.known().await.unwrap().members), expected);
    assert_eq!(kill_tree(&gateway).await.members, 3);
    assert!(!is_alive(daemon));
}

#[tokio::test]
async fn a_snapshot_of_our_own_gateway_holds_its_whole_tree() {
    let launch = Launch {
        program: "/bin/sh".into(),
        arguments: ["-c", "setsid sh -c 'sleep 600 & wait' & wait"].map(Into::into).to_vec(),
        ..launch("own")
    };
    let (events, _inbox) = channel::<Event>(8);
    let instance = new_instance(&launch.key);
    let gateway = Gateway::spawn(
        Birth { generation: 7, instance: &instance, no_respawn: false, fingerprint: Fingerprint::default() },
        &launch,
        &[None, None],
        Orphans::Mixed,
        &events,
    )
    .unwrap();
    let mut started = Started(vec![(gateway.pid().unwrap(), gateway.start_time().unwrap())]);
    started.descendant(gateway.pid().unwrap(), "sleep 600").await;
    assert_eq!(gateway.instance(), instance);
    grow_older().await;
    assert_eq!(gateway.known().await.map(|known| known.members.len()), Some(3));
    assert_eq!(kill_tree(&gateway).await.members, 3);
    gateway.release();
}

#[tokio::test]
async fn a_departure_is_told_once_it_has_happened_and_only_to_who_still_listens() {
    let mut started = Started::default();
    let pid = started.orphan("x", "exec sleep 600; true").await;
    let (events, mut inbox) = channel(8);
    let watch = watch_departure(pid, &events);
    let dropped = watch_departure(pid, &events);
    tokio::task::yield_now().await;
    assert!(inbox.try_recv().is_err(), "it is there");
    drop(dropped);
    kill(pid).await;
    assert_eq!(next(&mut inbox).await, Event::Departed { pid });
    drop(watch);
    drop(events);
    assert_eq!(timeout(PATIENCE, inbox.recv()).await.unwrap(), None, "the other one was called off");

    for no_process in [0, -1, i32::MAX] {
        let (events, mut inbox) = channel(8);
        let _watch = watch_departure(no_process, &events);
        assert_eq!(next(&mut inbox).await, Event::Departed { pid: no_process });
    }
}

/// As it would be if an earlier supervisor had given the tag to a process that is an orphan by now.
#[cfg(target_os = "linux")]
async fn tagged(started: &mut Started, tag: RlimitTag, instance: Option<&str>, command: &str) -> i32 {
    let mut shell = Command::new("env");
    shell.args(["-i", "PATH=/usr/bin:/bin"]).args(instance.map(|instance| format!("{INSTANCE}={instance}")));
    shell.args(["sh", "-c", "setsid sh -c \"$0\" >/dev/null 2>&1 </dev/null &", &format!("exec {command}")]);
    let parent = spawn(&mut shell, Setup { tag: Some(tag), ..Setup::default() }).unwrap().handle;
    let find = || {
        let mut all = proc::processes().unwrap().into_iter();
        all.find(|process| proc::command_of(process.pid).as_deref() == Some(command)).map(|process| process.pid)
    };
    until(|| find().is_some() && parent.has_ended().unwrap()).await;
    parent.reap();
    let pid = find().unwrap();
    started.0.push((pid, start_time(pid)));
    pid
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_tag_shows_a_stray_of_an_adopted_gateway_unless_it_has_another_id_or_was_there_before() {
    let (launch, mut started) = (launch("tagged"), Started::default());
    let (instance, other) = (new_instance(&launch.key), new_instance("0123456789abcdef"));
    let seed = u64::from_str_radix(&instance[instance.len() - 16..], 16).unwrap();
    let tag = RlimitTag::new(seed & !1).expect("this needs a limit that leaves room for a tag");
    let older = tagged(&mut started, tag, None, "sleep 641").await;
    grow_older().await;
    let pid = tagged(&mut started, tag, Some(&instance), "sleep 642").await;
    let stray = tagged(&mut started, tag, None, "sleep 643").await;
    let others = tagged(&mut started, tag, Some(&other), "sleep 644").await;
    let plain = tagged(&mut started, RlimitTag::new(seed | 1).unwrap(), None, "sleep 645").await;

    let found = find(&trace(&instance, pid), &launch, None).await.unwrap();
    let (gateway, _inbox) = adopt(found);
    let end = kill_tree(&gateway).await;
    assert_eq!((end.members, end.survivors), (2, 0), "{end:?}");
    assert!(!is_alive(pid) && !is_alive(stray));
    assert!(is_alive(older) && is_alive(others) && is_alive(plain));
    gateway.release();
}

#[tokio::test]
async fn what_a_gateway_without_a_living_successor_has_left_is_an_orphan_although_it_bears_no_id() {
    let (launch, mut started) = (launch("succeeded"), Started::default());
    let pid = started.orphan("none", "exec env -i sleep 600").await;
    until(|| proc::command_of(pid).as_deref() == Some("sleep 600")).await;
    let known = TreeRecord { members: vec![(pid, start_time(pid))], ..TreeRecord::default() };
    let found = find_by_key(&launch, None, &new_instance(&launch.key), &known).await.unwrap();
    assert_eq!(*found.remains(), Remains::Orphans { pid: None });
    assert_eq!(kill_tree(&adopt(found).0).await.members, 1);
    assert!(!is_alive(pid));
    let again = find_by_key(&launch, None, &new_instance(&launch.key), &known).await.unwrap();
    assert_eq!(*again.remains(), Remains::Nothing { pid: None });
}
