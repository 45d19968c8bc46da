//! `explain`: why a gateway was restarted, ended or refused, in words, from the record. It reads the store and asks no
//! supervisor, so it works when none runs.

mod account;
mod last_output;
mod rules;

use super::record::{Entry, StoreRecord};
use super::terminal::{Style, Terminal};
use crate::cli::DecisionSubject;
use crate::core::exit;
use crate::core::report::Severity;
use crate::host::clock;
use crate::settings::{ExplainSettings, log_file_of};
use account::{Account, Asker};
use last_output::LastOutput;
use nix::unistd::{Uid, User};
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};

/// Writes the account. Returns the exit code.
pub async fn run(settings: &ExplainSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let store_dir = settings.subject.store_dir.as_path();
    let entries =
        match StoreRecord::open(store_dir).and_then(|record| record.map(|record| record.last(u32::MAX)).transpose()) {
            Ok(Some(entries)) => entries,
            Ok(None) => {
                tracing::error!("nothing is recorded in {}; did a supervisor ever run there?", store_dir.display());
                return Ok(exit::FAILURE);
            }
            Err(error) => {
                tracing::error!("{error}");
                return Ok(exit::FAILURE);
            }
        };
    let account = match Account::of(&entries, &settings.decision) {
        Ok(account) => account,
        Err(nothing) => {
            tracing::error!("{nothing}");
            return Ok(exit::FAILURE);
        }
    };
    let output = match account.generation {
        Some(_) => Some(read_back(&account, &settings.subject.config_path).await),
        None => None,
    };
    let text = if settings.json {
        as_json(&account, output.as_ref()).to_string()
    } else {
        as_text(&account, output.as_ref(), &settings.typed, &Terminal::of(&io::stdout()))
    };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        written => written.map(|()| exit::OK),
    }
}

async fn read_back(account: &Account, config: &Path) -> LastOutput {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let log_file = log_file_of(config, home.as_deref());
    last_output::read_back(&account.output, home, log_file).await
}

/// How much of a gateway's line goes into a sentence, in characters.
const WORDS_MAX: usize = 200;

/// What marks the line that says why, the most telling first.
const TELLING: [&str; 7] = ["unrecognized", "unknown", "invalid", "error", "failed", "cannot", "refus"];

/// The line of a gateway's last output that says best why it ended, read back from where it went.
pub(super) async fn last_words(entries: &[Entry], generation: u64, config: &Path) -> Option<String> {
    let account = Account::of(entries, &DecisionSubject::Generation(generation)).ok()?;
    let LastOutput { lines, .. } = read_back(&account, config).await;
    telling(&lines)
}

fn telling(lines: &[String]) -> Option<String> {
    let last_with = |word: &str| lines.iter().rfind(|line| line.to_lowercase().contains(word));
    let line =
        TELLING.iter().find_map(|word| last_with(word)).or_else(|| lines.iter().rfind(|line| !line.trim().is_empty()));
    line.map(|line| last_output::cut(line.trim(), WORDS_MAX))
}

/// A user is a number where its name is not known here.
fn asked_by(asker: &Asker) -> String {
    let Some(uid) = asker.uid else { return asker.text.clone() };
    let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    match name {
        Some(name) => format!("{}, user {name} (uid {uid})", asker.text),
        None => format!("{}, uid {uid}", asker.text),
    }
}

fn as_text(account: &Account, output: Option<&LastOutput>, typed: &str, terminal: &Terminal) -> String {
    let mut parts =
        vec![terminal.paragraph(&format!("{}.", account.decision.trim_end_matches('.')), Some(Style::Bold))];
    let at = format!("{} ({})", terminal.full(account.at_ms), terminal.relative(account.at_ms));
    let mut rows = vec![("when", at, None), ("rule", account.rule.clone(), None)];
    rows.extend(account.asked_by.as_ref().map(|asker| ("asked by", asked_by(asker), None)));
    rows.extend(account.inputs.iter().map(|(name, value)| (*name, value.clone(), None)));
    rows.extend(account.conclusion.iter().map(|text| ("conclusion", text.clone(), Some(Style::Yellow))));
    rows.extend(account.evidence.iter().map(|path| ("evidence", path.clone(), None)));
    parts.push(terminal.table(&rows));
    parts.push(events("What led to it", &account.before, terminal));
    parts.extend(output.map(|output| output_text(output, terminal)));
    parts.push(if account.next.is_empty() {
        terminal.paragraph("What came next: nothing is on record", None)
    } else {
        events("What came next", &account.next, terminal)
    });
    let typed = if typed.is_empty() { String::new() } else { format!(" {typed}") };
    let todo = format!("{}; `openclaw-supervise{typed} status` shows what runs now", account.advice);
    parts.push(terminal.table(&[("what to do", todo, Some(Style::Bold))]));
    parts.join("\n\n")
}

fn events(title: &str, events: &[Entry], terminal: &Terminal) -> String {
    let mut lines = vec![terminal.paint(Style::Bold, title)];
    lines.extend(events.iter().map(|entry| {
        let at = terminal.time(entry.at_ms);
        let style = match entry.level {
            Some(Severity::Error) => Some(Style::Red),
            Some(Severity::Warning) => Some(Style::Yellow),
            Some(Severity::Info) | None => None,
        };
        let head = format!("  {}", terminal.paint(Style::Dim, &at));
        let column = 2 + at.chars().count() + 2;
        terminal.hang((&head, column - 2), column, &told(entry), style)
    }));
    lines.join("\n")
}

/// The sentence of an event without its name beside it.
fn told(entry: &Entry) -> String {
    let sentence = entry.sentence();
    match entry.name.as_str() {
        name if entry.message.is_none() => format!("{name} {sentence}"),
        "stop.requested" | "restart.requested" | "retry.requested" | "detach.requested" => {
            format!("{} {sentence}", entry.name.replace(".requested", ""))
        }
        "restart.scheduled" if sentence.starts_with("in ") => format!("next start {sentence}"),
        "supervisor.stopped" => format!("the supervisor ended: {sentence}"),
        _ => sentence,
    }
}

fn output_text(output: &LastOutput, terminal: &Terminal) -> String {
    let LastOutput { source, lines, trouble } = output;
    let title = terminal.paint(Style::Bold, "Its last output");
    if let Some(trouble) = trouble {
        let text = format!("not found ({trouble}); look {source}");
        return format!("{title}\n{}", terminal.hang((" ", 1), 2, &text, None));
    }
    let from = terminal.hang((" ", 1), 2, &format!("from {source}"), Some(Style::Dim));
    let lines = lines.iter().map(|line| terminal.hang((" ", 1), 2, line, None));
    [title, from].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

fn as_json(account: &Account, output: Option<&LastOutput>) -> Value {
    let Account {
        generation,
        at_ms,
        decision,
        rule,
        inputs,
        asked_by: by,
        conclusion,
        evidence,
        before,
        next,
        advice,
        ..
    } = account;
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let objects = |entries: &[Entry]| entries.iter().map(Entry::object).collect::<Vec<_>>();
    json!({
        "generation": generation,
        "at": clock::stamp_of(*at_ms),
        "decision": decision,
        "rule": rule,
        "inputs": inputs,
        "asked_by": by.as_ref().map(asked_by),
        "conclusion": conclusion,
        "evidence": evidence,
        "before": objects(before),
        "output": output.map(|output| json!({
            "source": output.source,
            "lines": output.lines,
            "trouble": output.trouble,
        })),
        "next": objects(next),
        "advice": advice,
    })
}

#[cfg(test)]
mod tests;
