//! The rules of this repository that no compiler checks: who may name whom, how long things are, what no file may say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/sources.rs"]
mod sources;

use openclaw_supervise::core::Report;
use sources::{Source, Tree};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const FILE_LINES_MAX: usize = 550;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that belongs to the repository, as its path from the root and its text. Binary files are left out.
static TRACKED: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            // In a second worktree `.git` is a file.
            if ["target", ".git", "node_modules"].contains(&name.to_str().unwrap()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let short = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                files.push((short, text));
            }
        }
    }
    assert!(files.len() > 20 && files.iter().any(|(path, _)| path == "Cargo.toml"), "the walk found the repository");
    files.sort();
    files
});

/// The files of `src`.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let files = TRACKED.iter().filter(|(path, _)| path.starts_with("src/") && is_rust(path));
    files.map(|(path, text)| Source::parse(path, text)).collect()
});

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// Which modules a module may name; `None` = any but those that stand above it.
fn allowed(module: &str) -> Option<&'static [&'static str]> {
    match module {
        "platform" => Some(&["platform"]),
        "gateway" => Some(&["gateway", "core", "platform"]),
        "store" => Some(&["store", "core", "platform"]),
        "host" => Some(&["host", "core", "platform"]),
        _ => None,
    }
}

fn stands_above(module: &str) -> &'static [&'static str] {
    match module {
        "main" | "lib" => &[],
        "commands" => &["main"],
        "app" => &["main", "commands", "cli"],
        "cli" => &["main", "commands", "app", "settings"],
        _ => &["main", "commands", "app"],
    }
}

/// Every arrow that points the wrong way.
fn wrong_arrows(source: &Source) -> Vec<String> {
    let from = source.module.first().map_or("lib", String::as_str);
    // A crate of its own: the compiler holds it.
    if from == "core" {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for named in &source.named {
        let Some(to) = named.path.first() else { continue };
        let item = to.chars().next().is_some_and(char::is_uppercase) || to == "*";
        let fine = match allowed(from) {
            Some(modules) => modules.contains(&to.as_str()),
            None => item || to == from || !stands_above(from).contains(&to.as_str()),
        };
        if !fine {
            wrong.push(format!("{}: {from} names {}", source.file, named.path.join("::")));
        }
    }
    wrong
}

/// Words that a finished file does not hold. Split, so that this file does not hold them either.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Traces of one particular machine.
const TRACES: [&str; 10] = [
    concat!("/wo", "rk/"),
    concat!("/tm", "p/wt-"),
    concat!("/tm", "p/oc/"),
    concat!("/ro", "ot/.c"),
    concat!("/Use", "rs/"),
    concat!("registry.", "npmjs"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("arti", "factory"),
    concat!("sparse", "+http"),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn unwanted(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let foreign = line.contains("registry+") && path == "Cargo.lock" && !line.contains(CRATES_IO);
        let unfinished = path != "Cargo.lock" && words.into_iter().any(|word| UNFINISHED.contains(&word));
        if foreign || unfinished || TRACES.iter().any(|trace| line.contains(trace)) {
            found.push(format!("{path}:{number}: {line}"));
        }
    }
    found
}

fn none_of(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The phrases of [`PRIVATE_WORDS`] in a text, each as often as it stands there.
fn private_words(text: &str) -> Vec<&'static str> {
    let words: Vec<String> = text
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let stands = |at: usize, phrase: &str| {
        let mut rest = words[at..].iter();
        phrase.split(' ').all(|word| rest.next().is_some_and(|next| next == word))
    };
    (0..words.len()).flat_map(|at| PRIVATE_WORDS.into_iter().filter(move |phrase| stands(at, phrase))).collect()
}

/// What an engineer of the field would not say.
const PRIVATE_WORDS: [&str; 16] = [
    "somebody",
    "whoever",
    "nobody",
    "anybody",
    "everybody",
    "whose",
    "whom",
    "for want of",
    "its word",
    "no word",
    "without a word",
    "begun anew",
    "our doing",
    "in good hands",
    "stands still",
    "one too many",
];

/// The hits that are left in `src` and `docs`. It only falls.
const PRIVATE_WORDS_MAX: usize = 3;

#[test]
fn the_arrows_between_modules_point_one_way() {
    none_of(&SOURCES.iter().flat_map(wrong_arrows).collect::<Vec<_>>());
}

#[test]
fn no_two_files_need_each_other() {
    none_of(&circles::circles(&Tree::of(&SOURCES).needs()));
}

#[test]
fn a_type_name_means_one_thing() {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    let tree = Tree::of(&SOURCES);
    for source in SOURCES.iter().filter(|source| !tree.is_test_only(source)) {
        for name in &source.types {
            files.entry(name.clone()).or_default().push(source.file.clone());
        }
    }
    // One of each kernel is one.
    files.retain(|_, files| files.iter().filter(|file| !file.starts_with("src/platform/macos/")).count() > 1);
    none_of(&files.iter().map(|(name, files)| format!("{name}: {}", files.join(", "))).collect::<Vec<_>>());
}

#[test]
fn the_words_are_those_of_the_field() {
    let files = TRACKED.iter().filter(|(path, _)| path.starts_with("src/") || path.starts_with("docs/"));
    let mut hits: Vec<(usize, String)> = files
        .map(|(path, text)| (private_words(text), path))
        .filter(|(words, _)| !words.is_empty())
        .map(|(words, path)| (words.len(), format!("{path}: {}", words.join(", "))))
        .collect();
    hits.sort();
    let count: usize = hits.iter().map(|(count, _)| count).sum();
    let list: Vec<&str> = hits.iter().map(|(_, line)| line.as_str()).collect();
    assert!(count <= PRIVATE_WORDS_MAX, "{count} hits:\n{}", list.join("\n"));
}

#[test]
fn files_stay_short() {
    let files = TRACKED.iter().filter(|(path, _)| path.starts_with("src/") && is_rust(path));
    let lines = files.map(|(path, text)| (path, text.lines().count()));
    none_of(
        &lines
            .filter(|(_, lines)| *lines > FILE_LINES_MAX)
            .map(|(path, lines)| format!("{path}: {lines} lines"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn no_test_is_switched_off_no_debug_print_is_left_and_only_platform_is_unsafe() {
    for (path, text) in TRACKED.iter().filter(|(path, _)| is_rust(path)) {
        let mut banned = Source::parse(path, text).banned;
        banned.retain(|name| name != "unsafe_code" || path.starts_with("src/") && !path.starts_with("src/platform/"));
        assert_eq!(banned, Vec::<String>::new(), "{path}");
    }
}

#[test]
fn no_file_holds_unfinished_work_or_traces_of_one_machine() {
    none_of(&TRACKED.iter().flat_map(|(path, text)| unwanted(path, text)).collect::<Vec<_>>());
}

/// The events that the log has and its description does not, or the other way round.
fn undocumented(events: &[&str], description: &str) -> Vec<String> {
    let rows = description.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described: Vec<_> = rows.filter(|name| name.contains('.')).collect();
    let missing = events.iter().filter(|name| !described.contains(name)).map(|name| format!("{name} is not described"));
    let stale = described.iter().filter(|name| !events.contains(name)).map(|name| format!("{name} does not exist"));
    missing.chain(stale).collect()
}

#[test]
fn every_event_is_described_and_none_is_made_up() {
    let events = [Report::NAMES, &["core.begun", "core.step"]].concat();
    none_of(&undocumented(&events, &fs::read_to_string(root().join("docs/EVENTS.md")).unwrap()));
    assert_eq!(undocumented(&["a.b", "c.d_e"], "| `c.d_e` | x |\n| `f.g` |").len(), 2);
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let bad = [
        ("src/gateway/probe.rs", "use crate::{core::Event, host::clock};"),
        ("src/gateway/mod.rs", "fn f() { crate::app::run() }"),
        ("src/store/lease.rs", "use crate::gateway::endpoint::Resolved;"),
        ("src/host/clock.rs", "use crate::settings::Settings;"),
        ("src/platform/linux/proc.rs", "use crate::core::ExitStatus;"),
        ("src/app.rs", "use crate::commands::run;"),
        ("src/settings.rs", "use crate::app::App;"),
        ("src/commands/run.rs", "use openclaw_supervise::main;"),
        ("src/gateway/x.rs", "mod tests { use super::super::super::store; }"),
    ];
    for (path, text) in bad {
        assert_eq!(wrong_arrows(&Source::parse(path, text)).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/gateway/probe.rs", "mod tests { use super::super::endpoint; use super::*; }"),
        ("src/gateway/probe.rs", "use crate::core::Event; use crate::platform::proc; use crate::gateway::endpoint;"),
        ("src/app.rs", "use crate::{core, gateway::probe, host, store, settings::Settings};"),
        ("src/main.rs", "use openclaw_supervise::commands;"),
    ];
    for (path, text) in good {
        assert_eq!(wrong_arrows(&Source::parse(path, text)), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn a_circle_is_found_through_others_and_through_what_is_re_exported() {
    let circle = |files: &[(&str, &str)]| {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
        circles::circles(&Tree::of(&sources).needs())
    };
    for bad in [
        &[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "fn f() { crate::a::g() }")][..],
        &[
            ("src/a.rs", "use crate::b;"),
            ("src/b.rs", "use crate::{c::C};"),
            ("src/c.rs", "fn f() { x!(crate::a::A) }"),
        ],
        &[("src/a/mod.rs", "mod b; pub use b::B; struct A;"), ("src/a/b.rs", "use super::A;")],
        &[("src/a/mod.rs", "mod b; fn f() { b::f() }"), ("src/a/b.rs", "pub fn f() { super::f() }")],
        &[
            ("src/a.rs", "mod b; mod c; pub use {b::B, c::C};"),
            ("src/a/b.rs", "use super::C;"),
            ("src/a/c.rs", "use super::B;"),
        ],
    ] {
        assert_eq!(circle(bad).len(), 1, "{bad:?}");
    }
    for good in [
        &[
            ("src/a.rs", "mod b; pub use b::B; struct A;"),
            ("src/a/b.rs", "#[cfg(test)] mod tests { use super::super::A; }"),
        ][..],
        &[("src/a.rs", "mod b; mod c; pub use {b::B, c::C};"), ("src/a/b.rs", "use super::C;"), ("src/a/c.rs", "")],
        &[("src/a.rs", "mod b; #[cfg(test)] mod t; use b::B;"), ("src/a/b.rs", ""), ("src/a/t.rs", "use super::b;")],
    ] {
        assert_eq!(circle(good), Vec::<String>::new(), "{good:?}");
    }
}

#[test]
fn the_other_checks_can_fail_too() {
    let banned = |text: &str| Source::parse("src/x.rs", text).banned;
    assert_eq!(banned("#[ignore = \"slow\"]\nfn f() { dbg!(x); }"), ["ignore", "dbg"]);
    assert_eq!(banned("#![expect(unsafe_code, reason = \"\")] mod a { fn f() { todo!() } }"), ["unsafe_code", "todo"]);
    assert_eq!(banned("#![deny(unsafe_code)] fn f() { g(\"dbg!(x)\") }"), Vec::<String>::new());
    assert_eq!(private_words("Nobody's is over; begun\nanew."), ["nobody", "begun anew"]);
    for line in
        TRACES.iter().map(|trace| format!("a {trace}b")).chain(UNFINISHED.iter().map(|word| format!("// {word}: b")))
    {
        assert_eq!(unwanted("docs/x.md", &line).len(), 1, "{line}");
    }
    assert_eq!(unwanted("Cargo.lock", "source = \"registry+https://example.org/index\"").len(), 1);
    assert_eq!(unwanted("Cargo.lock", &format!("source = \"{CRATES_IO}\"")), Vec::<String>::new());
}
