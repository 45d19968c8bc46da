//! The rules of this repository that no compiler checks: who may name whom, how long things are, what no file may say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/rust.rs"]
mod rust;

use rust::{Token, functions, module_of, named_paths, tokens};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 550;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that belongs to the repository, as its path from the root and its text. Binary files are left out.
fn tracked() -> Vec<(String, String)> {
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
}

fn sources() -> Vec<(String, String)> {
    let mut files = tracked();
    files.retain(|(path, _)| path.starts_with("src/") && is_rust(path));
    files
}

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
fn wrong_arrows(path: &str, text: &str) -> Vec<String> {
    let module = module_of(path);
    let from = module.first().map_or("lib", String::as_str);
    // A crate of its own: the compiler holds it.
    if from == "core" {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for named in named_paths(&tokens(text), &module) {
        let [first, to, ..] = named.as_slice() else { continue };
        if first != "crate" && first != "openclaw_supervise" {
            continue;
        }
        let item = to.chars().next().is_some_and(char::is_uppercase) || to == "*";
        let fine = match allowed(from) {
            Some(modules) => modules.contains(&to.as_str()),
            None => item || to == from || !stands_above(from).contains(&to.as_str()),
        };
        if !fine {
            wrong.push(format!("{path}: {from} names {}", named.join("::")));
        }
    }
    wrong
}

fn long_functions(path: &str, text: &str) -> Vec<String> {
    let functions = functions(&tokens(text));
    let long = functions.into_iter().filter(|(name, lines)| *lines > FUNCTION_LINES_MAX && name != "step");
    long.map(|(name, lines)| format!("{path}: {name} has {lines} lines")).collect()
}

fn has_ident(text: &str, ident: &str) -> bool {
    tokens(text).iter().any(|token| token.text == ident)
}

fn has_sequence(text: &str, sequence: &[&str]) -> bool {
    let tokens = tokens(text);
    tokens.windows(sequence.len()).any(|window| window.iter().map(|Token { text, .. }| text).eq(sequence))
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

#[test]
fn the_arrows_between_modules_point_one_way() {
    none_of(&sources().iter().flat_map(|(path, text)| wrong_arrows(path, text)).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_lives_in_platform_alone() {
    let bad =
        sources().into_iter().filter(|(path, text)| !path.starts_with("src/platform/") && has_ident(text, "unsafe"));
    none_of(&bad.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_stay_short() {
    let sources = sources();
    let long = sources.iter().filter(|(_, text)| text.lines().count() > FILE_LINES_MAX);
    none_of(&long.map(|(path, text)| format!("{path}: {} lines", text.lines().count())).collect::<Vec<_>>());
    none_of(&sources.iter().flat_map(|(path, text)| long_functions(path, text)).collect::<Vec<_>>());
}

#[test]
fn no_test_is_switched_off_and_no_debug_print_is_left() {
    for (path, text) in tracked().iter().filter(|(path, _)| is_rust(path)) {
        assert!(!has_sequence(text, &["#", "[", "ignore"]), "{path}");
        assert!(!has_sequence(text, &["dbg", "!"]), "{path}");
        assert!(!has_sequence(text, &["todo", "!"]), "{path}");
    }
}

#[test]
fn no_file_holds_unfinished_work_or_traces_of_one_machine() {
    none_of(&tracked().iter().flat_map(|(path, text)| unwanted(path, text)).collect::<Vec<_>>());
}

/// The events that `report.rs` names and the log's description does not, or the other way round.
fn undocumented(report: &str, description: &str) -> Vec<String> {
    let dotted = |name: &str| {
        name.contains('.') && name.chars().all(|letter| letter.is_ascii_lowercase() || "._".contains(letter))
    };
    let coded: Vec<_> =
        report.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).filter(|name| dotted(name)).collect();
    let told: Vec<_> = description
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| dotted(name))
        .collect();
    let missing = coded.iter().filter(|name| !told.contains(name)).map(|name| format!("{name} is not described"));
    let stale = told.iter().filter(|name| !coded.contains(name)).map(|name| format!("{name} does not exist"));
    missing.chain(stale).collect()
}

#[test]
fn every_event_is_described_and_none_is_made_up() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let journal = read("src/host/journal.rs").replace("event = \"", "=> \"");
    none_of(&undocumented(&(read("src/core/report.rs") + &journal), &read("docs/EVENTS.md")));
    assert_eq!(undocumented("A => \"a.b\", B => \"none\", C => \"c.d_e\"", "| `c.d_e` | x |\n| `f.g` |").len(), 2);
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_written() {
    let bad = [
        ("src/gateway/probe.rs", "use crate::{core::Event, host::clock};"),
        ("src/gateway/mod.rs", "fn f() { crate::app::run() }"),
        ("src/store/lease.rs", "use crate::gateway::endpoint::Endpoint;"),
        ("src/host/clock.rs", "use crate::settings::Settings;"),
        ("src/platform/linux/proc.rs", "use crate::core::ExitStatus;"),
        ("src/app.rs", "use crate::commands::run;"),
        ("src/settings.rs", "use crate::app::App;"),
        ("src/commands/run.rs", "use openclaw_supervise::main;"),
        ("src/gateway/x.rs", "mod tests { use super::super::super::store; }"),
    ];
    for (path, text) in bad {
        assert_eq!(wrong_arrows(path, text).len(), 1, "{path}: {text}");
    }
    let good = [
        ("src/gateway/probe.rs", "mod tests { use super::super::endpoint; use super::*; }"),
        ("src/gateway/probe.rs", "use crate::core::Event; use crate::platform::proc; use crate::gateway::endpoint;"),
        ("src/app.rs", "use crate::{core, gateway::probe, host, store, settings::Settings};"),
        ("src/main.rs", "use openclaw_supervise::commands;"),
    ];
    for (path, text) in good {
        assert_eq!(wrong_arrows(path, text), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn the_other_checks_can_fail_too() {
    let body = "    f();\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(long_functions("x", &format!("impl A {{\nfn long(a: [u8; 2]) -> B {{\n{body}}}\n}}")).len(), 1);
    assert_eq!(long_functions("x", &format!("fn step() {{\n{body}}}")).len(), 0);
    assert_eq!(functions(&tokens("trait T { fn a(&self);\nfn b() {\n}\n}")), [("b".to_owned(), 2)]);
    assert!(has_ident("unsafe { f() }", "unsafe") && !has_ident("// unsafe\n#![deny(unsafe_code)]", "unsafe"));
    assert!(has_sequence("#[ignore = \"slow\"]\nfn f() {}", &["#", "[", "ignore"]));
    assert!(has_sequence("dbg!(x)", &["dbg", "!"]) && !has_sequence("\"dbg!(x)\"", &["dbg", "!"]));
    for line in
        TRACES.iter().map(|trace| format!("a {trace}b")).chain(UNFINISHED.iter().map(|word| format!("// {word}: b")))
    {
        assert_eq!(unwanted("docs/x.md", &line).len(), 1, "{line}");
    }
    assert_eq!(unwanted("Cargo.lock", "source = \"registry+https://example.org/index\"").len(), 1);
    assert_eq!(unwanted("Cargo.lock", &format!("source = \"{CRATES_IO}\"")), Vec::<String>::new());
}
