//! How output for a person is laid out: width, colours, local and relative time. No other file of the commands asks for the
//! size of a terminal, its colours or the time zone. JSON has RFC 3339 in UTC instead, see [`clock::stamp_of`].

use crate::cli::Since;
use crate::core::report::is_unprintable;
use crate::host::clock;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;
use unicode_width::UnicodeWidthChar;

/// An SGR parameter (ECMA-48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }

    /// Of a level as the log names it.
    #[must_use]
    pub fn of_level(level: &str) -> Self {
        match level {
            "ERROR" => Self::Red,
            "WARN" => Self::Yellow,
            _ => Self::Green,
        }
    }
}

/// Where output for a person goes.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// In columns. `None`: lines are not wrapped.
    width: Option<usize>,
    /// In lines. `None` if that is not known.
    height: Option<usize>,
    is_tty: bool,
    has_colour: bool,
    zone: TimeZone,
    /// Times are RFC 3339.
    is_machine: bool,
    /// Milliseconds since 1970 in place of the wall clock.
    fixed_now: Option<i64>,
}

/// A narrower terminal is treated as one of this width.
const WIDTH_MIN: usize = 20;

impl Terminal {
    /// `COLUMNS` counts more than the size of the terminal, as with ls(1) and systemctl(1). Without either, as in a pipe, lines
    /// are not wrapped. Colours need a terminal that has them, and no `NO_COLOR` (no-color.org).
    #[must_use]
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let variable = |name| std::env::var_os(name);
        let is_terminal = stream.is_terminal();
        let size = is_terminal.then(|| rustix::termios::tcgetwinsize(stream).ok()).flatten();
        let named = variable("COLUMNS").and_then(|columns| columns.to_str()?.trim().parse().ok());
        Self {
            width: columns(named, is_terminal.then(|| size.map_or(0, |size| size.ws_col))),
            height: size.map(|size| usize::from(size.ws_row)).filter(|height| *height > 0),
            is_tty: is_terminal,
            has_colour: is_terminal && has_colour(variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
            zone: TimeZone::system(),
            is_machine: false,
            fixed_now: None,
        }
    }

    /// For JSON: RFC 3339 in UTC, in one line.
    #[must_use]
    pub fn utc() -> Self {
        Self {
            width: None,
            height: None,
            is_tty: false,
            has_colour: false,
            zone: TimeZone::UTC,
            is_machine: true,
            fixed_now: None,
        }
    }

    /// As a test needs it. `zone`: as in `TZ`, such as `CET-1`; `now`: RFC 3339.
    ///
    /// # Panics
    /// If one of them is not.
    #[cfg(test)]
    #[must_use]
    pub fn fixed(width: Option<usize>, has_colour: bool, zone: &str, now: &str) -> Self {
        let now: Timestamp = now.parse().unwrap();
        let (zone, fixed_now) = (TimeZone::posix(zone).unwrap(), Some(now.as_millisecond()));
        Self { width, height: None, is_tty: has_colour, has_colour, zone, is_machine: false, fixed_now }
    }

    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_tty
    }

    #[must_use]
    pub fn has_colour(&self) -> bool {
        self.has_colour
    }

    /// `usize::MAX` where lines are not wrapped.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width.unwrap_or(usize::MAX)
    }

    /// `usize::MAX` where it is not known.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height.unwrap_or(usize::MAX)
    }

    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.fixed_now.unwrap_or_else(clock::wall_ms)
    }

    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.has_colour && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }

    /// A head and a text that begins at `column` and is wrapped there, without a newline at the end. `head` may be painted;
    /// `used` is the number of its characters.
    #[must_use]
    pub fn hang(&self, (head, used): (&str, usize), column: usize, text: &str, style: Option<Style>) -> String {
        let room = self.width().saturating_sub(column).max(WIDTH_MIN);
        let lines = wrap(&printable(text), room);
        let painted = lines.iter().map(|line| style.map_or_else(|| line.clone(), |style| self.paint(style, line)));
        let text = painted.collect::<Vec<_>>().join(&format!("\n{:column$}", ""));
        let gap = column.saturating_sub(used).max(usize::from(used > 0));
        format!("{head}{:gap$}{text}", "").trim_end().to_owned()
    }

    /// Text over the whole width.
    #[must_use]
    pub fn paragraph(&self, text: &str, style: Option<Style>) -> String {
        self.hang(("", 0), 0, text, style)
    }

    /// One row for each label and its text, the texts in one column.
    #[must_use]
    pub fn table(&self, rows: &[(&str, String, Option<Style>)]) -> String {
        let column = rows.iter().map(|(label, ..)| label.chars().count() + 2).max().unwrap_or_default();
        let row = |(label, text, style): &(&str, String, Option<Style>)| {
            self.hang((&self.paint(Style::Dim, label), label.chars().count()), column, text, *style)
        };
        rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }

    /// The local time: `02:14:07` for a time of today, else with its date.
    #[must_use]
    pub fn time(&self, wall_ms: i64) -> String {
        self.local(wall_ms, "%H:%M:%S")
    }

    /// As [`Terminal::time`], without the seconds.
    #[must_use]
    pub fn minute(&self, wall_ms: i64) -> String {
        self.local(wall_ms, "%H:%M")
    }

    /// `2026-11-30 02:14:07 CET`.
    #[must_use]
    pub fn full(&self, wall_ms: i64) -> String {
        self.zoned(wall_ms).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    fn local(&self, wall_ms: i64, format: &str) -> String {
        if self.is_machine {
            return clock::stamp_of(wall_ms);
        }
        let at = self.zoned(wall_ms);
        let date = if at.date() == self.zoned(self.now_ms()).date() { "" } else { "%Y-%m-%d " };
        at.strftime(&format!("{date}{format}")).to_string()
    }

    fn zoned(&self, wall_ms: i64) -> ZonedDateTime {
        Timestamp::from_millisecond(wall_ms).unwrap_or_default().to_zoned_datetime(self.zone.clone())
    }

    /// The time that was asked for, in milliseconds since 1970.
    #[must_use]
    pub fn resolve(&self, since: Since) -> i64 {
        since.resolve(self.now_ms(), &self.zone)
    }

    /// `12 min ago`, `in 5 s`, `just now`.
    #[must_use]
    pub fn relative(&self, wall_ms: i64) -> String {
        let past = self.now_ms().saturating_sub(wall_ms);
        let span = span(Duration::from_millis(past.unsigned_abs()));
        match past {
            1000.. => format!("{span} ago"),
            ..=-1000 => format!("in {span}"),
            _ => "just now".to_owned(),
        }
    }
}

/// `size`: of the terminal, if it is one; 0 where it does not know.
fn columns(named: Option<u16>, size: Option<u16>) -> Option<usize> {
    let known = |width: Option<u16>| width.filter(|width| *width > 0).map(|width| usize::from(width).max(WIDTH_MIN));
    // 80: as a terminal without a size is treated since the VT100.
    known(named).or_else(|| known(size)).or(size.map(|_| 80))
}

fn has_colour(no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// A duration as people say it, in one unit: `400 ms`, `5 s`, `12 min`, `3 h`, `2 days`. For limits there is
/// [`crate::core::report::human`].
#[must_use]
pub fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Without control and reordering characters: a gateway's text could drive the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.replace(is_unprintable, " ")
}

/// How many columns a text takes; an East Asian wide character takes two (UAX #11).
#[must_use]
pub fn columns_of(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// The bytes of the longest beginning that takes at most `room` columns.
#[must_use]
pub fn fitting(text: &str, room: usize) -> usize {
    let mut used = 0;
    let too_wide = text.char_indices().find(|(_, letter)| {
        used += letter.width().unwrap_or_default();
        used > room
    });
    too_wide.map_or(text.len(), |(at, _)| at)
}

/// Breaks a text into lines of at most `width` columns, between words where that is possible. What stands in backticks is
/// a command to copy: it stays on one line if it fits on one.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text, width) {
        let mut rest = word;
        loop {
            let used = lines.last().map_or(0, |line| columns_of(line));
            let blank = usize::from(used > 0);
            let end = fitting(rest, width.saturating_sub(used + blank));
            if end == rest.len() && used + blank <= width {
                if let Some(line) = lines.last_mut() {
                    line.extend(std::iter::repeat_n(' ', blank).chain(rest.chars()));
                }
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            // A character that is wider than the line has one of its own.
            let end = end.max(rest.chars().next().map_or(0, char::len_utf8));
            lines.pop();
            lines.extend([rest[..end].to_owned(), String::new()]);
            rest = &rest[end..];
        }
    }
    lines
}

/// Split at spaces that stand in no quoted command.
fn words(text: &str, width: usize) -> Vec<&str> {
    let ticks: Vec<usize> = text.match_indices('`').map(|(at, _)| at).collect();
    let quoted = ticks.as_chunks::<2>().0.iter().map(|[start, end]| *start..=*end);
    let kept: Vec<_> = quoted.filter(|range| columns_of(&text[range.clone()]) <= width).collect();
    let (mut words, mut begin) = (Vec::new(), 0);
    for (at, _) in text.match_indices(' ').filter(|(at, _)| !kept.iter().any(|range| range.contains(at))) {
        words.push(&text[begin..at]);
        begin = at + 1;
    }
    words.push(&text[begin..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-11-30T01:20:00Z";

    fn ms(stamp: &str) -> i64 {
        stamp.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn the_variable_counts_more_than_the_terminal_and_a_pipe_has_no_width() {
        for (named, size, expected) in [
            (None, None, None),
            (Some(60), None, Some(60)),
            (Some(60), Some(100), Some(60)),
            (Some(0), Some(100), Some(100)),
            (None, Some(100), Some(100)),
            (None, Some(0), Some(80)),
            (Some(3), None, Some(WIDTH_MIN)),
        ] {
            assert_eq!(columns(named, size), expected, "{named:?} {size:?}");
        }
    }

    #[test]
    fn colour_needs_a_terminal_type_that_has_it_and_no_wish_against_it() {
        for (no_color, term, expected) in [
            (None, Some("xterm-256color"), true),
            (Some(""), Some("xterm"), true),
            (Some("1"), Some("xterm"), false),
            (Some("0"), Some("xterm"), false),
            (None, Some("dumb"), false),
            (None, Some(""), false),
            (None, None, false),
        ] {
            assert_eq!(has_colour(no_color.map(OsStr::new), term.map(OsStr::new)), expected, "{no_color:?} {term:?}");
        }
    }

    #[test]
    fn a_stream_that_is_no_terminal_is_not_painted() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let terminal = Terminal::of(&file);
        assert!(!terminal.is_terminal());
        assert_eq!(terminal.paint(Style::Red, "x"), "x");
    }

    #[test]
    fn times_are_local_and_have_a_date_unless_they_are_of_today() {
        let terminal = Terminal::fixed(None, false, "CET-1", NOW);
        let (today, before) = (ms("2026-11-30T01:14:07Z"), ms("2026-11-29T22:59:59Z"));
        assert_eq!(terminal.time(today), "02:14:07");
        assert_eq!(terminal.minute(today), "02:14");
        assert_eq!(terminal.time(before), "2026-11-29 23:59:59");
        assert_eq!(terminal.minute(before), "2026-11-29 23:59");
        assert_eq!(terminal.full(today), "2026-11-30 02:14:07 CET");
    }

    #[test]
    fn relative_times_have_one_unit() {
        let terminal = Terminal::fixed(None, false, "UTC0", NOW);
        for (seconds, expected) in [
            (0, "just now"),
            (-5, "5 s ago"),
            (5, "in 5 s"),
            (-59, "59 s ago"),
            (-119, "119 s ago"),
            (-120, "2 min ago"),
            (-12 * 60 - 59, "12 min ago"),
            (-3 * 3600, "3 h ago"),
            (-47 * 3600, "47 h ago"),
            (-49 * 3600, "2 days ago"),
            (90, "in 90 s"),
        ] {
            assert_eq!(terminal.relative(ms(NOW) + seconds * 1000), expected);
        }
    }

    #[test]
    fn a_span_below_a_second_is_not_nothing() {
        for (ms, expected) in [(0, "0 ms"), (999, "999 ms"), (1000, "1 s"), (60_400, "60 s")] {
            assert_eq!(span(Duration::from_millis(ms)), expected);
        }
    }

    #[test]
    fn a_table_is_aligned_wrapped_and_free_of_control_characters() {
        let terminal = Terminal::fixed(Some(30), false, "UTC0", NOW);
        let rows =
            [("gateway", "one two three four five six".to_owned(), None), ("x", "a\x1b[31m\u{202e}b".to_owned(), None)];
        assert_eq!(terminal.table(&rows), "gateway  one two three four\n         five six\nx        a [31m b");
    }

    #[test]
    fn each_line_is_painted_by_itself() {
        let terminal = Terminal::fixed(Some(20), true, "UTC0", NOW);
        let text = terminal.paragraph("one two three four five six", Some(Style::Red));
        assert_eq!(text, "\x1b[31mone two three four\x1b[0m\n\x1b[31mfive six\x1b[0m");
    }

    #[test]
    fn a_command_stays_on_one_line_if_it_fits() {
        let lines = wrap("fix it, then `openclaw-supervise start-now`, or else", 34);
        assert_eq!(lines, ["fix it, then", "`openclaw-supervise start-now`, or", "else"]);
        assert_eq!(wrap("a `b c d e` f", 7), ["a `b c", "d e` f"]);
        assert_eq!(wrap("a ` b", 3), ["a `", "b"]);
    }

    #[test]
    fn wide_characters_take_two_columns_and_combining_ones_none() {
        assert_eq!(wrap("日本語 日本", 7), ["日本語", "日本"]);
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
        assert_eq!(wrap("e\u{301}e\u{301} e", 4), ["e\u{301}e\u{301} e"]);
    }

    #[test]
    fn a_word_without_end_is_wrapped_in_linear_time() {
        assert_eq!(wrap(&"x".repeat(1 << 20), 64).len(), 1 << 14);
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide_and_no_character_is_lost(text in "[a-z日本 /.`]{0,400}", width in 2_usize..80) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| columns_of(line) <= width));
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }
}
