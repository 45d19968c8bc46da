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
    --raw-stream-path --tailscale --timeout --token --url --ws-log";

/// Options without a value.
const FLAGS: &str = "--allow-unconfigured --ambient-channels --claude-cli-logs --cli-backend-logs --compact --deep --dev \
    --dev-ambient-channels --force --json --no-color --raw-stream --reset --verbose";

/// Programs that run what their arguments name, behind options and variables, with their verbs that do so.
const LAUNCHERS: &str = "bun bunx caffeinate dlx doas dumb-init env exec nice node nodejs nohup npm npx pnpm pnpx setsid \
    stdbuf sudo tini yarn";

/// Options of these that have no value in a word of its own. What follows any other may be its value.
const LAUNCHER_FLAGS: &str = "-- --bun --no-install --yes -E -b -i -n -s -v -y";

/// The verb of a command, program first, if it certainly runs no gateway.
#[must_use]
pub fn other_verb(command: &[OsString]) -> Option<OtherVerb> {
    let is_program = |word: &OsString| is_openclaw(word) || word.to_str().is_some_and(|it| it.starts_with("openclaw@"));
    let at = command.iter().position(is_program)?;
    let (launchers, rest) = command.split_at(at);
    if !launchers.iter().all(|word| is_launcher(word)) || launchers.last().is_some_and(|word| may_take_value(word)) {
        return None;
    }
    let mut words = rest[1..].iter();
    let first = next_verb(&mut words)?;
    if first != "gateway" {
        let known = help_option(first).or_else(|| is_one_of(VERBS, first).then_some(first))?;
        return Some(OtherVerb::new(first.to_owned(), first, known));
    }
    let second = next_verb(&mut words)?;
    if second == "run" {
        let third = next_verb(&mut words)?;
        return Some(OtherVerb::new(format!("gateway run {third}"), third, help_option(third)?));
    }
    let is_meant = |verb: &&str| strsim::osa_distance(verb, &second.to_lowercase()) <= 1 && second.len() > 3;
    let exact = is_one_of(GATEWAY_VERBS, second).then_some(second);
    let known = exact.or_else(|| help_option(second)).or_else(|| GATEWAY_VERBS.split_whitespace().find(is_meant))?;
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
        let mut known = SHOWS_HELP.into_iter().chain(GATEWAY_VERBS.split_whitespace());
        let meant = (word != verb).then(|| known.find(|known| *known == verb)).flatten();
        Self { typed, meant, ours }
    }
}

/// The next word that is no option, or an option that shows a help or version text.
fn next_verb<'a>(words: &mut impl Iterator<Item = &'a OsString>) -> Option<&'a str> {
    loop {
        let word = words.next()?.to_str()?;
        if !word.starts_with('-') || help_option(word).is_some() {
            return Some(word);
        }
        if is_one_of(VALUED, word) {
            words.next()?;
        } else if !(is_one_of(FLAGS, word) || (word.starts_with("--") && word.contains('='))) {
            return None;
        }
    }
}

/// The option that shows help, also if misspelt: no option of a gateway is as near to one of these.
fn help_option(word: &str) -> Option<&'static str> {
    let is_near = |help: &&str| word.len() > 3 && strsim::osa_distance(help, word) <= 1;
    SHOWS_HELP.into_iter().find(|help| *help == word).or_else(|| SHOWS_HELP.into_iter().find(is_near))
}

/// `npx -w openclaw status`, `env -C openclaw ./status`.
fn may_take_value(word: &OsStr) -> bool {
    word.to_str().is_none_or(|text| text.starts_with('-') && !text.contains('=') && !is_one_of(LAUNCHER_FLAGS, text))
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
                "npx --yes openclaw@latest gateway --url ws://[::1]:1 --json",
                "sudo pnpm exec openclaw gateway",
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
            "npx -w openclaw status",
            "env -C openclaw doctor",
            "tini -p openclaw status",
            "pnpm --dir openclaw start",
            "npm --prefix openclaw start",
            "sudo -u x openclaw gateway run",
            "docker exec openclaw status",
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
            ("STOP", Some("stop"), Some("stop")),
            ("--hepl", Some("--help"), Some("--help")),
            ("-help", Some("--help"), Some("--help")),
        ] {
            let found = verb_of(&format!("openclaw gateway {typed}"));
            assert_eq!(found, Some(OtherVerb { typed: format!("gateway {typed}"), meant, ours }));
        }
    }
}
