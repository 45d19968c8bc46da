//! The event log on stderr: text for people, one JSON object a line for programs. In systemd's journal each line begins with
//! its priority, which the journal takes off, so that `journalctl -p warning` finds what it should.
//!
//! Everything goes through `tracing`, so that one level filter and one writer serve both our reports and the
//! diagnostics of the libraries. A report travels as the fields `event`, `wall_ms`, `line` (its JSON object) and the message.

use super::clock;
use super::log_file::QueuedFile;
use super::stderr::{self, Stderr};
use crate::core::Report;
use crate::core::report::{Severity, is_unprintable};
use serde_json::{Map, Value as Json};
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::path::PathBuf;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, event, sentence.
    Text,
    /// One object a line.
    Json,
}

/// A file that gets every line too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Absolute.
    pub path: PathBuf,
    pub format: Format,
}

/// Installs the log for this process. A second call changes nothing.
pub fn install(format: Format, level: Level, file: Option<LogFile>) {
    begin(Some(format), level, file);
}

/// The same for a command that a person or a script runs: its messages look like those about its command line.
pub fn install_for_command(level: Level) {
    begin(None, level, None);
}

fn begin(format: Option<Format>, level: Level, file: Option<LogFile>) {
    let stderr = layer().log_internal_errors(false).with_writer(Stderr);
    let stderr = stderr.event_format(Line { format, decoration: Decoration::of_stderr() });
    let file = file.map(|LogFile { path, format }| {
        let file = layer().log_internal_errors(false).with_writer(QueuedFile(path));
        file.event_format(Line { format: Some(format), decoration: Decoration::Plain })
    });
    let subscriber = tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(stderr).with(file);
    // It fails only if there is one already.
    let _second = tracing::subscriber::set_global_default(subscriber);
}

/// What a line on stderr of this level begins with.
#[must_use]
pub fn priority(level: Level) -> &'static str {
    Decoration::of_stderr().priority(level)
}

/// A report as the log, the store and the control socket get it.
#[derive(Debug)]
pub struct Record<'a> {
    report: &'a Report,
    /// Wall-clock time, ms since 1970.
    pub wall_ms: i64,
    /// Its sentence.
    pub message: String,
    /// Its own JSON members, as one object.
    pub members: String,
    /// Its whole JSON object.
    pub line: String,
}

impl<'a> Record<'a> {
    #[must_use]
    pub fn new(report: &'a Report, wall_ms: i64) -> Self {
        let members = serde_json::to_string(report).unwrap_or_else(|_| "{}".to_owned());
        let message = report.to_string();
        let line = line(report.name(), wall_ms, Some((level_name(level(report.severity())), &message)), &members);
        Self { report, wall_ms, message, members, line }
    }

    /// Writes it to the log.
    pub fn emit(&self) {
        let Self { report, wall_ms, message, line, .. } = self;
        let event = report.name();
        match report.severity() {
            Severity::Info => tracing::info!(event, wall_ms, line, "{message}"),
            Severity::Warning => tracing::warn!(event, wall_ms, line, "{message}"),
            Severity::Error => tracing::error!(event, wall_ms, line, "{message}"),
        }
    }
}

fn level(severity: Severity) -> Level {
    match severity {
        Severity::Info => Level::INFO,
        Severity::Warning => Level::WARN,
        Severity::Error => Level::ERROR,
    }
}

/// As `--log-level` has it.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// An entry of the event log as one JSON object: event, time, level and message if they are known, and the members of an
/// object.
#[must_use]
pub fn line(event: &str, wall_ms: i64, told: Option<(&str, &str)>, members: &str) -> String {
    let members = members.strip_prefix('{').unwrap_or("}");
    let comma = if members == "}" { "" } else { "," };
    let told = told.map(|(level, message)| format!(r#","level":"{level}","message":{}"#, Json::from(message)));
    let (event, at, told) = (Json::from(event), clock::stamp_of(wall_ms), told.unwrap_or_default());
    format!(r#"{{"event":{event},"at":"{at}"{told}{comma}{members}"#)
}

/// Where lines go. The colours are our own: `with_ansi` needs a crate feature, and warns without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoration {
    Plain,
    Coloured,
    /// The journal has the time of each line.
    Journal,
}

impl Decoration {
    fn of_stderr() -> Self {
        if stderr::is_journal() {
            Self::Journal
        } else if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// See sd-daemon(3) and syslog(3).
    fn priority(self, level: Level) -> &'static str {
        match (self, level) {
            (Self::Plain | Self::Coloured, _) => "",
            (Self::Journal, Level::ERROR) => "<3>",
            (Self::Journal, Level::WARN) => "<4>",
            (Self::Journal, Level::INFO) => "<6>",
            (Self::Journal, Level::DEBUG | Level::TRACE) => "<7>",
        }
    }
}

struct Line {
    /// `None` for the messages of a command.
    format: Option<Format>,
    decoration: Decoration,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = EventParts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        writer.write_str(self.decoration.priority(level))?;
        match self.format {
            Some(Format::Json) => write_json(writer, level, event.metadata().target(), &parts),
            Some(Format::Text) => write_text(writer, level, &parts, self.decoration),
            None => write_plain(writer, level, &parts),
        }
    }
}

/// A tracing event, taken apart.
#[derive(Default)]
struct EventParts {
    event: Option<String>,
    wall_ms: Option<i64>,
    line: Option<String>,
    message: String,
    others: Vec<(&'static str, String)>,
}

impl EventParts {
    fn stamp(&self) -> String {
        self.wall_ms.map_or_else(clock::stamp, clock::stamp_of)
    }
}

impl Visit for EventParts {
    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "wall_ms" => self.wall_ms = Some(value),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.event = Some(value.to_owned()),
            "line" => self.line = Some(value.to_owned()),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

fn write_json(mut writer: Writer<'_>, level: Level, target: &str, parts: &EventParts) -> fmt::Result {
    if let Some(line) = &parts.line {
        return writeln!(writer, "{line}");
    }
    let mut object = Map::new();
    object.insert("event".to_owned(), parts.event.as_deref().unwrap_or("log").into());
    object.insert("at".to_owned(), parts.stamp().into());
    object.insert("level".to_owned(), level_name(level).into());
    object.insert("message".to_owned(), parts.message.as_str().into());
    object.insert("target".to_owned(), target.into());
    object.extend(parts.others.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())));
    writeln!(writer, "{}", Json::Object(object))
}

fn write_text(mut writer: Writer<'_>, level: Level, parts: &EventParts, decoration: Decoration) -> fmt::Result {
    let colour = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    };
    let name = parts.event.as_deref().unwrap_or("log");
    match decoration {
        Decoration::Plain => write!(writer, "{} {level:>5} {name}", parts.stamp()),
        Decoration::Coloured => {
            write!(writer, "{} \x1b[{colour}m{level:>5}\x1b[0m \x1b[1m{name}\x1b[0m", parts.stamp())
        }
        Decoration::Journal => write!(writer, "{level} {name}"),
    }?;
    if !parts.message.is_empty() {
        write!(writer, " {}", one_line(&parts.message))?;
    }
    for (name, value) in &parts.others {
        write!(writer, " {name}={}", one_line(value))?;
    }
    writeln!(writer)
}

/// As `main` tells of a wrong command line.
fn write_plain(mut writer: Writer<'_>, level: Level, parts: &EventParts) -> fmt::Result {
    let kind = match level {
        Level::ERROR => "error: ",
        Level::WARN => "warning: ",
        _ => "",
    };
    writeln!(writer, "openclaw-supervise: {kind}{}", one_line(&parts.message))
}

/// A process chooses its own command line, and a reason may quote it: neither may forge a second line.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if is_unprintable(c) {
            // Writing to a String does not fail.
            let _infallible = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Requester;

    #[test]
    fn a_report_becomes_one_flat_object() {
        let report = Report::GatewaySpawned { generation: 3, pid: 42, attempt: 1 };
        let record = Record::new(&report, 5);
        assert_eq!(record.members, r#"{"generation":3,"pid":42,"attempt":1}"#);
        let told = r#"{"event":"gateway.spawned","at":"1970-01-01T00:00:00.005Z","level":"info","message":"gateway 3 is pid 42, attempt 1","generation":3,"pid":42,"attempt":1}"#;
        assert_eq!(record.line, told);
        let bare = r#"{"event":"conflict.resolved","at":"1970-01-01T00:00:00.000Z","level":"info","message":"the port is free again"}"#;
        assert_eq!(Record::new(&Report::ConflictResolved, 0).line, bare);
        assert_eq!(line("x", 0, None, "{}"), r#"{"event":"x","at":"1970-01-01T00:00:00.000Z"}"#);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let by = Requester { how: "SIGTERM".to_owned(), pid: None, uid: None, command: None, inside: None };
        let report = Report::SignalReceived { signal: "SIGTERM", by };
        assert_eq!(Record::new(&report, 0).members, r#"{"signal":"SIGTERM"}"#);
    }

    #[test]
    fn only_a_line_of_the_journal_begins_with_its_priority_and_has_no_time() {
        let parts = || EventParts {
            event: Some("x.y".to_owned()),
            message: "a\nb".to_owned(),
            wall_ms: Some(0),
            ..EventParts::default()
        };
        let text = |decoration: Decoration| {
            let mut text = decoration.priority(Level::WARN).to_owned();
            write_text(Writer::new(&mut text), Level::WARN, &parts(), decoration).unwrap();
            text
        };
        assert_eq!(text(Decoration::Journal), "<4>WARN x.y a\\nb\n");
        assert_eq!(text(Decoration::Plain), "1970-01-01T00:00:00.000Z  WARN x.y a\\nb\n");
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(|level| Decoration::Journal.priority(level)), ["<3>", "<4>", "<6>", "<7>", "<7>"]);
    }

    #[test]
    fn a_message_of_a_command_is_one_plain_line() {
        let plain = |level| {
            let parts = EventParts { message: "a\nb".to_owned(), wall_ms: Some(0), ..EventParts::default() };
            let mut text = String::new();
            write_plain(Writer::new(&mut text), level, &parts).unwrap();
            text
        };
        assert_eq!(plain(Level::ERROR), "openclaw-supervise: error: a\\nb\n");
        assert_eq!(plain(Level::WARN), "openclaw-supervise: warning: a\\nb\n");
        assert_eq!(plain(Level::INFO), "openclaw-supervise: a\\nb\n");
    }

    #[test]
    fn text_stays_on_one_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }
}
