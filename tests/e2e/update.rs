//! OpenClaw is updated while its gateway runs or before a start: the supervisor waits for the update, at no cost.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "tests wait by the clock, with a bound")]

use crate::support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::process::Process;
use support::supervisor::{Launch, Said, Supervisor};
use support::{PATIENCE, Scene, let_pass, wait_for};

/// A package as npm lays it out: a link in `.bin`, and behind it a program that is the stand-in gateway.
struct Package<'a> {
    scene: &'a Scene,
    modules: PathBuf,
}

impl<'a> Package<'a> {
    fn install(scene: &'a Scene) -> Self {
        let this = Self { scene, modules: scene.root().join("node_modules") };
        fs::create_dir_all(this.modules.join(".bin")).expect("a folder can be made");
        fs::create_dir(this.folder()).expect("a folder can be made");
        fs::copy(scene.openclaw().program(), this.folder().join("openclaw.mjs")).expect("a file can be copied");
        fs::write(this.folder().join("package.json"), r#"{"version":"1"}"#).expect("a file can be made");
        std::os::unix::fs::symlink("../openclaw/openclaw.mjs", this.modules.join(".bin/openclaw"))
            .expect("a link can be made");
        this
    }

    fn folder(&self) -> PathBuf {
        self.modules.join("openclaw")
    }

    /// What npm renames the package to while it puts another one in its place.
    fn retired(&self) -> PathBuf {
        self.modules.join(".openclaw-Ab3xYz09")
    }

    fn launch(&self) -> Launch<'a> {
        self.launch_by(&[&self.modules.join(".bin/openclaw").display().to_string()])
    }

    fn launch_by(&self, program: &[&str]) -> Launch<'a> {
        let port = self.scene.port().to_string();
        let launch = self.scene.launch().words(&[program, &["gateway", "run", "--port", &port]].concat());
        // One restart more than the budget would be the end.
        launch.option("--max-restarts", "1")
    }

    /// The program is a shell, in the place of Node.
    fn launch_by_node(&self) -> Launch<'a> {
        self.launch_by(&[&node(self.scene), &self.folder().join("openclaw.mjs").display().to_string()])
    }
}

/// What reads a program that is a script of the shell, as Node would.
fn node(scene: &Scene) -> String {
    let node = scene.root().join("node");
    std::os::unix::fs::symlink("/bin/sh", &node).expect("a link can be made");
    node.display().to_string()
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("a folder can be renamed");
}

/// Asserts that no start comes about, whatever the supervisor tries in that time.
fn assert_waits(supervisor: &Supervisor, starts: usize, scene: &Scene) {
    // The first two tries are 1 s and 2 s apart.
    let_pass(Duration::from_millis(1500));
    assert_eq!(scene.diary().starts().len(), starts, "{}", supervisor.story());
}

/// How many restarts were counted.
fn spent(scene: &Scene) -> Value {
    Said::by(scene, &["status", "--json"]).json()["restarts"]["in_window"].clone()
}

#[test]
fn a_program_that_vanishes_while_its_gateway_runs_is_waited_for_at_no_cost() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let mut supervisor = package.launch().start();
    let first = supervisor.wait_started();
    rename(&package.folder(), &scene.root().join("elsewhere"));
    first.kill();
    let scheduled = supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    assert_eq!(scheduled.number("delay_ms"), 1000);
    assert_waits(&supervisor, 1, &scene);
    assert!(supervisor.count("supervisor.stopped") == 0, "{}", supervisor.story());
    let before = spent(&scene);
    assert_eq!(before, 1, "{}", supervisor.story());
    rename(&scene.root().join("elsewhere"), &package.folder());
    let second = supervisor.wait_started();
    assert_ne!(first, second);
    // The death by SIGKILL is the one that costs.
    assert_eq!((spent(&scene), supervisor.count("restart.gave_up")), (before, 0), "{}", supervisor.story());
}

#[test]
fn a_retired_neighbour_of_the_package_means_that_npm_is_at_work() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let mut supervisor = package.launch().start();
    let first = supervisor.wait_started();
    fs::create_dir(package.retired()).expect("a folder can be made");
    first.kill();
    let failed = supervisor.wait_event("gateway.spawn_failed");
    assert!(failed.text("why").contains(".openclaw-Ab3xYz09"), "{failed:?}");
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    assert_waits(&supervisor, 1, &scene);
    fs::remove_dir(package.retired()).expect("it is ours");
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_package_without_its_manifest_is_not_started() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let manifest = package.folder().join("package.json");
    fs::remove_file(&manifest).expect("it is ours");
    // The first start as well.
    let mut supervisor = package.launch().start();
    let failed = supervisor.wait_event("gateway.spawn_failed");
    assert!(failed.text("why").contains("package.json"), "{failed:?}");
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    assert_waits(&supervisor, 0, &scene);
    fs::write(manifest, "{}").expect("a file can be made");
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), spent(&scene)), (1, 0.into()), "{}", supervisor.story());
}

#[test]
fn an_update_in_the_order_of_npm_is_got_through_with_the_new_program() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let mut supervisor = package.launch().start();
    let first = supervisor.wait_started();
    let program = fs::read(package.folder().join("openclaw.mjs")).expect("it is there");
    rename(&package.folder(), &package.retired());
    first.kill();
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    fs::create_dir(package.folder()).expect("a folder can be made");
    // npm writes the files one after the other, and makes the program executable at its end.
    fs::write(package.folder().join("openclaw.mjs"), &program).expect("a file can be made");
    assert_waits(&supervisor, 1, &scene);
    fs::write(package.folder().join("package.json"), r#"{"version":"2"}"#).expect("a file can be made");
    fs::set_permissions(package.folder().join("openclaw.mjs"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    fs::remove_dir_all(package.retired()).expect("it is ours");
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), supervisor.count("restart.gave_up")), (2, 0), "{}", supervisor.story());
}

/// The package goes, its gateway dies, and an update in the order of npm brings another one.
fn update_under(package: &Package<'_>, launch: Launch<'_>) {
    let scene = package.scene;
    let mut supervisor = launch.start();
    let first = supervisor.wait_started();
    rename(&package.folder(), &package.retired());
    first.kill();
    let failed = supervisor.wait_event("gateway.spawn_failed");
    assert!(failed.text("why").contains(".openclaw-Ab3xYz09"), "{failed:?}");
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    assert_waits(&supervisor, 1, scene);
    let program = fs::read(package.retired().join("openclaw.mjs")).expect("it is there");
    fs::create_dir(package.folder()).expect("a folder can be made");
    fs::write(package.folder().join("package.json"), r#"{"version":"2"}"#).expect("a file can be made");
    fs::write(package.folder().join("openclaw.mjs"), program).expect("a file can be made");
    fs::set_permissions(package.folder().join("openclaw.mjs"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    fs::remove_dir_all(package.retired()).expect("it is ours");
    supervisor.wait_started();
    let exits = (supervisor.count("gateway.exited"), supervisor.count("restart.gave_up"), spent(scene));
    assert_eq!((scene.diary().starts().len(), exits), (2, (1, 0, 1.into())), "{}", supervisor.story());
}

#[test]
fn an_update_under_a_gateway_that_node_was_started_with_costs_nothing() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    update_under(&package, package.launch_by_node());
}

#[test]
fn an_update_under_a_gateway_that_is_named_by_path_alone_costs_nothing() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let folders = std::env::var("PATH").expect("PATH is set");
    let path = format!("{}:{folders}", package.modules.join(".bin").display());
    update_under(&package, package.launch_by(&["env", "openclaw"]).env("PATH", &path));
}

#[test]
fn a_supervisor_that_begins_while_the_package_is_away_waits_for_it() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    rename(&package.folder(), &package.retired());
    let mut supervisor = package.launch_by_node().start();
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    assert_waits(&supervisor, 0, &scene);
    rename(&package.retired(), &package.folder());
    supervisor.wait_started();
    assert_eq!((supervisor.count("gateway.exited"), spent(&scene)), (0, 0.into()), "{}", supervisor.story());
}

#[test]
fn a_program_that_node_never_could_find_is_told_at_once() {
    let scene = Scene::new("healthy");
    let file = scene.root().join("nowhere/openclaw.mjs").display().to_string();
    let port = scene.port().to_string();
    let began = Instant::now();
    let mut supervisor = scene.launch().words(&[&node(&scene), &file, "gateway", "--port", &port]).start();
    supervisor.expect_exit(78);
    supervisor.assert_took("the end", began.elapsed(), &(Duration::ZERO..Duration::from_secs(5)));
    let reason = supervisor.last("supervisor.stopped").text("reason").to_owned();
    assert!(reason.contains(&file) && reason.contains("correct COMMAND"), "{reason}");
    assert_eq!(supervisor.count("gateway.spawned"), 0, "{}", supervisor.story());
}

#[test]
fn a_pre_start_hook_is_called_once_the_update_is_over_and_not_before() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let notes = scene.root().join("calls");
    let hook = format!("echo called >> '{}'", notes.display());
    let calls = || fs::read_to_string(&notes).unwrap_or_default().lines().count();
    let mut supervisor = package.launch().option("--pre-start", &hook).start();
    let first = supervisor.wait_started();
    rename(&package.folder(), &package.retired());
    first.kill();
    // The first two looks are 1 s apart, the third follows 2 s later.
    for _ in 0..3 {
        supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    }
    assert_eq!((calls(), scene.diary().starts().len()), (1, 1), "{}", supervisor.story());
    rename(&package.retired(), &package.folder());
    supervisor.wait_started();
    assert_eq!((calls(), spent(&scene)), (2, 1.into()), "{}", supervisor.story());
}

/// A launcher of the package that starts `installer`, a script of the shell, and a `sleep` beside the first gateway. The script is
/// named as npm's.
fn launch_beside<'a>(package: &Package<'a>, name: &str, installer: &str) -> Launch<'a> {
    let (root, modules) = (package.scene.root(), package.modules.display());
    let file = root.join(name);
    let script =
        format!("cd '{}'; modules='{modules}'\nuntil [ -e up ]; do sleep 0.02; done\n{installer}\n", root.display());
    fs::write(&file, script).expect("a file can be made");
    let launcher = root.join("launcher");
    let begin = format!(
        "[ -e '{0}/once' ] || {{ : > '{0}/once'; sh '{1}' install & sleep 613 & }}",
        root.display(),
        file.display()
    );
    fs::write(&launcher, format!("{begin}\nexec \"$@\"\n")).expect("a file can be made");
    package.launch_by(&[
        "sh",
        &launcher.display().to_string(),
        &package.modules.join(".bin/openclaw").display().to_string(),
    ])
}

/// Returns the first gateway once the installer has made the file `begun`.
fn wait_installing(scene: &Scene, supervisor: &mut Supervisor) -> Process {
    let gateway = supervisor.wait_started();
    fs::write(scene.root().join("up"), "").expect("a file can be made");
    wait_for("the installer", PATIENCE, || supervisor.story(), || scene.root().join("begun").exists().then_some(()));
    gateway
}

/// Kills the first gateway while the installer is at work. All but the installer is killed.
fn crash_while_installing(scene: &Scene, supervisor: &mut Supervisor) {
    let gateway = wait_installing(scene, supervisor);
    gateway.kill();
    let killed = supervisor.wait_event("tree.killed").value()["commands"].to_string();
    assert!(killed.contains("sleep 613") && !killed.contains("install"), "{}", supervisor.story());
    supervisor.wait_event("installer.awaited");
}

/// What is told of the installer once its time is over.
fn wait_cut_short(supervisor: &mut Supervisor) -> String {
    let told = supervisor.wait_event("installer.killed").value()["commands"][0].as_str().unwrap_or_default().to_owned();
    assert!(supervisor.story().contains(&format!("killed half-way; run it again: {told}")), "{}", supervisor.story());
    told
}

/// npm's order, in `seconds`.
fn update(seconds: u32) -> String {
    format!(
        "mv \"$modules/openclaw\" \"$modules/.openclaw-Ab3xYz09\"; mkdir \"$modules/openclaw\"; : > begun; sleep {seconds}
        cp \"$modules/.openclaw-Ab3xYz09/openclaw.mjs\" \"$modules/openclaw\"
        echo '{{\"version\":\"2\"}}' > \"$modules/openclaw/package.json\"; rm -r \"$modules/.openclaw-Ab3xYz09\"; : > finished"
    )
}

#[test]
fn an_installer_that_a_crashed_gateway_leaves_is_let_finish_before_the_next_start() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let mut supervisor = launch_beside(&package, "npm-cli.js", &update(3)).start();
    crash_while_installing(&scene, &mut supervisor);
    let status = Said::by(&scene, &["status"]).out;
    assert!(status.contains("npm-cli.js install"), "{status}");
    assert!(!scene.root().join("finished").exists(), "{}", supervisor.story());
    supervisor.wait_started();
    assert!(scene.root().join("finished").exists(), "{}", supervisor.story());
    let told = (supervisor.count("installer.killed"), supervisor.count("gateway.spawn_failed"), spent(&scene));
    assert_eq!((scene.diary().starts().len(), told), (2, (0, 0, 1.into())), "{}", supervisor.story());
}

#[test]
fn what_a_killed_installer_has_left_is_no_update_and_it_is_named() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let installer = "trap '' TERM; mkdir \"$modules/.openclaw-Ab3xYz09\"; : > begun; while :; do sleep 0.1; done";
    let mut supervisor = launch_beside(&package, "npm-cli.js", installer).option("--update-timeout", "1s").start();
    crash_while_installing(&scene, &mut supervisor);
    assert!(wait_cut_short(&mut supervisor).contains("npm-cli.js install"), "{}", supervisor.story());
    supervisor.wait_started();
    assert!(package.retired().exists());
    assert_eq!((supervisor.count("gateway.spawn_failed"), spent(&scene)), (0, 1.into()), "{}", supervisor.story());
    for words in [["status"].as_slice(), &["explain", "last"]] {
        let said = Said::by(&scene, words).out;
        assert!(said.contains("run it again: ") && said.contains("npm-cli.js install"), "{said}");
    }
}

#[test]
fn an_installer_without_a_telling_command_line_is_known_by_the_file_that_it_writes() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let installer = "exec 9> \"$modules/openclaw/part\"; : > begun; while :; do sleep 0.1; done";
    let mut supervisor = launch_beside(&package, "worker", installer).option("--update-timeout", "1s").start();
    crash_while_installing(&scene, &mut supervisor);
    assert!(wait_cut_short(&mut supervisor).contains("worker"), "{}", supervisor.story());
    supervisor.wait_started();
}

#[test]
fn a_stop_ends_an_installer_and_names_it_whether_its_gateway_lives_or_not() {
    for is_alive in [true, false] {
        let scene = Scene::new("healthy");
        let package = Package::install(&scene);
        let mut supervisor = launch_beside(&package, "npm-cli.js", &update(600)).start();
        if is_alive {
            wait_installing(&scene, &mut supervisor);
        } else {
            crash_while_installing(&scene, &mut supervisor);
        }
        supervisor.signal(nix::sys::signal::Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert!(wait_cut_short(&mut supervisor).contains("npm-cli.js install"), "{}", supervisor.story());
    }
}

#[test]
fn an_installer_has_time_to_roll_back_after_a_crash() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    // npm heeds SIGTERM after it has unpacked all that it has begun to.
    let installer = "trap 'sleep 2; rm -r \"$modules/openclaw\"; mv \"$modules/.openclaw-Ab3xYz09\" \"$modules/openclaw\"; exit' TERM
        mv \"$modules/openclaw\" \"$modules/.openclaw-Ab3xYz09\"; mkdir \"$modules/openclaw\"; : > begun
        while :; do sleep 0.1; done";
    let mut supervisor = launch_beside(&package, "npm-cli.js", installer).option("--update-timeout", "1s").start();
    crash_while_installing(&scene, &mut supervisor);
    assert!(wait_cut_short(&mut supervisor).contains("npm-cli.js install"), "{}", supervisor.story());
    assert!(!package.retired().exists() && package.folder().join("package.json").exists(), "{}", supervisor.story());
    supervisor.wait_started();
    assert_eq!(supervisor.count("gateway.spawn_failed"), 0, "{}", supervisor.story());
}

#[test]
fn a_stop_does_not_wait_for_an_update() {
    let scene = Scene::new("healthy");
    let package = Package::install(&scene);
    let mut supervisor = package.launch().start();
    let first = supervisor.wait_started();
    fs::create_dir(package.retired()).expect("a folder can be made");
    first.kill();
    supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("update"));
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    let asked = Instant::now();
    supervisor.expect_exit(0);
    supervisor.assert_took("the stop", asked.elapsed(), &(Duration::ZERO..Duration::from_secs(1)));
}
