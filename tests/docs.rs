//! README and docs against the program: every command in them is run, and every verb, option and variable exists.
//!
//! A block marked `sh` is run by sh(1) in a scratch home, with the built program first on PATH, the stand-in gateway as
//! `openclaw`, and scripts that record their words in place of what would reach outside (sudo, cargo, systemctl, docker).
//! `sh running` is run beside a supervisor with a healthy gateway; the last command of `sh foreground` is ended by SIGINT.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/stage.rs"]
mod stage;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;
#[path = "docs/tables.rs"]
mod tables;

use openclaw_supervise::cli;
use pages::{Block, blocks, pages, root, spans};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks that are not run here: page, a part of the block, the test that covers it, and why.
const COVERED: [(&str, &str, &str, &str); 2] = [
    (
        "docs/CONTROL.md",
        "socat",
        "tests/e2e/control.rs",
        "socat(1) is rarely installed; the test speaks to the socket itself",
    ),
    ("README.md", "openclaw-supervise demo", "tests/e2e/demo.rs", "half a minute, and the test runs it with --fast"),
];

const README_WORDS_MAX: usize = 1200;

fn is_covered(block: &Block) -> bool {
    COVERED.iter().any(|(page, part, ..)| block.page == *page && block.text.contains(part))
}

#[test]
fn every_command_of_the_docs_runs() {
    let blocks: Vec<Block> = blocks().into_iter().filter(|block| block.is_run() && !is_covered(block)).collect();
    assert!(blocks.len() > 20, "{} blocks", blocks.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(block) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(story) = stage::run(block) {
                        failures
                            .lock()
                            .unwrap()
                            .push(format!("{}:{}\n{}\n{story}", block.page, block.line, block.text));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} blocks fail\n\n{}", failures.len(), blocks.len(), failures.join("\n\n"));
}

#[test]
fn a_block_that_is_not_run_names_the_test_that_covers_it() {
    let run = blocks().into_iter().filter(Block::is_run).collect::<Vec<_>>();
    assert!(COVERED.len() * 4 < run.len());
    for (page, part, test, _) in COVERED {
        assert_eq!(
            run.iter().filter(|block| block.page == page && block.text.contains(part)).count(),
            1,
            "{page}: {part}"
        );
        assert!(root().join(test).exists(), "{test}");
    }
}

#[test]
fn every_block_says_what_it_is() {
    for block in blocks() {
        let known = ["sh", "sh running", "sh foreground", "text", "json", "ini"];
        assert!(known.contains(&block.kind.as_str()), "{}:{} is {:?}", block.page, block.line, block.kind);
    }
    for (page, text) in pages() {
        // A block by indentation is not seen by the rest of this file.
        let mut fenced = false;
        let mut above = "";
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.starts_with("```");
            assert!(fenced || !above.is_empty() || !line.starts_with("    "), "{page}:{}: {line}", number + 1);
            above = line;
        }
    }
}

/// The options of each verb; those of `run` are also the program's own.
fn options() -> BTreeMap<String, BTreeSet<String>> {
    let command = cli::command();
    let of = |command: &clap::Command| -> BTreeSet<String> {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
    };
    let verbs = command.get_subcommands().map(|verb| (verb.get_name().to_owned(), of(verb)));
    verbs.chain([("openclaw-supervise".to_owned(), of(&command))]).collect()
}

/// The words of our own command lines in a text, each without what follows ` -- `.
fn command_lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.split(['\n', '|', ';', '&']).filter_map(|line| {
        let line = line.split(" # ").next()?.split(" -- ").next()?;
        let words: Vec<_> = line.split_whitespace().map(|word| word.trim_matches(['(', ')', '[', ']', '`'])).collect();
        let at = words.iter().rposition(|word| word.rsplit('/').next() == Some("openclaw-supervise"))?;
        // Where it is the value of an option, the rest is another program's.
        (at == 0 || words[at - 1] != "--wrapper").then(|| words[at + 1..].to_vec())
    })
}

/// What is wrong with such words.
fn mistake(words: &[&str], options: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let (verb, rest) = match words.split_first() {
        Some((verb, rest)) if verb.starts_with(|first: char| first.is_ascii_lowercase()) => (*verb, rest),
        _ => ("openclaw-supervise", words),
    };
    let Some(known) = options.get(verb) else { return Some(format!("there is no verb {verb}")) };
    if verb == "gateway" {
        return None; // they are the gateway's
    }
    let given = rest.iter().filter(|word| word.len() > 2 && word.starts_with("--"));
    let bare = given.map(|word| word.split('=').next().unwrap().to_owned());
    let unknown: Vec<_> = bare.filter(|word| !known.contains(word)).collect();
    (!unknown.is_empty()).then(|| format!("{verb} has no {}", unknown.join(", ")))
}

/// Options that stand alone in the docs and are another program's.
const OF_OTHERS: [(&str, &str); 8] = [
    ("--max-old-space-size", "node"),
    ("--accept-risk", "openclaw onboard"),
    ("--wrapper", "openclaw gateway install"),
    ("--root", "cargo install"),
    ("--expected-pid", "openclaw gateway restart-handoff"),
    ("--tree", "cargo bench"),
    ("--soak", "cargo bench"),
    ("--runs", "cargo bench"),
];

#[test]
fn every_verb_and_option_in_the_docs_exists() {
    let options = options();
    let all: BTreeSet<&String> = options.values().flatten().collect();
    assert!(options.len() > 10 && all.len() > 30, "{options:?}");
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        let codes = blocks().into_iter().filter(|block| block.page == page && block.is_run()).map(|block| block.text);
        for code in spans(&text).into_iter().chain(codes.map(|code| code.replace("\\\n", " "))) {
            wrong.extend(
                command_lines(&code)
                    .filter_map(|words| mistake(&words, &options))
                    .map(|what| format!("{page}: {code}: {what}")),
            );
            // `--hang-after 10s`, `status --json`
            let words: Vec<_> = code.split(' ').collect();
            if options.contains_key(words[0]) && words.len() > 1 && words[1].starts_with("--") {
                wrong.extend(mistake(&words, &options).map(|what| format!("{page}: {code}: {what}")));
            } else if words[0].starts_with("--") && words[0].len() > 2 {
                let option = words[0].split('=').next().unwrap().to_owned();
                if !all.contains(&option) && !OF_OTHERS.iter().any(|(other, _)| *other == option) {
                    wrong.push(format!("{page}: there is no option {option}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_variable_of_ours_in_the_docs_exists() {
    let mut known: BTreeSet<String> = options().into_values().flatten().collect();
    known = known.iter().map(|option| option.trim_start_matches("--").to_uppercase().replace('-', "_")).collect();
    known.extend(["INSTANCE", "HOOK", "GENERATION", "REASON", "CODE", "SIGNAL", "PID"].map(str::to_owned));
    for (page, text) in pages() {
        for rest in text.split("OPENCLAW_SUPERVISE_").skip(1) {
            let end = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_').unwrap_or(rest.len());
            assert!(known.contains(&rest[..end]), "{page}: there is no OPENCLAW_SUPERVISE_{}", &rest[..end]);
        }
    }
}

#[test]
fn the_tables_of_options_and_verbs_are_those_of_the_command_line() {
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        tables::update();
    }
    let page = fs::read_to_string(root().join(tables::PAGE)).unwrap();
    let difference = tables::difference(&page, &tables::generated(&page));
    assert!(
        difference.is_empty(),
        "{} is not up to date:\n{difference}\nINSTA_UPDATE=always cargo test --test docs tables",
        tables::PAGE
    );
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let slug = |title: &str| {
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    for (page, text) in pages() {
        let folder = root().join(&page).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { root().join(&page) } else { folder.join(path) };
            assert!(target.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let titles = fs::read_to_string(target).unwrap();
                let found = titles
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| slug(line.trim_start_matches(['#', ' '])) == anchor);
                assert!(found, "{page}: {link}");
            }
        }
    }
}

#[test]
fn the_causes_in_the_docs_are_those_of_the_core() {
    let told = fs::read_to_string(root().join("docs/EVENTS.md")).unwrap();
    let told = told.split("`cause` is one of").nth(1).unwrap().split("\nThe kernel's").next().unwrap().to_owned();
    let core: String = pages::sources("src/core").into_iter().collect();
    for cause in spans(&told) {
        assert!(core.contains(&format!("\"{cause}\"")), "{cause}");
    }
}

#[test]
fn the_readme_is_short() {
    let words = include_str!("../README.md").split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "{words} words");
}

#[test]
fn these_checks_can_fail() {
    let options = options();
    let wrong = |text: &str| command_lines(text).filter_map(|words| mistake(&words, &options)).count();
    assert_eq!(wrong("sudo openclaw-supervise instal --dry-run"), 1);
    assert_eq!(wrong("openclaw-supervise install --dryrun"), 1);
    assert_eq!(wrong("openclaw-supervise status --jsno | jq ."), 1);
    assert_eq!(wrong("openclaw-supervise --hang-aftr 3s"), 1);
    assert_eq!(wrong("openclaw-supervise run --port 1 -- openclaw gateway --no-such"), 0);
    let block = |text: &str| Block { page: "x".into(), line: 1, kind: "sh".into(), text: text.into() };
    for text in [
        "false",
        "no-such-command",
        "cargo test --test no_such",
        "cargo test --test docs no_such_test",
        "docker build -f contrib/none .",
    ] {
        assert!(stage::run(&block(text)).is_err(), "{text}");
    }
}
