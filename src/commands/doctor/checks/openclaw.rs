//! The settings, OpenClaw's package, the Node.js that runs it, and the limit on open files.

use super::DRAIN_MAX;
use crate::cli::variable_of;
use crate::commands::doctor::facts::openclaw::{NodeFacts, OpenclawPackage};
use crate::commands::doctor::facts::settings::{SettingsFacts, SettingsOrigin};
use crate::commands::doctor::finding::{Advice, Finding};
use crate::core::report::human;
use crate::gateway::heap;
use crate::settings::UsageError;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// Enough for the channels and tools of one gateway.
const FILES_MIN: u64 = 1024;

/// One finding for valid settings and one for each warning, else one for each error.
pub(in super::super) fn settings(facts: &SettingsFacts) -> Vec<Finding> {
    let origin = origin_of(facts);
    match &facts.settings {
        Ok(settings) => {
            // Its arguments may hold a secret.
            let program = settings.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            let mut findings = vec![Finding::ok("settings", format!("{origin}: {program}, {}", settings.endpoint))];
            let fix = match &facts.other_user {
                None => "correct the file or variable that it names".to_owned(),
                // What we cannot read, that user may be able to.
                Some(user) => format!("run doctor as {user}, or correct the file or variable that it names"),
            };
            let warn = |warning: &String| Finding::warn("settings", warning.clone(), origin.clone(), fix.clone());
            findings.extend(settings.warnings.iter().map(warn));
            findings
        }
        Err(_) if facts.is_guessed => vec![Finding::warn(
            "settings",
            format!("{origin}: its arguments are not known for certain"),
            "the unit files cannot be read, or differ from what systemd has loaded, and systemctl shows no quotes",
            "systemctl daemon-reload, or run doctor as root",
        )],
        Err(errors) => errors.all().iter().map(|error| of_error(error, facts)).collect(),
    }
}

/// A URL with a token is a password.
pub(in super::super) fn bared(facts: &SettingsFacts) -> Option<Finding> {
    let options = facts.bared.join(" and ");
    let example = facts.bared.first()?;
    let variable = variable_of(example.trim_start_matches('-'));
    Some(Finding::warn(
        "settings",
        format!("{}: the URL of {options} stands in its command line", origin_of(facts)),
        "every user of the machine sees it with ps and systemctl show, and may send or read what it protects",
        format!(
            "write it to a file of mode 600 and name that ({example} @FILE), or set {variable} in its environment (EnvironmentFile= of a unit)"
        ),
    ))
}

fn origin_of(facts: &SettingsFacts) -> String {
    match &facts.origin {
        SettingsOrigin::Process(pid) => format!("as pid {pid} was started"),
        SettingsOrigin::Unit(id) => format!("as {id} would start"),
        SettingsOrigin::Ourselves => "as you would start it here".to_owned(),
    }
}

fn of_error(error: &UsageError, facts: &SettingsFacts) -> Finding {
    let origin = origin_of(facts);
    let text = error.to_string();
    if matches!(error, UsageError::Folder { .. }) && facts.other_user.is_some() {
        return Finding::ok_since("settings", text, "another user runs it and may have access");
    }
    let fix = match (error, &facts.origin) {
        (UsageError::Folder { .. }, _) => {
            "chown -R it to the user that runs the supervisor, or choose another directory".to_owned()
        }
        (UsageError::Command(_), SettingsOrigin::Unit(id)) => {
            format!(
                "Environment=PATH=... with the directories of openclaw and node (in [Service], with `systemctl edit {id}`)"
            )
        }
        (UsageError::Command(_), SettingsOrigin::Process(_)) => {
            "let an update end that is under way; else npm install -g openclaw, or add its directory to PATH".to_owned()
        }
        (UsageError::Command(_), _) => "npm install -g openclaw, or add its directory to PATH".to_owned(),
        _ => "correct that option or variable".to_owned(),
    };
    let code = error.exit_code();
    Finding::fail("settings", text, format!("{origin}, it exits with {code}"), fix)
}

/// The version of OpenClaw, and whether Node.js satisfies `engines.node`.
pub(in super::super) fn runtime(package: Option<&OpenclawPackage>, node: &NodeFacts) -> Vec<Finding> {
    let Some(package) = package else {
        return vec![Finding::ok_since("openclaw", "no OpenClaw package", "the command is another program")];
    };
    let folder = package.folder.display();
    let mut findings = vec![match &package.version {
        Some(version) => Finding::ok("openclaw", format!("{version} in {folder}")),
        None => Finding::warn(
            "openclaw",
            format!("no version in {folder}/package.json"),
            "the package is incomplete",
            "npm install -g openclaw",
        ),
    }];
    let wants = package.engines.as_deref().unwrap_or("any");
    findings.push(match node {
        NodeFacts::Missing => Finding::fail(
            "node",
            "no node in its PATH",
            "openclaw is a Node.js script",
            "Environment=PATH=... with the directory of node, or install Node.js",
        ),
        NodeFacts::At { path, version: None } => Finding::warn(
            "node",
            format!("{} does not report its version", path.display()),
            format!("OpenClaw requires {wants}"),
            format!("{} --version", path.display()),
        ),
        NodeFacts::At { path, version: Some(version) } => {
            let found = format!("{version} at {}, OpenClaw requires {wants}", path.display());
            match package.engines.as_deref().map_or(Some(true), |range| satisfies(version, range)) {
                Some(true) => Finding::ok("node", found),
                Some(false) => Finding::fail(
                    "node",
                    found,
                    "the gateway refuses to start with it",
                    format!("install Node.js {wants}, and put its directory first in PATH"),
                ),
                None => {
                    Finding::warn("node", found, "the version range has an unknown format", "compare the two by hand")
                }
            }
        }
    });
    findings
}

/// Whether a version is in an npm range such as `>=1.2.3 <4 || ^5.6`; `None` for any other syntax.
fn satisfies(version: &str, range: &str) -> Option<bool> {
    // npm: a prerelease satisfies no range that does not name it.
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
            // Equal in the numbers that the bound gives.
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

/// The three numbers of a version, and how many of them were given.
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

/// Whether the package was replaced below a gateway that runs. `started_ms`: when that was started.
pub(in super::super) fn update(package: &OpenclawPackage, started_ms: i64, store_option: &str) -> Option<Finding> {
    // The time of a file system has whole seconds, or lags by a tick.
    let installed = package.installed_ms.filter(|installed| *installed > started_ms.saturating_add(1000))?;
    let version = package.version.as_deref().unwrap_or("another version");
    let finding = Finding::warn(
        "openclaw",
        format!("{version} was installed after the gateway was started, and an earlier one is running"),
        "it loads files of the new version as it needs them, which fails in ways that no log explains",
        format!("openclaw-supervise restart{store_option}"),
    );
    Some(finding.since(Some(installed)))
}

/// The limit of the JavaScript heap. `memory`: that of the machine or, if lower, of the control group, in MiB.
pub(in super::super) fn heap_limit(mib: Option<u64>, source: &str, memory: Option<u64>) -> Finding {
    let check = "heap";
    if let Some(mib) = mib {
        return Finding::ok(check, format!("up to {mib} MiB ({source})"));
    }
    let known = memory.and_then(|memory| Some((heap::node_default(memory), heap::recommended(memory)?)));
    match known.filter(|(default, own)| default < own) {
        Some((default, own)) => Finding::warn(
            check,
            format!("up to about {default} MiB ({source})"),
            format!(
                "OpenClaw's own service has {own} MiB on this machine; at its limit Node.js ends the gateway (heap out of memory)"
            ),
            format!("--max-heap {own}M, or --max-heap auto"),
        ),
        None => Finding::ok(check, source.to_owned()),
    }
}

/// Programs that run their command out of our sight: in another session, container or machine.
const ELSEWHERE: [&str; 10] =
    ["docker", "podman", "nerdctl", "kubectl", "ssh", "systemd-run", "screen", "tmux", "nohup", "daemonize"];

/// Programs between us and the gateway.
const LAUNCHERS: [&str; 12] =
    ["npm", "npx", "pnpm", "yarn", "bun", "volta", "sudo", "su", "sh", "bash", "runuser", "setpriv"];

/// What the command of the gateway hides from us.
pub(in super::super) fn launcher(command: &[OsString], is_openclaw: bool) -> Finding {
    let check = "launcher";
    let name = |word: &OsString| Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let program = command.first().map(name).unwrap_or_default();
    if ELSEWHERE.contains(&program.as_str()) {
        return Finding::warn(
            check,
            format!("the gateway is started by {program}"),
            "it runs where the supervisor neither sees its end nor can kill it",
            "run openclaw-supervise there, in front of `openclaw gateway run`",
        );
    }
    if is_openclaw {
        let found = if LAUNCHERS.contains(&program.as_str()) { format!("{program}, then openclaw") } else { program };
        return Finding::ok(check, found);
    }
    Finding::warn(
        check,
        format!("the gateway's command ({program}) does not name `openclaw gateway`"),
        "restarts that OpenClaw plans itself count as failures, and its version, Node.js and heap cannot be checked",
        "openclaw-supervise run -- openclaw gateway run",
    )
}

/// The stop timeout where no service manager bounds it.
pub(in super::super) fn stop_timeout(own: Duration) -> Finding {
    let found = format!("stop timeout {}, gateway drain {}", human(own), human(DRAIN_MAX));
    if own >= DRAIN_MAX {
        return Finding::ok("stop time", found);
    }
    let why = format!("a drain longer than {} is cut short, and unfinished work is lost", human(own));
    Finding::warn("stop time", found, why, "remove --stop-timeout and OPENCLAW_SUPERVISE_STOP_TIMEOUT")
}

/// `soft`: the limit, if there is one; `fix`: how to raise it.
pub(in super::super) fn open_files(soft: Option<u64>, fix: Advice) -> Finding {
    let check = "open files";
    match soft {
        None => Finding::ok(check, "no limit"),
        Some(soft) if soft >= FILES_MIN => Finding::ok(check, format!("at most {soft}")),
        Some(soft) => {
            let why = "a gateway with many channels and tools runs out of file descriptors and stops answering";
            Finding::warn(check, format!("at most {soft}"), why, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::settings::{CommandError, ProcessContext, read};
    use std::sync::Arc;

    #[test]
    fn a_version_range_means_what_it_means_to_npm() {
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

    fn node(version: Option<&str>) -> NodeFacts {
        NodeFacts::At { path: "/bin/node".into(), version: version.map(str::to_owned) }
    }

    #[test]
    fn node_has_to_be_there_in_a_version_that_openclaw_supports() {
        let package = |version: Option<&str>, engines: Option<&str>| OpenclawPackage {
            folder: "/opt/openclaw".into(),
            version: version.map(str::to_owned),
            engines: engines.map(str::to_owned),
            installed_ms: None,
        };
        let runtime = |engines, node| runtime(Some(&package(Some("2026.9.6"), Some(engines))), &node);
        insta::assert_snapshot!(listing([
            ("supported", runtime(">=24.16.0", node(Some("24.16.1")))),
            ("too old", runtime(">=24.16.0", node(Some("20.1.0")))),
            ("unknown range", runtime("latest", node(Some("20.1.0")))),
            ("silent", runtime(">=24.16.0", node(None))),
            ("missing", runtime(">=24.16.0", NodeFacts::Missing)),
            ("incomplete package", super::runtime(Some(&package(None, None)), &node(Some("20.1.0")))),
            ("no package", super::runtime(None, &NodeFacts::Missing)),
        ]));
    }

    #[test]
    fn a_package_that_was_replaced_below_the_gateway_is_found() {
        let package = |installed_ms| OpenclawPackage {
            folder: "/opt/openclaw".into(),
            version: Some("2026.9.6".to_owned()),
            engines: None,
            installed_ms,
        };
        let update = |installed| update(&package(installed), 50_000, "").into_iter().collect();
        insta::assert_snapshot!(listing([
            ("before", update(Some(49_000))),
            ("in the same second", update(Some(50_900))),
            ("after", update(Some(60_000))),
            ("unknown", update(None)),
        ]));
    }

    #[test]
    fn a_heap_that_is_smaller_than_that_of_openclaws_own_service_is_found() {
        let own = "as OpenClaw's own service: 32768 MiB memory";
        let off = "Node's default (--max-heap off)";
        insta::assert_snapshot!(listing([
            ("taken over", vec![heap_limit(Some(8192), own, Some(32768))]),
            ("Node's default", vec![heap_limit(None, off, Some(32768))]),
            ("little memory", vec![heap_limit(None, off, Some(1))]),
            ("unknown memory", vec![heap_limit(None, off, None)]),
        ]));
    }

    #[test]
    fn a_command_that_hides_the_gateway_is_found() {
        let launcher = |line: &'static str, is_openclaw| {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            (line, vec![launcher(&words, is_openclaw)])
        };
        insta::assert_snapshot!(listing([
            launcher("/usr/bin/openclaw gateway run", true),
            launcher("npx openclaw gateway", true),
            launcher("docker run --rm openclaw openclaw gateway", true),
            launcher("/usr/bin/npm start", false),
        ]));
    }

    #[test]
    fn a_low_limit_on_open_files_and_a_short_stop_timeout_are_found() {
        let open_files = |soft| vec![open_files(soft, "LimitNOFILE=65536".into())];
        insta::assert_snapshot!(listing([
            ("unlimited", open_files(None)),
            ("enough", open_files(Some(1024))),
            ("few", open_files(Some(256))),
            ("long stop timeout", vec![stop_timeout(DRAIN_MAX)]),
            ("short stop timeout", vec![stop_timeout(Duration::from_secs(8))]),
        ]));
    }

    #[test]
    fn each_error_in_the_settings_is_a_finding_with_its_exit_code() {
        let context = ProcessContext { env: Arc::new(|_| None), ..ProcessContext::of_this_process() };
        let errors = || read(["openclaw-supervise", "run", "--port", "x"].map(OsString::from), &context);
        let facts = |origin, is_guessed, other_user: Option<&str>| SettingsFacts {
            origin,
            settings: Err(errors().unwrap_err()),
            path: None,
            is_guessed,
            other_user: other_user.map(str::to_owned),
            container: None,
            process_manager: None,
            bared: vec!["--notify", "--heartbeat-url"],
        };
        let all = [
            UsageError::CommandLine("invalid value 'x' for '--port <PORT>'".to_owned()),
            UsageError::Folder {
                what: "state directory",
                folder: "/s".to_owned(),
                why: "Permission denied".to_owned(),
                is_refused: true,
                option: "--state-dir",
            },
            CommandError::NotOnPath { program: "openclaw".to_owned(), path: "/nowhere".to_owned() }.into(),
        ];
        let each = |facts: SettingsFacts| all.iter().map(|error| of_error(error, &facts)).collect();
        let unit = || SettingsOrigin::Unit("x.service".to_owned());
        assert_eq!(settings(&facts(unit(), false, None)).len(), errors().unwrap_err().all().len());
        insta::assert_snapshot!(listing([
            ("unit", each(facts(unit(), false, None))),
            ("unit of another user", each(facts(unit(), false, Some("alice")))),
            ("process", each(facts(SettingsOrigin::Process(7), false, None))),
            ("ourselves", each(facts(SettingsOrigin::Ourselves, false, None))),
            ("guessed", settings(&facts(unit(), true, None))),
            ("bared", bared(&facts(unit(), false, None)).into_iter().collect()),
        ]));
    }
}
