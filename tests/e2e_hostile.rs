//! Every process that a gateway leaves behind is killed with it; processes that only look like members live on.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Stdio;
use support::bystander::{Bystander, INSTANCE, kid, nearly_marked};
use support::diary::{Diary, Entry};
use support::jail::Jail;
use support::process::{Process, describe, stat};
use support::supervisor::{Event, Launch, PROGRAM, Supervisor};
use support::{PATIENCE, Scene, port, wait_for};

/// One of every kind that is not a storm, in the order of the script.
const KINDS: [&str; 12] =
    ["plain", "group", "setsid", "daemon", "wiped", "lost", "deaf", "ignoring", "stopped", "odd", "odd-file", "heir"];

/// How a gateway comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The supervisor is told to stop.
    Stop,
    /// The leader alone dies.
    Kill,
    /// It hangs and ignores SIGTERM.
    Hang,
    /// A restart is asked for.
    Restart,
}

impl End {
    /// Causes it, and returns the report of the tree once the tree has to be gone: at the exit, or at the spawn of the
    /// next gateway.
    fn bring(self, scene: &Scene, supervisor: &mut Supervisor) -> Event {
        let gateway = gateway(scene);
        match self {
            Self::Stop => supervisor.signal(Signal::SIGTERM),
            Self::Kill => gateway.kill(),
            Self::Hang => scene.diary().command(gateway.pid, "freeze"),
            Self::Restart => supervisor.signal(Signal::SIGHUP),
        }
        if self == Self::Stop {
            supervisor.expect_exit(0);
        } else {
            supervisor.wait_event("tree.killed");
            supervisor.wait_event("gateway.spawned");
        }
        supervisor.last("tree.killed")
    }
}

/// The leader of the first gateway.
fn gateway(scene: &Scene) -> Process {
    scene.diary().starts().first().expect("a gateway has started").process
}

/// A first gateway with these children, and then healthy ones.
fn script(kinds: &[&str]) -> String {
    let words: Vec<_> = kinds.iter().map(|kind| format!("kid={kind}")).collect();
    format!("{}; healthy", words.join(" "))
}

fn launch(scene: &Scene) -> Launch<'_> {
    scene.launch().option("--probe-timeout", "100ms")
}

/// The children of the first gateway, all of them alive.
fn family(supervisor: &mut Supervisor, scene: &Scene) -> Vec<Entry> {
    supervisor.wait_started();
    let kids = scene.diary().kids();
    assert!(kids.iter().all(|kid| kid.process.is_alive()), "{}", scene.diary().text());
    kids
}

fn assert_gone(kids: &[Entry], supervisor: &Supervisor) {
    let left: Vec<_> = kids.iter().filter(|kid| kid.process.is_alive()).collect();
    assert!(left.is_empty(), "{left:?} are left\n{}", supervisor.story());
}

/// Scans of the machine for a storm: one scan may miss each of its processes by a moment.
const LOOKS: usize = 25;

/// Only the expected processes of the machine carry the scene's mark.
fn assert_nothing_else(scene: &Scene, supervisor: &Supervisor, allowed: &[Process]) {
    let next = scene.diary().starts().into_iter().skip(1).map(|start| start.process);
    let allowed: Vec<_> = allowed.iter().copied().chain(next).chain(Process::find(supervisor.pid())).collect();
    let left: Vec<_> = scene.processes().into_iter().filter(|process| !allowed.contains(process)).collect();
    assert!(left.is_empty(), "these are left:\n{}\n{}", describe(&left), supervisor.story());
}

/// How many members a layer saw.
fn found_by(killed: &Event, layer: &str) -> i64 {
    let layers = killed.value()["found_by"].as_array();
    let layers = layers.unwrap_or_else(|| panic!("no layers in {}", killed.value()));
    let count = |line: &serde_json::Value| line.as_str()?.strip_prefix(layer)?.trim().parse().ok();
    layers.iter().find_map(count).unwrap_or(0)
}

/// No layer saw more members than there were, and each member was seen by at least one layer.
fn assert_found(killed: &Event) {
    assert_eq!(killed.number("survivors"), 0, "{}", killed.value());
    let layers = ["cgroup", "group", "descent", "instance", "record"].map(|layer| found_by(killed, layer));
    let members = killed.number("members");
    assert!(layers.iter().all(|count| (0..=members).contains(count)), "{}", killed.value());
    assert!(layers.iter().sum::<i64>() >= members, "{}", killed.value());
}

fn everything_ends(end: End) {
    everything_ends_in(&Jail::open(), end);
}

fn everything_ends_in(jail: &Jail, end: End) {
    let scene = Scene::new(&script(&KINDS));
    let mut supervisor = Supervisor::spawn(jail.around(&launch(&scene).command()));
    let kids = family(&mut supervisor, &scene);
    assert_eq!(kids.len(), KINDS.len(), "{}", scene.diary().text());
    let mut bystanders = nearly_marked(&scene, gateway(&scene));
    bystanders.push(Bystander::namesake(&scene));
    let pids: Vec<_> = bystanders.iter().map(Bystander::process).collect();

    let killed = end.bring(&scene, &mut supervisor);
    assert_gone(&kids, &supervisor);
    if end != End::Stop {
        supervisor.wait_started();
    }
    assert_nothing_else(&scene, &supervisor, &pids);
    bystanders.iter_mut().for_each(Bystander::assert_alive);
    assert_found(&killed);
    // With the leader, unless it ended by itself; all but the plain and the wiped one had left its group.
    let leader = i64::from(end == End::Hang);
    assert_eq!((killed.number("members"), killed.number("escaped")), (12 + leader, 10), "{}", killed.value());
    let expected = if jail.has_groups() { 12 + leader } else { 0 };
    assert_eq!(found_by(&killed, "cgroup"), expected, "{}", killed.value());
}

/// The layers below the control group have to be enough: most containers have none.
#[test]
fn all_kinds_end_without_a_control_group() {
    for end in [End::Stop, End::Kill, End::Hang] {
        everything_ends_in(&Jail::open().and_no_groups(), end);
    }
}

/// Below a shell that had a child before it became the supervisor, an orphan may belong to the shell: only the instance id
/// identifies it.
#[test]
fn all_kinds_end_without_a_control_group_where_orphans_may_belong_to_the_shell() {
    let jail = Jail::open().and_no_groups().and("{ env -i sleep 10 2>/dev/null & }");
    for end in [End::Stop, End::Kill] {
        everything_ends_in(&jail, end);
    }
}

#[test]
fn all_kinds_end_with_a_stop() {
    everything_ends(End::Stop);
}

#[test]
fn all_kinds_end_with_their_leader() {
    everything_ends(End::Kill);
}

#[test]
fn all_kinds_end_with_a_hang() {
    everything_ends(End::Hang);
}

#[test]
fn all_kinds_end_with_a_restart() {
    everything_ends(End::Restart);
}

/// The test of the instrument itself.
#[test]
fn the_kinds_are_what_they_are_called() {
    let scene = Scene::new(&script(&KINDS));
    let mut supervisor = launch(&scene).start();
    let kids = family(&mut supervisor, &scene);
    let leader = gateway(&scene).pid;
    let read = |kid: &Entry, file: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{file}", kid.process.pid)).expect("it lives");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mask = |kid: &Entry, name: &str| {
        let status = read(kid, "status");
        let text = status.lines().find_map(|line| line.strip_prefix(name)).expect("there is such a line");
        u64::from_str_radix(text.trim(), 16).expect("it is a mask")
    };
    let term = 1_u64 << (Signal::SIGTERM as i32 - 1);
    for (kid, kind) in kids.iter().zip(KINDS) {
        assert_eq!(kid.kind, kind);
        assert_eq!(kid.group == leader, ["plain", "wiped"].contains(&kind), "{kid:?}");
        assert_eq!(kid.session == leader, ["plain", "wiped", "group"].contains(&kind), "{kid:?}");
        assert_eq!(read(kid, "environ").is_empty(), ["wiped", "lost"].contains(&kind), "{kid:?}");
        assert_eq!(mask(kid, "SigBlk:") & term != 0, kind == "deaf", "{kid:?}");
        assert_eq!(mask(kid, "SigIgn:") & term != 0, kind == "ignoring", "{kid:?}");
        assert_eq!(
            read(kid, "comm").contains([')', '\n']) && read(kid, "stat").lines().count() > 1,
            kind.starts_with("odd")
        );
        let is_orphan = stat(kid.process.pid).is_some_and(|stat| stat.parent == supervisor.pid());
        assert_eq!(is_orphan, ["daemon", "lost"].contains(&kind), "{kid:?}");
        let stopped = || stat(kid.process.pid).is_some_and(|stat| stat.state == "T");
        if kind == "stopped" {
            wait_for("its stop", PATIENCE, String::new, || stopped().then_some(()));
        }
        let stdin = std::fs::read_link(format!("/proc/{}/fd/0", kid.process.pid)).expect("it lives");
        assert_eq!(stdin.to_string_lossy().starts_with("socket:"), kind == "heir", "{kid:?}");
    }
}

fn storm_ends(kind: &str, end: End) {
    storm_ends_in(&Jail::open(), kind, end);
}

fn storm_ends_in(jail: &Jail, kind: &str, end: End) {
    let scene = Scene::new(&script(&[kind, "lost"]));
    let mut bystander = Bystander::namesake(&scene);
    let mut supervisor = Supervisor::spawn(jail.around(&launch(&scene).command()));
    supervisor.wait_started();
    // It is under way: a process runs that has not written a line.
    let known = |process: &Process| {
        let kids = scene.diary().kids();
        let own = [Some(*process) == Process::find(supervisor.pid()), *process == bystander.process()];
        own.contains(&true) || *process == gateway(&scene) || kids.iter().any(|kid| kid.process == *process)
    };
    let under_way = || scene.processes().iter().any(|process| !known(process)).then_some(());
    wait_for("a storm", PATIENCE, || scene.diary().text(), under_way);

    let killed = end.bring(&scene, &mut supervisor);
    if end != End::Stop {
        supervisor.wait_started();
    }
    for _ in 0..LOOKS {
        assert_nothing_else(&scene, &supervisor, &[bystander.process()]);
    }
    bystander.assert_alive();
    assert_eq!(killed.number("survivors"), 0, "{}", killed.value());
    let took = killed.number("elapsed_ms");
    assert!(took < 5000, "the storm would have ended by itself\n{}", supervisor.story());
    assert_eq!(found_by(&killed, "cgroup") > 0, jail.has_groups(), "{}", killed.value());
}

#[test]
fn storms_end_without_a_control_group() {
    for (kind, end) in [("gale", End::Kill), ("shedder", End::Stop)] {
        storm_ends_in(&Jail::open().and_no_groups(), kind, end);
    }
}

#[test]
fn a_storm_of_forks_ends_with_a_stop() {
    storm_ends("storm", End::Stop);
}

#[test]
fn a_storm_of_forks_ends_with_its_leader() {
    storm_ends("storm", End::Kill);
}

#[test]
fn a_storm_of_sessions_without_an_environment_ends_with_a_stop() {
    storm_ends("gale", End::Stop);
}

#[test]
fn a_storm_of_sessions_without_an_environment_ends_with_its_leader() {
    storm_ends("gale", End::Kill);
}

#[test]
fn orphans_that_are_shed_in_the_middle_of_the_walk_end_with_a_stop() {
    storm_ends("shedder", End::Stop);
}

#[test]
fn orphans_that_are_shed_in_the_middle_of_the_walk_end_with_their_leader() {
    storm_ends("shedder", End::Kill);
}

#[test]
fn two_hundred_members_end() {
    let mixed: Vec<_> = KINDS[..11].iter().copied().cycle().take(200).collect();
    for end in [End::Stop, End::Kill] {
        let scene = Scene::new(&script(&mixed));
        let mut supervisor = launch(&scene).start();
        let kids = family(&mut supervisor, &scene);
        assert_eq!(kids.len(), 200);
        let killed = end.bring(&scene, &mut supervisor);
        assert_gone(&kids, &supervisor);
        if end != End::Stop {
            supervisor.wait_started();
        }
        assert_nothing_else(&scene, &supervisor, &[]);
        assert_eq!((killed.number("members"), killed.number("survivors")), (200, 0), "{}", killed.value());
    }
}

#[test]
fn the_port_is_free_for_the_next_gateway_at_once() {
    let scene = Scene::new(&script(&["heir"]));
    let mut supervisor = launch(&scene).start();
    let kids = family(&mut supervisor, &scene);
    gateway(&scene).kill();
    supervisor.wait_event("gateway.spawned");
    supervisor.wait_started();
    assert_gone(&kids, &supervisor);
    assert_eq!(supervisor.count("conflict.detected"), 0, "{}", supervisor.story());
    assert!(!scene.diary().text().contains("BUSY"), "{}", scene.diary().text());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(port::is_free(scene.port()));
}

/// A process that never descended from the gateway and has its instance id.
fn marked(scene: &Scene) -> Bystander {
    let environment = scene.diary().environment(gateway(scene).pid);
    let mut command = kid(scene, "plain");
    command.env(INSTANCE, environment.get(INSTANCE).expect("the gateway has been given an instance id"));
    Bystander::start("a process with the gateway's instance id", command)
}

#[test]
fn a_process_with_the_instance_id_is_killed_with_the_tree() {
    for end in [End::Stop, End::Kill, End::Restart, End::Hang] {
        let scene = Scene::new(&script(&["setsid"]));
        let mut supervisor = launch(&scene).flags(&["--kill-strays"]).start();
        family(&mut supervisor, &scene);
        let marked = marked(&scene);
        let process = marked.process();
        let killed = end.bring(&scene, &mut supervisor);
        assert!(!process.is_alive(), "{end:?}: {}", supervisor.story());
        assert_found(&killed);
        // Nothing else shows it, whenever it was seen first.
        assert!(found_by(&killed, "instance") >= 1, "{}", killed.value());
    }
}

#[test]
fn a_process_with_the_instance_id_of_a_lone_leader_is_killed_soon_after_it() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).flags(&["--kill-strays"]).start();
    supervisor.wait_started();
    let marked = marked(&scene);
    let process = marked.process();
    gateway(&scene).kill();
    let next = supervisor.wait_started();
    let gone = || (!process.is_alive()).then_some(());
    wait_for("the end of a stray", PATIENCE, || supervisor.story(), gone);
    let told = || {
        let killed = supervisor.events().into_iter().find(|event| event.name() == "tree.killed")?;
        (killed.number("members") == 1 && found_by(&killed, "instance") == 1).then_some(())
    };
    wait_for("the news of it", PATIENCE, || supervisor.story(), told);
    assert!(next.is_alive(), "{}", supervisor.story());
}

#[test]
fn an_exit_right_after_the_death_of_a_lone_leader_waits_for_that_scan() {
    let scene = Scene::new("healthy");
    let mut supervisor =
        launch(&scene).flags(&["--kill-strays"]).option("--max-restarts", "0").option("--stable-after", "1h").start();
    supervisor.wait_started();
    let marked = marked(&scene);
    let process = marked.process();
    gateway(&scene).kill();
    supervisor.expect_exit(69);
    assert!(!process.is_alive(), "{}", supervisor.story());
}

/// A shell that starts a child of a gateway that never was, and then the supervisor: in its own process group, beside it
/// or as a child of it.
fn neighbour_lives_on(last: &str) {
    let scene = Scene::new(&script(&KINDS));
    let plain = scene.launch().command();
    let mut command = scene.command(plain.get_program());
    command.args(["in-session", "/bin/sh", "-c", &format!("\"$0\" kid plain \"$1\" & shift; {last}")]);
    let neighbour = kid(&scene, "plain");
    command.arg(neighbour.get_program()).args(neighbour.get_args().skip(2)).args(plain.get_args().skip(1));
    command.stdout(Stdio::null());
    let mut shell = Supervisor::spawn(command);
    let supervisor = shell.wait_event("supervisor.started").process();
    let kids = family(&mut shell, &scene);
    let elsewhere = Diary::new(scene.root().join("elsewhere"));
    elsewhere.wait_kids(1);
    let neighbour = elsewhere.kids().remove(0);
    let group = stat(supervisor.pid).map(|stat| stat.group);
    assert_eq!(Some(neighbour.group), group, "{neighbour:?}");

    gateway(&scene).kill();
    shell.wait_event("gateway.exited");
    shell.wait_started();
    assert_gone(&kids, &shell);
    assert!(neighbour.process.is_alive(), "{}", shell.story());
    supervisor.signal(Signal::SIGTERM);
    shell.expect_exit(0);
    assert!(neighbour.process.is_alive(), "{}", shell.story());
    assert_nothing_else(&scene, &shell, &[neighbour.process]);
}

#[test]
fn a_process_of_our_group_and_shell_lives_on() {
    neighbour_lives_on("\"$@\"; exit $?");
}

#[test]
fn a_process_that_came_to_us_by_exec_lives_on() {
    neighbour_lives_on("exec \"$@\"");
}

/// The first process of a pid namespace. It starts the supervisor, ends those who stand in the file `recycle`, waits until
/// their numbers are free, and gives these to processes without any bond to the gateway.
const RECYCLER: &str = r#"
dir=$1; shift
"$@" & main=$!
until [ -e "$dir/recycle" ]; do sleep 0.02; done
for pid in $(cat "$dir/recycle"); do
    kill -KILL $pid
    while [ -e /proc/$pid ]; do sleep 0.01; done
done
for pid in $(cat "$dir/recycle"); do
    got=
    until [ "$got" = $pid ]; do
        echo $((pid - 1)) > /proc/sys/kernel/ns_last_pid
        env -i sleep 60 & got=$!
    done
done
touch "$dir/recycled"
wait $main; code=$?
for pid in $(cat "$dir/recycle"); do
    kill -0 $pid && echo "$pid lives" >> "$dir/verdict"
done
exit $code
"#;

fn in_namespace(scene: &Scene, script: &str, options: &[(&str, &str)]) -> Supervisor {
    let mut launch = launch(scene);
    for (name, value) in options {
        launch = launch.option(name, value);
    }
    let plain = launch.command();
    let mut command = scene.command("/bin/sh");
    command.args(["-c", script, "sh"]).arg(scene.root()).arg(plain.get_program()).args(plain.get_args());
    Supervisor::spawn(Jail::with_pids().around(&command))
}

/// The supervisor inside, by its number out here.
fn inside(supervisor: &Supervisor) -> Process {
    let unshare = Process::find(supervisor.pid()).expect("it lives");
    let is_it = |process: &Process| {
        std::fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|exe| exe == Path::new(PROGRAM))
    };
    unshare.tree().into_iter().find(is_it).expect("it lives")
}

#[test]
fn a_process_that_reuses_the_pid_of_a_member_between_snapshot_and_kill_lives_on() {
    let scene = Scene::new("drain=60s kid=daemon kid=lost kid=daemon kid=setsid");
    let mut supervisor = in_namespace(&scene, RECYCLER, &[("--stop-timeout", "60s")]);
    supervisor.wait_event("gateway.started");
    let orphans: Vec<_> = scene.diary().kids().into_iter().filter(|kid| kid.kind != "setsid").collect();
    assert_eq!(orphans.len(), 3);
    inside(&supervisor).signal(Signal::SIGTERM);
    scene.diary().wait_line("SIGNAL");
    let pids: Vec<_> = orphans.iter().map(|kid| kid.process.pid.to_string()).collect();
    let pids = pids.join("\n") + "\n";
    std::fs::write(scene.root().join("aside"), pids).expect("it can be written");
    std::fs::rename(scene.root().join("aside"), scene.root().join("recycle")).expect("it can be renamed");
    let recycled = || scene.root().join("recycled").exists().then_some(());
    wait_for("new processes under old numbers", PATIENCE, || supervisor.story(), recycled);
    inside(&supervisor).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let verdict = std::fs::read_to_string(scene.root().join("verdict")).unwrap_or_default();
    assert_eq!(verdict.lines().count(), 3, "{verdict}\n{}", supervisor.story());
    let killed = supervisor.last("tree.killed");
    // The leader and the one that has kept its number.
    assert_eq!((killed.number("members"), killed.number("survivors")), (2, 0), "{}", killed.value());
}

/// Beside the supervisor there are processes without any bond to it, which come and go and take the numbers that a storm
/// gives up: the numbers wrap all the time. Each death by a signal is recorded.
const CHURN: &str = r#"
dir=$1; shift
churn() {
    until [ -e "$dir/over" ]; do
        echo 300 > /proc/sys/kernel/ns_last_pid
        env -i sleep 0.02
        code=$?
        [ $code = 0 ] || echo "a process ended with $code" >> "$dir/victims"
    done
    echo over >> "$dir/churned"
}
"$@" & main=$!
churn & first=$!
churn & second=$!
wait $main; code=$?
touch "$dir/over"
wait $first; wait $second
exit $code
"#;

#[test]
fn unrelated_processes_that_reuse_the_pids_of_a_storm_live_on() {
    for kind in ["storm", "gale"] {
        let scene = Scene::new(&script(&[kind, "shedder"]));
        let mut supervisor = in_namespace(&scene, CHURN, &[]);
        supervisor.wait_event("gateway.started");
        inside(&supervisor).signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        // Its end is that of all others in its namespace: whether any outlived the supervisor, the log has to tell.
        let read = |file: &str| std::fs::read_to_string(scene.root().join(file)).unwrap_or_default();
        assert_eq!(read("victims"), "", "{}", supervisor.story());
        assert_eq!(read("churned").lines().count(), 2, "{}", supervisor.story());
        assert_eq!(supervisor.last("tree.killed").number("survivors"), 0, "{}", supervisor.story());
    }
}
