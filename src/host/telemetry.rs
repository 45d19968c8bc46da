//! The event log on stderr: text for people, one JSON object a line for programs.
//!
//! Everything goes through `tracing`, so that one level filter and one writer serve both our reports and the
//! diagnostics of the libraries. A report travels as the fields `event`, `wall_ms`, `line` (its JSON object) and the message.

use super::clock;
use super::stderr::Stderr;
use crate::core::Report;
use crate::core::report::Severity;
use serde_json::{Map, Value as Json};
use std::fmt::{self, Write};
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, event, sentence.
    Text,
    /// One object a line.
    Json,
}

/// Installs the log for this process. A second call changes nothing.
pub fn install(format: Format, level: Level) {
    let colour = format == Format::Text && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(Stderr)
        .log_internal_errors(false)
        .event_format(Line { format, colour })
        .finish();
    // It fails only if there is one already.
    let _second = tracing::subscriber::set_global_default(subscriber);
}

/// A report as the log, the store and the control socket get it.
#[derive(Debug)]
pub struct Record<'a> {
    report: &'a Report,
    /// Wall-clock time, ms since 1970.
    pub wall_ms: i64,
    /// Its JSON members after `event` and `at`, as one object.
    pub members: String,
    /// Its whole JSON object.
    pub line: String,
}

impl<'a> Record<'a> {
    #[must_use]
    pub fn new(report: &'a Report, wall_ms: i64) -> Self {
        let members = serde_json::to_string(report).unwrap_or_else(|_| "{}".to_owned());
        let line = line(report.name(), wall_ms, &members);
        Self { report, wall_ms, members, line }
    }

    /// Writes it to the log.
    pub fn emit(&self) {
        let Self { report, wall_ms, line, .. } = self;
        let event = report.name();
        match report.severity() {
            Severity::Info => tracing::info!(event, wall_ms, line, "{report}"),
            Severity::Warning => tracing::warn!(event, wall_ms, line, "{report}"),
            Severity::Error => tracing::error!(event, wall_ms, line, "{report}"),
        }
    }
}

/// An entry of the event log as one JSON object. `members` is an object too.
#[must_use]
pub fn line(event: &str, wall_ms: i64, members: &str) -> String {
    let members = members.strip_prefix('{').unwrap_or("}");
    let comma = if members == "}" { "" } else { "," };
    format!(r#"{{"event":{},"at":"{}"{comma}{members}"#, Json::from(event), clock::stamp_of(wall_ms))
}

/// The colours are our own: `with_ansi` needs a crate feature, and warns without it.
struct Line {
    format: Format,
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = EventParts::default();
        event.record(&mut parts);
        let level = *event.metadata().level();
        match self.format {
            Format::Json => write_json(writer, level, event.metadata().target(), &parts),
            Format::Text => write_text(writer, level, &parts, self.colour),
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
    object.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
    object.insert("target".to_owned(), target.into());
    object.insert("message".to_owned(), parts.message.as_str().into());
    object.extend(parts.others.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())));
    writeln!(writer, "{}", Json::Object(object))
}

fn write_text(mut writer: Writer<'_>, level: Level, parts: &EventParts, coloured: bool) -> fmt::Result {
    let colour = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    };
    let name = parts.event.as_deref().unwrap_or("log");
    write!(writer, "{} ", parts.stamp())?;
    if coloured {
        write!(writer, "\x1b[{colour}m{level:>5}\x1b[0m \x1b[1m{name}\x1b[0m")?;
    } else {
        write!(writer, "{level:>5} {name}")?;
    }
    if !parts.message.is_empty() {
        write!(writer, " {}", one_line(&parts.message))?;
    }
    for (name, value) in &parts.others {
        write!(writer, " {name}={}", one_line(value))?;
    }
    writeln!(writer)
}

/// A process chooses its own command line, and a reason may quote it: neither may forge a second line.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
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
        let told = r#"{"event":"gateway.spawned","at":"1970-01-01T00:00:00.005Z","generation":3,"pid":42,"attempt":1}"#;
        assert_eq!(record.line, told);
        let bare = r#"{"event":"conflict.resolved","at":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(Record::new(&Report::ConflictResolved, 0).line, bare);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let by = Requester { how: "SIGTERM".to_owned(), pid: None, uid: None, command: None, inside: None };
        let report = Report::SignalReceived { signal: "SIGTERM", by };
        assert_eq!(Record::new(&report, 0).members, r#"{"signal":"SIGTERM"}"#);
    }

    #[test]
    fn text_stays_on_one_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
    }
}
