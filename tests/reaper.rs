//! The reaper of the platform. It takes any child of this process: so this is one test, alone in its file.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "tests wait by the clock, with a bound")]

use openclaw_supervise::platform::process::{
    Handle, claim, is_zombie_child, reap_unclaimed, spawn_in_own_session, unclaim,
};
use std::process::Command;
use std::time::{Duration, Instant};

fn ending_with(code: u8) -> Handle {
    spawn_in_own_session(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap()
}

#[test]
fn one_call_reaps_every_dead_child_except_those_that_are_waited_for() {
    let (awaited, alive) = (ending_with(7), spawn_in_own_session(Command::new("sleep").arg("60")).unwrap());
    claim(awaited.pid());
    let others: Vec<_> = (0..100).map(|_| ending_with(0)).collect();
    let begun = Instant::now();
    while !others.iter().chain([&awaited]).all(|child| is_zombie_child(child.pid())) {
        assert!(begun.elapsed() < Duration::from_secs(20), "they have not ended");
        std::thread::sleep(Duration::from_millis(5));
    }

    reap_unclaimed();
    let left = others.iter().filter(|child| child.exit().is_ok()).count();
    assert_eq!(left, 0, "zombies");
    assert_eq!(awaited.exit().unwrap().unwrap().status.code(), Some(7));
    assert!(alive.exit().unwrap().is_none(), "it goes on");

    unclaim(awaited.pid());
    reap_unclaimed();
    assert!(awaited.exit().is_err(), "it is no longer waited for");
    alive.kill().unwrap();
    while !is_zombie_child(alive.pid()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it has not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    alive.reap();
}
