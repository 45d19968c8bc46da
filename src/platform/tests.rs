//! Behaviour that both kernels share.

use super::process::{Exit, Handle, reap, spawn_in_own_session};
use super::{listener, proc, usage};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

fn me() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn wait_for_exit(handle: &Handle) -> Exit {
    loop {
        if let Some(exit) = handle.exit().unwrap() {
            return exit;
        }
        std::thread::yield_now();
    }
}

/// The exit is unchanged, except for the CPU time of a process that was seen as a zombie before it left the processor.
fn assert_same(later: &Exit, first: &Exit) {
    assert_eq!((later.status, later.max_rss_kb), (first.status, first.max_rss_kb));
    assert!(later.cpu >= first.cpu && first.cpu.is_some(), "{first:?} {later:?}");
}

#[test]
fn every_exit_code_is_returned_and_the_zombie_stays_until_it_is_reaped() {
    for code in [0, 1, 69, 78, 137, 255] {
        let handle = spawn_in_own_session(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap();
        let exit = wait_for_exit(&handle);
        assert_eq!(exit.status.code(), Some(code));
        assert!(exit.max_rss_kb.unwrap() > 0 && exit.cpu.is_some());
        assert_same(&wait_for_exit(&handle), &exit);
        assert!(proc::stat(handle.pid()).unwrap().is_dead());
        reap(handle.pid());
        assert!(handle.exit().is_err(), "no longer a child");
    }
}

#[test]
fn a_child_leads_its_own_session_and_a_signal_differs_from_an_exit_code() {
    let handle = spawn_in_own_session(Command::new("sleep").arg("60")).unwrap();
    let stat = proc::stat(handle.pid()).unwrap();
    assert_eq!((stat.session, stat.group, stat.is_dead()), (handle.pid(), handle.pid(), false));
    assert_eq!(handle.exit().unwrap(), None);
    handle.terminate().unwrap();
    assert_eq!(wait_for_exit(&handle).status.signal(), Some(libc::SIGTERM));
    reap(handle.pid());
    assert!(handle.kill().is_err(), "a reaped process gets no signal");
}

#[test]
fn a_missing_program_fails_the_spawn() {
    let error = spawn_in_own_session(&mut Command::new("/nonexistent/gateway")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn no_handle_stands_for_a_group_or_all_processes() {
    for pid in [0, -1, i32::MIN] {
        assert!(Handle::open(pid).is_err());
    }
}

#[test]
fn our_own_listener_is_found_by_every_address_that_reaches_it() {
    for (bind, ask) in
        [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")]
    {
        let bound = TcpListener::bind(bind).unwrap();
        let address = SocketAddr::new(ask.parse().unwrap(), bound.local_addr().unwrap().port());
        assert!(listener::find(address, None).unwrap().contains(&me()), "{bind}");
        assert_eq!(listener::find(address, Some(me())).unwrap(), [me()], "{bind}");
        // An unrelated leader does not hide it.
        assert!(listener::find(address, Some(i32::MAX)).unwrap().contains(&me()), "{bind}");
    }
}

#[test]
fn an_address_without_a_listener_has_no_owner() {
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SocketAddr::new("::1".parse().unwrap(), bound.local_addr().unwrap().port());
    assert_eq!(listener::find(address, Some(me())).unwrap(), Vec::<i32>::new());
}

#[tokio::test]
async fn an_exit_is_seen_by_a_watch_from_before_and_from_after_it() {
    let handle = spawn_in_own_session(Command::new("sleep").arg("60")).unwrap();
    let early = handle.watch().unwrap();
    handle.kill().unwrap();
    let seen = early.exit(&handle).await.unwrap();
    assert_eq!(seen.status.signal(), Some(libc::SIGKILL));
    let late = handle.watch().unwrap();
    assert_same(&late.exit(&handle).await.unwrap(), &seen);
    reap(handle.pid());
}

#[test]
fn the_usage_of_a_process_is_known_while_it_runs_and_at_its_exit() {
    let handle = spawn_in_own_session(Command::new("sh").args(["-c", "while :; do :; done"])).unwrap();
    let busy = loop {
        let usage = usage::of(handle.pid()).unwrap();
        assert_eq!(usage.start_time, handle.start_time());
        if usage.cpu >= Duration::from_millis(50) {
            break usage;
        }
        std::thread::yield_now();
    };
    assert!(busy.rss_kb > 0);
    handle.kill().unwrap();
    let exit = wait_for_exit(&handle);
    assert!(exit.cpu.unwrap() >= busy.cpu, "{exit:?} after {busy:?}");
    reap(handle.pid());
    assert!(usage::of(handle.pid()).is_err());
}

#[test]
fn memory_counts_once_it_is_touched() {
    const MORE: usize = 64 * 1024 * 1024;
    let before = usage::of(me()).unwrap().rss_kb;
    let touched = std::hint::black_box(vec![1_u8; MORE]);
    let after = usage::of(me()).unwrap().rss_kb;
    drop(touched);
    // Other tests may free memory meanwhile.
    assert!(after >= before + 48 * 1024, "{before} {after}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_cpu_time_of_other_threads_does_not_count_for_the_main_thread() {
    let others = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    let (before, begun) = (usage::of(me()).unwrap().cpu, Duration::from(others()));
    while Duration::from(others()) < begun + Duration::from_millis(200) {
        std::hint::spin_loop();
    }
    let grown = usage::of(me()).unwrap().cpu.saturating_sub(before);
    // The main thread waits for us and occasionally starts a test.
    assert!(grown < Duration::from_millis(100), "{grown:?}");
}
