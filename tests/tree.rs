//! The end of a tree whose leader is dead already, in a process that inherits its orphans.

#![expect(clippy::expect_used, reason = "a helper of a test may fail it")]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use openclaw_supervise::gateway::tree::{Orphans, Tree};
use openclaw_supervise::platform::proc;
use openclaw_supervise::platform::process::{self, Handle};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Starts a shell that runs `script` to its end, and gives back the zombie.
fn ended_leader(script: &str) -> Handle {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    let leader = process::spawn_in_own_session(&mut command).expect("a shell can be started");
    while !process::is_zombie_child(leader.pid()) {
        std::thread::yield_now();
    }
    leader
}

async fn kill(leader: &Handle) -> openclaw_supervise::core::TreeEnd {
    Tree::new(leader, "X=1".to_owned(), Orphans::OursAlone).kill(|| Duration::ZERO).await
}

// One test: all of it looks at the children of this whole process.
#[tokio::test]
async fn a_dead_leader_is_alone_only_if_it_left_nobody_behind() {
    process::become_subreaper().expect("the kernel has subreapers");

    let alone = ended_leader("exit 7");
    let end = kill(&alone).await;
    assert_eq!((end.members, end.survivors), (0, 0));
    process::reap(alone.pid());

    let parent = ended_leader("setsid sleep 600 & sleep 600 & sh -c 'setsid sh -c \"sleep 600 & sleep 600\" &'");
    let end = kill(&parent).await;
    assert!(end.members >= 2, "{end:?}");
    assert_eq!(end.survivors, 0);
    let left = proc::children().expect("/proc can be read");
    for pid in left.into_iter().filter(|pid| *pid != parent.pid()) {
        assert!(process::is_zombie_child(pid), "{:?}", proc::command_of(pid));
        process::reap(pid);
    }
    process::reap(parent.pid());

    // Without descriptors nothing can be seen, and that does not mean that nothing is there.
    let living = process::spawn_in_own_session(Command::new("sleep").arg("600")).expect("it can be started");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("it can be lowered");
    let end = Tree::new(&living, "X=1".to_owned(), Orphans::OursAlone).kill(|| Duration::from_mins(1)).await;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("it can be raised again");
    assert_eq!((end.members, end.survivors), (0, 1));
    assert_eq!(kill(&living).await.members, 1);
    process::reap(living.pid());
}
