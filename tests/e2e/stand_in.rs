//! The stand-in gateway of these tests does what its script says: an instrument that is checked itself.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use support::{PATIENCE, Scene, Stranger, http, wait_for};

fn wait_status(scene: &Scene, status: &str) {
    let seen = || (http::startup_status(scene.port())? == status).then_some(());
    wait_for(status, PATIENCE, String::new, seen);
}

fn wait_end(stranger: &mut Stranger) -> std::process::ExitStatus {
    let story = stranger.diary.clone();
    wait_for("its end", PATIENCE, || story.text(), || stranger.try_wait())
}

#[test]
fn it_answers_as_a_gateway_does() {
    let scene = Scene::new("");
    let _gateway = scene.stranger("warm=200ms");
    wait_status(&scene, "starting");
    wait_status(&scene, "started");
    let get = |path| http::get(scene.port(), path).expect("it answers");
    assert_eq!(get("/healthz"), (200, r#"{"ok":true,"status":"live"}"#.to_owned()));
    assert_eq!(get("/readyz"), (200, r#"{"ready":true,"failing":[]}"#.to_owned()));
    assert!(get("/nope").1.starts_with("<!doctype html>"));
}

#[test]
fn an_old_one_and_a_foreign_one_have_no_startupz() {
    for (script, live) in [("old", true), ("foreign", false)] {
        let scene = Scene::new("");
        let _gateway = scene.stranger(script);
        assert_eq!(http::startup_status(scene.port()), None);
        let (status, body) = http::get(scene.port(), "/healthz").expect("it answers");
        assert_eq!((status, body.starts_with('{')), (200, live));
    }
}

#[test]
fn it_drains_and_leaves_with_0() {
    let scene = Scene::new("");
    let mut gateway = scene.stranger("drain=300ms");
    gateway.process().signal(Signal::SIGTERM);
    wait_status(&scene, "draining");
    assert_eq!(http::get(scene.port(), "/healthz").map(|(status, _)| status), Some(200));
    assert_eq!(wait_end(&mut gateway).code(), Some(0));
    assert_eq!(gateway.diary.signals(gateway.pid()), ["SIGTERM"]);
}

#[test]
fn it_exits_and_dies_as_told() {
    let scene = Scene::new("");
    for (mishap, code, signal) in [("exit=7", Some(7), None), ("die=SEGV", None, Some(11)), ("die=ABRT", None, Some(6))]
    {
        let mut gateway = scene.stranger("healthy");
        gateway.diary.command(gateway.pid(), mishap);
        let status = wait_end(&mut gateway);
        assert_eq!((status.code(), status.signal()), (code, signal), "{mishap}");
    }
}

#[test]
fn sigterm_during_its_boot_kills_it() {
    let scene = Scene::new("");
    let mut gateway = scene.stranger_unready("boot=60s");
    gateway.diary.wait_line("START");
    // The handlers stand a moment after the line; before that, the default action ends it just so.
    gateway.process().signal(Signal::SIGTERM);
    assert_eq!(wait_end(&mut gateway).signal(), Some(15));
}

#[test]
fn it_freezes_closes_and_comes_back() {
    let scene = Scene::new("");
    let gateway = scene.stranger("healthy");
    gateway.diary.command(gateway.pid(), "cycle=200ms");
    let refused = || std::net::TcpStream::connect(("127.0.0.1", scene.port())).is_err().then_some(());
    wait_for("a closed port", PATIENCE, String::new, refused);
    wait_status(&scene, "started");
    gateway.diary.command(gateway.pid(), "freeze");
    gateway.diary.wait_line(&format!("MISHAP {} Freeze", gateway.pid()));
    assert_eq!(http::get(scene.port(), "/healthz"), None);
    assert!(std::net::TcpStream::connect(("127.0.0.1", scene.port())).is_ok());
    gateway.process().signal(Signal::SIGTERM);
    gateway.diary.wait_line("SIGNAL");
    assert!(gateway.process().is_alive());
}

#[test]
fn each_start_has_its_own_scene_of_the_script() {
    let scene = Scene::new("exit=3; die=KILL; healthy");
    let start = || {
        let words = scene.gateway_words();
        scene.command(&words[0]).args(&words[1..]).spawn().expect("it starts")
    };
    assert_eq!(start().wait().expect("it is ours").code(), Some(3));
    assert_eq!(start().wait().expect("it is ours").signal(), Some(9));
    let mut third = start();
    scene.diary().wait_line("LISTEN");
    third.kill().expect("it is ours");
    third.wait().expect("it is ours");
    assert_eq!(scene.diary().starts().len(), 3);
}

#[test]
fn its_children_are_of_their_kinds_and_end_with_the_scene() {
    let kids = {
        let scene = Scene::new("");
        let gateway = scene.stranger("kid=plain kid=setsid kid=daemon kid=deaf");
        let kids = gateway.diary.kids();
        assert_eq!(kids.len(), 4, "{}", gateway.diary.text());
        for kid in &kids {
            let group = support::process::stat(gateway.pid()).map(|stat| stat.group);
            assert_eq!(kid.kind == "plain", Some(kid.group) == group, "{kid:?}");
            kid.process.signal(Signal::SIGTERM);
        }
        let others = || kids.iter().all(|kid| (kid.kind == "deaf") == kid.process.is_alive()).then_some(());
        wait_for(
            "the end of all but the one that blocks SIGTERM",
            Duration::from_secs(10),
            || gateway.diary.text(),
            others,
        );
        kids
    };
    assert!(kids.iter().all(|kid| !kid.process.is_alive()));
}
