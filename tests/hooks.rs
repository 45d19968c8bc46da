//! A hook that could not be killed and exits late, in a process that inherits its orphans and those of a gateway.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use openclaw_supervise::core::hook::{Call, HookEnd};
use openclaw_supervise::core::{Event, ExitStatus, Fingerprint};
use openclaw_supervise::gateway::hooks::{Commands, Hooks};
use openclaw_supervise::gateway::process::{Birth, Gateway, Launch, Sweep, key_of, new_instance};
use openclaw_supervise::gateway::tree::Orphans;
use openclaw_supervise::platform::proc::{self, Stat};
use openclaw_supervise::platform::process::{self, Handle};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway with two daemons, none of which holds the standard streams of the test.
const GATEWAY: &str = "exec >/dev/null 2>&1; (setsid env -i sleep 622 &); (setsid sleep 623 &); exec sleep 624";

/// Kills these processes on drop.
struct Ended(Vec<Stat>);

impl Drop for Ended {
    fn drop(&mut self) {
        for process in self.0.iter().filter(|process| is_alive(process)) {
            // It may exit before the signal.
            Handle::open(process.pid).and_then(|handle| handle.kill()).ok();
        }
    }
}

/// The one process with this command.
async fn find(command: &str) -> Stat {
    let look = || {
        let mut all = proc::processes().expect("/proc can be read").into_iter();
        all.find(|process| proc::command_of(process.pid).as_deref() == Some(command))
    };
    let found = async {
        loop {
            match look() {
                Some(process) => return process,
                None => sleep(Duration::from_millis(2)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.expect("it comes")
}

fn is_alive(process: &Stat) -> bool {
    proc::stat(process.pid).is_ok_and(|now| now.start_time == process.start_time && !now.is_dead())
}

async fn next(inbox: &mut Receiver<Event>) -> Event {
    timeout(PATIENCE, inbox.recv()).await.expect("in time").expect("it is open")
}

#[tokio::test]
async fn the_late_exit_of_a_hook_kills_its_daemons_and_no_process_of_the_gateway() {
    process::become_subreaper().expect("the kernel has subreapers");
    let key = key_of(&format!("late hook {}", std::process::id()));
    let hook = "exec >/dev/null 2>&1; (setsid env -i sleep 621 &); sleep 100 & wait";
    let hooks = Hooks {
        key: key.clone(),
        commands: Commands { pre_start: Some(hook.into()), post_stop: None },
        openclaw: None,
        exports: Vec::new(),
        clock: || Duration::ZERO,
    };
    let (events, mut inbox) = channel(8);
    let call = Call::PreStart { generation: 1 };
    let running = hooks.call(1, &call, &[None, None], &events).expect("a shell can be started");
    let of_hook = find("sleep 621").await;

    let launch = Launch {
        key,
        program: "/bin/sh".into(),
        arguments: ["-c", GATEWAY].map(Into::into).into(),
        config: "/nowhere".into(),
        exports: Vec::new(),
    };
    let instance = new_instance(&launch.key);
    let birth = Birth { generation: 1, instance: &instance, no_respawn: false, fingerprint: Fingerprint::default() };
    let gateway =
        Gateway::spawn(birth, &launch, &[None, None], Orphans::OursAlone, &events).expect("it can be started");
    assert!(matches!(next(&mut inbox).await, Event::Spawned { .. }));
    let family = [find("sleep 622").await, find("sleep 623").await, find("sleep 624").await];

    let _ended = Ended(family.iter().copied().chain([of_hook]).collect());

    running.kill().expect("it is our child");
    let end = HookEnd::Ended(ExitStatus::Signal { number: libc::SIGKILL, core_dumped: false });
    assert_eq!(next(&mut inbox).await, Event::HookEnded { ticket: 1, end });
    assert!(!is_alive(&of_hook), "nothing of it is left");
    assert!(family.iter().all(is_alive), "the gateway and its daemons live");

    gateway.kill_tree(Sweep::Now, || Duration::ZERO, &events);
    while !matches!(next(&mut inbox).await, Event::TreeGone { .. }) {}
    assert!(!family.iter().any(is_alive));
    gateway.release();
    process::reap_unclaimed();
}
