//! The supervisor as PID 1 of a container, below a small init, or under any other pid: it reaps orphans, handles every
//! documented signal, and leaves processes alone that a container runtime injects.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::bystander::{Bystander, kid};
use support::diary::Diary;
use support::jail::{Jail, first_process, gateways};
use support::process::{Process, describe, stat, zombies_of};
use support::supervisor::{Launch, PROGRAM, Supervisor};
use support::{Scene, wait_for};

/// Where the supervisor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// As PID 1.
    First,
    /// The child of a small init.
    BelowInit,
    /// The same, under a high number.
    Anywhere,
}

impl Place {
    const ALL: [Self; 3] = [Self::First, Self::BelowInit, Self::Anywhere];

    fn start(self, launch: &Launch<'_>) -> Supervisor {
        self.start_in(&Jail::with_pids(), launch)
    }

    fn start_in(self, jail: &Jail, launch: &Launch<'_>) -> Supervisor {
        let plain = launch.command();
        let mut inner =
            Command::new(if self == Self::Anywhere { Path::new("/bin/sh") } else { plain.get_program().as_ref() });
        if self == Self::Anywhere {
            inner
                .args(["-c", "echo 2999 > /proc/sys/kernel/ns_last_pid && exec \"$@\"", "sh"])
                .arg(plain.get_program());
        }
        if self != Self::First {
            inner.args(["as-init".as_ref(), plain.get_program()]);
        }
        inner.args(plain.get_args()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inner.current_dir(plain.get_current_dir().expect("a scene has a folder"));
        Supervisor::spawn(jail.around(&inner))
    }
}

/// The supervisor inside, by its number out here.
fn inside(supervisor: &Supervisor) -> Process {
    let is_it = |process: &Process| {
        std::fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|exe| exe == Path::new(PROGRAM))
    };
    let unshare = Process::find(supervisor.pid()).expect("it lives");
    unshare.tree().into_iter().find(is_it).unwrap_or_else(|| panic!("no supervisor\n{}", supervisor.story()))
}

/// The process that a container runtime signals.
fn first(supervisor: &Supervisor) -> Process {
    first_process(supervisor.pid())
}

fn gateway(scene: &Scene) -> Process {
    let gateways = gateways(scene);
    assert_eq!(gateways.len(), 1, "{}", describe(&gateways));
    gateways[0]
}

#[test]
fn it_has_the_expected_pid() {
    for (place, range) in [(Place::First, 1..2), (Place::BelowInit, 2..10), (Place::Anywhere, 3000..3010)] {
        let scene = Scene::new("healthy");
        let mut supervisor = place.start(&scene.launch());
        let pid = supervisor.wait_event("supervisor.started").number("pid");
        assert!(range.contains(&pid), "{place:?}: {pid}");
    }
}

#[test]
fn every_signal_that_stops_works() {
    for place in Place::ALL {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let scene = Scene::new("kid=setsid kid=lost");
            let mut supervisor = place.start(&scene.launch());
            supervisor.wait_event("gateway.started");
            first(&supervisor).signal(signal);
            supervisor.expect_exit(0);
            assert_eq!(supervisor.last("signal.received").text("signal"), signal.as_str(), "{place:?}");
            assert_eq!(scene.processes(), [], "{place:?} {signal}");
        }
    }
}

#[test]
fn every_signal_that_restarts_works() {
    for place in Place::ALL {
        let scene = Scene::new("kid=daemon; kid=lost; kid=wiped; healthy");
        let mut supervisor = place.start(&scene.launch());
        supervisor.wait_event("gateway.started");
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
            let before = gateway(&scene);
            first(&supervisor).signal(signal);
            supervisor.wait_event("restart.requested");
            supervisor.wait_event("gateway.started");
            assert_ne!(gateway(&scene), before, "{place:?} {signal}");
        }
        // The first three have left no process.
        let alive = scene.processes().into_iter().filter(|process| is_kid(*process)).collect::<Vec<_>>();
        assert!(alive.is_empty(), "{place:?}\n{}\n{}", describe(&alive), supervisor.story());
    }
}

fn is_kid(process: Process) -> bool {
    let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    command.split(|&byte| byte == 0).nth(1) == Some(b"kid")
}

#[test]
fn as_number_1_it_refuses_to_detach_and_goes_on() {
    let scene = Scene::new("healthy");
    let mut supervisor = Place::First.start(&scene.launch());
    supervisor.wait_event("gateway.started");
    let before = gateway(&scene);
    inside(&supervisor).signal(Signal::SIGQUIT);
    supervisor.wait_event("detach.refused");
    assert_eq!(gateway(&scene), before);
    // It still handles requests.
    inside(&supervisor).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_hundred_orphans_leave_no_zombie_for_a_second() {
    for place in Place::ALL {
        let scene = Scene::new(&"kid=daemon ".repeat(100));
        let mut supervisor = place.start(&scene.launch());
        supervisor.wait_event("gateway.started");
        let reaper = inside(&supervisor).pid;
        let kids: Vec<_> = scene.processes().into_iter().filter(|process| is_kid(*process)).collect();
        assert_eq!(kids.len(), 100);
        assert!(kids.iter().all(|kid| stat(kid.pid).is_some_and(|stat| stat.parent == reaper)), "{place:?}");
        for kid in &kids {
            kid.kill();
        }
        let none_left = || {
            let none_alive = kids.iter().all(|kid| !kid.is_alive());
            (none_alive && zombies_of(reaper).is_empty() && zombies_of(first(&supervisor).pid).is_empty()).then_some(())
        };
        let story = || format!("{place:?} {:?}\n{}", zombies_of(reaper), supervisor.story());
        wait_for("the last of the zombies", Duration::from_secs(1), story, none_left);
        assert!(gateway(&scene).is_alive());
    }
}

/// A place, and a world around it: with a control group for each gateway, in which all of it is found; without one; and on
/// a machine with so little memory that its limit of pending signals leaves no room for a mark.
fn worlds() -> Vec<(Place, Jail)> {
    let bare = || Jail::with_pids().and_no_groups();
    let alone = [
        (Place::First, bare()),
        (Place::BelowInit, bare()),
        (Place::First, bare().and("prlimit --pid $$ --sigpending=3700")),
    ];
    Place::ALL.map(|place| (place, Jail::with_pids())).into_iter().chain(alone).collect()
}

#[test]
fn after_the_death_of_the_leader_daemons_without_an_environment_are_ended_too() {
    for (place, jail) in worlds() {
        let scene = Scene::new("kid=lost kid=wiped kid=lost kid=daemon kid=stopped; healthy");
        let mut supervisor = place.start_in(&jail, &scene.launch());
        supervisor.wait_event("gateway.started");
        let kids: Vec<_> = scene.processes().into_iter().filter(|process| is_kid(*process)).collect();
        assert_eq!(kids.len(), 5);
        gateway(&scene).kill();
        let killed = supervisor.wait_event("tree.killed");
        supervisor.wait_event("gateway.spawned");
        let left: Vec<_> = kids.into_iter().filter(|kid| kid.is_alive()).collect();
        assert!(left.is_empty(), "{place:?} {jail:?}\n{}\n{}", describe(&left), supervisor.story());
        assert_eq!((killed.number("members"), killed.number("survivors")), (5, 0), "{place:?}: {}", killed.value());
        let by_group = killed.value()["found_by"].to_string().contains("cgroup");
        assert_eq!(by_group, jail.has_groups(), "{jail:?}: {}", killed.value());
    }
}

#[test]
fn what_a_hook_has_left_running_without_an_environment_is_gone_before_the_gateway_starts() {
    for (place, jail) in worlds() {
        let scene = Scene::new("healthy");
        let lost = kid(&scene, "lost");
        let words = std::iter::once(lost.get_program()).chain(lost.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let hook = format!("{}; until grep -q KID elsewhere/gateway.log; do sleep 0.01; done", words.join(" "));
        let mut supervisor = place.start_in(&jail, &scene.launch().option("--pre-start", &hook));
        supervisor.wait_event("gateway.spawned");
        let left: Vec<_> = scene.processes().into_iter().filter(|process| is_kid(*process)).collect();
        assert!(left.is_empty(), "{place:?} {jail:?}\n{}\n{}", describe(&left), supervisor.story());
        assert_eq!(Diary::new(scene.root().join("elsewhere")).kids().len(), 1);
        assert!(supervisor.story().contains("ended what the hook had left running"), "{}", supervisor.story());
    }
}

#[test]
fn where_nothing_shows_a_daemon_without_an_environment_that_is_said_once() {
    let scene = Scene::new("exit=3@100ms; healthy");
    let jail = Jail::with_pids()
        .and_no_groups()
        .and("prlimit --pid $$ --sigpending=3700")
        .and("prlimit --pid $$ --msgqueue=1000");
    let mut supervisor = Place::First.start_in(&jail, &scene.launch().option("--pre-start", "true"));
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    let warnings = supervisor.story().matches("a daemon that clears its environment").count();
    assert_eq!(warnings, 1, "{}", supervisor.story());
}

/// `docker exec` and its like: a process of the namespace whose parent is outside.
fn enter(place: Process, inner: &Command) -> Child {
    let mut command = Command::new("nsenter");
    command.args(["--target", &place.pid.to_string(), "--pid", "--mount", "--"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("nsenter(1) of util-linux starts")
}

#[test]
fn what_a_container_runtime_drops_in_lives_on() {
    for (place, kind) in [(Place::First, "daemon"), (Place::First, "lost"), (Place::BelowInit, "lost")] {
        let scene = Scene::new("kid=lost kid=daemon; kid=lost kid=daemon; healthy");
        let mut supervisor = place.start(&scene.launch());
        supervisor.wait_event("gateway.started");
        // One that stays with its parent outside, and one that ends and leaves an orphan to number 1.
        let mut guest = enter(first(&supervisor), &kid(&scene, "setsid"));
        let mut starter = enter(first(&supervisor), &kid(&scene, kind));
        starter.wait().expect("it is our child");
        Diary::new(scene.root().join("elsewhere")).wait_kids(2);
        let is_guest = |process: &Process| {
            let elsewhere = scene.root().join("elsewhere").display().to_string();
            let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            is_kid(*process) && command.split(|&byte| byte == 0).any(|word| word == elsewhere.as_bytes())
        };
        let guests: Vec<_> = scene.processes().into_iter().filter(is_guest).collect();
        assert_eq!(guests.len(), 2, "{}", describe(&guests));
        let of_first = |process: &&Process| stat(process.pid).is_some_and(|stat| stat.parent == first(&supervisor).pid);
        assert_eq!(guests.iter().filter(of_first).count(), 1, "one is an orphan of number 1");

        gateway(&scene).kill();
        supervisor.wait_event("tree.killed");
        supervisor.wait_event("gateway.started");
        first(&supervisor).signal(Signal::SIGHUP);
        supervisor.wait_event("tree.killed");
        supervisor.wait_event("gateway.started");
        assert!(guests.iter().all(|guest| guest.is_alive()), "{place:?} {kind}\n{}", supervisor.story());
        // The end of number 1 is that of all others in there.
        first(&supervisor).signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        guest.wait().expect("it is our child");
    }
}

#[test]
fn exit_codes_reach_the_outside() {
    for place in Place::ALL {
        let scene = Scene::new("exit=78");
        place.start(&scene.launch()).expect_exit(78);
        let scene = Scene::new("exit=3");
        place.start(&scene.launch().option("--max-restarts", "1")).expect_exit(69);
        let scene = Scene::new("healthy");
        let mut refused = place.start(&scene.launch().flags(&["--no-such-flag"]));
        refused.expect_exit(2);
    }
}

/// The pids in its `/proc` are not those it may signal: it uses none of them.
#[test]
fn with_the_process_list_of_another_namespace_it_still_stops_and_signals_no_other_process() {
    let scene = Scene::new("kid=setsid kid=lost; healthy");
    let mut bystander = Bystander::namesake(&scene);
    let mut supervisor = Supervisor::spawn(Jail::with_pids_of_others().around(&scene.launch().command()));
    supervisor.wait_event("gateway.started");
    assert!(supervisor.story().contains("another pid namespace"), "{}", supervisor.story());
    inside(&supervisor).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    bystander.assert_alive();
    assert_eq!(scene.processes(), [bystander.process()], "{}", supervisor.story());
}
