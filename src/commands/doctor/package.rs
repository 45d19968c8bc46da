//! What is run: OpenClaw's package, the Node for it, and the limits that both run with.

use super::directives::DRAIN_MAX;
use super::finding::Finding;
use super::plan::{Origin, Plan};
use super::program;
use crate::core::report::human;
use crate::gateway::openclaw::is_openclaw;
use crate::settings::{Mistake, Settings};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What Node needs for the channels and tools of one gateway, with room.
const FILES_MIN: u64 = 1024;

/// What is known of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) folder: PathBuf,
    pub(super) version: Option<String>,
    /// `engines.node`
    pub(super) engines: Option<String>,
}

impl Package {
    /// The package that the program of a gateway's command is in.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let file = settings.command.iter().find(|word| is_openclaw(word))?;
        let file = fs::canonicalize(file).ok()?;
        file.ancestors().skip(1).find_map(Self::read)
    }

    fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("package.json")).ok()?;
        let manifest: Value = serde_json::from_str(&text).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (manifest["name"] == "openclaw").then(|| Self {
            folder: folder.to_owned(),
            version: text(&manifest["version"]),
            engines: text(&manifest["engines"]["node"]),
        })
    }
}

/// What `node --version` says, where one is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    At { path: PathBuf, version: Option<String> },
    Missing,
}

impl Node {
    /// The one that the gateway's command names, else the first on its PATH.
    pub(super) fn find(settings: &Settings, path: Option<&OsStr>) -> Self {
        let named = settings.command.first().map(Path::new).filter(|program| program.ends_with("node"));
        let found = || which::which_in("node", path, "/").ok();
        let Some(path) = named.map(Path::to_owned).or_else(found) else { return Self::Missing };
        let mut command = Command::new(&path);
        command.arg("--version").env_remove("NODE_OPTIONS");
        let version = program::ask(command).ok().map(|text| text.trim().trim_start_matches('v').to_owned());
        Self::At { path, version }
    }
}

/// Whether the settings make sense where they count; a line each where they do not.
pub(super) fn settings(plan: &Plan) -> Vec<Finding> {
    let origin = match &plan.origin {
        Origin::Process(pid) => format!("as pid {pid} was started"),
        Origin::Unit(id) => format!("as {id} would start"),
        Origin::Ourselves => "as you would start it here".to_owned(),
    };
    match &plan.settings {
        Ok(settings) => {
            // Its arguments may hold a secret.
            let program = settings.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            let mut findings = vec![Finding::ok("settings", format!("{origin}: {program}, {}", settings.endpoint))];
            findings.extend(settings.warnings.iter().map(|warning| {
                Finding::warn("settings", warning.clone(), origin.clone(), "see the file or variable that it names")
            }));
            findings
        }
        Err(_) if plan.is_guessed => vec![Finding::warn(
            "settings",
            format!("{origin}: its command cannot be told word by word"),
            "the files of the unit cannot be read, or say something else than what systemd knows",
            "systemctl daemon-reload, or ask as root",
        )],
        Err(mistakes) => mistakes.all().iter().map(|mistake| of_mistake(mistake, plan, &origin)).collect(),
    }
}

fn of_mistake(mistake: &Mistake, plan: &Plan, origin: &str) -> Finding {
    let text = mistake.to_string();
    if matches!(mistake, Mistake::Folder(_)) && plan.other_user.is_some() {
        return Finding::ok_since("settings", text, "another user runs it, who may be allowed to");
    }
    let fix = match (mistake, &plan.origin) {
        (Mistake::Usage(_), _) => "correct that option or variable".to_owned(),
        (Mistake::Config(_), _) => "openclaw doctor, or correct it there".to_owned(),
        (Mistake::Folder(_), _) => "chown -R the user who runs it, or another folder".to_owned(),
        (Mistake::Command(_), Origin::Unit(id)) => {
            format!(
                "Environment=PATH=... with the folders of `openclaw` and its Node (below [Service], in an edit of {id})"
            )
        }
        (Mistake::Command(_), _) => "npm install -g openclaw, or a PATH with its folder".to_owned(),
    };
    let code = mistake.exit_code();
    Finding::fail("settings", text, format!("{origin}, it ends with {code}"), fix)
}

/// OpenClaw's version and the Node that it wants.
pub(super) fn runtime(package: Option<&Package>, node: &Node) -> Vec<Finding> {
    let Some(package) = package else {
        return vec![Finding::ok_since("openclaw", "no package of OpenClaw", "the command is a program of its own")];
    };
    let folder = package.folder.display();
    let mut findings = vec![match &package.version {
        Some(version) => Finding::ok("openclaw", format!("{version} in {folder}")),
        None => Finding::warn(
            "openclaw",
            format!("no version in {folder}/package.json"),
            "the package is not whole",
            "npm install -g openclaw",
        ),
    }];
    let wants = package.engines.as_deref().unwrap_or("any");
    findings.push(match node {
        Node::Missing => Finding::fail(
            "node",
            "no node on its PATH",
            "OpenClaw's program is a script for it",
            "Environment=PATH=... with the folder of node, or install one",
        ),
        Node::At { path, version: None } => Finding::warn(
            "node",
            format!("{} does not tell its version", path.display()),
            format!("OpenClaw wants {wants}"),
            format!("{} --version", path.display()),
        ),
        Node::At { path, version: Some(version) } => {
            let found = format!("{version} at {}, OpenClaw wants {wants}", path.display());
            match package.engines.as_deref().map_or(Some(true), |range| satisfies(version, range)) {
                Some(true) => Finding::ok("node", found),
                Some(false) => Finding::fail(
                    "node",
                    found,
                    "the gateway refuses to start with it",
                    format!("install a Node {wants}, and put its folder in front in PATH"),
                ),
                None => Finding::warn("node", found, "that range is written in an unknown way", "compare it yourself"),
            }
        }
    });
    findings
}

/// Whether a version lies in a range of npm, as far as that is `>=1.2.3 <4 || ^5.6`; nothing where it is another form.
fn satisfies(version: &str, range: &str) -> Option<bool> {
    // A release before the final one lies in no range that does not name it.
    let (version, is_final) = (numbers(version.split('-').next()?)?.0, !version.contains('-'));
    let mut any = false;
    for part in range.split("||") {
        let mut all = is_final;
        for comparator in part.split_whitespace() {
            let at = comparator.find(|c: char| c.is_ascii_digit() || c == '*').unwrap_or(comparator.len());
            let (operator, bound) = comparator.split_at(at);
            if bound == "*" {
                continue;
            }
            let (bound, given) = numbers(bound)?;
            // All that begins with the numbers that were given.
            let family = version[..given] == bound[..given];
            all &= match operator {
                ">=" => version >= bound,
                ">" => version > bound && !family,
                "<" => version < bound,
                "<=" => version <= bound || family,
                "^" => version >= bound && version[0] == bound[0],
                "~" => version >= bound && version[..given.min(2)] == bound[..given.min(2)],
                "" | "=" => family,
                _ => return None,
            };
        }
        any |= all;
    }
    Some(any)
}

/// The three numbers of a version, and how many were given.
fn numbers(text: &str) -> Option<([u64; 3], usize)> {
    let (mut all, mut given) = ([0; 3], 0);
    for part in text.split('.') {
        if matches!(part, "x" | "X" | "*") {
            break;
        }
        *all.get_mut(given)? = part.parse().ok()?;
        given += 1;
    }
    (given > 0).then_some((all, given))
}

/// Whether the time for a drain is enough where no unit bounds it.
pub(super) fn stop_timeout(own: Duration) -> Finding {
    let found = format!("our stop timeout {}, the gateway's drain {}", human(own), human(DRAIN_MAX));
    if own >= DRAIN_MAX {
        return Finding::ok("stop time", found);
    }
    let why = format!("a drain that takes longer than {} is cut off, and the work in it is lost", human(own));
    Finding::warn("stop time", found, why, "leave --stop-timeout and OPENCLAW_SUPERVISE_STOP_TIMEOUT out")
}

/// The limit on open files; `unit` says how a unit sets it.
pub(super) fn open_files(soft: Option<u64>, fix: String) -> Finding {
    let check = "open files";
    match soft {
        None => Finding::ok(check, "no limit"),
        Some(soft) if soft >= FILES_MIN => Finding::ok(check, format!("{soft} at a time")),
        Some(soft) => {
            let why = "a gateway with many channels and tools runs out of them, and then answers nobody";
            Finding::warn(check, format!("{soft} at a time"), why, fix)
        }
    }
}

/// The soft limit on open files of a process, or of this one.
pub(super) fn soft_limit(pid: Option<i32>) -> Option<u64> {
    let limits = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    match limits.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Max open files"))) {
        Some(line) => line.split_whitespace().next()?.parse().ok(),
        None => rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_range_of_versions_is_read_as_npm_reads_it() {
        let openclaws = ">=24.16.0 <25 || >=26.1.0";
        for (version, range, expected) in [
            ("24.16.0", openclaws, Some(true)),
            ("24.15.9", openclaws, Some(false)),
            ("25.0.0", openclaws, Some(false)),
            ("26.0.9", openclaws, Some(false)),
            ("26.1.0", openclaws, Some(true)),
            ("30.0.0", openclaws, Some(true)),
            ("26.1.0-nightly", openclaws, Some(false)),
            ("22.1.0", ">=22.12", Some(false)),
            ("22.12.0", ">=22.12", Some(true)),
            ("22.5.1", "22.x", Some(true)),
            ("22.5.1", "^22.4", Some(true)),
            ("23.0.0", "^22.4", Some(false)),
            ("22.5.1", "~22.4", Some(false)),
            ("22.4.9", "~22.4.1", Some(true)),
            ("22.9.0", ">22", Some(false)),
            ("23.0.0", ">22", Some(true)),
            ("22.9.0", "<=22", Some(true)),
            ("18.0.0", "*", Some(true)),
            ("18.0.0", "", Some(true)),
            ("18.0.0", "!18", None),
            ("18.0.0", "18 - 20", None),
            ("eighteen", ">=18", None),
        ] {
            assert_eq!(satisfies(version, range), expected, "{version} in {range}");
        }
    }

    fn package(engines: &str) -> Package {
        let engines = Some(engines.to_owned());
        Package { folder: PathBuf::from("/opt/openclaw"), version: Some("2026.9.6".to_owned()), engines }
    }

    #[test]
    fn the_node_has_to_be_there_and_of_a_version_that_openclaw_takes() {
        let at = |version: Option<&str>| Node::At { path: "/bin/node".into(), version: version.map(str::to_owned) };
        for (node, engines, level) in [
            (at(Some("24.16.1")), ">=24.16.0", Level::Ok),
            (at(Some("20.1.0")), ">=24.16.0", Level::Fail),
            (at(Some("20.1.0")), "what it likes", Level::Warn),
            (at(None), ">=24.16.0", Level::Warn),
            (Node::Missing, ">=24.16.0", Level::Fail),
        ] {
            let findings = runtime(Some(&package(engines)), &node);
            assert_eq!((findings[0].level, findings[1].level), (Level::Ok, level), "{node:?}");
        }
        assert_eq!(runtime(None, &Node::Missing).len(), 1);
    }

    #[test]
    fn few_open_files_are_too_few() {
        for (soft, level) in [(None, Level::Ok), (Some(1024), Level::Ok), (Some(256), Level::Warn)] {
            assert_eq!(open_files(soft, "LimitNOFILE=65536".to_owned()).level, level);
        }
        assert!(soft_limit(None).is_none_or(|limit| limit > 0));
    }

    #[test]
    fn what_is_wrong_with_the_settings_is_a_line_each_with_its_exit_code() {
        use crate::settings::{World, read};
        let world = World { env: Box::new(|name| (name == "PATH").then(|| "/nowhere".into())), ..World::of_process() };
        let words = ["openclaw-supervise", "run", "--port", "x"].map(std::ffi::OsString::from);
        let plan = Plan {
            origin: Origin::Unit("x.service".to_owned()),
            settings: Err(read(words, &world).unwrap_err()),
            path: None,
            node_options: None,
            is_guessed: false,
            other_user: None,
        };
        let findings = settings(&plan);
        let codes =
            |code: &str| findings.iter().any(|finding| finding.why.as_ref().is_some_and(|why| why.ends_with(code)));
        assert!(codes("it ends with 2") && codes("it ends with 78"), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.fix.as_ref().is_some_and(|fix| fix.contains("PATH"))));
    }
}
