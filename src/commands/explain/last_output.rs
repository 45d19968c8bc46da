//! The last lines that a gateway wrote, read back from where its output went: the journal, a log file, OpenClaw's own log.

use super::account::OutputOf;
use crate::core::Report;
use crate::platform::command_line::redacted;
use crate::platform::output::output;
use jiff::Timestamp;
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How many lines are shown, and how much of each, in characters: a gateway may print without a newline.
const LINES: usize = 15;
const LINE_MAX: usize = 500;

/// What journalctl may take and print. An answer of so many entries with few fields is far smaller.
const JOURNAL_TIME_MAX: Duration = Duration::from_secs(5);
const JOURNAL_SIZE_MAX: usize = 4 * 1024 * 1024;
const JOURNAL_ENTRIES: &str = "300";

/// How much of the end of a file is searched.
const TAIL: u64 = 2 * 1024 * 1024;

/// OpenClaw's own log directory, unless `logging.file` of its configuration names a file.
const OWN_LOGS: &str = "/tmp/openclaw";

/// Its clock and ours are one, but a line is stamped before it is written, and an end is seen after it.
const SLACK_MS: i64 = 2000;

/// What was found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastOutput {
    /// A command or a path; where to look if no line was found.
    pub(super) source: String,
    /// Oldest first.
    pub(super) lines: Vec<String>,
    /// Why there are none.
    pub(super) trouble: Option<String>,
}

/// Looks in one place after the other. `home` is that of the user who asks, `log_file` that of the gateway's configuration.
pub(super) async fn read_back(of: &OutputOf, home: Option<PathBuf>, log_file: Option<PathBuf>) -> LastOutput {
    let mut troubles = Vec::new();
    if let Some(file) = &of.moved_to {
        match lines_of_file(Path::new(file), of) {
            // It has no lines of ours, by which the ends could be told.
            Ok(lines) if !lines.is_empty() => return found(&format!("{file}, where all gateways write"), lines),
            Ok(_) => {}
            Err(error) => troubles.push(format!("{file}: {error}")),
        }
    }
    let is_in_journal = of.manager.as_deref() == Some("systemd") || mentions(of, "journalctl");
    if is_in_journal {
        for matches in matches_of(of) {
            match journal(&matches, of).await {
                Ok(lines) if !lines.is_empty() => return found(&shown(&matches), lines),
                Ok(_) => {}
                Err(error) => troubles.push(format!("{}: {error}", shown(&matches))),
            }
        }
    }
    if of.manager.as_deref() == Some("launchd")
        && let Some(home) = home
    {
        for file in job_logs(&home.join("Library/Logs")) {
            match lines_of_file(&file, of) {
                Ok(lines) if !lines.is_empty() => return found(&file.display().to_string(), lines),
                Ok(_) => {}
                Err(error) => troubles.push(format!("{}: {error}", file.display())),
            }
        }
    }
    for file in log_file.into_iter().chain(own_logs(Path::new(OWN_LOGS))) {
        let tail = tail(&file).unwrap_or_default();
        let lines = own_lines(&tail, of.from_ms, of.until_ms + SLACK_MS);
        if !lines.is_empty() {
            return found(&file.display().to_string(), lines);
        }
    }
    // "Above" was right for the reader of the log alone.
    let place =
        of.place.as_deref().map(|place| place.replacen("above", "where the supervisor writes its own output", 1));
    let source = place.unwrap_or_else(|| "where the supervisor writes its own output".to_owned());
    let trouble = if troubles.is_empty() { "no line of it was found".to_owned() } else { troubles.join("; ") };
    LastOutput { source, lines: Vec::new(), trouble: Some(trouble) }
}

fn found(source: &str, lines: Vec<String>) -> LastOutput {
    let lines = last(lines).iter().map(|line| cut(&redacted(line), LINE_MAX)).collect();
    LastOutput { source: source.to_owned(), lines, trouble: None }
}

/// At most so many characters.
pub(super) fn cut(line: &str, length: usize) -> String {
    line.char_indices().nth(length).map_or_else(|| line.to_owned(), |(end, _)| format!("{}...", &line[..end]))
}

fn last(mut lines: Vec<String>) -> Vec<String> {
    lines.split_off(lines.len().saturating_sub(LINES))
}

fn mentions(of: &OutputOf, word: &str) -> bool {
    of.place.as_ref().is_some_and(|place| place.contains(word))
}

/// First the processes of the gateway, then all of the unit: an old journald takes what they write for the supervisor's.
fn matches_of(of: &OutputOf) -> Vec<Vec<String>> {
    let pids: Vec<_> = of.pids.iter().map(|pid| format!("_PID={pid}")).collect();
    let place = of.place.as_deref().unwrap_or_default();
    let field = if place.contains("--user") { "_SYSTEMD_USER_UNIT" } else { "_SYSTEMD_UNIT" };
    let unit = place.split_once("-u ").and_then(|(_, rest)| rest.split(['\'', ' ', ')']).next());
    let unit = unit.filter(|unit| !unit.is_empty()).map(|unit| vec![format!("{field}={unit}")]);
    [pids].into_iter().filter(|pids| !pids.is_empty()).chain(unit).collect()
}

fn shown(matches: &[String]) -> String {
    format!("journalctl {}", matches.join(" "))
}

async fn journal(matches: &[String], of: &OutputOf) -> Result<Vec<String>, String> {
    let seconds = |ms: i64, more: i64| format!("@{}", (ms + more).div_euclid(1000));
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE", "-n", JOURNAL_ENTRIES]);
    command.arg(format!("--since={}", seconds(of.from_ms, -SLACK_MS)));
    command.arg(format!("--until={}", seconds(of.until_ms, SLACK_MS)));
    command.args(matches);
    let answer = output(command, JOURNAL_SIZE_MAX, JOURNAL_TIME_MAX).await.map_err(|error| error.to_string())?;
    if !answer.status.success() {
        let said = String::from_utf8_lossy(&answer.errors);
        return Err(said.lines().next().unwrap_or("it failed").trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&answer.text).lines().filter_map(message).filter(|line| !is_ours(line)).collect())
}

/// The message of an entry. One that is no UTF-8 is a list of bytes, see systemd.journal-fields(7).
fn message(entry: &str) -> Option<String> {
    let message = serde_json::from_str::<Value>(entry).ok()?["MESSAGE"].take();
    match message {
        Value::String(text) => Some(text),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> =
                bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Whether the supervisor wrote this line, as JSON or as text.
fn is_ours(line: &str) -> bool {
    if line.starts_with(r#"{"event":""#) {
        return true;
    }
    let mut words =
        line.split_ascii_whitespace().skip_while(|word| !matches!(*word, "ERROR" | "WARN" | "INFO" | "DEBUG"));
    words.next().is_some() && words.next().is_some_and(|name| name == "log" || Report::NAMES.contains(&name))
}

/// A file has no times. Our own lines in it, if there are any, show where the gateway ended.
fn lines_of_file(file: &Path, of: &OutputOf) -> io::Result<Vec<String>> {
    let text = tail(file)?;
    let lines: Vec<_> = text.lines().collect();
    let is_end = |line: &&str| {
        is_ours(line) && line.contains("gateway.exited") && of.pids.iter().any(|pid| has_number(line, *pid))
    };
    let end = lines.iter().rposition(is_end).unwrap_or(lines.len());
    Ok(last(lines[..end].iter().filter(|line| !is_ours(line)).map(|line| (*line).to_owned()).collect()))
}

fn has_number(line: &str, number: u64) -> bool {
    line.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.parse() == Ok(number))
}

/// A FIFO would wait for its other end.
fn tail(file: &Path) -> io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The logs of our jobs, see `install`.
fn job_logs(dir: &Path) -> Vec<PathBuf> {
    files_of(dir, |name| name.starts_with("ai.openclaw.supervise"))
}

fn own_logs(dir: &Path) -> Vec<PathBuf> {
    files_of(dir, |name| name.starts_with("openclaw-"))
}

/// The latest first, by their names.
fn files_of(dir: &Path, is_it: fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_log = |name: &OsString| name.to_str().is_some_and(|name| name.strip_suffix(".log").is_some_and(is_it));
    let mut files: Vec<_> = entries.map(|entry| entry.file_name()).filter(is_log).map(|name| dir.join(name)).collect();
    files.sort_unstable_by(|one, other| other.cmp(one));
    files
}

/// OpenClaw's own log has one JSON object a line, with its time in `time` or `_meta.date` and its texts in `0`, `1` and so on.
fn own_lines(text: &str, from_ms: i64, until_ms: i64) -> Vec<String> {
    let line = |line: &str| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let stamp = [&entry["time"], &entry["_meta"]["date"]].into_iter().find_map(Value::as_str)?;
        let at = stamp.parse::<Timestamp>().ok()?.as_millisecond();
        if !(from_ms..=until_ms).contains(&at) {
            return None;
        }
        let numbered = (0..8).map(|number| &entry[number.to_string().as_str()]);
        let named = ["message", "msg"].into_iter().map(|name| &entry[name]);
        let texts = numbered.chain(named).filter_map(Value::as_str).filter(|text| !text.starts_with('{'));
        let text = texts.collect::<Vec<_>>().join(" ");
        let level = entry["_meta"]["logLevelName"].as_str().or(entry["level"].as_str()).unwrap_or_default();
        (!text.is_empty()).then(|| format!("{stamp} {level} {text}"))
    };
    last(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_supervisor_is_none_of_the_gateways() {
        for (line, expected) in [
            (r#"{"event":"gateway.exited","at":"x"}"#, true),
            ("2026-11-30T02:14:00.000Z  WARN gateway.exited gateway 3 ended", true),
            ("WARN log something", true),
            ("INFO gateway.started gateway 3 is up", true),
            ("[gateway] WARN something is wrong", false),
            ("Error: unknown key gateway.tokne", false),
            ("INFO listening on 18789", false),
            ("", false),
        ] {
            assert_eq!(is_ours(line), expected, "{line}");
        }
    }

    #[test]
    fn the_journal_is_asked_for_the_processes_first_and_then_for_the_unit() {
        let of = |place: &str, pids: &[u64]| OutputOf {
            place: Some(place.to_owned()),
            pids: pids.to_vec(),
            ..OutputOf::default()
        };
        let user = of("in the journal ('journalctl --user -u openclaw-gateway.service'), and in /tmp/x", &[7, 9]);
        assert_eq!(
            matches_of(&user),
            [
                vec!["_PID=7".to_owned(), "_PID=9".to_owned()],
                vec!["_SYSTEMD_USER_UNIT=openclaw-gateway.service".to_owned()]
            ]
        );
        let system = of("in the journal ('journalctl -u a.service')", &[]);
        assert_eq!(matches_of(&system), [vec!["_SYSTEMD_UNIT=a.service".to_owned()]]);
        assert_eq!(matches_of(&of("above", &[])), Vec::<Vec<String>>::new());
    }

    #[test]
    fn what_is_shown_of_a_line_has_an_end_and_no_secret() {
        let lines = vec!["x".repeat(1 << 20), "OPENAI_API_KEY=sk-abcdefgh1234 is invalid".to_owned()];
        let LastOutput { lines, .. } = found("x", lines);
        assert_eq!(lines[0].chars().count(), LINE_MAX + 3);
        assert_eq!(lines[1], "OPENAI_API_KEY=*** is invalid");
        assert_eq!(cut("\u{65e5}\u{672c}", 1), "\u{65e5}...");
    }

    #[tokio::test]
    async fn the_log_that_the_configuration_names_comes_before_the_usual_one() {
        let file = std::env::temp_dir().join(format!("own-log-{}", std::process::id()));
        fs::write(&file, r#"{"0":"unknown key","time":"1970-01-01T00:00:00.005Z"}"#).unwrap();
        let of = OutputOf { until_ms: 9, ..OutputOf::default() };
        let output = read_back(&of, None, Some(file.clone())).await;
        assert_eq!(
            (output.source, output.lines),
            (file.display().to_string(), vec!["1970-01-01T00:00:00.005Z  unknown key".to_owned()])
        );
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_message_of_the_journal_is_text_or_bytes() {
        assert_eq!(message(r#"{"MESSAGE":"a b"}"#).as_deref(), Some("a b"));
        assert_eq!(message(r#"{"MESSAGE":[97,255]}"#).as_deref(), Some("a\u{fffd}"));
        for entry in [r#"{"MESSAGE":null}"#, r#"{"MESSAGE":[300]}"#, "{}", "x"] {
            assert_eq!(message(entry), None, "{entry}");
        }
    }

    #[test]
    fn a_file_shows_what_was_written_before_the_end_of_that_gateway() {
        let dir = std::env::temp_dir().join(format!("last-output-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("ai.openclaw.supervise.log");
        let text = "one\n{\"event\":\"gateway.spawned\",\"pid\":42}\ntwo\n\
                    {\"event\":\"gateway.exited\",\"pid\":42}\nthree\n{\"event\":\"gateway.exited\",\"pid\":421}\n";
        fs::write(&file, text).unwrap();
        let of = |pid| OutputOf { pids: vec![pid], ..OutputOf::default() };
        assert_eq!(lines_of_file(&file, &of(42)).unwrap(), ["one", "two"]);
        assert_eq!(lines_of_file(&file, &of(421)).unwrap(), ["one", "two", "three"]);
        assert_eq!(lines_of_file(&file, &of(1)).unwrap(), ["one", "two", "three"]);
        assert_eq!(job_logs(&dir), [file]);
        assert!(lines_of_file(&dir, &of(1)).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn openclaws_own_log_is_cut_to_the_life_of_the_gateway() {
        let text = concat!(
            r#"{"0":"too early","_meta":{"date":"2026-11-30T02:00:00.000Z"}}"#,
            "\n",
            r#"{"0":"{\"subsystem\":\"gateway\"}","1":"unknown key","_meta":{"logLevelName":"ERROR"},"time":"2026-11-30T03:00:00.500+01:00"}"#,
            "\nno JSON\n",
            r#"{"message":"too late","time":"2026-11-30T02:00:09Z"}"#,
        );
        let at = |stamp: &str| stamp.parse::<Timestamp>().unwrap().as_millisecond();
        let lines = own_lines(text, at("2026-11-30T02:00:00.100Z"), at("2026-11-30T02:00:01Z"));
        assert_eq!(lines, ["2026-11-30T03:00:00.500+01:00 ERROR unknown key"]);
    }
}
