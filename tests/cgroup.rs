//! Real control groups and real OOM kills. This needs root, cgroup v2 mounted and writable, and the memory controller of
//! cgroup v1 at its usual place; what is missing fails a test by name.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "tests wait by the clock, with a bound")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[path = "support/root.rs"]
mod root;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, setfsuid};
use openclaw_supervise::core::{Depth, Event, Fingerprint, SpawnFailure};
use openclaw_supervise::gateway::process::{Birth, Gateway, Launch, key_of, new_instance};
use openclaw_supervise::gateway::sample::Sampling;
use openclaw_supervise::gateway::tree::Orphans;
use openclaw_supervise::platform::cgroup::{Leaf, OomCount, remove_empty};
use openclaw_supervise::platform::proc;
use openclaw_supervise::platform::process::{
    Exec, Handle, Setup, Spawned, reap_unclaimed, spawn, spawn_in_own_session,
};
use openclaw_supervise::platform::rlimit_tag::RlimitTag;
use root::needs_root;
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout;

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(20);

/// These tests look at all children and all groups of this process: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn name(what: &str) -> String {
    format!("openclaw-test-{}-{what}", std::process::id())
}

/// A leaf that is gone with all that is in it when the test ends, however it ends.
struct Scratch(Leaf);

impl Scratch {
    fn new(what: &str) -> Self {
        needs_root("control groups");
        Self(Leaf::create(&name(what)).expect("this needs a writable cgroup2 file system"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            wait_until("an empty leaf", || self.0.members().is_ok_and(|members| members.is_empty()));
        }
        self.0.remove();
    }
}

/// The folder of the group that a process is in.
fn folder_of(pid: i32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("this needs cgroup2").to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().rfind(|line| line.contains(" - cgroup2 ")).expect("this needs cgroup2 to be mounted");
    Path::new(mount.split(' ').nth(4).unwrap()).join(path)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null());
    command
}

fn start(command: &mut Command, leaf: &Leaf) -> Spawned {
    spawn(command, Setup { leaf: Some(leaf), ..Setup::default() }).unwrap()
}

fn executed(exec: Exec) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { exec.done().await })
}

fn end_of(handle: &Handle) -> ExitStatus {
    let mut status = None;
    wait_until("the end of a child", || {
        status = handle.exit().unwrap().map(|exit| exit.status);
        status.is_some()
    });
    handle.reap();
    status.unwrap()
}

#[test]
fn a_process_is_created_in_its_leaf_and_all_that_it_starts_ends_with_it() {
    let _alone = alone();
    let scratch = Scratch::new("born");
    let leaf = &scratch.0;
    // The shell waits for a line, so that it is seen before it has done anything.
    let (wait, go) = io::pipe().unwrap();
    let script = "read line; setsid sleep 600 & (env -i setsid sleep 600 &) ; sleep 600 & wait";
    let setup = Setup { leaf: Some(leaf), streams: [Some(wait.as_fd()), None, None], ..Setup::default() };
    let Spawned { handle, outside, exec } = spawn(&mut shell(script), setup).unwrap();
    executed(exec).unwrap();
    assert!(outside.is_none(), "{outside:?}");
    assert_eq!(leaf.members().unwrap(), [handle.pid()]);
    let stat = proc::stat(handle.pid()).unwrap();
    assert_eq!((stat.parent, stat.session), (std::process::id().cast_signed(), handle.pid()));
    io::Write::write_all(&mut &go, b"\n").unwrap();
    let sleeps = |pid: &i32| proc::command_of(*pid).is_some_and(|command| command == "sleep 600");
    // A shell in between may still be about to end.
    wait_until("four members", || {
        let members = leaf.members().unwrap();
        members.len() == 4 && members.iter().filter(|pid| sleeps(pid)).count() == 3
    });

    // One of them makes a group of its own.
    let inner = folder_of(handle.pid()).join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), handle.pid().to_string()).unwrap();
    assert_eq!(leaf.members().unwrap().len(), 4);
    assert!(leaf.members().unwrap().contains(&handle.pid()));
    leaf.remove();
    assert!(inner.exists(), "a leaf that is not empty stays");

    leaf.kill().unwrap();
    assert_eq!(end_of(&handle).signal(), Some(libc::SIGKILL));
    wait_until("the end of all", || leaf.members().unwrap().is_empty());
    leaf.remove();
    assert!(!inner.parent().unwrap().exists());
    assert!(leaf.members().is_err() && leaf.kill().is_err(), "a leaf that is gone says so");
}

#[test]
fn a_stopped_or_frozen_member_is_killed_too() {
    let _alone = alone();
    let scratch = Scratch::new("frozen");
    let stopped = start(&mut shell("kill -STOP $$"), &scratch.0).handle;
    let frozen = start(Command::new("sleep").arg("600"), &scratch.0).handle;
    fs::write(folder_of(frozen.pid()).join("cgroup.freeze"), "1").unwrap();
    scratch.0.kill().unwrap();
    for handle in [stopped, frozen] {
        assert_eq!(end_of(&handle).signal(), Some(libc::SIGKILL));
    }
}

#[test]
fn what_cannot_be_executed_is_an_error_and_leaves_nothing_behind() {
    let _alone = alone();
    let scratch = Scratch::new("missing");
    let before = proc::children().unwrap();
    for (program, kind) in [
        ("/nonexistent/gateway", io::ErrorKind::NotFound),
        ("/etc/passwd", io::ErrorKind::PermissionDenied),
        ("/etc/passwd/gateway", io::ErrorKind::NotADirectory),
    ] {
        let Spawned { handle, exec, .. } = start(&mut Command::new(program), &scratch.0);
        assert_eq!(executed(exec).unwrap_err().kind(), kind, "{program}");
        assert_eq!(end_of(&handle).code(), Some(127), "{program}");
    }
    assert_eq!(proc::children().unwrap(), before);
    assert_eq!(scratch.0.members().unwrap(), [] as [i32; 0]);
}

#[test]
fn without_its_leaf_a_command_is_started_all_the_same() {
    let _alone = alone();
    let before = proc::children().unwrap();
    let gone = Scratch::new("gone");
    gone.0.remove();
    let Spawned { handle, outside, .. } = start(&mut shell("exit 7"), &gone.0);
    assert!(outside.is_some());
    assert_eq!(end_of(&handle).code(), Some(7));

    let scratch = Scratch::new("refused");
    // The user as whom files are opened is each thread's own.
    let refused = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setfsuid(Uid::from_raw(NOBODY));
            let kind = Leaf::create(&name("not-ours")).map(|leaf| leaf.remove()).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
            start(&mut shell("exit 8"), &scratch.0)
        });
        thread.join().unwrap()
    });
    assert_eq!(refused.outside.map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
    assert_eq!(end_of(&refused.handle).code(), Some(8));
    assert_eq!(proc::children().unwrap(), before);
}

/// What a command finds in its process, the numbers that differ from process to process left out.
fn surroundings(leaf: Option<&Leaf>) -> String {
    let script = "echo \"$0 $*\"; pwd; env | sort; grep '^Sig[BIC]' /proc/self/status; umask; ulimit -a; nice
        cd /proc/self/fd && for fd in 0 1 2; do readlink $fd | sed 's/[0-9]*]//'; done; set -- *; echo $#; cat <&0";
    let (mut output, input) = io::pipe().unwrap();
    let (text, mut writer) = io::pipe().unwrap();
    io::Write::write_all(&mut writer, b"typed\n").unwrap();
    drop(writer);
    let mut command = Command::new("sh");
    command.args(["-c", script, "name", "a  b", ""]).env("WORD", "x=y z").env_remove("HOME");
    let streams = [Some(text.as_fd()), Some(input.as_fd()), Some(input.as_fd())];
    let Spawned { handle, outside, .. } = spawn(&mut command, Setup { leaf, tag: None, streams }).unwrap();
    assert!(outside.is_none());
    drop(input);
    let mut told = String::new();
    output.read_to_string(&mut told).unwrap();
    assert_eq!(end_of(&handle).code(), Some(0));
    told
}

#[test]
fn a_command_finds_the_same_surroundings_in_a_leaf_as_outside() {
    let _alone = alone();
    let scratch = Scratch::new("alike");
    let told = surroundings(None);
    for part in ["name a  b", "WORD=x=y z\n", "typed\n"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("\nHOME="), "{told}");
    let ignored = told.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 1 << (libc::SIGPIPE - 1), 0);
    assert_eq!(surroundings(Some(&scratch.0)), told);
}

#[test]
fn a_leaf_is_found_by_its_name_and_by_the_processes_in_and_below_it() {
    let _alone = alone();
    let scratch = Scratch::new("found");
    let name = name("found");
    let handle = start(Command::new("sleep").arg("600"), &scratch.0).handle;
    let me = std::process::id().cast_signed();
    for member in [None, Some(handle.pid()), Some(me), Some(i32::MAX)] {
        assert_eq!(Leaf::find(&name, member).unwrap().members().unwrap(), [handle.pid()], "{member:?}");
    }
    let inner = folder_of(handle.pid()).join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), handle.pid().to_string()).unwrap();
    assert_eq!(Leaf::find(&name, Some(handle.pid())).unwrap().members().unwrap(), [handle.pid()]);
    // Found through its member although it is not below our own group.
    assert_eq!(Leaf::find("inner", Some(handle.pid())).unwrap().members().unwrap(), [handle.pid()]);
    assert!(Leaf::find("inner", None).is_none());
    assert!(Leaf::find(&name[..name.len() - 1], Some(handle.pid())).is_none());
    assert!(Leaf::create(&name).is_err(), "one that is there is not made again");
    scratch.0.kill().unwrap();
    end_of(&handle);
}

#[test]
fn empty_leaves_that_were_left_behind_are_removed_and_no_others() {
    let _alone = alone();
    let (used, empty, other) = (Scratch::new("old-used"), Scratch::new("old-empty"), Scratch::new("new"));
    let handle = start(Command::new("sleep").arg("600"), &used.0).handle;
    let parent = folder_of(handle.pid()).parent().unwrap().to_owned();
    fs::create_dir(parent.join(name("old-empty")).join("inner")).unwrap();
    remove_empty(&name("old-"));
    assert!(empty.0.members().is_err());
    assert_eq!(used.0.members().unwrap(), [handle.pid()]);
    assert_eq!(other.0.members().unwrap(), [] as [i32; 0]);
    used.0.kill().unwrap();
    end_of(&handle);
}

#[test]
fn a_tag_outlives_sessions_parents_environments_and_users() {
    let _alone = alone();
    let scratch = Scratch::new("tagged");
    let tag = RlimitTag::new(5).expect("this needs a limit of pending signals that leaves room");
    let script = "setsid sh -c '(env -i sleep 600 &)'; exec setpriv --reuid 65534 --clear-groups env -i sleep 600";
    let handle =
        spawn(&mut shell(script), Setup { leaf: Some(&scratch.0), tag: Some(tag), ..Setup::default() }).unwrap().handle;
    let sleeping = |pid: i32| proc::command_of(pid).is_some_and(|command| command == "sleep 600");
    wait_until("both of them", || {
        let members = scratch.0.members().unwrap();
        members.len() == 2 && members.into_iter().all(sleeping)
    });
    assert_eq!(proc::uid_of(handle.pid()), Some(NOBODY));
    let orphan = scratch.0.members().unwrap().into_iter().find(|&pid| pid != handle.pid()).unwrap();
    assert_ne!(proc::stat(orphan).unwrap().parent, handle.pid());
    for pid in [handle.pid(), orphan] {
        assert!(tag.is_on(pid));
        assert!(!RlimitTag::new(6).unwrap().is_on(pid), "another tag is told from it");
    }
    assert!(!tag.is_on(std::process::id().cast_signed()) && !tag.is_on(1) && !tag.is_on(-1));
    assert_eq!(RlimitTag::new(5), Some(tag), "our own limit stays");
    let plain = start(Command::new("sleep").arg("600"), &scratch.0).handle;
    assert!(!tag.is_on(plain.pid()));
    scratch.0.kill().unwrap();
    for handle in [handle, plain] {
        end_of(&handle);
    }
}

/// A group of the first version with little memory, gone when the test ends.
struct Narrow(PathBuf);

impl Narrow {
    const LIMIT: &str = "41943040";

    fn new() -> Self {
        needs_root("a memory control group");
        let narrow = Self(Path::new("/sys/fs/cgroup/memory").join(name("narrow")));
        fs::create_dir(&narrow.0).expect("this needs the first version's memory controller");
        fs::write(narrow.0.join("memory.limit_in_bytes"), Self::LIMIT).unwrap();
        // There where swap is counted.
        fs::write(narrow.0.join("memory.memsw.limit_in_bytes"), Self::LIMIT).ok();
        narrow
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        wait_until("an empty group", || fs::remove_dir(&self.0).is_ok());
    }
}

const ROLE: &str = "OPENCLAW_TEST_ROLE";

/// This test again, as a process of its own.
fn again(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_kill_for_want_of_memory_is_told_from_another_one", "--nocapture"]).env(ROLE, role);
    command
}

fn outcome(command: &mut Command) -> ExitStatus {
    end_of(&spawn_in_own_session(command).unwrap())
}

fn sleeping_gateway(generation: u64, key: &str, events: &Sender<Event>, script: &str) -> Gateway {
    try_gateway(generation, key, events, script).unwrap()
}

fn try_gateway(generation: u64, key: &str, events: &Sender<Event>, script: &str) -> Result<Gateway, SpawnFailure> {
    let launch = Launch {
        key: key_of(key),
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), format!("exec >/dev/null 2>&1; {script}").into()],
        config: "/nowhere".into(),
        exports: Vec::new(),
    };
    let instance = new_instance(&launch.key);
    let birth = Birth { generation, instance: &instance, no_respawn: false, fingerprint: Fingerprint::default() };
    Gateway::spawn(birth, &launch, &[None, None], Orphans::Mixed, events)
}

/// Whether a gateway that the test kills counts as killed by the OOM killer because another process was, while the gateway
/// lived; `is_looked_at` says that it was seen alive afterwards.
async fn is_blamed_for_a_neighbour(is_looked_at: bool) -> bool {
    let (events, mut inbox) = channel(8);
    let gateway = sleeping_gateway(1, "blamed", &events, "exec sleep 600");
    assert!(matches!(inbox.recv().await, Some(Event::Spawned { .. })));
    assert_eq!(outcome(&mut again("eat")).signal(), Some(libc::SIGKILL));
    if is_looked_at {
        gateway.measure(Sampling { listener: None, depth: Depth::Usual, tree: false }).await.unwrap();
    }
    Handle::open(gateway.pid().unwrap()).unwrap().kill().unwrap();
    let event = timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap();
    let Event::LeaderExited { toll, .. } = event else { panic!("{event:?}") };
    gateway.release();
    toll.oom_killed
}

/// Whichever descriptor it is that is missing.
#[test]
fn a_gateway_that_cannot_be_started_for_want_of_descriptors_leaves_no_control_group() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = name("descriptors");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let parent = folder_of(std::process::id().cast_signed());
    let leaves = || {
        let names = fs::read_dir(&parent).unwrap().map(|group| group.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().contains(&key_of(&key))).count()
    };
    let (mut refusals, mut limit) = (0, 3);
    loop {
        let (events, _inbox) = channel(8);
        let started = runtime.block_on(async {
            setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
            let started = try_gateway(1, &key, &events, "exec sleep 600");
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            let patience = Instant::now();
            while started.is_err() && leaves() > 0 {
                assert!(patience.elapsed() < PATIENCE, "{limit} descriptors: {started:?}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            started
        });
        if let Ok(gateway) = started {
            let leader = Handle::open(gateway.pid().unwrap()).unwrap();
            leader.kill().unwrap();
            wait_until("its end", || leader.has_ended().unwrap());
            runtime.block_on(async { gateway.release() });
            break;
        }
        (refusals, limit) = (refusals + 1, limit + 1);
        assert!(refusals < 200, "no gateway can be started");
    }
    assert!(refusals > 0);
    wait_until("the last of them", || {
        reap_unclaimed();
        proc::children().unwrap().is_empty()
    });
    assert_eq!(leaves(), 0);
}

#[test]
fn the_control_group_of_a_gateway_with_a_survivor_goes_when_that_one_does() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(release_a_survivor());
}

async fn release_a_survivor() {
    needs_root("control groups");
    let (events, _inbox) = channel(8);
    let gateway = sleeping_gateway(1, "survivor", &events, "exec sleep 600");
    let pid = gateway.pid().unwrap();
    let folder = folder_of(pid);
    assert!(folder.to_string_lossy().contains("openclaw-gateway-"), "this needs a writable cgroup2 file system");
    let survivor = Handle::open(pid).unwrap();
    // As where it sleeps uninterruptibly: it lives on, and the gateway is done with.
    gateway.release();
    assert!(folder.exists());
    survivor.kill().unwrap();
    let removed = async {
        while folder.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, removed).await.expect("it is removed");
    survivor.reap();
}

#[test]
fn a_kill_for_want_of_memory_is_told_from_another_one() {
    match std::env::var(ROLE).as_deref() {
        Ok("eat") => {
            // Not zeroes, which would take no memory.
            let eaten = vec![1_u8; 400 << 20];
            assert_eq!(eaten.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 0, "it was not killed");
        }
        Ok(_) => {
            let before = OomCount::read(None);
            assert_eq!(outcome(&mut shell("kill -KILL $$")).signal(), Some(libc::SIGKILL));
            assert!(!OomCount::read(None).is_above(before), "no process ran out of memory");
            assert_eq!(outcome(&mut again("eat")).signal(), Some(libc::SIGKILL));
            assert!(OomCount::read(None).is_above(before));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for is_looked_at in [false, true] {
                let blamed = runtime.block_on(is_blamed_for_a_neighbour(is_looked_at));
                assert_eq!(blamed, !is_looked_at, "what was counted before the last look has not killed it");
            }
        }
        Err(_) => {
            let _alone = alone();
            let narrow = Narrow::new();
            let place = narrow.0.join("cgroup.procs");
            let supervisor = again("supervise");
            // The shell moves itself, then becomes the test.
            let mut command = Command::new("sh");
            command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(place);
            command.arg(supervisor.get_program()).args(supervisor.get_args()).env(ROLE, "supervise");
            assert_eq!(outcome(&mut command).code(), Some(0));
        }
    }
}
