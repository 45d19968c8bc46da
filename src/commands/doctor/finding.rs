//! The result of a check: its level, the reason, and the line that changes it.

use crate::commands::install::ManagedFile;
use crate::commands::terminal::{Style, Terminal};
use crate::host::clock;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be, or not applicable.
    Ok,
    /// It works, but not in every case.
    Warn,
    /// It fails, or will.
    Fail,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Ok => Style::Green,
            Self::Warn => Style::Yellow,
            Self::Fail => Style::Red,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// What `doctor --fix` can do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Lines for a section of the unit.
    Directives { section: &'static str, lines: Vec<String> },
    /// `systemctl daemon-reload`
    Reload,
    /// Writes a unit of ours as this version of `install` would.
    Renew(ManagedFile),
    /// Removes the socket's file of a supervisor that is gone.
    StaleSocket(PathBuf),
    /// Removes the permissions of others from a directory.
    Private(PathBuf),
}

/// The line to write, or the command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) text: String,
    pub(super) remedy: Option<Remedy>,
}

impl Advice {
    pub(super) fn with(text: impl Into<String>, remedy: Remedy) -> Self {
        Self { text: text.into(), remedy: Some(remedy) }
    }
}

impl<T: Into<String>> From<T> for Advice {
    fn from(text: T) -> Self {
        Self { text: text.into(), remedy: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// Since when, and until when, in milliseconds since 1970.
    pub(super) since: Option<i64>,
    pub(super) until: Option<i64>,
    /// The consequence.
    pub(super) why: Option<String>,
    pub(super) fix: Option<Advice>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), since: None, until: None, why: None, fix: None }
    }

    /// As [`Finding::ok`], with the reason.
    pub(super) fn ok_since(check: &'static str, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::ok(check, found) }
    }

    pub(super) fn warn(
        check: &'static str,
        found: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<Advice>,
    ) -> Self {
        Self { level: Level::Warn, why: Some(why.into()), fix: Some(fix.into()), ..Self::ok(check, found) }
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<Advice>,
    ) -> Self {
        Self { level: Level::Fail, ..Self::warn(check, found, why, fix) }
    }

    /// `None`: not known.
    pub(super) fn since(self, since: Option<i64>) -> Self {
        Self { since, ..self }
    }

    pub(super) fn until(self, until: Option<i64>) -> Self {
        Self { until, ..self }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "check": self.check,
            "level": self.level.name(),
            "found": self.found,
            "since": self.since.map(clock::stamp_of),
            "until": self.until.map(clock::stamp_of),
            "why": self.why,
            "fix": self.fix.as_ref().map(|fix| &fix.text),
        })
    }

    /// A paragraph, and one more for the fix.
    pub(super) fn to_text(&self, terminal: &Terminal) -> String {
        let time = |word: &str, at: i64| format!("{word} {}, {}", terminal.time(at), terminal.relative(at));
        let times = [self.since.map(|at| time("since", at)), self.until.map(|at| time("until", at))];
        let times = times.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let times = if times.is_empty() { times } else { format!(" ({times})") };
        let why = self.why.as_deref().map(|why| format!(" - {why}")).unwrap_or_default();
        let label = self.level.label();
        let head = format!("{} {}", terminal.paint(self.level.style(), &format!("{label:<5}")), self.check);
        // Of one that is well only its state is of interest.
        let body = (self.level == Level::Ok).then_some(Style::Dim);
        let used = 6 + self.check.chars().count();
        let text = terminal.hang((&head, used), COLUMN, &format!("{}{times}{why}", self.found), body);
        match &self.fix {
            Some(fix) => {
                let style = if self.level == Level::Ok { Style::Dim } else { Style::Cyan };
                let fix = terminal.hang(("", 0), COLUMN, &format!("fix: {}", fix.text), Some(style));
                format!("{text}\n{fix}")
            }
            None => text,
        }
    }
}

/// Where the text begins, behind the level and the name of the check.
const COLUMN: usize = 22;

pub(super) fn as_json(findings: &[Finding]) -> Value {
    let findings: Vec<Value> = findings.iter().map(Finding::to_json).collect();
    json!({ "findings": findings })
}

/// The worst first, the levels apart, and a line with the counts at the end.
pub(super) fn as_text(findings: &[Finding], terminal: &Terminal) -> String {
    let of = |level| findings.iter().filter(move |finding| finding.level == level);
    let levels = [Level::Fail, Level::Warn, Level::Ok];
    let group = |level| of(level).map(|finding| finding.to_text(terminal)).collect::<Vec<_>>().join("\n");
    let mut groups: Vec<String> = levels.iter().map(|level| group(*level)).filter(|group| !group.is_empty()).collect();
    let counts: Vec<_> = levels.iter().map(|level| format!("{} {}", of(*level).count(), level.label())).collect();
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    let is_mendable =
        |finding: &&Finding| finding.level != Level::Ok && finding.fix.as_ref().is_some_and(|fix| fix.remedy.is_some());
    let count = findings.iter().filter(is_mendable).count();
    if count > 0 {
        let hint = format!("`openclaw-supervise doctor --fix` can mend {count} of them; with --dry-run it shows how.");
        groups.push(terminal.paragraph(&hint, None));
    }
    groups.push(terminal.paint(worst.style(), &counts.join(", ")));
    groups.join("\n\n")
}

pub(super) fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-30T09:36:00Z";

    fn terminal(width: Option<usize>, has_colour: bool) -> Terminal {
        Terminal::fixed(width, has_colour, "CET-1", NOW)
    }

    /// Those of a gateway that is down, in the order of the checks.
    fn findings() -> Vec<Finding> {
        let at = |stamp: &str| Some(stamp.parse::<jiff::Timestamp>().unwrap().as_millisecond());
        vec![
            Finding::fail(
                "service",
                "openclaw-supervise.service (system manager) has failed: exit code 78 (Result=exit-code)",
                "the gateway exited with 78: unknown key gateway.tokne",
                "correct that (journalctl -u openclaw-supervise.service -n 50), then systemctl start \
                 openclaw-supervise.service",
            )
            .since(at("2026-11-30T09:24:00Z")),
            Finding::ok("supervisor", "not running"),
            Finding::ok_since("port", "ws://127.0.0.1:18789: free", "as it should be"),
            Finding::warn(
                "at boot",
                "openclaw-supervise.service is disabled",
                "nothing starts it",
                "systemctl enable x",
            ),
            Finding::fail("backoff", "no gateway is running", "it is down until then", "openclaw-supervise retry-now")
                .since(at("2026-11-29T22:00:00Z"))
                .until(at("2026-11-30T09:37:30Z")),
        ]
    }

    #[test]
    fn the_worst_comes_first_at_every_width_with_and_without_colour() {
        for (width, has_colour) in [60, 80, 200].into_iter().flat_map(|width| [(width, false), (width, true)]) {
            let text = as_text(&findings(), &terminal(Some(width), has_colour));
            let name = format!("{width}{}", if has_colour { "-colour" } else { "" });
            insta::assert_snapshot!(name, text.replace('\x1b', "ESC"));
        }
    }

    #[test]
    fn in_a_pipe_a_finding_is_one_line_and_its_fix_another() {
        let finding = Finding::fail("kill mode", "KillMode=a\nb", "it hurts", "KillMode=mixed");
        let expected = "FAIL  kill mode       KillMode=a b - it hurts\n                      fix: KillMode=mixed";
        let terminal = terminal(None, false);
        assert_eq!(finding.to_text(&terminal), expected);
        assert_eq!(Finding::ok("port", "free").to_text(&terminal), "OK    port            free");
    }

    #[test]
    fn json_has_times_in_utc_and_every_member() {
        let [first, second, ..] = &findings()[..] else { panic!() };
        assert_eq!(first.to_json()["since"], "2026-11-30T09:24:00.000Z");
        assert_eq!((&first.to_json()["until"], &second.to_json()["fix"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn only_a_fail_fails() {
        let (ok, warn) = (Finding::ok("a", "b"), Finding::warn("a", "b", "c", "d"));
        assert!(!has_failed(&[ok.clone(), warn.clone()]));
        let all = [ok, warn, Finding::fail("a", "b", "c", "d")];
        assert!(has_failed(&all));
        assert!(as_text(&all, &terminal(None, false)).ends_with("\n1 FAIL, 1 WARN, 1 OK"));
    }
}
