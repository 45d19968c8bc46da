//! The shipped plist against the table of launchd.plist(5): every key and its type, and how its numbers stand to each other.
//! launchd itself is on macOS alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use plist::{Dictionary, Value};

const SHIPPED: &str = include_str!("../contrib/launchd/ai.openclaw.supervise.plist");

/// What launchd.plist(5) says of a value.
enum Type {
    Text,
    Path,
    Truth,
    /// From this to that one.
    Number(i64, i64),
    Texts,
    /// One of these.
    Word(&'static [&'static str]),
    /// Names of anybody's choice, each with a text.
    Variables,
    Keys(&'static [(&'static str, Type)]),
}

/// Those keys that a job of ours may have.
const TABLE: &[(&str, Type)] = &[
    ("Label", Type::Text),
    ("ProgramArguments", Type::Texts),
    ("EnvironmentVariables", Type::Variables),
    ("WorkingDirectory", Type::Path),
    ("RunAtLoad", Type::Truth),
    ("KeepAlive", Type::Truth),
    ("ThrottleInterval", Type::Number(1, 3600)),
    ("ExitTimeOut", Type::Number(1, 3600)),
    ("ProcessType", Type::Word(&["Background", "Standard", "Adaptive", "Interactive"])),
    ("Umask", Type::Number(0, 0o777)),
    ("SoftResourceLimits", Type::Keys(&[("NumberOfFiles", Type::Number(1, 1 << 20))])),
    ("StandardOutPath", Type::Path),
    ("StandardErrorPath", Type::Path),
    ("AbandonProcessGroup", Type::Truth),
];

fn read(text: &str) -> Dictionary {
    Value::from_reader_xml(text.as_bytes()).unwrap().into_dictionary().unwrap()
}

/// What is wrong with a job, one line each.
fn mistakes(job: &Dictionary, table: &[(&str, Type)]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (key, value) in job {
        let Some((_, expected)) = table.iter().find(|(name, _)| name == key) else {
            mistakes.push(format!("{key} is no key that is known"));
            continue;
        };
        let is_right = match expected {
            Type::Text => value.as_string().is_some_and(|text| !text.is_empty()),
            Type::Path => value.as_string().is_some_and(|text| text.starts_with('/')),
            Type::Truth => value.as_boolean().is_some(),
            Type::Number(least, most) => {
                value.as_signed_integer().is_some_and(|number| (*least..=*most).contains(&number))
            }
            Type::Texts => value.as_array().is_some_and(|all| all.iter().all(|one| one.as_string().is_some())),
            Type::Word(words) => value.as_string().is_some_and(|word| words.contains(&word)),
            Type::Variables => {
                value.as_dictionary().is_some_and(|all| all.values().all(|one| one.as_string().is_some()))
            }
            Type::Keys(table) => {
                mistakes.extend(value.as_dictionary().map(|inner| self::mistakes(inner, table)).unwrap_or_default());
                value.as_dictionary().is_some()
            }
        };
        if !is_right {
            mistakes.push(format!("{key} has a value that launchd does not take: {value:?}"));
        }
    }
    mistakes
}

fn number(job: &Dictionary, key: &str) -> i64 {
    job.get(key).unwrap().as_signed_integer().unwrap()
}

fn variable<'a>(job: &'a Dictionary, name: &str) -> &'a str {
    job.get("EnvironmentVariables").unwrap().as_dictionary().unwrap().get(name).unwrap().as_string().unwrap()
}

#[test]
fn every_key_is_one_that_launchd_knows_with_a_value_that_it_takes() {
    assert_eq!(mistakes(&read(SHIPPED), TABLE), Vec::<String>::new());
}

#[test]
fn the_check_finds_an_unknown_key_and_a_value_of_another_type() {
    for (from, to) in [
        ("<key>RunAtLoad</key>", "<key>RunAtLoaded</key>"),
        ("<integer>63</integer>", "<string>077</string>"),
        ("<integer>345</integer>", "<integer>0</integer>"),
        ("<key>NumberOfFiles</key>", "<key>NumberOfFile</key>"),
        ("<string>Interactive</string>", "<string>Normal</string>"),
        ("<string>/HOME</string>", "<string>~</string>"),
    ] {
        assert!(SHIPPED.contains(from), "{from}");
        assert_eq!(mistakes(&read(&SHIPPED.replacen(from, to, 1)), TABLE).len(), 1, "{to}");
    }
}

#[test]
fn launchd_waits_longer_than_we_do_and_we_longer_than_a_drain_takes() {
    let job = read(SHIPPED);
    let ours: i64 = variable(&job, "OPENCLAW_SUPERVISE_STOP_TIMEOUT").trim_end_matches('s').parse().unwrap();
    // A gateway ends its drain itself by then; a tree is killed within 10 s.
    assert!(ours > 327 && number(&job, "ExitTimeOut") >= ours + 15);
}

#[test]
fn whatever_ends_us_we_come_back_and_not_too_often() {
    let job = read(SHIPPED);
    assert_eq!(job.get("KeepAlive").unwrap().as_boolean(), Some(true));
    assert!(number(&job, "ThrottleInterval") >= 10, "more often than by default");
}

#[test]
fn it_runs_our_program_by_its_path_where_openclaw_is_found_and_nobody_else_may_read() {
    let job = read(SHIPPED);
    let words: Vec<_> =
        job.get("ProgramArguments").unwrap().as_array().unwrap().iter().map(|w| w.as_string()).collect();
    assert_eq!(words, [Some("/usr/local/bin/openclaw-supervise"), Some("run")]);
    let path: Vec<_> = variable(&job, "PATH").split(':').collect();
    assert!(
        path.contains(&"/opt/homebrew/bin") && path.contains(&"/usr/bin") && path.iter().all(|p| p.starts_with('/'))
    );
    assert_eq!(number(&job, "Umask"), 0o077);
    assert_eq!(job.get("Label").unwrap().as_string(), Some("ai.openclaw.supervise"));
}

#[test]
fn what_is_not_obvious_has_its_reason_above_it() {
    for key in ["Label", "EnvironmentVariables", "KeepAlive", "ThrottleInterval", "ExitTimeOut", "ProcessType", "Umask"]
    {
        let before = SHIPPED.split(&format!("\t<key>{key}</key>\n")).next().unwrap();
        assert!(before.trim_end().ends_with("-->"), "{key}");
    }
}
