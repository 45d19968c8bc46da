//! What both kernels have to do alike.

use super::process::{Exit, Handle, reap, spawn_in_own_session};
use super::{listener, proc};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

fn me() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

fn ended(handle: &Handle) -> Exit {
    loop {
        if let Some(exit) = handle.exit().unwrap() {
            return exit;
        }
        std::thread::yield_now();
    }
}

#[test]
fn every_exit_code_comes_back_and_the_zombie_stays_until_it_is_reaped() {
    for code in [0, 1, 69, 78, 137, 255] {
        let handle = spawn_in_own_session(Command::new("sh").args(["-c", &format!("exit {code}")])).unwrap();
        let exit = ended(&handle);
        assert_eq!(exit.status.code(), Some(code));
        assert!(exit.max_rss_kb.unwrap() > 0);
        assert_eq!(ended(&handle), exit, "a second look sees the same");
        assert!(proc::stat(handle.pid()).unwrap().is_dead());
        reap(handle.pid());
        assert!(handle.exit().is_err(), "now it is no child any more");
    }
}

#[test]
fn a_child_leads_its_own_session_and_a_signal_is_told_from_a_code() {
    let handle = spawn_in_own_session(Command::new("sleep").arg("60")).unwrap();
    let stat = proc::stat(handle.pid()).unwrap();
    assert_eq!((stat.session, stat.group, stat.is_dead()), (handle.pid(), handle.pid(), false));
    assert_eq!(handle.exit().unwrap(), None);
    handle.terminate().unwrap();
    assert_eq!(ended(&handle).status.signal(), Some(libc::SIGTERM));
    reap(handle.pid());
    assert!(handle.kill().is_err(), "a reaped process gets no signal");
}

#[test]
fn a_missing_program_is_an_error_of_the_spawn() {
    let error = spawn_in_own_session(&mut Command::new("/nonexistent/gateway")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn no_handle_names_every_process() {
    for pid in [0, -1, i32::MIN] {
        assert!(Handle::open(pid).is_err());
    }
}

#[test]
fn our_own_listener_is_found_wherever_it_is_bound_and_however_it_is_asked() {
    for (bind, ask) in
        [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")]
    {
        let bound = TcpListener::bind(bind).unwrap();
        let address = SocketAddr::new(ask.parse().unwrap(), bound.local_addr().unwrap().port());
        assert!(listener::find(address, None).unwrap().contains(&me()), "{bind}");
        assert_eq!(listener::find(address, Some(me())).unwrap(), [me()], "{bind}");
        // A leader that has nothing to do with it does not hide it.
        assert!(listener::find(address, Some(i32::MAX)).unwrap().contains(&me()), "{bind}");
    }
}

#[test]
fn nobody_is_found_where_nobody_listens() {
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = SocketAddr::new("::1".parse().unwrap(), bound.local_addr().unwrap().port());
    assert_eq!(listener::find(address, Some(me())).unwrap(), Vec::<i32>::new());
}

#[tokio::test]
async fn the_end_is_seen_whether_the_watch_began_before_it_or_after_it() {
    let handle = spawn_in_own_session(Command::new("sleep").arg("60")).unwrap();
    let early = handle.watch().unwrap();
    handle.kill().unwrap();
    let seen = early.exit(&handle).await.unwrap();
    assert_eq!(seen.status.signal(), Some(libc::SIGKILL));
    let late = handle.watch().unwrap();
    assert_eq!(late.exit(&handle).await.unwrap(), seen);
    reap(handle.pid());
}
