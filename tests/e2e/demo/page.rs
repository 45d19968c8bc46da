//! The captured terminal of docs/TERMINAL.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows and events that come with a busy machine only.
const OF_LOAD: [&str; 2] = ["liveness.extended", "liveness.blocked"];

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TERMINAL.md")
}

/// What is between the comments of a block: the text before, the block, and the text after it.
fn block<'a>(page: &'a str, name: &str) -> (&'a str, &'a str, &'a str) {
    let begin = format!("<!-- captured: {name} -->\n```text\n");
    let (before, rest) = page.split_once(&begin).unwrap();
    let (text, after) = rest.split_once("```\n<!-- end -->").unwrap();
    (&page[..before.len() + begin.len()], text, after)
}

/// Captures both anew. The program is copied: its path is part of what is shown.
pub(crate) fn update() {
    let dir = std::env::temp_dir().join("openclaw-page");
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join("openclaw-supervise");
    fs::copy(env!("CARGO_BIN_EXE_openclaw-supervise"), &program).unwrap();
    let mut text = fs::read_to_string(page()).unwrap();
    // With the directory named, it looks for no other supervisor of this account.
    let state_dir = dir.join(".openclaw").display().to_string();
    let captures = [("demo", &["demo", "--fast"][..]), ("doctor", &["doctor", "--state-dir", &state_dir])];
    for (name, words) in captures {
        let mut command = Command::new(&program);
        command.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("COLUMNS", "100");
        command.env("HOME", &dir).env("TMPDIR", &dir);
        let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let place = dir.display().to_string();
        let shown = shown
            .replace(&format!("{place}/openclaw-supervise-demo-"), "/tmp/openclaw-supervise-demo-")
            .replace(&format!("{place}/openclaw-supervise"), "openclaw-supervise")
            .replace(&place, "/home/alice");
        let shown: String = shown.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        let (before, _, after) = block(&text, name);
        let typed = words.join(" ").replace(&place, "/home/alice");
        text = format!("{before}$ openclaw-supervise {typed}\n{shown}```\n<!-- end -->{after}");
    }
    fs::write(page(), text).unwrap();
    fs::remove_dir_all(dir).unwrap();
}

/// The names of events and the labels of rows; values, and where lines break, differ each time.
fn labels<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let label = |line: &'a str| {
        // `    6.09s   gateway.exited   ...`
        let event =
            line.get(10..).map(|rest| rest.trim_start_matches(['2', ' '])).and_then(|rest| rest.split(' ').next());
        let is_timed = line.get(8..9) == Some("s") && line.starts_with("  ");
        if is_timed && event.is_some_and(|name| name.contains('.')) {
            return event.map(str::to_owned);
        }
        let (row, _) = line.split_once("  ")?;
        (!row.is_empty()).then(|| row.to_owned())
    };
    lines.filter_map(label).filter(|label| !OF_LOAD.contains(&label.as_str())).collect()
}

/// Each event and row of the page is in what the demo shows now.
pub(crate) fn hold(shown: &[String]) {
    let text = fs::read_to_string(page()).unwrap();
    let (captured, now) = (labels(block(&text, "demo").1.lines()), labels(shown.iter().map(String::as_str)));
    assert!(captured.len() > 30, "{captured:?}");
    let gone: Vec<_> = captured.difference(&now).collect();
    assert!(gone.is_empty(), "docs/TERMINAL.md has {gone:?}: INSTA_UPDATE=always cargo test --test e2e chapter");
    // doctor tells of a machine, so its names are held by its own page.
    let names = fs::read_to_string(page().with_file_name("DOCTOR.md")).unwrap();
    let findings = block(&text, "doctor")
        .1
        .lines()
        .filter(|line| ["OK  ", "WARN", "FAIL"].iter().any(|level| line.starts_with(level)));
    for finding in findings {
        let name = finding[4..].trim_start().split("  ").next().unwrap();
        assert!(names.contains(&format!("`{name}`")), "{finding}");
    }
}
