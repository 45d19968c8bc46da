//! Command lines and package layouts of OpenClaw.

use super::files::RETIRED_AGE_MAX;
use super::*;
use std::os::unix::fs::MetadataExt;

fn launch(line: &str) -> Launch {
    let mut words = line.split(' ').map(OsString::from);
    let program = words.next().unwrap().into();
    Launch { key: String::new(), program, arguments: words.collect(), config: PathBuf::new(), exports: vec![] }
}

#[test]
fn the_program_is_the_one_that_runs_the_gateway() {
    for (line, file, doctor) in [
        ("/bin/openclaw gateway run --port 1", "/bin/openclaw", "/bin/openclaw doctor"),
        ("/bin/openclaw --profile work gateway", "/bin/openclaw", "/bin/openclaw --profile work doctor"),
        ("/bin/openclaw --profile gateway gateway", "/bin/openclaw", "/bin/openclaw --profile gateway doctor"),
        ("/bin/node /opt/openclaw.mjs gateway run", "/opt/openclaw.mjs", "/bin/node /opt/openclaw.mjs doctor"),
    ] {
        let openclaw = Openclaw::of(&launch(line)).unwrap();
        assert_eq!(openclaw.entry.path, Path::new(file));
        let command = openclaw.command(&["doctor"]);
        let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
        assert_eq!(words.join(OsStr::new(" ")), doctor);
    }
    for line in ["/opt/fake gateway run", "/usr/bin/openclaw doctor", "/bin/gateway openclaw"] {
        assert!(Openclaw::of(&launch(line)).is_none(), "{line}");
    }
}

#[test]
fn the_entry_file_of_a_build_is_recognised_by_the_name_of_its_package() {
    let folder = std::env::temp_dir().join(format!("supervise-built-{}", std::process::id()));
    let manifest = |of: &str, text: &str| fs::write(folder.join(of).join("package.json"), text).unwrap();
    for name in ["app/dist", "openclaw/dist", "other/dist", "app/src"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let at = |name: &str| folder.join(name).display().to_string();
    // A multi-byte letter straddles the end of what is read.
    let long = "\u{e4}".repeat(4000);
    manifest("app", &format!("{{\n  \"name\" : \"openclaw\", \"description\": \"{long}\"}}"));
    manifest("other", r#"{"name": "openclaw-like"}"#);
    for (file, expected) in [
        ("app/dist/index.js", true),
        ("app/dist/entry.js", true),
        ("app/dist/index.mjs", true),
        ("app/dist/entry.mjs", true),
        ("app/dist/worker.js", false),
        ("app/src/index.js", false),
        ("other/dist/index.js", false),
        ("openclaw/dist/index.js", true),
        ("nowhere/dist/index.js", false),
    ] {
        assert_eq!(is_openclaw(at(file).as_ref()), expected, "{file}");
    }
    assert!(!is_openclaw("index.js".as_ref()));
    let line = format!("/bin/node {} gateway --port 1", at("app/dist/index.js"));
    let openclaw = Openclaw::of(&launch(&line)).unwrap();
    assert_eq!(openclaw.command(&[]).get_args().collect::<Vec<_>>(), [at("app/dist/index.js").as_str()]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_bare_name_is_searched_on_path_and_a_path_is_not() {
    let folder = std::env::temp_dir().join(format!("supervise-path-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = std::env::join_paths([Path::new("/nowhere"), &folder]).unwrap();
    assert_eq!(locate("openclaw".as_ref(), Some(&path)), Path::new("openclaw"));
    // npm has removed its target.
    std::os::unix::fs::symlink("../gone", folder.join("openclaw")).unwrap();
    assert_eq!(locate("openclaw".as_ref(), Some(&path)), folder.join("openclaw"));
    assert_eq!(locate("openclaw.mjs".as_ref(), Some(&path)), Path::new("openclaw.mjs"));
    assert_eq!(locate("/bin/openclaw".as_ref(), Some(&path)), Path::new("/bin/openclaw"));
    fs::remove_dir_all(folder).unwrap();
}

fn openclaw(line: &str) -> Openclaw {
    Openclaw::of(&launch(line)).unwrap()
}

/// A package in the layout of npm.
struct Installed {
    folder: PathBuf,
    package: PathBuf,
}

impl Installed {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("supervise-package-{name}-{}", std::process::id()));
        let package = folder.join("node_modules/openclaw");
        fs::create_dir_all(folder.join("node_modules/.bin")).unwrap();
        fs::create_dir(&package).unwrap();
        fs::write(package.join("package.json"), r#"{"name":"openclaw"}"#).unwrap();
        fs::write(package.join("openclaw.mjs"), "").unwrap();
        std::os::unix::fs::symlink("../openclaw/openclaw.mjs", folder.join("node_modules/.bin/openclaw")).unwrap();
        Self { folder, package }
    }

    fn link(&self) -> String {
        self.folder.join("node_modules/.bin/openclaw").display().to_string()
    }

    fn file(&self) -> String {
        self.package.join("openclaw.mjs").display().to_string()
    }

    /// The installation time.
    fn now(&self) -> Duration {
        Duration::from_secs(fs::metadata(&self.package).unwrap().ctime().cast_unsigned())
    }

    fn retired(&self) -> PathBuf {
        self.package.with_file_name(".openclaw-1a2B3c4D")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

/// The reason, if an update is the obstacle.
fn update(openclaw: &Openclaw, now: Duration) -> Option<String> {
    match openclaw.obstacle(now, || None) {
        Some(SpawnFailure::Updating(why)) => Some(why),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_is_an_obstacle_while_it_lasts() {
    let installed = Installed::new("update");
    let (openclaw, now) = (openclaw(&format!("{} gateway run", installed.link())), installed.now());
    assert_eq!(update(&openclaw, now), None);
    fs::create_dir(installed.retired()).unwrap();
    assert!(update(&openclaw, now).unwrap().contains(".openclaw-1a2B3c4D"));
    let later = now + RETIRED_AGE_MAX + Duration::from_mins(1);
    assert_eq!(update(&openclaw, later), None, "an update that failed long ago");
    let known = |cut: Duration| openclaw.obstacle(now, || Some(cut));
    assert_eq!(known(later), None, "left by an installer that was killed");
    assert!(known(Duration::ZERO).is_some(), "another one has begun since");
    fs::remove_dir(installed.retired()).unwrap();
    for other in [".openclaws", ".openclaw-plugin-1a2B3c4D", ".openclaw-1a2B3c4", ".openclaw-1a2B-c4D"] {
        fs::create_dir(installed.package.with_file_name(other)).unwrap();
    }
    assert_eq!(update(&openclaw, now), None, "unrelated siblings");
    fs::remove_file(installed.package.join("package.json")).unwrap();
    assert!(update(&openclaw, now).unwrap().contains("package.json"));
    let Some(SpawnFailure::Updating(why)) = openclaw.obstacle(now, || Some(later)) else {
        panic!("it cannot be started")
    };
    assert!(why.contains("package.json") && why.contains("run it again"), "{why}");
}

#[test]
fn a_package_that_disappears_is_an_update_however_it_is_started() {
    let installed = Installed::new("away");
    let now = installed.now();
    let (link, file) = (installed.link(), installed.file());
    let dist = installed.package.join("dist/index.js");
    fs::create_dir(installed.package.join("dist")).unwrap();
    fs::write(&dist, "").unwrap();
    let lines = [&file, &link, &dist.display().to_string()].map(|file| format!("/bin/node {file} gateway"));
    let [by_file, by_link, by_dist] = lines.each_ref().map(|line| openclaw(line));
    let as_program = openclaw(&format!("{link} gateway"));
    fs::rename(&installed.package, installed.retired()).unwrap();
    for openclaw in [&by_file, &by_link, &by_dist] {
        assert!(update(openclaw, now).unwrap().contains(".openclaw-1a2B3c4D"), "{openclaw:?}");
    }
    // A supervisor that started during the update.
    for line in &lines {
        assert!(update(&openclaw(line), now).unwrap().contains(".openclaw-1a2B3c4D"), "{line}");
    }
    assert!(update(&as_program, now).unwrap().contains(".openclaw-1a2B3c4D"));
    // By another tool than npm.
    fs::rename(installed.retired(), installed.folder.join("elsewhere")).unwrap();
    assert!(update(&by_file, now).unwrap().contains("openclaw.mjs has disappeared"), "{by_file:?}");
}

#[test]
fn a_file_that_never_existed_is_an_error_only_if_a_runtime_would_open_it_here() {
    let now = Duration::from_secs(1);
    let failure = openclaw("/bin/node /nowhere/openclaw/openclaw.mjs gateway").obstacle(now, || None);
    assert!(matches!(&failure, Some(SpawnFailure::Program(why)) if why.contains("/nowhere/openclaw")), "{failure:?}");
    for line in ["/bin/docker exec it /nowhere/openclaw.mjs gateway", "/bin/env node /nowhere/openclaw.mjs gateway"] {
        assert_eq!(openclaw(line).obstacle(now, || None), None, "{line}");
    }
}

#[test]
fn the_fingerprint_changes_with_the_files() {
    let installed = Installed::new("fingerprint");
    let openclaw = openclaw(&format!("{} gateway run", installed.link()));
    let before = openclaw.fingerprint();
    assert_eq!(openclaw.fingerprint(), before);
    fs::write(installed.package.join("package.json"), r#"{"version":"2"}"#).unwrap();
    assert_ne!(openclaw.fingerprint(), before);
}
