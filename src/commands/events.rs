//! `events`: what was recorded, and with `--follow` new entries as they come. It reads the store and asks no supervisor, so it works
//! when none runs.

use super::record::{Entry, StoreRecord};
use crate::core::exit;
use crate::host::{clock, telemetry};
use crate::settings::EventsSettings;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many entries are read at a time.
const PORTION: u32 = 500;

/// The room for the longest usual name, so that what follows it stands in a column.
const NAME_WIDTH: usize = 22;

/// Writes what is recorded, then what is added to it if that is asked for. Returns the exit code.
pub async fn run(settings: &EventsSettings, out: &mut impl io::Write) -> io::Result<u8> {
    match show(settings, out).await {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        shown => shown,
    }
}

async fn show(settings: &EventsSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let store_dir = settings.subject.store_dir.as_path();
    let mut cursor = Cursor::Start;
    let mut failure = None;
    loop {
        match StoreRecord::open(store_dir).and_then(|record| cursor.read(record.as_ref(), settings.count)) {
            Ok(entries) => {
                failure = None;
                for entry in &entries {
                    write(entry, settings.json, out)?;
                }
                if entries.len() >= PORTION as usize && settings.follow {
                    continue;
                }
            }
            Err(error) if !settings.follow => {
                tracing::error!("{error}");
                return Ok(exit::FAILURE);
            }
            // Printed once; it may pass.
            Err(error) if failure.as_ref() != Some(&error) => {
                tracing::warn!("{error}");
                failure = Some(error);
            }
            Err(_) => {}
        }
        if !settings.follow {
            if matches!(cursor, Cursor::Nothing) {
                tracing::warn!("nothing is recorded in {}; did a supervisor ever run there?", store_dir.display());
            }
            return Ok(exit::OK);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How far the record has been read.
#[derive(Debug)]
enum Cursor {
    /// Not read yet.
    Start,
    /// There was none: all that there will be is news.
    Nothing,
    /// Up to this entry, or there was none yet.
    After(Option<Entry>),
}

impl Cursor {
    /// The next entries: the last `count` at first, then whatever is new.
    fn read(&mut self, record: Option<&StoreRecord>, count: u32) -> Result<Vec<Entry>, String> {
        let Some(record) = record else {
            if matches!(self, Self::Start) {
                *self = Self::Nothing;
            }
            return Ok(Vec::new());
        };
        let (entries, last) = match self {
            Self::Start => {
                let mut entries = record.last(count.max(1))?;
                let last = entries.last().cloned();
                if count == 0 {
                    entries.clear();
                }
                (entries, last)
            }
            Self::Nothing | Self::After(None) => {
                let entries = record.after(0, PORTION)?;
                let last = entries.last().cloned();
                (entries, last)
            }
            Self::After(Some(last)) => {
                let entries = read_on(record, last)?;
                let last = entries.last().unwrap_or(last).clone();
                (entries, Some(last))
            }
        };
        *self = Self::After(last);
        Ok(entries)
    }
}

/// The entries after `last`. If `last` is missing, the store was recreated and every entry is new: a store drops an entry
/// only once thousands follow it.
fn read_on(record: &StoreRecord, last: &Entry) -> Result<Vec<Entry>, String> {
    let mut entries = record.after(last.id - 1, PORTION + 1)?;
    if entries.first() == Some(last) {
        entries.remove(0);
        return Ok(entries);
    }
    record.after(0, PORTION)
}

fn write(entry: &Entry, json: bool, out: &mut impl io::Write) -> io::Result<()> {
    let line = if json { as_json(entry) } else { as_text(entry) };
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// The object that the log had.
fn as_json(entry: &Entry) -> String {
    telemetry::line(&entry.name, entry.at_ms, None, &Value::Object(entry.fields.clone()).to_string())
}

/// Time, name and fields.
fn as_text(entry: &Entry) -> String {
    let name = plain(&entry.name);
    let fields: Vec<String> =
        entry.fields.iter().map(|(name, value)| format!("{}={}", plain(name), word(value))).collect();
    format!("{} {name:NAME_WIDTH$} {}", clock::stamp_of(entry.at_ms), fields.join(" ")).trim_end().to_owned()
}

/// A value as one word: as JSON where it is not one already.
fn word(value: &Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=') => {
            text.to_owned()
        }
        _ => plain(&value.to_string()),
    }
}

/// Nothing that a record holds may write more than its line. JSON escapes most control characters, not all.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(fields: &Value) -> Entry {
        let fields = fields.as_object().cloned().unwrap_or_default();
        Entry { id: 1, at_ms: 5, name: "gateway.exited".to_owned(), fields }
    }

    #[test]
    fn an_entry_is_the_object_that_the_log_had() {
        let line = as_json(&entry(&json!({"generation": 3, "cause": "crashed"})));
        assert_eq!(
            line,
            r#"{"event":"gateway.exited","at":"1970-01-01T00:00:00.005Z","generation":3,"cause":"crashed"}"#
        );
    }

    #[test]
    fn text_is_one_line_of_time_name_and_fields() {
        for (fields, end) in [
            (json!({}), ""),
            (json!({"generation": 3, "cause": "crashed"}), "         generation=3 cause=crashed"),
            (json!({"why": "two words"}), "         why=\"two words\""),
            (json!({"why": "a\nb\u{1b}[31m\u{9b}"}), "         why=\"a\\nb\\u001b[31m\u{fffd}\""),
            (json!({"a": "", "b": "x=y", "c": [1, "z"]}), "         a=\"\" b=\"x=y\" c=[1,\"z\"]"),
        ] {
            assert_eq!(as_text(&entry(&fields)), format!("1970-01-01T00:00:00.005Z gateway.exited{end}"));
        }
    }
}
