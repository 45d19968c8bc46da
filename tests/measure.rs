//! What gateways use, measured of real processes, in a process that inherits their orphans.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openclaw_supervise::core::{Depth, Event, ExitStatus, Fingerprint, LeftRecord, Usage};
use openclaw_supervise::gateway::adopt;
use openclaw_supervise::gateway::process::{Birth, Gateway, INSTANCE, Launch, Sweep, key_of, new_instance};
use openclaw_supervise::gateway::sample::Sampling;
use openclaw_supervise::gateway::tree::Orphans;
use openclaw_supervise::platform::process::{self, Handle};
use openclaw_supervise::platform::{proc, usage};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the large processes of these tests have resident, in KiB: `dd` fills a buffer of this size, then waits for the
/// reader of a pipe.
const LARGE_KB: u64 = 64 * 1024;
const LARGE: &str = "dd if=/dev/zero bs=64M 2>/dev/null | sleep 600";

/// All tests look at the children of this whole process: one at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// A gateway, a shell with a script, and what it reports.
struct Stage {
    gateway: Gateway,
    events: Sender<Event>,
    inbox: Receiver<Event>,
    _remains: Remains,
    _turn: MutexGuard<'static, ()>,
}

/// What a test that failed leaves below us. It goes before the turn does.
struct Remains;

impl Drop for Remains {
    fn drop(&mut self) {
        for pid in proc::children().unwrap_or_default() {
            if let Ok(child) = Handle::open(pid) {
                child.kill().ok();
            }
        }
    }
}

fn launch(script: &str) -> Launch {
    Launch {
        key: key_of(&format!("measure {}", std::process::id())),
        program: "/bin/sh".into(),
        arguments: ["-c", script].map(Into::into).to_vec(),
        config: "/nowhere".into(),
        exports: Vec::new(),
    }
}

impl Stage {
    async fn spawned(script: &str) -> Self {
        let turn = TURN.lock().await;
        process::become_subreaper().expect("the kernel has subreapers");
        let ((events, inbox), launch) = (channel(8), launch(script));
        let instance = new_instance(&launch.key);
        let gateway = Gateway::spawn(
            Birth { generation: 1, instance: &instance, no_respawn: false, fingerprint: Fingerprint::default() },
            &launch,
            &[None, None],
            Orphans::OursAlone,
            &events,
        )
        .expect("a shell starts");
        let mut stage = Self { gateway, events, inbox, _remains: Remains, _turn: turn };
        assert!(matches!(stage.next().await, Event::Spawned { .. }));
        stage
    }

    /// One that another process has started, and whose parent we have become.
    async fn adopted(script: &str) -> Self {
        let turn = TURN.lock().await;
        process::become_subreaper().expect("the kernel has subreapers");
        let ((events, inbox), launch) = (channel(8), launch(script));
        let instance = new_instance(&launch.key);
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(INSTANCE, &instance).stdin(Stdio::null());
        let leader = process::spawn_in_own_session(&mut command).expect("a shell starts");
        let (pid, start_time) = (Some(leader.pid()), Some(leader.start_time()));
        let left = LeftRecord { instance, pid, start_time, has_our_pids: true, ..LeftRecord::default() };
        let found = adopt::find(&left, &launch, None).await.expect("/proc can be read");
        let gateway = Gateway::adopt(1, found, &events).expect("it can be held");
        Self { gateway, events, inbox, _remains: Remains, _turn: turn }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.gateway.pid().expect("it has a leader");
        kill(Pid::from_raw(pid), signal).expect("it was not reaped");
    }

    /// The first sample of the whole tree that is as it should be.
    async fn sample(&self, fits: impl Fn(&Usage) -> bool) -> Usage {
        let mut last = None;
        let look = async {
            loop {
                let sample = self
                    .gateway
                    .measure(Sampling { listener: None, depth: Depth::Usual, tree: true })
                    .await
                    .expect("a worker can be had");
                if fits(&sample) {
                    return sample;
                }
                last = Some(sample);
                sleep(Duration::from_millis(5)).await;
            }
        };
        let found = timeout(PATIENCE, look).await;
        found.unwrap_or_else(|_| panic!("the last of many samples is {last:?}"))
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.inbox.recv()).await.expect("in time").expect("it is open")
    }

    /// Ends all of it.
    async fn end(mut self) {
        self.gateway.kill_tree(Sweep::Now, || Duration::ZERO, &self.events);
        while !matches!(self.next().await, Event::TreeGone { .. }) {}
        self.gateway.release();
        process::reap_unclaimed();
    }
}

fn is_large(sample: &Usage) -> bool {
    sample.tree_rss_kb.is_some_and(|kb| kb >= LARGE_KB)
}

#[tokio::test]
async fn a_large_child_counts_for_the_tree_wherever_it_went_and_not_for_the_leader() {
    for script in [
        LARGE.to_owned(),
        format!("setsid sh -c '{LARGE}' & wait"),
        // An orphan in a session of its own, without an environment.
        format!("(env -i setsid sh -c '{LARGE}' &) ; sleep 600"),
    ] {
        let stage = Stage::spawned(&script).await;
        let sample = stage.sample(is_large).await;
        assert!(sample.rss_kb.is_some_and(|kb| (1..LARGE_KB / 2).contains(&kb)), "{script}: {sample:?}");
        assert!(sample.tree_rss_kb.is_some_and(|kb| kb < 2 * LARGE_KB), "{script}: {sample:?}");
        assert_eq!(
            stage
                .gateway
                .measure(Sampling { listener: None, depth: Depth::Usual, tree: false })
                .await
                .map(|sample| sample.tree_rss_kb),
            Some(None)
        );
        stage.end().await;
    }
}

#[tokio::test]
async fn an_adopted_tree_is_measured_too_and_its_end_accounted_for_where_we_are_the_parent() {
    let mut stage = Stage::adopted(&format!("setsid sh -c '{LARGE}' & while :; do :; done")).await;
    let sample = stage.sample(|sample| is_large(sample) && sample.cpu >= Some(Duration::from_millis(50))).await;
    assert!(sample.rss_kb.is_some_and(|kb| (1..LARGE_KB / 2).contains(&kb)), "{sample:?}");
    stage.signal(Signal::SIGKILL);
    let Event::LeaderExited { death, toll, .. } = stage.next().await else { panic!("not its end") };
    assert_eq!(death, ExitStatus::Signal { number: 9, core_dumped: false });
    assert!(toll.cpu >= sample.cpu && toll.max_rss_kb > Some(0) && !toll.oom_killed, "{toll:?}");
    stage.end().await;
}

#[tokio::test]
async fn the_time_that_a_gateway_works_is_counted_and_that_of_its_children_is_not() {
    let stage = Stage::spawned("while :; do :; done").await;
    let first = stage.sample(|sample| sample.cpu >= Some(Duration::from_millis(50))).await;
    stage.sample(|sample| sample.cpu > first.cpu).await;
    stage.end().await;
    let stage = Stage::spawned("sh -c 'while :; do :; done' & wait").await;
    let busy = async || {
        let members = stage.gateway.pid().map(proc::children_of);
        let child = members.and_then(Result::ok).and_then(|children| children.first().copied());
        let usage = child.and_then(|pid| usage::of(pid).ok());
        usage.is_some_and(|usage| usage.cpu >= Duration::from_millis(100))
    };
    let wait = async {
        while !busy().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("a processor is free in the end");
    let sample = stage
        .gateway
        .measure(Sampling { listener: None, depth: Depth::Usual, tree: false })
        .await
        .expect("a worker can be had");
    assert!(sample.cpu.is_some_and(|cpu| cpu < Duration::from_millis(50)), "{sample:?}");
    stage.end().await;
}

#[tokio::test]
async fn one_that_has_ended_uses_nothing_and_what_it_left_is_still_counted() {
    let mut stage = Stage::spawned(&format!("setsid sh -c '{LARGE}' & wait")).await;
    stage.sample(is_large).await;
    stage.signal(Signal::SIGKILL);
    assert!(matches!(stage.next().await, Event::LeaderExited { .. }));
    // The large one may not have had all of its memory yet.
    let sample = stage.sample(is_large).await;
    assert_eq!((sample.cpu, sample.rss_kb), (None, None));
    stage.end().await;
}
