//! The demo's output: plain lines, no wider than the terminal.

use super::super::terminal::{Style, Terminal, wrap};
use super::supervisor::LogLine;
use crate::core::Moment;
use std::io::{self, Write};
use std::time::Duration;

/// Wider lines are hard to read, and a pipe has no width.
const WIDTH_MAX: usize = 100;

/// In fewer columns there is no room for a sentence behind the name of its event.
const WIDTH_MIN: usize = 40;

/// From here on a sentence stands behind the name of its event.
const WIDE: usize = 80;

/// The column of event sentences: after the time, the prefix and the longest event name.
const SENTENCE_COLUMN: usize = 34;

/// The column of commands: after the time and the prompt.
const COMMAND_COLUMN: usize = 12;

/// How long a chapter's reactions took, counted from the script's action.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Timing {
    pub(super) chapter: &'static str,
    pub(super) noticed: Option<Duration>,
    pub(super) spawned: Option<Duration>,
    pub(super) started: Option<Duration>,
    /// When the supervisor exited, and its code.
    pub(super) exited: Option<(Duration, i32)>,
}

pub(super) struct TerminalUi<W> {
    out: W,
    terminal: Terminal,
    /// In columns.
    width: usize,
    begun: Moment,
}

impl<W: Write> TerminalUi<W> {
    pub(super) fn new(out: W, terminal: Terminal, begun: Moment) -> Self {
        let width = terminal.width().clamp(WIDTH_MIN, WIDTH_MAX);
        Self { out, terminal, width, begun }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Sets the origin of the shown times.
    pub(super) fn begin(&mut self, at: Moment) {
        self.begun = at;
    }

    pub(super) fn title(&mut self, text: &str) -> io::Result<()> {
        let text = self.terminal.paint(Style::Bold, text);
        self.write(&format!("{text}\n\n"))
    }

    pub(super) fn paragraph(&mut self, text: &str) -> io::Result<()> {
        let lines: Vec<String> = wrap(text, self.width - 2).iter().map(|line| format!("  {line}\n")).collect();
        self.write(&lines.concat())
    }

    /// Settings with their defaults.
    pub(super) fn settings(&mut self, settings: &[(&str, &str, &str)]) -> io::Result<()> {
        for pair in settings.chunks(if self.width < WIDTH_MAX { 1 } else { 2 }) {
            let cells = pair.iter().map(|(flag, value, default)| {
                let default = format!("(default {default})");
                format!("{flag:<20}{value:>6}  {}", self.terminal.paint(Style::Dim, &format!("{default:<16}")))
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            self.write(&format!("    {}\n", line.trim_end()))?;
        }
        Ok(())
    }

    pub(super) fn chapter(&mut self, number: usize, of: usize, title: &str, about: &str) -> io::Result<()> {
        let head = format!("[{number}/{of}] {title}");
        let head = self.terminal.paint(Style::Bold, &head);
        self.write(&format!("\n{head}\n"))?;
        self.paragraph(about)
    }

    /// What a command printed.
    pub(super) fn printed(&mut self, text: &str) -> io::Result<()> {
        self.write(text)
    }

    /// A command that has the effect of the script's next action.
    pub(super) fn command(&mut self, at: Moment, text: &str) -> io::Result<()> {
        let head = format!("{} {}", self.time(at), self.terminal.paint(Style::Cyan, "$"));
        let lines = wrap(text, self.width - COMMAND_COLUMN);
        let painted: Vec<String> = lines.iter().map(|line| self.terminal.paint(Style::Cyan, line)).collect();
        self.hang(&head, COMMAND_COLUMN, &painted)
    }

    /// A log line. `prefix` tells the two supervisors apart.
    pub(super) fn event(&mut self, line: &LogLine, prefix: char) -> io::Result<()> {
        let time = self.time(line.at);
        let name = self.terminal.paint(Style::of_level(&line.level), &format!("{:<21}", line.event));
        let head = format!("{time} {prefix} {name}");
        if self.width < WIDE {
            let sentence = wrap(&line.sentence, self.width - COMMAND_COLUMN);
            let rest = std::iter::once(String::new()).chain(sentence);
            return self.hang(head.trim_end(), COMMAND_COLUMN, &rest.collect::<Vec<_>>());
        }
        self.hang(&head, SENTENCE_COLUMN, &wrap(&line.sentence, self.width - SENTENCE_COLUMN))
    }

    /// A head followed by lines that start at `column`.
    fn hang(&mut self, head: &str, column: usize, lines: &[String]) -> io::Result<()> {
        let rest = format!("\n{:column$}", "");
        let text = format!("{head} {}", lines.join(&rest));
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        self.write(&format!("{}\n", lines.join("\n")))
    }

    pub(super) fn table(&mut self, rows: &[Timing]) -> io::Result<()> {
        let head = self.terminal.paint(Style::Bold, "Measured, from the action to the event");
        // The end of a supervisor has a line of its own where it does not fit.
        let (label, gap) = if self.width < WIDTH_MAX { (20, "") } else { (24, "   ") };
        let end_column = self.width >= WIDE;
        let cells = |label_text: &str, cells: [&str; 3], end: &str| {
            let [noticed, spawned, started] = cells;
            let row = format!("  {label_text:<label$}{noticed:>9}{gap}{spawned:>12}{gap}{started:>9}");
            match end {
                "" => row,
                end if end_column => format!("{row}  {end}"),
                end => format!("{row}\n    {end}"),
            }
        };
        let columns = cells("", ["noticed", "next spawn", "started"], if end_column { "supervisor" } else { "" });
        let columns = self.terminal.paint(Style::Dim, columns.trim_end());
        self.write(&format!("\n{head}\n{columns}\n"))?;
        for row in rows {
            let cell = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), precise);
            let end = row.exited.map_or_else(
                || if end_column { "runs on".to_owned() } else { String::new() },
                |(after, code)| format!("exit code {code} after {}", precise(after)),
            );
            let (noticed, spawned, started) = (cell(row.noticed), cell(row.spawned), cell(row.started));
            self.write(&format!("{}\n", cells(row.chapter, [&noticed, &spawned, &started], &end)))?;
        }
        Ok(())
    }

    pub(super) fn closing(&mut self, good: bool, text: &str) -> io::Result<()> {
        let style = if good { Style::Green } else { Style::Red };
        let text = self.terminal.paint(style, text);
        self.write(&format!("\n  {text}\n"))
    }

    fn time(&self, at: Moment) -> String {
        let seconds = at.saturating_sub(self.begun).as_secs_f64();
        self.terminal.paint(Style::Dim, &format!("{seconds:>8.2}s"))
    }

    /// Flushes, so that the reader sees each line at once.
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Formats a duration with up to three digits.
fn precise(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_at(width: usize, draw: impl Fn(&mut TerminalUi<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        let terminal = Terminal::fixed(Some(width), false, "UTC0", "2026-11-30T02:14:00Z");
        draw(&mut TerminalUi::new(&mut bytes, terminal, Duration::from_secs(10))).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_part_fits_the_terminal() {
        let rows = [
            Timing {
                chapter: "duplicate start",
                noticed: Some(Duration::from_micros(2800)),
                exited: Some((Duration::from_micros(3300), 78)),
                ..Timing::default()
            },
            Timing {
                chapter: "restart on request",
                noticed: Some(Duration::from_micros(840)),
                spawned: Some(Duration::from_millis(812)),
                started: Some(Duration::from_millis(2340)),
                exited: None,
            },
        ];
        for width in [60, 80, 200] {
            let text = shown_at(width, |ui| {
                ui.paragraph(&"word ".repeat(40))?;
                ui.settings(&[("--hang-after", "1500ms", "60s"), ("--stop-timeout", "5s", "328s")])?;
                ui.command(Duration::from_secs(11), &"word ".repeat(30))?;
                ui.event(&line("free: connection refused on 127.0.0.1:40123, and a few words more"), '2')?;
                ui.table(&rows)?;
                ui.closing(true, "done")
            });
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.min(WIDTH_MAX), "{widest} at {width}\n{text}");
            insta::assert_snapshot!(format!("demo-{width}"), text);
        }
    }

    fn shown(colour: bool, draw: impl Fn(&mut TerminalUi<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        let terminal = Terminal::fixed(None, colour, "UTC0", "2026-11-30T02:14:00Z");
        draw(&mut TerminalUi::new(&mut bytes, terminal, Duration::from_secs(10))).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn line(sentence: &str) -> LogLine {
        let at = Duration::from_millis(12_346);
        LogLine {
            at,
            level: "WARN".to_owned(),
            event: "probe.verdict_changed".to_owned(),
            sentence: sentence.to_owned(),
        }
    }

    #[test]
    fn an_event_shows_the_time_since_the_start_its_name_and_its_sentence() {
        let text = shown(false, |ui| ui.event(&line("free: connection refused"), ' '));
        assert_eq!(text, "    2.35s   probe.verdict_changed free: connection refused\n");
    }

    #[test]
    fn a_long_sentence_is_wrapped_and_indented() {
        let text = shown(false, |ui| ui.event(&line(&"word ".repeat(30)), '2'));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines.iter().skip(1).all(|line| line.starts_with(&format!("{:SENTENCE_COLUMN$}word", ""))), "{text}");
    }

    #[test]
    fn colour_is_used_only_if_enabled() {
        for colour in [true, false] {
            let text = shown(colour, |ui| {
                ui.title("title")?;
                ui.command(Duration::from_secs(11), "kill -KILL 1")?;
                ui.event(&line("x"), ' ')?;
                ui.table(&[Timing::default()])?;
                ui.closing(true, "done")
            });
            assert_eq!(text.contains('\x1b'), colour, "{text}");
        }
    }

    #[test]
    fn measured_times_have_up_to_three_digits_and_a_unit() {
        for (us, text) in [(840, "0.8 ms"), (9_940, "9.9 ms"), (12_400, "12 ms"), (999_000, "999 ms")] {
            assert_eq!(precise(Duration::from_micros(us)), text);
        }
        assert_eq!(precise(Duration::from_millis(2_346)), "2.35 s");
    }
}
