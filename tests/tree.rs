//! The end of trees of real processes, in a process that inherits their orphans.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use openclaw_supervise::core::{Event, ExitUsage, Fingerprint, Layer, TreeEnd};
use openclaw_supervise::gateway::process::{Birth, Gateway, INSTANCE, Kill, Launch, Sweep, key_of, new_instance};
use openclaw_supervise::gateway::tree::{Orphans, Tree};
use openclaw_supervise::platform::proc::{self, ProcessState, Stat};
use openclaw_supervise::platform::process::{self, Handle};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::channel;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// All tests look at the children of this whole process: one at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A test's turn, and who reaps its orphans. What it leaves behind is killed.
struct World {
    id: String,
    reaper: JoinHandle<()>,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    async fn new(name: &str) -> Self {
        let turn = TURN.lock().await;
        process::become_subreaper().expect("the kernel has subreapers");
        // What the test before has left behind.
        until(|| {
            process::reap_unclaimed();
            proc::children().is_ok_and(|children| children.is_empty())
        })
        .await;
        let reaper = tokio::spawn(async {
            loop {
                process::reap_unclaimed();
                sleep(Duration::from_millis(3)).await;
            }
        });
        Self { id: format!("TREE_TEST={name}-{}", std::process::id()), reaper, _turn: turn }
    }

    /// A shell that leads a session of its own, with the id in its environment.
    fn leader(&self, script: &str) -> Handle {
        let mut command = Command::new("sh");
        let (name, value) = self.id.split_once('=').expect("it is an entry");
        command.args(["-c", script]).env(name, value);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let leader = process::spawn_in_own_session(&mut command).expect("a shell can be started");
        process::claim(leader.pid());
        leader
    }

    /// One that runs its script to its end, as the zombie that it is then.
    async fn ended_leader(&self, script: &str) -> Handle {
        let leader = self.leader(script);
        until(|| process::is_zombie_child(leader.pid())).await;
        leader
    }

    fn tree(&self, leader: &Handle, orphans: Orphans) -> Tree {
        Tree::new(leader, self.id.clone(), orphans)
    }

    async fn kill(&self, leader: &Handle, orphans: Orphans) -> TreeEnd {
        kill(self.tree(leader, orphans)).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.reaper.abort();
        for child in living_children() {
            if let Ok(handle) = Handle::open(child.pid) {
                handle.kill().ok();
            }
        }
    }
}

async fn kill(tree: Tree) -> TreeEnd {
    let begun = tokio::time::Instant::now();
    timeout(PATIENCE, tree.kill(Duration::ZERO, move || begun.elapsed())).await.expect("it comes to an end")
}

fn forget(leader: &Handle) {
    process::unclaim(leader.pid());
    leader.reap();
}

fn living_children() -> Vec<Stat> {
    let pids = proc::children().expect("/proc can be read").into_iter();
    pids.filter_map(|pid| proc::stat(pid).ok()).filter(|child| !child.is_dead()).collect()
}

async fn until(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, met).await.expect("it is so in the end");
}

/// The one process with this command.
async fn find(command: &str) -> Stat {
    let find = || {
        let mut all = proc::processes().expect("/proc can be read").into_iter();
        all.find(|process| proc::command_of(process.pid).as_deref() == Some(command))
    };
    until(|| find().is_some()).await;
    find().expect("it was there")
}

fn is_alive(process: &Stat) -> bool {
    proc::stat(process.pid).is_ok_and(|now| now.start_time == process.start_time && !now.is_dead())
}

fn layers(end: &TreeEnd) -> Vec<(Layer, u32)> {
    end.found_by.clone()
}

#[tokio::test]
async fn a_dead_leader_is_alone_only_if_it_left_no_process_behind() {
    let world = World::new("alone").await;
    let alone = world.ended_leader("exit 7").await;
    let end = world.tree(&alone, Orphans::OursAlone).end_at_once(|| Duration::ZERO).expect("no process is left");
    assert_eq!((end.members, end.survivors), (0, 0));
    forget(&alone);

    let parent =
        world.ended_leader("setsid sleep 600 & sleep 600 & sh -c 'setsid sh -c \"sleep 600 & sleep 600\" &'").await;
    assert_eq!(world.tree(&parent, Orphans::OursAlone).end_at_once(|| Duration::ZERO), None);
    let end = world.kill(&parent, Orphans::OursAlone).await;
    assert!(end.members >= 2, "{end:?}");
    assert_eq!((end.survivors, living_children().len()), (0, 0));
    forget(&parent);
}

#[tokio::test]
async fn without_descriptors_nothing_can_be_seen_and_that_does_not_mean_that_nothing_is_there() {
    let world = World::new("blind").await;
    let leader = world.leader("exec sleep 600");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("it can be lowered");
    let end = world.tree(&leader, Orphans::OursAlone).kill(Duration::ZERO, || Duration::from_mins(1)).await;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it can be raised again");
    // The leader was killed with its process group, unseen.
    assert_eq!((end.members, end.survivors), (1, 1));
    while !process::is_zombie_child(leader.pid()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.kill(&leader, Orphans::OursAlone).await.members, 0);
    forget(&leader);
}

#[tokio::test]
async fn the_id_alone_shows_a_member_that_never_was_below_the_leader() {
    let world = World::new("instance").await;
    let leader = world.ended_leader("exit 0").await;
    let (name, value) = world.id.split_once('=').expect("it is an entry");
    let start = |value: &str| Command::new("sleep").arg("600").env(name, value).spawn().expect("sleep can be started");
    let (mut bearer, mut bystander) = (start(value), start(&format!("{value}0")));
    let end = world.kill(&leader, Orphans::Mixed).await;
    assert_eq!((end.members, end.survivors, layers(&end)), (1, 0, vec![(Layer::Instance, 1)]), "{end:?}");
    assert_eq!(end.commands, [format!("{} sleep 600", bearer.id())]);
    assert!(bystander.try_wait().expect("it is our child").is_none());
    bystander.kill().expect("it is our child");
    // The reaper may have been first.
    let _status = (bearer.wait(), bystander.wait());
    forget(&leader);
}

#[tokio::test]
async fn a_sweep_finds_the_bearer_of_the_id_after_the_leader_is_forgotten() {
    let world = World::new("sweep").await;
    let leader = world.ended_leader("exit 0").await;
    let tree = world.tree(&leader, Orphans::OursAlone);
    forget(&leader);
    // It must not touch our next leader, nor a child that belongs to no gateway.
    let next = world.leader("exec sleep 600");
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("sleep can be started");
    assert_eq!(tree.clone().sweep(Duration::ZERO, || Duration::ZERO).await.members, 0);
    let (name, value) = world.id.split_once('=').expect("it is an entry");
    let mut bearer = Command::new("sleep").arg("600").env(name, value).spawn().expect("sleep can be started");
    let end = tree.sweep(Duration::ZERO, || Duration::ZERO).await;
    assert_eq!((end.members, layers(&end)), (1, vec![(Layer::Instance, 1)]), "{end:?}");
    assert!(stranger.try_wait().expect("it is our child").is_none());
    assert!(!process::is_zombie_child(next.pid()));
    stranger.kill().expect("it is our child");
    next.kill().expect("it is our child");
    until(|| process::is_zombie_child(next.pid())).await;
    forget(&next);
    // The reaper may have been first.
    let _status = (bearer.wait(), stranger.wait());
}

/// A process that bears the id and never was below us, as a service manager would start one.
fn start_elsewhere(instance: &str, command: &str) {
    rustix::process::set_child_subreaper(None).expect("the kernel has subreapers");
    let mut parent = Command::new("sh");
    parent.args(["-c", &format!("setsid {command} >/dev/null 2>&1 </dev/null &")]).env(INSTANCE, instance);
    let _status = parent.status();
    process::become_subreaper().expect("the kernel has subreapers");
}

#[tokio::test]
async fn strays_of_a_gateway_that_ended_alone_are_looked_for_later_unless_there_may_be_no_later() {
    let _world = World::new("strays").await;
    let cases = [Sweep::Later, Sweep::Now].into_iter().flat_map(|sweep| [(sweep, true), (sweep, false)]);
    for (sweep, strays) in cases {
        let launch = Launch {
            key: key_of(&std::process::id().to_string()),
            program: "/bin/sleep".into(),
            arguments: vec!["0.2".into()],
            config: "/nowhere".into(),
            exports: Vec::new(),
        };
        let (instance, (events, mut inbox)) = (new_instance(&launch.key), channel(8));
        let gateway = Gateway::spawn(
            Birth { generation: 3, instance: &instance, no_respawn: false, fingerprint: Fingerprint::default() },
            &launch,
            &[None, None],
            Orphans::OursAlone,
            &events,
        )
        .expect("it can be started");
        assert!(matches!(inbox.recv().await, Some(Event::Spawned { generation: 3, .. })));
        start_elsewhere(&instance, "sleep 609");
        let stray = find("sleep 609").await;
        let mut next = async || timeout(PATIENCE, inbox.recv()).await.expect("in time").expect("it is open");
        assert!(matches!(
            next().await,
            Event::LeaderExited { generation: 3, toll: ExitUsage { oom_killed: false, .. }, .. }
        ));
        gateway.kill_tree(Kill { strays, ..Kill::from(sweep) }, || Duration::ZERO, &events);
        let Event::TreeGone { generation: 3, mut end } = next().await else { panic!("not its end") };
        if sweep == Sweep::Later {
            assert_eq!((end.members, end.survivors, end.strays.len()), (0, 0, 0));
            // Its number may go to others while they are looked for.
            gateway.release();
            let Event::StraysKilled { generation: 3, end: later } = next().await else { panic!("no stray was found") };
            end = later;
        } else {
            gateway.release();
        }
        if strays {
            assert_eq!((end.members, layers(&end), end.strays.len()), (1, vec![(Layer::Instance, 1)], 0));
        } else {
            assert_eq!((end.members, end.strays), (0, vec![format!("{} sleep 609", stray.pid)]));
            Handle::open(stray.pid).expect("it lives").kill().expect("it is ours");
        }
        until(|| !is_alive(&stray)).await;
    }
}

/// Runs `script` in a shell that leads a session of its own, bears no id, and was not started by us.
fn start_stranger(script: &str) {
    rustix::process::set_child_subreaper(None).expect("the kernel has subreapers");
    let mut parent = Command::new("sh");
    parent.args(["-c", "setsid sh -c \"$0\" >/dev/null 2>&1 </dev/null &", script]);
    let _status = parent.status();
    process::become_subreaper().expect("the kernel has subreapers");
}

#[tokio::test]
async fn what_a_living_stranger_started_with_the_id_is_left_and_told_of_unless_strays_are_to_be_killed() {
    let world = World::new("outside").await;
    let leader = world.leader("setsid sleep 614 & exec sleep 610");
    let daemon = find("sleep 614").await;
    // A job of at(1), and a window of a terminal multiplexer.
    start_stranger(&format!("{id} sleep 611 & {id} setsid sleep 612 & exec env A=1 sleep 613", id = world.id));
    let strays = [find("sleep 611").await, find("sleep 612").await];
    find("sleep 613").await;
    let tree = world.tree(&leader, Orphans::Mixed);
    let end = kill(tree.clone()).await;
    assert_eq!((end.members, end.survivors, is_alive(&daemon)), (2, 0, false), "{end:?}");
    let mut expected = strays.map(|stray| format!("{} {}", stray.pid, proc::command_of(stray.pid).unwrap_or_default()));
    expected.sort();
    let mut told = end.strays.clone();
    told.sort();
    assert_eq!((told, strays.iter().all(is_alive)), (expected.to_vec(), true), "{end:?}");
    let end = kill(tree.with_strays(false)).await;
    assert_eq!((end.members, end.strays.len(), strays.iter().any(is_alive)), (2, 0, false), "{end:?}");
    Handle::open(find("sleep 613").await.pid).expect("it lives").kill().expect("it is ours");
    forget(&leader);
}

#[tokio::test]
async fn members_have_time_to_end_by_sigterm_and_one_that_cannot_hear_it_does_not_use_it_up() {
    let world = World::new("grace").await;
    let file = std::env::temp_dir().join(format!("ocs-grace-{}", std::process::id()));
    let heeding = "trap \"echo > $FILE; exit\" TERM; while :; do sleep 0.01; done";
    let script =
        format!("export FILE={}; setsid sh -c '{heeding}' & (trap '' TERM; exec setsid sleep 615) &", file.display());
    let leader = world.ended_leader(&script).await;
    find("sleep 615").await;
    let begun = tokio::time::Instant::now();
    let end = world.tree(&leader, Orphans::OursAlone).kill(Duration::from_secs(10), move || begun.elapsed()).await;
    assert!(file.exists() && end.survivors == 0 && end.members >= 2, "{end:?}");
    assert!(end.elapsed < Duration::from_secs(5), "{end:?}");
    std::fs::remove_file(file).expect("it is there");
    forget(&leader);
}

#[tokio::test]
async fn descent_alone_shows_a_member_that_wiped_its_environment() {
    let world = World::new("descent").await;
    let leader = world.leader("setsid env -i sleep 601 & wait");
    find("sleep 601").await;
    let end = world.kill(&leader, Orphans::Mixed).await;
    assert_eq!((end.members, end.escaped, end.survivors), (2, 1, 0), "{end:?}");
    assert_eq!(layers(&end), [(Layer::Group, 1), (Layer::Descent, 1)]);
    forget(&leader);
}

#[tokio::test]
async fn the_group_alone_shows_a_member_whose_parents_are_gone() {
    let world = World::new("group").await;
    let leader = world.ended_leader("env -i sleep 602 &").await;
    let member = find("sleep 602").await;
    assert_eq!(member.parent.unsigned_abs(), std::process::id());
    let end = world.kill(&leader, Orphans::Mixed).await;
    assert_eq!((end.members, end.survivors, layers(&end)), (1, 0, vec![(Layer::Group, 1)]), "{end:?}");
    assert!(!is_alive(&member));
    forget(&leader);
}

#[tokio::test]
async fn the_record_alone_shows_a_member_that_has_lost_all_else() {
    let world = World::new("record").await;
    let leader = world.leader("sh -c 'setsid env -i sleep 603 & exec sleep 604' & wait; exec sleep 605");
    let (member, parent) = (find("sleep 603").await, find("sleep 604").await);
    let mut tree = world.tree(&leader, Orphans::Mixed);
    let forgetful = tree.clone();
    tree.remember();
    Handle::open(parent.pid).expect("it lives").kill().expect("it is ours");
    find("sleep 605").await;
    until(|| proc::stat(member.pid).is_ok_and(|now| now.parent.unsigned_abs() == std::process::id())).await;
    // It could belong to any program.
    assert_eq!(kill(forgetful).await.members, 1);
    assert!(is_alive(&member));
    let end = kill(tree).await;
    assert_eq!((end.members, end.survivors, layers(&end)), (1, 0, vec![(Layer::Record, 1)]), "{end:?}");
    assert!(!is_alive(&member));
    forget(&leader);
}

#[tokio::test]
async fn a_stopped_member_is_resumed_and_a_stopped_tree_dies_all_the_same() {
    let world = World::new("stopped").await;
    let leader = world.leader("setsid sleep 606 & exec sleep 607");
    let (member, outside) = (find("sleep 606").await, world.leader("exec env -i sleep 608"));
    let stranger = find("sleep 608").await;
    let is_stopped = |pid| proc::stat(pid).is_ok_and(|process| process.state == ProcessState::Stopped);
    for pid in [leader.pid(), member.pid, stranger.pid] {
        let stop = nix::sys::signal::Signal::SIGSTOP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), stop).expect("it is ours");
        until(|| is_stopped(pid)).await;
    }
    let mut tree = world.tree(&leader, Orphans::Mixed);
    let mut stopped = tree.remember();
    stopped.sort_unstable();
    let mut expected = [leader.pid(), member.pid];
    expected.sort_unstable();
    assert_eq!(stopped, expected);
    tree.resume(&[leader.pid(), stranger.pid]);
    until(|| !is_stopped(leader.pid())).await;
    assert!(is_stopped(member.pid) && is_stopped(stranger.pid));
    assert_eq!(kill(tree).await.members, 2);
    assert!(is_stopped(stranger.pid));
    outside.kill().expect("it is our child");
    until(|| process::is_zombie_child(outside.pid())).await;
    forget(&outside);
    forget(&leader);
}

#[tokio::test]
async fn a_chain_that_forks_and_exits_without_a_pause_is_caught() {
    let world = World::new("chain").await;
    let hop = "hop() { n=$((n + 1)); [ $n -lt 50000 ] && hop & }; hop";
    let leap = "n=$((n + 1)); export n; [ $n -lt 3000 ] && setsid sh -c \"$LEAP\" &";
    for (name, script) in [
        ("in the leader's group", format!("{hop}; exec sleep 600")),
        ("in a group that outlived its leader", hop.to_owned()),
        ("in a session of its own", format!("setsid sh -c '{hop}' & exec sleep 600")),
        ("in a new session each", format!("export LEAP='{leap}'; setsid sh -c \"$LEAP\" & exec sleep 600")),
    ] {
        let leader = world.leader(&script);
        sleep(Duration::from_millis(100)).await;
        let end = world.kill(&leader, Orphans::OursAlone).await;
        assert_eq!((end.survivors, living_children().len()), (0, 0), "{name}: {end:?}");
        let after = proc::processes().expect("/proc can be read");
        assert!(!after.iter().any(|process| !process.is_dead() && proc::environ_has(process.pid, &world.id)), "{name}");
        forget(&leader);
    }
}

#[tokio::test]
async fn many_that_fork_without_end_are_killed_to_the_last() {
    let world = World::new("storm").await;
    let forker = "i=0; while [ $i -lt 3000 ]; do i=$((i + 1)); : & done; wait";
    let forkers = format!("k=0; while [ $k -lt 8 ]; do k=$((k + 1)); setsid env -i sh -c '{forker}' & done; wait");
    let leader = world.leader(&forkers);
    sleep(Duration::from_millis(100)).await;
    let end = world.kill(&leader, Orphans::OursAlone).await;
    assert_eq!((end.survivors, living_children().len()), (0, 0), "{end:?}");
    forget(&leader);
}
