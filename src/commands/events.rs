//! `events`: what was recorded, and with `--follow` new entries as they come. It reads the store and asks no supervisor, so it works
//! when none runs.

use super::record::{Entry, StoreRecord};
use super::terminal::{Style, Terminal, printable};
use crate::core::exit;
use crate::core::report::Severity;
use crate::platform::standard_streams::is_lost;
use crate::settings::EventsSettings;
use std::io;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many entries are read at a time.
const PORTION: u32 = 500;

/// How many events are shown if nothing else is asked for.
const LINES: u32 = 50;

/// The room for the longest usual name, so that what follows it stands in a column.
const NAME_WIDTH: usize = 22;

/// A sentence with less room than this stands below the rest of its line.
const SENTENCE_MIN: usize = 40;

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
    let terminal = Terminal::of(&io::stdout());
    let wanted = Wanted::of(settings, &terminal);
    let mut cursor = Cursor::Start;
    let mut is_shown = false;
    let mut failure = None;
    loop {
        match StoreRecord::open(store_dir).and_then(|record| cursor.read(record.as_ref(), &wanted)) {
            Ok(entries) => {
                failure = None;
                for entry in entries.iter().filter(|entry| wanted.has_level(entry)) {
                    is_shown = true;
                    let line = if settings.json { entry.object().to_string() } else { text(entry, &terminal) };
                    writeln!(out, "{line}").and_then(|()| out.flush())?;
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
            } else if !is_shown && wanted.lines != Some(0) {
                tracing::warn!("no event on record in {} is as asked for", store_dir.display());
            }
            return Ok(exit::OK);
        }
        sleep(LOOK_EVERY).await;
        // Without news nothing is written, which alone would show it.
        if is_lost(io::stdout()) {
            return Ok(exit::OK);
        }
    }
}

/// Which events are shown of those on record, and by their level of those that come.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The last ones, as many as this.
    lines: Option<u32>,
    since: Option<i64>,
    level: Option<Severity>,
}

impl Wanted {
    fn of(settings: &EventsSettings, terminal: &Terminal) -> Self {
        let since = settings.since.map(|since| terminal.resolve(since));
        let usual = since.is_none().then_some(LINES);
        Self { lines: settings.lines.or(usual), since, level: settings.level }
    }

    /// How many have to be read. The last one is always needed.
    fn portion(&self) -> u32 {
        let is_plain = self.since.is_none() && self.level.is_none();
        self.lines.filter(|_| is_plain).map_or(u32::MAX, |lines| lines.max(1))
    }

    /// One without a level was written by an earlier version: better shown than missed.
    fn has_level(&self, entry: &Entry) -> bool {
        entry.level.is_none() || entry.level >= self.level
    }

    fn keep(&self, entries: &mut Vec<Entry>) {
        entries.retain(|entry| self.has_level(entry) && self.since.is_none_or(|since| entry.at_ms >= since));
        let most = self.lines.map_or(usize::MAX, |lines| usize::try_from(lines).unwrap_or(usize::MAX));
        entries.drain(..entries.len().saturating_sub(most));
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
    /// The next entries: those that are wanted at first, then whatever is new.
    fn read(&mut self, record: Option<&StoreRecord>, wanted: &Wanted) -> Result<Vec<Entry>, String> {
        let Some(record) = record else {
            if matches!(self, Self::Start) {
                *self = Self::Nothing;
            }
            return Ok(Vec::new());
        };
        let (entries, last) = match self {
            Self::Start => {
                let mut entries = record.last(wanted.portion())?;
                let last = entries.last().cloned();
                wanted.keep(&mut entries);
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

/// Local time, level, name and sentence.
fn text(entry: &Entry, terminal: &Terminal) -> String {
    // In a file the day has to be told as well.
    let at = if terminal.is_terminal() { terminal.time(entry.at_ms) } else { terminal.full(entry.at_ms) };
    let level = entry.level.map_or("", Severity::name).to_uppercase();
    let name = printable(&entry.name);
    let used = at.chars().count() + 1 + 5 + 1 + name.chars().count();
    let column = at.chars().count() + 1 + 5 + 1 + NAME_WIDTH + 1;
    let painted = [
        terminal.paint(Style::Dim, &at),
        terminal.paint(Style::of_level(&level), &format!("{level:>5}")),
        terminal.paint(Style::Bold, &name),
    ];
    let (head, sentence) = (painted.join(" "), entry.sentence());
    if sentence.is_empty() {
        return head;
    }
    if terminal.width() < column + SENTENCE_MIN {
        return format!("{head}\n{}", terminal.hang(("   ", 3), 4, &sentence, None));
    }
    terminal.hang((&head, used), column.max(used + 1), &sentence, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Write;

    const NOW: &str = "2026-11-30T03:00:00Z";

    fn entry(id: i64, level: Option<Severity>, message: &str) -> Entry {
        let at_ms = 1_796_004_000_000 + id * 1000; // 2026-11-30T02:00:00Z
        let fields = json!({"generation": 3, "cause": "hung"}).as_object().cloned().unwrap_or_default();
        let message = (!message.is_empty()).then(|| message.to_owned());
        Entry { id, at_ms, name: "gateway.exited".to_owned(), level, message, fields }
    }

    #[test]
    fn a_line_fits_the_terminal_and_has_local_time_level_and_sentence() {
        let long = "gateway 3 (pid 42) ended with signal 9 after 2h14m: hung; peak memory 310 MiB, CPU time 3m12s";
        let entries = [
            entry(0, Some(Severity::Warning), long),
            entry(-90_000, Some(Severity::Info), "gateway 3 is up after 6.1s"),
            entry(7, Some(Severity::Error), "a\nb\u{1b}[31m\u{9b}"),
            entry(8, None, ""),
        ];
        let mut shown = String::new();
        for (width, has_colour) in [(60, false), (80, false), (80, true), (200, false), (200, true)] {
            let terminal = Terminal::fixed(Some(width), has_colour, "CET-1", NOW);
            writeln!(shown, "--- {width} columns, colour: {has_colour}").unwrap();
            for entry in &entries {
                let line = text(entry, &terminal);
                let visible = line.replace("\u{1b}[", "\u{e000}");
                let plain = visible.split('\u{e000}').map(|part| part.split_once('m').map_or(part, |(_, text)| text));
                let plain: String = if has_colour { plain.collect() } else { line.clone() };
                assert!(plain.lines().all(|line| line.chars().count() <= width), "{width}: {plain}");
                shown += &line;
                shown.push('\n');
            }
        }
        insta::assert_snapshot!(shown.replace('\u{1b}', "ESC"));
    }

    #[test]
    fn the_last_of_those_that_are_wanted_are_kept() {
        let levels = [Some(Severity::Info), Some(Severity::Warning), None, Some(Severity::Error), Some(Severity::Info)];
        let all: Vec<_> = (0..).zip(levels).map(|(id, level)| entry(id, level, "")).collect();
        let at = |id: i64| Some(entry(id, None, "").at_ms);
        for (lines, since, level, kept, portion) in [
            (Some(50), None, None, vec![0, 1, 2, 3, 4], 50),
            (Some(2), None, None, vec![3, 4], 2),
            (Some(0), None, None, vec![], 1),
            (None, at(2), None, vec![2, 3, 4], u32::MAX),
            (Some(1), at(2), None, vec![4], u32::MAX),
            (Some(50), None, Some(Severity::Warning), vec![1, 2, 3], u32::MAX),
            (Some(50), None, Some(Severity::Error), vec![2, 3], u32::MAX),
            (None, at(3), Some(Severity::Warning), vec![3], u32::MAX),
            (None, at(99), None, vec![], u32::MAX),
        ] {
            let wanted = Wanted { lines, since, level };
            let mut entries = all.clone();
            wanted.keep(&mut entries);
            assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), kept, "{wanted:?}");
            assert_eq!(wanted.portion(), portion, "{wanted:?}");
        }
    }
}
