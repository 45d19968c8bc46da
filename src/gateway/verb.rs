//! Words of OpenClaw's own CLI that run no gateway, as `openclaw --help` and `openclaw gateway --help` of 2026.9.6 list
//! them. Only what is certain counts: where a word may be the value of an option that is not known here, or may belong
//! to another program, there is none.

use super::openclaw::is_openclaw;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A verb that runs no gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherVerb {
    /// As it was typed, behind `openclaw`.
    pub typed: String,
    /// What is meant, if it was misspelt.
    pub meant: Option<&'static str>,
    /// Ours with the same purpose.
    pub ours: Option<&'static str>,
}

/// Behind `openclaw`. A plugin may add any other, so none of them is taken for a misspelt one.
const VERBS: &str = "acp agent agents approvals attach audit automations backup browser capability channels chat \
    clawbot completion config configure connect cron daemon dashboard database devices directory dns docs doctor \
    exec-approvals exec-policy file-transfer fleet googlemeet health help hooks infer logs mcp memory message migrate \
    models node nodes onboard pairing plugins promos proxy qr reset resume sandbox secrets security sessions setup \
    skills status system tasks teamsmeetings telemetry terminal transcripts triage tui uninstall update users webhooks \
    worker worktrees zoommeetings";

/// Behind `openclaw gateway`.
const GATEWAY_VERBS: &str = "auth-token call diagnostics discover health help install probe restart restart-handoff \
    resume stability start status stop suspend uninstall usage-cost";

const SHOWS_HELP: [&str; 4] = ["-h", "--help", "-V", "--version"];

/// Options with a value in a word of its own.
const VALUED: &str = "--auth --bind --container --log-level --password --password-file --port --profile \
    --raw-stream-path --tailscale --token --ws-log";

/// Options without a value.
const FLAGS: &str = "--allow-unconfigured --ambient-channels --claude-cli-logs --cli-backend-logs --compact --dev \
    --dev-ambient-channels --force --no-color --raw-stream --reset --verbose";

/// Programs that run what their arguments name, behind options and variables.
const LAUNCHERS: &str = "bun bunx caffeinate dumb-init env nice node nodejs nohup npx setsid stdbuf tini";

/// The verb of a command, program first, if it certainly runs no gateway.
#[must_use]
pub fn other_verb(command: &[OsString]) -> Option<OtherVerb> {
    let at = command.iter().position(|word| is_openclaw(word))?;
    if !command[..at].iter().all(|word| is_launcher(word)) {
        return None;
    }
    let mut words = command[at + 1..].iter();
    let first = next_verb(&mut words)?;
    if first != "gateway" {
        let is_known = is_one_of(VERBS, first) || SHOWS_HELP.contains(&first);
        return is_known.then(|| OtherVerb::new(first.to_owned(), first, first));
    }
    let second = next_verb(&mut words)?;
    if second == "run" {
        let third = next_verb(&mut words).filter(|word| SHOWS_HELP.contains(word))?;
        return Some(OtherVerb::new(format!("gateway run {third}"), third, third));
    }
    let is_meant = |verb: &&str| strsim::osa_distance(verb, second) <= 1 && second.len() > 3;
    let known = if is_one_of(GATEWAY_VERBS, second) || SHOWS_HELP.contains(&second) {
        second
    } else {
        GATEWAY_VERBS.split_whitespace().find(is_meant)?
    };
    Some(OtherVerb::new(format!("gateway {second}"), second, known))
}

impl OtherVerb {
    fn new(typed: String, word: &str, verb: &str) -> Self {
        let ours = match verb {
            "status" | "health" => Some("status"),
            "probe" => Some("probe"),
            "doctor" => Some("doctor"),
            "stop" => Some("stop"),
            "restart" => Some("restart"),
            "start" => Some("run"),
            "install" => Some("install"),
            "uninstall" => Some("uninstall"),
            "logs" => Some("events"),
            "-h" | "--help" | "help" => Some("--help"),
            "-V" | "--version" => Some("--version"),
            _ => None,
        };
        let meant = (word != verb).then(|| GATEWAY_VERBS.split_whitespace().find(|known| *known == verb)).flatten();
        Self { typed, meant, ours }
    }
}

/// The next word that is no option, or an option that shows a help or version text.
fn next_verb<'a>(words: &mut impl Iterator<Item = &'a OsString>) -> Option<&'a str> {
    loop {
        let word = words.next()?.to_str()?;
        if !word.starts_with('-') || SHOWS_HELP.contains(&word) {
            return Some(word);
        }
        if is_one_of(VALUED, word) {
            words.next()?;
        } else if !(is_one_of(FLAGS, word) || (word.starts_with("--") && word.contains('='))) {
            return None;
        }
    }
}

fn is_launcher(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    let name = Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or_default();
    text.starts_with('-') || text.contains('=') || is_one_of(LAUNCHERS, name)
}

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb_of(line: &str) -> Option<OtherVerb> {
        other_verb(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn each_verb_that_runs_no_gateway_is_known_behind_whatever_starts_openclaw() {
        for verb in GATEWAY_VERBS.split_whitespace().chain(SHOWS_HELP) {
            for line in [
                "openclaw gateway",
                "/usr/bin/openclaw --profile gateway --no-color gateway",
                "node --max-old-space-size=2048 /opt/openclaw.mjs gateway --port 18789 --bind=lan --force",
                "env -i A=b nice /usr/bin/node openclaw.mjs --dev gateway --token run",
            ] {
                let found = verb_of(&format!("{line} {verb} --json"));
                assert_eq!(found.unwrap().typed, format!("gateway {verb}"), "{line}");
            }
        }
        for verb in VERBS.split_whitespace().chain(SHOWS_HELP) {
            assert_eq!(verb_of(&format!("npx openclaw --log-level debug {verb} run")).unwrap().typed, verb);
        }
    }

    #[test]
    fn a_command_that_may_be_a_gateway_is_none_of_them() {
        for line in [
            "openclaw",
            "openclaw gateway",
            "openclaw gateway run",
            "openclaw gateway run --port 18789 --auth none",
            "openclaw gateway --port 18789",
            "openclaw gateway --password status",
            "openclaw gateway --new-option status",
            "openclaw gateway --new-option --help",
            "openclaw gateway run --password --help",
            "openclaw gateway -- status",
            "openclaw gateway serve",
            "openclaw gateway rum",
            "openclaw new-verb",
            "openclaw statu",
            "openclaw start",
            "openclaw --profile status",
            "my-openclaw gateway status",
            "./gateway.sh status",
            "sh -c openclaw gateway status",
            "docker run --name openclaw status",
            "sudo -u openclaw status",
            "node -r ./hook.js openclaw gateway status",
            "",
        ] {
            assert_eq!(verb_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_misspelt_verb_is_told_with_the_right_one() {
        for (typed, meant, ours) in [
            ("stauts", Some("status"), Some("status")),
            ("restat", Some("restart"), Some("restart")),
            ("stopp", Some("stop"), Some("stop")),
            ("status", None, Some("status")),
            ("usage-costs", Some("usage-cost"), None),
        ] {
            let found = verb_of(&format!("openclaw gateway {typed}"));
            assert_eq!(found, Some(OtherVerb { typed: format!("gateway {typed}"), meant, ours }));
        }
    }
}
