//! The text of a message, and how each service wants it. docs/NOTIFICATION.md has the templates.

use super::target::WebhookUrl;
use crate::core::alert::{Alert, AlertKind, AlertPhase};
use crate::core::report::human;
use crate::host::clock;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Discord refuses longer ones, in characters.
const DISCORD_LENGTH_MAX: usize = 2000;

/// ntfy turns a longer text into an attachment, in bytes.
const NTFY_LENGTH_MAX: usize = 4096;

/// A sentence of a report may quote what a gateway says, in characters.
const FACT_LENGTH_MAX: usize = 600;

/// What a service understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Template {
    /// By the URL's host.
    #[default]
    Auto,
    Json,
    Slack,
    Discord,
    Ntfy,
}

impl Template {
    /// That of a target: never `Auto`.
    #[must_use]
    pub fn of(self, target: &WebhookUrl) -> Self {
        let host = target.host();
        match self {
            Self::Auto if matches!(host, "hooks.slack.com" | "hooks.slack-gov.com") => Self::Slack,
            Self::Auto if is_below(host, "discord.com") || is_below(host, "discordapp.com") => Self::Discord,
            Self::Auto if host == "ntfy.sh" || host.starts_with("ntfy.") => Self::Ntfy,
            Self::Auto => Self::Json,
            Self::Json | Self::Slack | Self::Discord | Self::Ntfy => self,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Ntfy => "ntfy",
        }
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The supervisor that sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub host: String,
    pub config: String,
    pub store_dir: String,
    pub manager: &'static str,
    /// Completes "see the gateway's output ...".
    pub output: String,
    /// The command that starts the supervisor again, where that is known.
    pub start: Option<String>,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    title: String,
    /// For people, in this order.
    facts: Vec<(&'static str, String)>,
    /// For programs.
    members: Map<String, Value>,
    is_alarm: bool,
    is_good_news: bool,
}

impl Notification {
    /// `wall` is the wall clock of a moment, in ms since 1970.
    #[must_use]
    pub fn of(alert: &Alert, origin: &Origin, now_ms: i64, wall: impl Fn(Duration) -> i64) -> Self {
        let kind = alert.incident.kind;
        let since_ms = wall(alert.incident.since);
        let lasted = Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0));
        let (event, headline) = match alert.phase {
            AlertPhase::Opened => ("incident.opened", headline(kind).to_owned()),
            AlertPhase::Escalated => ("incident.escalated", headline(kind).to_owned()),
            AlertPhase::Recovered => ("incident.ended", format!("recovered ({})", headline(kind))),
            AlertPhase::Stopped => ("incident.ended", format!("stopped on request ({})", headline(kind))),
        };
        let is_end = matches!(alert.phase, AlertPhase::Recovered | AlertPhase::Stopped);
        let title = format!("OpenClaw gateway on {}: {headline}", origin.host);
        let advice = advice(alert, origin);
        let since = clock::stamp_of(since_ms);
        let since_text = if is_end { format!("{since}, for {}", human(lasted)) } else { since.clone() };
        let generation = alert.generation.filter(|generation| *generation > 0);
        let facts = [
            Some(("what", alert.what.clone())),
            Some(("since", since_text)),
            alert.who.clone().map(|who| ("who", who)),
            Some(("next", alert.next.clone())),
            alert.evidence.clone().map(|evidence| ("evidence", evidence)),
            Some(("to do", advice.clone())),
            Some(("where", place(origin, generation))),
        ];
        let mut message = Self::new(event, kind.name(), title, facts.into_iter().flatten().collect(), origin, now_ms);
        message.is_alarm = !is_end && !matches!(kind, AlertKind::ChannelDown | AlertKind::Unhealthy);
        message.is_good_news = is_end;
        let end = match alert.phase {
            AlertPhase::Recovered => Some("recovered"),
            AlertPhase::Stopped => Some("stopped"),
            AlertPhase::Opened | AlertPhase::Escalated => None,
        };
        let severity = match (is_end, message.is_alarm) {
            (true, _) => "info",
            (false, true) => "error",
            (false, false) => "warning",
        };
        let lasted_ms = is_end.then(|| u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        message.put("id", json!(format!("{:016x}", alert.incident.id)));
        message.put("severity", json!(severity));
        message.put("what", json!(cut(&alert.what, FACT_LENGTH_MAX)));
        message.put("since", json!(since));
        message.put("who", json!(alert.who));
        message.put("next", json!(cut(&alert.next, FACT_LENGTH_MAX)));
        message.put("to_do", json!(advice));
        message.put("generation", json!(generation));
        message.put("evidence", json!(alert.evidence));
        message.put("exit_code", json!(alert.exit_code));
        message.put("outcome", json!(end));
        message.put("duration_ms", json!(lasted_ms));
        message
    }

    /// One that says nothing but that it arrived.
    #[must_use]
    pub fn test(origin: &Origin, now_ms: i64) -> Self {
        let title = format!("OpenClaw gateway on {}: test", origin.host);
        let what = "a test of openclaw-supervise notify; nothing has happened".to_owned();
        let facts = vec![("what", what.clone()), ("to do", "nothing".to_owned()), ("where", place(origin, None))];
        let mut message = Self::new("test", "test", title, facts, origin, now_ms);
        message.put("severity", json!("info"));
        message.put("what", json!(what));
        message
    }

    /// A systemd unit has failed. `result` is what systemd says of it, see `MONITOR_SERVICE_RESULT` in systemd.exec(5).
    #[must_use]
    pub fn failed_unit(unit: &str, result: Option<&str>, origin: &Origin, now_ms: i64) -> Self {
        let title = format!("OpenClaw gateway on {}: the service failed, it is down", origin.host);
        let result = result.map_or_else(String::new, |result| format!(": {result}"));
        let what = format!("systemd unit {unit} has failed{result}");
        let advice = format!("`systemctl status {unit}` shows why (with --user for a user's unit)");
        let next = "nothing: systemd does not start it again";
        let facts = vec![
            ("what", what.clone()),
            ("since", clock::stamp_of(now_ms)),
            ("next", next.to_owned()),
            ("to do", advice.clone()),
            ("where", origin.host.clone()),
        ];
        let mut message = Self::new("incident.opened", "unit_failed", title, facts, origin, now_ms);
        message.is_alarm = true;
        message.put("severity", json!("error"));
        message.put("what", json!(what));
        message.put("next", json!(next));
        message.put("to_do", json!(advice));
        message
    }

    fn new(
        event: &'static str,
        kind: &'static str,
        title: String,
        facts: Vec<(&'static str, String)>,
        origin: &Origin,
        now_ms: i64,
    ) -> Self {
        let facts = facts.into_iter().map(|(name, text)| (name, cut(&text, FACT_LENGTH_MAX))).collect();
        let mut message = Self { title, facts, members: Map::new(), is_alarm: false, is_good_news: event == "test" };
        message.put("event", json!(event));
        message.put("incident", json!(kind));
        message.put("at", json!(clock::stamp_of(now_ms)));
        message.put("title", json!(message.title));
        message.put("host", json!(origin.host));
        message.put("config", json!(origin.config));
        message.put("store_dir", json!(origin.store_dir));
        message.put("manager", json!(origin.manager));
        message.put("version", json!(env!("CARGO_PKG_VERSION")));
        message
    }

    fn put(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// For any program. A member that is not known is null.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut members = self.members.clone();
        members.insert("text".to_owned(), json!(self.text()));
        Value::Object(members)
    }

    /// One fact a line, without the title.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.facts.iter().map(|(name, text)| format!("{name}: {text}"));
        cut_bytes(lines.collect::<Vec<_>>().join("\n"), NTFY_LENGTH_MAX)
    }

    /// <https://docs.slack.dev/messaging/formatting-message-text>: three characters are escaped.
    pub(super) fn slack(&self) -> Value {
        let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("*{}*\n{}", escape(&self.title), escape(&self.text())) })
    }

    /// <https://discord.com/developers/docs/resources/webhook#execute-webhook>: no name in a text becomes a mention.
    pub(super) fn discord(&self) -> Value {
        let content = cut(&format!("**{}**\n{}", self.title, self.text()), DISCORD_LENGTH_MAX);
        json!({ "content": content, "allowed_mentions": { "parse": [] } })
    }

    /// <https://docs.ntfy.sh/publish/>: the body is the text.
    pub(super) fn ntfy_headers(&self) -> HeaderMap {
        let (priority, tag) = match (self.is_alarm, self.is_good_news) {
            (true, _) => ("urgent", "rotating_light"),
            (false, true) => ("default", "white_check_mark"),
            (false, false) => ("high", "warning"),
        };
        let title = HeaderValue::from_bytes(self.title.replace(|c: char| c.is_control(), " ").as_bytes());
        let headers = [
            title.ok().map(|title| (HeaderName::from_static("title"), title)),
            Some((HeaderName::from_static("priority"), HeaderValue::from_static(priority))),
            Some((HeaderName::from_static("tags"), HeaderValue::from_static(tag))),
        ];
        headers.into_iter().flatten().collect()
    }
}

fn headline(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::ChannelDown => "a channel is not connected",
        AlertKind::Unhealthy => "alive and not healthy",
        AlertKind::Memory => "out of memory",
        AlertKind::Hang => "hung",
        AlertKind::CrashLoop => "crash loop",
        AlertKind::StoreLost => "stopped, its store does not answer",
        AlertKind::Conflict => "another process has its port or lease",
        AlertKind::Refused => "refused to start",
        AlertKind::GaveUp => "gave up, it is down",
        AlertKind::Failed => "the supervisor failed, it is down",
    }
}

fn place(origin: &Origin, generation: Option<u64>) -> String {
    let generation = generation.map_or_else(String::new, |generation| format!(", gateway {generation}"));
    format!("{}{generation}, config {}", origin.host, origin.config)
}

/// What an operator does now. Each command is meant for the account of the gateway.
fn advice(alert: &Alert, origin: &Origin) -> String {
    let ours = |verb: &str| format!("openclaw-supervise {verb} --store-dir {}", shell_word(&origin.store_dir));
    if let AlertPhase::Recovered | AlertPhase::Stopped = alert.phase {
        return format!("nothing; `{}` shows what happened", ours("events"));
    }
    let start = origin.start.as_ref().map_or_else(|| "start it again".to_owned(), |start| format!("`{start}`"));
    let output = &origin.output;
    match alert.incident.kind {
        AlertKind::ChannelDown => {
            format!("check that channel's token and network; `{}` shows when it is back", ours("status"))
        }
        AlertKind::Unhealthy => format!("see the gateway's output {output}; `{}` restarts it", ours("restart")),
        AlertKind::Memory => {
            format!("nothing now; if it comes back, look for what grows: `{}` shows its memory", ours("status"))
        }
        AlertKind::Hang => format!("nothing now; `{}` shows whether it is back", ours("status")),
        AlertKind::CrashLoop => format!(
            "see the gateway's output {output}; fix the cause, then `{}` does not wait for the next try",
            ours("retry-now")
        ),
        AlertKind::StoreLost => format!("check the disk or mount of {}", origin.store_dir),
        AlertKind::Conflict if alert.exit_code.is_none() => format!("end that process; `{}` shows it", ours("status")),
        AlertKind::Conflict => format!("end that process, then {start}"),
        AlertKind::Refused | AlertKind::GaveUp | AlertKind::Failed => {
            format!("see the gateway's output {output}; fix the cause, then {start}")
        }
    }
}

fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '@' | '+');
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// At most so many characters, on one line or as they are.
fn cut(text: &str, length_max: usize) -> String {
    match text.char_indices().nth(length_max - 1) {
        Some((end, _)) if text.chars().count() > length_max => format!("{}\u{2026}", &text[..end]),
        _ => text.to_owned(),
    }
}

fn cut_bytes(mut text: String, length_max: usize) -> String {
    let end = (0..=length_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::target;
    use super::*;
    use crate::core::alert::OpenAlert;

    fn origin() -> Origin {
        Origin {
            host: "vm1".to_owned(),
            config: "/home/bob/.openclaw/openclaw.json".to_owned(),
            store_dir: "/home/bob/.openclaw/supervise".to_owned(),
            manager: "systemd",
            output: "in the journal ('journalctl --user -u openclaw-supervise.service')".to_owned(),
            start: Some("systemctl --user start openclaw-supervise.service".to_owned()),
        }
    }

    fn alert(kind: AlertKind, phase: AlertPhase) -> Alert {
        Alert {
            incident: OpenAlert { kind, since: Duration::from_secs(10), id: 0xab },
            phase,
            generation: Some(4),
            what: "3 failures in 10s <&>".to_owned(),
            who: None,
            next: "the next start is in 8s".to_owned(),
            evidence: None,
            exit_code: None,
        }
    }

    fn message(kind: AlertKind, phase: AlertPhase) -> Notification {
        let start = 1_800_000_000_000;
        Notification::of(&alert(kind, phase), &origin(), start + 75_000, |at| {
            start + i64::try_from(at.as_millis()).unwrap()
        })
    }

    #[test]
    fn the_template_follows_the_host() {
        for (url, template) in [
            ("https://hooks.slack.com/services/x", Template::Slack),
            ("https://discord.com/api/webhooks/1/x", Template::Discord),
            ("https://ptb.discord.com/api/webhooks/1/x", Template::Discord),
            ("https://evil-discord.com/x", Template::Json),
            ("https://ntfy.sh/topic", Template::Ntfy),
            ("https://ntfy.example.org/topic", Template::Ntfy),
            ("http://127.0.0.1:8080/", Template::Json),
        ] {
            assert_eq!(Template::Auto.of(&target(url)), template, "{url}");
            assert_eq!(Template::Slack.of(&target(url)), Template::Slack);
        }
    }

    #[test]
    fn each_service_gets_its_own_form() {
        let crash_loop = message(AlertKind::CrashLoop, AlertPhase::Opened);
        insta::assert_snapshot!("crash_loop_as_json", serde_json::to_string_pretty(&crash_loop.json()).unwrap());
        insta::assert_snapshot!("crash_loop_for_slack", crash_loop.slack()["text"].as_str().unwrap());
        let recovered = message(AlertKind::CrashLoop, AlertPhase::Recovered);
        insta::assert_snapshot!("recovered_for_discord", recovered.discord()["content"].as_str().unwrap());
        let headers = |message: &Notification| {
            let headers = message.ntfy_headers();
            ["title", "priority", "tags"].map(|name| headers[name].to_str().unwrap().to_owned())
        };
        assert_eq!(headers(&crash_loop), ["OpenClaw gateway on vm1: crash loop", "urgent", "rotating_light"]);
        assert_eq!(headers(&message(AlertKind::ChannelDown, AlertPhase::Opened))[1..], ["high", "warning"]);
        assert_eq!(headers(&recovered)[1..], ["default", "white_check_mark"]);
    }

    #[test]
    fn a_text_is_cut_to_what_a_service_takes() {
        let mut long = alert(AlertKind::Refused, AlertPhase::Opened);
        (long.what, long.next, long.who) = ("\u{20ac}".repeat(9000), "x".repeat(9000), Some("y".repeat(9000)));
        let message = Notification::of(&long, &origin(), 0, |_| 0);
        assert!(message.text().len() <= NTFY_LENGTH_MAX);
        assert!(message.discord()["content"].as_str().unwrap().chars().count() <= DISCORD_LENGTH_MAX);
    }

    #[test]
    fn each_incident_says_what_to_do() {
        let advice = |kind| advice(&alert(kind, AlertPhase::Opened), &origin());
        let all: Vec<_> = AlertKind::ALL.map(|kind| format!("{}: {}", kind.name(), advice(kind))).into();
        insta::assert_snapshot!("what_to_do", all.join("\n"));
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
    }
}
