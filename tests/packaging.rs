//! Every file of the package and of the pipeline exists. The command of docs/PACKAGING.md builds the package itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use openclaw_supervise::cli;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = include_str!("../Cargo.toml");
const PIPELINE: &str = include_str!("../.github/workflows/ci.yml");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of one table of the manifest.
fn table(name: &str) -> &'static str {
    let from = MANIFEST.split(&format!("[{name}]")).nth(1).unwrap();
    from.split("\n[").next().unwrap()
}

/// Source, target and mode of each file in the package.
fn assets() -> Vec<[String; 3]> {
    let list = table("package.metadata.deb").split("assets = [").nth(1).unwrap();
    let rows = list.lines().filter_map(|line| line.trim().strip_prefix('[')?.strip_suffix("],"));
    let words = rows.map(|row| row.split(", ").map(|word| word.trim_matches('"').to_owned()).collect::<Vec<_>>());
    words.map(|words| words.try_into().unwrap()).collect()
}

fn files_of(pattern: &str) -> Vec<PathBuf> {
    let Some((folder, ending)) = pattern.split_once("/*") else { return vec![root().join(pattern)] };
    let all = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn every_file_of_the_package_exists() {
    let assets = assets();
    assert!(assets.len() >= 6, "{assets:?}");
    for [source, target, mode] in &assets {
        if source == "target/release/openclaw-supervise" {
            assert_eq!((target.as_str(), mode.as_str()), ("usr/bin/", "755"));
            continue;
        }
        assert_eq!(mode, "644", "{source}");
        assert!(target.starts_with("usr/"), "{target}");
        // The program makes them, see the next test.
        if source.starts_with("target/generated/") {
            continue;
        }
        let files = files_of(source);
        assert!(!files.is_empty() && files.iter().all(|file| file.is_file()), "{source}");
        assert!(target.ends_with('/'), "{target}");
    }
}

fn program(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_openclaw-supervise")).args(words).output().unwrap()
}

#[test]
fn the_program_makes_the_manual_pages_of_the_package() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    let output = program(&["man", "--dir", &folder.display().to_string()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for verb in cli::NOTES.iter().map(|notes| notes.verb) {
        let name = format!("openclaw-supervise-{verb}");
        let page = fs::read_to_string(folder.join(format!("{}.1", name.trim_end_matches('-')))).unwrap();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES"] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{name} has no {section}\n{page}");
        }
        let words: Vec<_> = ["man", verb].into_iter().filter(|word| !word.is_empty()).collect();
        assert_eq!(String::from_utf8(program(&words).stdout).unwrap(), page);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), cli::NOTES.len());
    fs::remove_dir_all(folder).unwrap();
    let unknown = program(&["man", "statsu"]);
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0), "{unknown:?}");
}

#[test]
fn the_program_makes_the_completions_of_the_package() {
    let targets: Vec<_> = assets().into_iter().map(|[source, ..]| source).collect();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("completions-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(targets.contains(&format!("target/generated/{shell}")), "{targets:?}");
        let output = program(&["completions", shell]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("retry-now") && script.contains("hang-after"), "{script}");
        assert!(!script.contains("demo-gateway"), "{shell} completes a hidden verb");
        fs::write(folder.join(shell), script).unwrap();
    }
    let completed = |line: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _openclaw__supervise openclaw-supervise \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; \
             echo \"${{COMPREPLY[@]}}\"",
            folder.join("bash").display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed("openclaw-supervise stat"), "status");
    assert_eq!(completed("openclaw-supervise completions ''"), "-h --help bash zsh fish");
    assert_eq!(completed("openclaw-supervise run --on-conflict ''"), "auto exit standby");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn each_unit_goes_to_its_manager_and_finds_the_program_of_the_package() {
    for (unit, folder) in [("openclaw-supervise.service", "user"), ("openclaw-supervise@.service", "system")] {
        let source = format!("contrib/systemd/{unit}");
        let packed = assets().into_iter().find(|[from, ..]| *from == source).unwrap();
        assert_eq!(packed[1], format!("usr/lib/systemd/{folder}/"));
        let text = fs::read_to_string(root().join(source)).unwrap();
        // systemd looks for a bare name in /usr/local/bin and /usr/bin.
        assert!(text.lines().any(|line| line == "ExecStart=openclaw-supervise run"), "{unit}");
    }
}

#[test]
fn the_scripts_of_the_pipeline_exist_and_are_executable() {
    let words = PIPELINE.split_whitespace().filter(|word| word.starts_with(".ci/"));
    let scripts: Vec<_> = words.collect();
    assert!(scripts.contains(&".ci/run"), "{scripts:?}");
    for script in scripts {
        let mode = fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
    }
}

#[test]
fn the_toolchain_of_the_pipeline_is_the_one_of_the_manifest() {
    let version = table("workspace.package").lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(PIPELINE.contains(&format!("TOOLCHAIN: {version}")), "{version}");
}

#[test]
fn no_e_mail_address_is_invented_and_the_licence_exists() {
    let deb = table("package.metadata.deb");
    assert!(!deb.contains('@') || deb.lines().filter(|line| line.contains('@')).all(|line| line.contains("@.service")));
    let license = fs::read_to_string(Path::new(&root()).join("LICENSE")).unwrap();
    assert!(license.starts_with("MIT License"), "{license}");
}

const COMPOSE: &str = include_str!("../contrib/container/compose.yaml");
const KUBERNETES: &str = include_str!("../contrib/container/kubernetes/openclaw.yaml");
const DOCKERFILE: &str = include_str!("../contrib/container/Dockerfile");

/// The number after the first occurrence of a word.
#[track_caller]
fn number(text: &str, word: &str) -> u32 {
    let rest = text.split(word).nth(1).unwrap_or_else(|| panic!("{word}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn a_runtime_waits_longer_than_we_do_and_we_longer_than_a_drain() {
    for (text, grace, ours) in [
        (COMPOSE, "\n    stop_grace_period:", "OPENCLAW_SUPERVISE_STOP_TIMEOUT:"),
        (KUBERNETES, "\n      terminationGracePeriodSeconds:", "OPENCLAW_SUPERVISE_STOP_TIMEOUT\n              value:"),
    ] {
        let (grace, ours) = (number(text, grace), number(text, ours));
        assert!(ours > 327 && grace >= ours + 15, "{grace} {ours}");
    }
}

#[test]
fn a_runtime_kills_us_only_for_a_hung_supervisor() {
    let of = |probe: &str| KUBERNETES.split(probe).nth(1).unwrap().split("failureThreshold:").next().unwrap();
    for (probe, question) in
        [("startupProbe:", "--supervised"), ("livenessProbe:", "--supervised"), ("readinessProbe:", "--started")]
    {
        let command = format!(r#"command: ["openclaw-supervise", "probe", "{question}"]"#);
        assert!(of(probe).contains(&command), "{probe}");
    }
    // Docker's check only reports: a boot may take 300 s, and a hang is found after 60 s.
    let health = DOCKERFILE.split("HEALTHCHECK").nth(1).unwrap();
    assert!(health.contains(r#""probe", "--live""#));
    assert!(
        number(health, "--start-period=") >= 300 && number(health, "--interval=") * number(health, "--retries=") > 60
    );
}

#[test]
fn a_fresh_volume_gets_a_configuration_with_a_persistent_secret() {
    for text in [COMPOSE, KUBERNETES] {
        for word in
            ["onboard --non-interactive", "--gateway-auth token", "--gateway-token-ref-env OPENCLAW_GATEWAY_TOKEN"]
        {
            assert!(text.contains(word), "{word}");
        }
    }
    assert!(COMPOSE.lines().any(|line| line.starts_with("      OPENCLAW_GATEWAY_TOKEN: ${OPENCLAW_GATEWAY_TOKEN:?")));
    assert_eq!(KUBERNETES.matches("- name: OPENCLAW_GATEWAY_TOKEN").count(), 2);
    // The secret is neither in the repository nor in the image.
    assert!(include_str!("../.gitignore").contains(".env") && include_str!("../.dockerignore").contains(".env"));
}

#[test]
fn the_container_files_grant_only_the_rights_that_are_needed() {
    for line in ["read_only: true", "- ALL", "- no-new-privileges:true", "init: false", "- \"127.0.0.1:18789:18789\""] {
        assert!(COMPOSE.lines().any(|found| found.trim() == line), "{line}");
    }
    for line in [
        "replicas: 1",
        "type: Recreate",
        "runAsNonRoot: true",
        "runAsUser: 1000",
        "fsGroup: 1000",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [\"ALL\"]",
    ] {
        assert!(KUBERNETES.lines().any(|found| found.trim() == line), "{line}");
    }
    for line in ["ENTRYPOINT [\"openclaw-supervise\"]", "CMD [\"run\"]", "USER node", "STOPSIGNAL SIGTERM"] {
        assert!(DOCKERFILE.lines().any(|found| found == line), "{line}");
    }
    let home = "/home/node/.openclaw";
    assert!([DOCKERFILE, COMPOSE, KUBERNETES].iter().all(|text| text.contains(home)));
}
