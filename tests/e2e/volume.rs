//! State on a volume that keeps neither owners nor modes, as SMB, exFAT and many FUSE file systems; and in a directory of
//! another user, which is none of ours.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::jail::gateways;
use support::root::needs_root;
use support::supervisor::{Launch, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// No user of this machine has to have it.
const OTHER: u32 = 1000;

/// A mount over the state directory on which everything belongs to [`OTHER`], and chmod(2) changes nothing.
struct Volume(PathBuf);

impl Volume {
    fn mount(scene: &Scene) -> Self {
        needs_root("a FUSE file system");
        let script = "command -v bindfs >/dev/null || { apt-get update &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bindfs; } >/dev/null 2>&1";
        let lock = std::env::temp_dir().join("ocs-systemd.lock");
        let installed = Command::new("flock").arg(lock).args(["sh", "-c", script]).status().unwrap();
        assert!(installed.success(), "this test needs the package bindfs, which apt-get could not install");
        let (back, point) = (scene.root().join("back"), scene.state_dir());
        fs::create_dir(&back).unwrap();
        fs::set_permissions(&back, Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new("bindfs");
        command.args(["-o", "allow_other", &format!("--force-user={OTHER}"), "-p", "a+rwX", "--chmod-ignore"]);
        assert!(command.args([&back, &point]).status().unwrap().success(), "bindfs can mount");
        let is_mounted = || (fs::metadata(&point).unwrap().uid() == OTHER).then_some(());
        wait_for("the mount", PATIENCE, String::new, is_mounted);
        Self(point)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Files of processes that end with the scene may be open.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

fn count_of(supervisor: &Supervisor, text: &str) -> usize {
    supervisor.events().iter().filter(|event| event.value()["message"].to_string().contains(text)).count()
}

#[test]
fn a_volume_that_keeps_neither_owners_nor_modes_is_used_and_told_of_once() {
    let scene = Scene::new("healthy");
    let _volume = Volume::mount(&scene);
    for round in 1..=2 {
        let mut supervisor = scene.start();
        let gateway = supervisor.wait_started();
        assert_eq!(fs::metadata(scene.store_dir()).unwrap().uid(), OTHER);
        assert_eq!(count_of(&supervisor, "other users may read or change"), 1, "{}", supervisor.story());
        Said::by(&scene, &["status"]).expect(0).assert_says(&["running"]);
        Said::by(&scene, &["restart"]).expect(0);
        assert!(!gateway.is_alive() && gateways(&scene).len() == 1, "{round}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(gateways(&scene), []);
        let names = fs::read_dir(scene.store_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let probes: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("owner-")).collect();
        assert!(probes.is_empty(), "{probes:?}");
    }
}

#[test]
fn where_no_socket_can_be_made_the_commands_reach_the_supervisor_all_the_same() {
    let scene = Scene::new("healthy");
    // What bind(2) leaves on exFAT under FUSE.
    fs::create_dir(scene.store_dir()).unwrap();
    fs::write(scene.store_dir().join("control.sock"), "").unwrap();
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    assert_eq!(count_of(&supervisor, "listening on one without a file"), 1, "{}", supervisor.story());
    Said::by(&scene, &["status"]).expect(0).assert_says(&[&supervisor.pid().to_string()]);
    Said::by(&scene, &["restart"]).expect(0);
    assert!(!gateway.is_alive());
    Said::by(&scene, &["stop"]).expect(0);
    supervisor.expect_exit(0);
    Said::by(&scene, &["status"]).expect(3);
}

#[test]
fn a_store_of_another_user_is_refused_with_78_and_left_as_it_is() {
    needs_root("another user");
    let scene = Scene::new("healthy");
    fs::create_dir(scene.store_dir()).unwrap();
    chown(scene.store_dir(), Some(OTHER), None).unwrap();
    let mut supervisor = scene.start();
    supervisor.expect_exit(78);
    let reason = supervisor.last("supervisor.stopped").text("reason").to_owned();
    assert!(reason.contains("belongs to user 1000") && reason.contains("--store-dir"), "{reason}");
    assert_eq!(scene.diary().starts().len(), 0);
    assert_eq!(fs::read_dir(scene.store_dir()).unwrap().count(), 0);
}

/// The mode and the names of a directory.
fn look(dir: &Path) -> (u32, Vec<String>) {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    (fs::metadata(dir).unwrap().mode() & 0o7777, names.collect())
}

#[test]
fn a_directory_that_is_shared_or_holds_other_files_is_refused_with_2_and_left_as_it_is() {
    needs_root("another user");
    for (what, mode, file, owner) in [
        ("as /tmp", 0o1777, Some("x"), 0),
        ("as a new /tmp", 0o1777, None, 0),
        ("world-writable", 0o777, None, 0),
        ("as /etc", 0o755, Some("passwd"), 0),
        ("as a home", 0o750, Some(".profile"), 0),
        ("the home of another user", 0o755, Some(".profile"), OTHER),
    ] {
        let scene = Scene::new("healthy");
        let dir = scene.root().join("there");
        fs::create_dir(&dir).unwrap();
        if let Some(name) = file {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        chown(&dir, Some(owner), None).unwrap();
        let before = look(&dir);
        assert_refused(&scene, scene.launch().option("--store-dir", &dir.display().to_string()), what);
        assert_eq!(look(&dir), before, "{what}");
    }
}

#[track_caller]
fn assert_refused(scene: &Scene, launch: Launch<'_>, what: &str) {
    let mut supervisor = launch.start();
    supervisor.expect_exit(2);
    let reason = supervisor.last("supervisor.stopped").text("reason").to_owned();
    assert!(reason.contains("--store-dir /") && !reason.contains('\n'), "{what}: {reason}");
    assert_eq!(scene.diary().starts().len(), 0, "{what}");
}

#[test]
fn a_link_in_a_directory_of_another_user_is_refused_with_2_and_its_target_is_left_as_it_is() {
    needs_root("another user");
    let scene = Scene::new("healthy");
    let target = scene.root().join("target");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
    symlink(&target, scene.store_dir()).unwrap();
    chown(scene.state_dir(), Some(OTHER), None).unwrap();
    assert_refused(&scene, scene.launch(), "the store");
    fs::remove_file(scene.store_dir()).unwrap();
    let below = scene.state_dir().join("link");
    symlink(&target, &below).unwrap();
    let store = below.join("new/store").display().to_string();
    assert_refused(&scene, scene.launch().option("--store-dir", &store), "above the store");
    assert_eq!(look(&target), (0o755, Vec::new()));
    // In a directory of our own it leads where we want it to.
    chown(scene.state_dir(), Some(0), None).unwrap();
    symlink(&target, scene.store_dir()).unwrap();
    let mut supervisor = scene.start();
    supervisor.wait_started();
    Said::by(&scene, &["stop"]).expect(0);
    supervisor.expect_exit(0);
    assert!(look(&target).1.contains(&"supervise.sqlite".to_owned()));
}

/// As root supervises in a directory that a group may change.
#[test]
fn links_in_place_of_our_files_are_not_followed() {
    let scene = Scene::new("healthy");
    fs::create_dir(scene.store_dir()).unwrap();
    fs::set_permissions(scene.store_dir(), Permissions::from_mode(0o2775)).unwrap();
    let names =
        ["supervise.sqlite", "control.sock", "capabilities.json", "capabilities.json.new", "output.log", "incidents"];
    let precious = |name: &str| scene.root().join(format!("precious-{name}"));
    for name in names {
        fs::write(precious(name), "precious").unwrap();
        fs::set_permissions(precious(name), Permissions::from_mode(0o644)).unwrap();
        symlink(precious(name), scene.store_dir().join(name)).unwrap();
    }
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    for name in names {
        let (text, mode) = (fs::read_to_string(precious(name)).unwrap(), fs::metadata(precious(name)).unwrap().mode());
        assert_eq!((text.as_str(), mode & 0o777), ("precious", 0o644), "{name}");
    }
}
