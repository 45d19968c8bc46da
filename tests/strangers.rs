//! What strangers feed us: bytes near the samples in `fuzz/seeds`, which also has whatever libFuzzer ever found.
//! `docs/TESTING.md` has its command.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[path = "../fuzz/properties.rs"]
mod properties;

use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

/// The samples of a target, and none at all.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&dir).expect("it has samples").map(|entry| entry.expect("it is there").path()).collect();
    paths.sort();
    let texts = paths.into_iter().map(|path| fs::read(path).expect("it can be read"));
    texts.chain([Vec::new()]).collect()
}

#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = prop_oneof![any::<u8>(), Just(b'\n'), Just(0), Just(b'"'), Just(b'{'), Just(b'=')];
    prop_oneof![
        (any::<Index>(), bytes.clone()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<Index>(), proptest::collection::vec(bytes, 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ]
}

fn edited(mut text: Vec<u8>, edits: Vec<Edit>) -> Vec<u8> {
    for edit in edits {
        let place = |at: Index| at.index(text.len() + 1);
        let range = |at: Index, length: usize| place(at)..(place(at) + length).min(text.len());
        match edit {
            Edit::Replace(at, byte) => {
                let range = range(at, 1);
                text.splice(range, [byte]);
            }
            Edit::Insert(at, bytes) => {
                let at = place(at);
                text.splice(at..at, bytes);
            }
            Edit::Remove(at, length) => drop(text.drain(range(at, length))),
            Edit::Repeat(at, length) => {
                let range = range(at, length);
                let (end, again) = (range.end, text[range].to_vec());
                text.splice(end..end, again);
            }
        }
    }
    text
}

fn hold(target: &str, cases: u32, property: fn(&[u8])) {
    let seeds = seeds(target);
    for seed in &seeds {
        property(seed);
    }
    let near = (proptest::sample::select(seeds), proptest::collection::vec(edit(), 0..6));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let tried = runner.run(&near.prop_map(|(seed, edits)| edited(seed, edits)), |bytes| {
        property(&bytes);
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{target}: {failure}"));
}

#[test]
fn no_command_line_is_followed_that_is_not_understood() {
    hold("argv", 200, properties::argv);
}

#[test]
fn no_config_keeps_the_gateway_from_its_start() {
    hold("config", 100, properties::config);
}

#[test]
fn no_lock_file_makes_an_owner_of_a_process_that_does_not_live() {
    hold("lock", 100, properties::lock);
}

#[test]
fn no_answer_over_http_breaks_a_probe() {
    hold("http", 50, properties::http);
}

#[test]
fn no_answer_on_the_control_socket_breaks_a_client() {
    hold("control_answer", 100, properties::control_answer);
}

#[test]
fn no_line_on_the_control_socket_breaks_a_supervisor() {
    hold("control_line", 100, properties::control_line);
}

#[test]
fn no_database_keeps_a_supervisor_without_an_answer() {
    hold("store", 15, properties::store);
}
