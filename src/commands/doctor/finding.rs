//! The result of a check: its level, the reason, and the line that changes it.

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
    /// Removes the socket's file of a supervisor that is gone.
    StaleSocket(PathBuf),
    /// Removes the permissions of others from a directory.
    Private(PathBuf),
}

/// The line to write, or the command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fix {
    pub(super) text: String,
    pub(super) remedy: Option<Remedy>,
}

impl Fix {
    pub(super) fn with(text: impl Into<String>, remedy: Remedy) -> Self {
        Self { text: text.into(), remedy: Some(remedy) }
    }
}

impl<T: Into<String>> From<T> for Fix {
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
    pub(super) fix: Option<Fix>,
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
        fix: impl Into<Fix>,
    ) -> Self {
        Self { level: Level::Warn, why: Some(why.into()), fix: Some(fix.into()), ..Self::ok(check, found) }
    }

    pub(super) fn fail(
        check: &'static str,
        found: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<Fix>,
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

    /// One line, and one more for the fix. A path or a command line may contain any character.
    pub(super) fn to_text(&self) -> String {
        let plain = |text: &str| text.replace(|c: char| c.is_control(), " ");
        let why = self.why.as_deref().map(|why| format!(" - {}", plain(why))).unwrap_or_default();
        let fix = self.fix.as_ref().map(|fix| format!("\n{:22}fix: {}", "", plain(&fix.text))).unwrap_or_default();
        format!("{:<5} {:<15} {}{why}{fix}", self.level.label(), self.check, plain(&self.found))
    }
}

pub(super) fn as_json(findings: &[Finding]) -> Value {
    let findings: Vec<Value> = findings.iter().map(Finding::to_json).collect();
    json!({ "findings": findings })
}

/// One line for each finding, and one with the counts.
pub(super) fn as_text(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let mut lines: Vec<String> = findings.iter().map(Finding::to_text).collect();
    lines.push(format!("{} FAIL, {} WARN, {} OK", count(Level::Fail), count(Level::Warn), count(Level::Ok)));
    lines.join("\n")
}

pub(super) fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_its_fix_another() {
        let finding = Finding::fail("kill mode", "KillMode=a\nb", "it hurts", "KillMode=mixed");
        let expected = "FAIL  kill mode       KillMode=a b - it hurts\n                      fix: KillMode=mixed";
        assert_eq!(finding.to_text(), expected);
        assert_eq!(Finding::ok("port", "free").to_text(), "OK    port            free");
    }

    #[test]
    fn only_a_fail_fails() {
        let (ok, warn) = (Finding::ok("a", "b"), Finding::warn("a", "b", "c", "d"));
        assert!(!has_failed(&[ok.clone(), warn.clone()]));
        let all = [ok, warn, Finding::fail("a", "b", "c", "d")];
        assert!(has_failed(&all));
        assert!(as_text(&all).ends_with("\n1 FAIL, 1 WARN, 1 OK"));
    }
}
