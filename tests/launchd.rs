//! The shipped plist against launchd.plist(5): keys, types and the relations between its numbers. launchd itself exists only on
//! macOS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use plist::{Dictionary, Value};

const SHIPPED: &str = include_str!("../contrib/launchd/ai.openclaw.supervise.plist");

/// The type of a value in launchd.plist(5).
enum Type {
    Text,
    Path,
    Truth,
    /// An inclusive range.
    Number(i64, i64),
    Texts,
    /// An enumeration.
    Word(&'static [&'static str]),
    /// A dictionary of strings.
    Variables,
    Keys(&'static [(&'static str, Type)]),
}

/// The keys that our job may have.
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

/// The errors of a job.
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
fn every_key_is_known_to_launchd_and_has_a_valid_value() {
    assert_eq!(mistakes(&read(SHIPPED), TABLE), Vec::<String>::new());
}

#[test]
fn the_check_finds_an_unknown_key_and_a_wrong_type() {
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
fn launchd_waits_longer_than_we_do_and_we_longer_than_a_drain() {
    let job = read(SHIPPED);
    let ours: i64 = variable(&job, "OPENCLAW_SUPERVISE_STOP_TIMEOUT").trim_end_matches('s').parse().unwrap();
    // A gateway ends its drain by then; a tree is killed within 10 s.
    assert!(ours > 327 && number(&job, "ExitTimeOut") >= ours + 15);
}

#[test]
fn we_are_restarted_after_any_exit_but_not_too_often() {
    let job = read(SHIPPED);
    assert_eq!(job.get("KeepAlive").unwrap().as_boolean(), Some(true));
    assert!(number(&job, "ThrottleInterval") >= 10, "more often than by default");
}

#[test]
fn it_runs_our_program_by_its_path_with_openclaw_on_path_and_a_private_umask() {
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
fn a_setting_that_is_not_obvious_has_a_comment() {
    for key in ["Label", "EnvironmentVariables", "KeepAlive", "ThrottleInterval", "ExitTimeOut", "ProcessType", "Umask"]
    {
        let before = SHIPPED.split(&format!("\t<key>{key}</key>\n")).next().unwrap();
        assert!(before.trim_end().ends_with("-->"), "{key}");
    }
}
