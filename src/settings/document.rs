//! The gateway's config as one JSON object: JSON5 as JavaScript reads it, with the files that it includes.

use super::paths::{absolute, expand_tilde};
use super::source_file::Findings;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The gateway has no limit for the config itself; 100 times what the largest in use has.
const CONFIG_LONGEST: u64 = 16 << 20;
/// The gateway refuses a longer file and a deeper chain of them.
const INCLUDE_LONGEST: u64 = 2 << 20;
const DEPTH_MAX: usize = 10;
/// Two files that include each other twice would be read 2^10 times.
const FILES_MAX: usize = 100;
/// The parsers recurse, and the stack of a worker has 2 MiB.
const NESTING_MAX: usize = 200;

const INCLUDE: &str = "$include";
/// The keys at the top that can say where a gateway listens and logs. The files that others include are not looked at.
const RELEVANT: [&str; 3] = ["env", "gateway", "logging"];
/// The depth of the deepest of them: that of `gateway.tls.enabled`.
const LEVEL_MAX: usize = 3;

/// A missing file is read as an empty one, and so is one that cannot be used, which is a problem.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Map<String, Value> {
    let Some(value) = read_file(path, CONFIG_LONGEST, findings) else { return Map::new() };
    match (Includes { chain: vec![path.to_owned()], left: FILES_MAX, findings }.resolve(value, 0)) {
        Value::Object(root) => root,
        other => {
            findings.problems.push(format!("{}: must be an object, not {}", path.display(), shorten(&other)));
            Map::new()
        }
    }
}

/// The file that `logging.file` names for the gateway's own log. A relative one is relative to a directory that is not known.
#[must_use]
pub fn log_file_of(config: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let root = read(config, &mut Findings::default());
    let file = root.get("logging")?.get("file")?.as_str()?.trim();
    let file = expand_tilde(file.as_ref(), || home.map(Path::to_owned).unwrap_or_default());
    file.is_absolute().then_some(file)
}

/// The copy that the gateway makes of each config that it has started with, and that its doctor restores.
pub(super) fn read_last_good(path: &Path) -> Option<Map<String, Value>> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".last-good");
    let mut unheeded = Findings::default();
    let value = read_file(Path::new(&copy), CONFIG_LONGEST, &mut unheeded)?;
    let mut includes = Includes { chain: vec![path.to_owned()], left: FILES_MAX, findings: &mut unheeded };
    includes.resolve(value, 0).as_object().cloned()
}

fn read_file(path: &Path, longest: u64, findings: &mut Findings) -> Option<Value> {
    let bytes = findings.read(path, longest)?;
    // As Node does, U+FFFD for what is no UTF-8.
    match parse(&String::from_utf8_lossy(&bytes)) {
        Ok(value) => Some(value),
        Err((line, why)) => {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            findings.problems.push(format!("{}{line}: is not JSON5: {why}", path.display()));
            findings.is_half_written = true;
            None
        }
    }
}

/// `Err` has the line, if it is known, and the reason.
fn parse(text: &str) -> Result<Value, (Option<usize>, String)> {
    if nesting(text) > NESTING_MAX {
        return Err((None, format!("it is nested more than {NESTING_MAX} deep")));
    }
    let text = replace_lone_surrogates(text);
    serde_json::from_str(&text).or_else(|_| json5::from_str(&text)).map_err(|error| {
        let line = error.position().map(|position| position.line + 1);
        (line, error.code().map_or_else(|| error.to_string(), |code| code.to_string()))
    })
}

/// At least the depth of the value in `text`. Brackets in strings count as well.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A JavaScript string may hold half a surrogate pair, a Rust string may not: U+FFFD stands for it.
fn replace_lone_surrogates(text: &str) -> String {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let (mut whole, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        whole.push_str(before);
        let length = match unit(escape) {
            Some(0xd800..=0xdbff) if escape.get(6..).and_then(unit).is_some_and(|low| low & 0xfc00 == 0xdc00) => 12,
            Some(0xd800..=0xdfff) => {
                whole.push_str("\\ufffd");
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            // The escaped character may be a backslash.
            _ => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (escape, after) = escape.split_at(length);
        whole.push_str(escape);
        rest = after;
    }
    whole.push_str(rest);
    whole
}

/// At most 40 characters of it, on one line.
pub(super) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 40 { text.chars().take(40).chain("...".chars()).collect() } else { text }
}

struct Includes<'a> {
    /// The file that is being read, behind those that include it.
    chain: Vec<PathBuf>,
    /// How many more files may be included.
    left: usize,
    findings: &'a mut Findings,
}

impl Includes<'_> {
    /// Replaces each `$include`. What stands beside it wins over what is included. Nothing of interest is below
    /// [`LEVEL_MAX`].
    fn resolve(&mut self, value: Value, level: usize) -> Value {
        let mut object = match value {
            Value::Object(object) if level <= LEVEL_MAX => object,
            other => return other,
        };
        let include = object.shift_remove(INCLUDE);
        let own: Map<String, Value> = object
            .into_iter()
            .filter(|(key, _)| level > 0 || RELEVANT.contains(&key.as_str()))
            .map(|(key, value)| (key, self.resolve(value, level + 1)))
            .collect();
        let mut value = match include {
            None => return Value::Object(own),
            Some(Value::Array(names)) => names.iter().fold(Value::Object(Map::new()), |mut all, name| {
                merge(&mut all, self.include(name, level));
                all
            }),
            Some(name) => self.include(&name, level),
        };
        if !own.is_empty() {
            merge(&mut value, Value::Object(own));
        }
        value
    }

    fn include(&mut self, name: &Value, level: usize) -> Value {
        let includer = self.chain.last().cloned().unwrap_or_default();
        let target = name.as_str().map(|text| absolute(Path::new(text), includer.parent().unwrap_or(Path::new("/"))));
        let why = match target {
            None => "it must be a string",
            Some(path) if self.chain.contains(&path) => "it includes itself",
            Some(_) if self.chain.len() > DEPTH_MAX => "more than 10 files include each other",
            Some(_) if self.left == 0 => "there are more than 100 of them",
            Some(path) => {
                self.left -= 1;
                let known = self.findings.problems.len();
                if let Some(value) = read_file(&path, INCLUDE_LONGEST, self.findings) {
                    self.chain.push(path);
                    let value = self.resolve(value, level);
                    self.chain.pop();
                    return value;
                }
                if self.findings.problems.len() > known {
                    return Value::Object(Map::new());
                }
                "there is no such file"
            }
        };
        self.findings.problems.push(format!("{}: $include {}: {why}", includer.display(), shorten(name)));
        Value::Object(Map::new())
    }
}

/// `over` wins, except that objects are merged key by key.
fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                match into.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (into, over) => *into = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn a_text_means_what_it_means_to_javascript() {
        for (text, expected) in [
            (r#"{"a": "\ud83d"}"#, json!({"a": "\u{fffd}"})),
            (r"{a: '\udc00\ud83d\ude00\ud83d', /* \ud83d */}", json!({"a": "\u{fffd}\u{1f600}\u{fffd}"})),
            (r#"{"a": "\\ud83d\ud83dx"}"#, json!({"a": "\\ud83d\u{fffd}x"})),
            ("{a: '\u{2028}\u{2029}'}", json!({"a": "\u{2028}\u{2029}"})),
            ("[.5, 5., +1, -0x10, 1e3, 0X1F]", json!([0.5, 5.0, 1, -16, 1000.0, 31])),
            ("[Infinity, -Infinity, NaN, 1e999]", json!([null, null, null, null])),
            ("{a: 1, a: 2}", json!({"a": 2})),
            (r#"{"a": 1, "a": 2}"#, json!({"a": 2})),
            ("{__proto__: {gateway: 1}}", json!({"__proto__": {"gateway": 1}})),
            ("\u{feff}{}", json!({})),
            ("{a: 'b\\\nc', \u{a0}d: 1}", json!({"a": "bc", "d": 1})),
            ("{'$a_\u{e9}': \"\\x41\\'\\0\", \\u0062: null}", json!({"$a_\u{e9}": "A'\0", "b": null})),
            ("// c\n{} // d", json!({})),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_json5_is_told_with_its_line() {
        for (text, line) in
            [("", None), ("{", Some(1)), ("{\n a: 1,\n b\n}", Some(4)), ("{\n\n}x", Some(3)), ("{a: '\\u12'}", Some(1))]
        {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn a_depth_that_is_no_slip_is_read_and_more_is_refused_without_a_crash() {
        let nested = |depth: usize, tail: &str| format!("{}{}{tail}", "[".repeat(depth), "]".repeat(depth));
        for tail in ["", " // c"] {
            assert!(parse(&nested(NESTING_MAX, tail)).is_ok(), "{tail}");
            assert!(parse(&nested(100_000, tail)).is_err(), "{tail}");
        }
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(files: &[(&str, &str)]) -> Self {
            static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let folder = std::env::temp_dir().join(format!("document-{}-{count}", std::process::id()));
            for (name, text) in files {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        /// The config, and the problems with the folder's name taken out.
        fn read(&self) -> (Value, Vec<String>) {
            let mut findings = Findings::default();
            let root = read(&self.0.join("c"), &mut findings);
            let name = format!("{}/", self.0.display());
            (Value::Object(root), findings.problems.iter().map(|problem| problem.replace(&name, "")).collect())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn included_files_are_merged_in_their_order_below_what_stands_beside_them() {
        for (files, expected) in [
            (
                &[("c", "{$include: 'a', gateway: {mode: 1}}"), ("a", "{gateway: {port: 2, mode: 3}}")][..],
                json!({"gateway": {"port": 2, "mode": 1}}),
            ),
            (
                &[
                    ("c", "{$include: ['a', './b']}"),
                    ("a", "{gateway: {port: 1, x: 1}, y: 1}"),
                    ("b", "{gateway: {port: 2}}"),
                ],
                json!({"gateway": {"port": 2, "x": 1}}),
            ),
            (
                &[("c", "{gateway: {$include: 'd/a'}}"), ("d/a", "{$include: 'b', x: 1}"), ("d/b", "{port: 3}")],
                json!({"gateway": {"port": 3, "x": 1}}),
            ),
            (&[("c", "{gateway: {port: {$include: 'a'}}}"), ("a", "4")], json!({"gateway": {"port": 4}})),
            (&[("c", "{agents: {$include: 'missing'}}")], json!({})),
            (&[("c", "{$include: 'a'}"), ("a", "{agents: {$include: 'missing'}}")], json!({})),
        ] {
            assert_eq!(Folder::new(files).read(), (expected, vec![]), "{files:?}");
        }
    }

    #[test]
    fn an_include_that_cannot_be_read_leaves_the_rest_and_is_told() {
        for (files, problem) in [
            (&[("c", "{$include: 'a', gateway: {x: 1}}")][..], "c: $include \"a\": there is no such file"),
            (&[("c", "{$include: 7, gateway: {x: 1}}")], "c: $include 7: it must be a string"),
            (&[("c", "{$include: 'd', gateway: {x: 1}}"), ("d/x", "")], "d: cannot be read: it is not a regular file"),
            (&[("c", "{$include: 'a', gateway: {x: 1}}"), ("a", "{\n")], "a:1: is not JSON5: EOF parsing object"),
            (
                &[("c", "{$include: 'a', gateway: {x: 1}}"), ("a", "{$include: './c'}")],
                "a: $include \"./c\": it includes itself",
            ),
        ] {
            assert_eq!(Folder::new(files).read(), (json!({"gateway": {"x": 1}}), vec![problem.to_owned()]));
        }
    }

    #[test]
    fn the_log_file_of_the_gateway_is_where_its_config_puts_it() {
        for (files, expected) in [
            (&[("c", "{logging: {file: '/var/log/openclaw.log'}}")][..], Some("/var/log/openclaw.log")),
            (&[("c", "{logging: {$include: 'l'}}"), ("l", "{file: '~/x.log'}")], Some("/h/x.log")),
            (&[("c", "{logging: {file: 'x.log'}}")], None),
            (&[("c", "{logging: {file: 7}}")], None),
            (&[("c", "{")], None),
            (&[], None),
        ] {
            let folder = Folder::new(files);
            let found = log_file_of(&folder.0.join("c"), Some(Path::new("/h")));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{files:?}");
        }
    }

    #[test]
    fn a_maze_of_includes_is_left() {
        let names: Vec<String> =
            (0..12).map(|level| if level == 0 { "c".to_owned() } else { level.to_string() }).collect();
        let text = |level: usize| format!("{{$include: [{}]}}", format!("'{}', ", level + 1).repeat(9));
        let texts: Vec<String> = (0..12).map(text).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        let (_, problems) = Folder::new(&files).read();
        assert!(problems[0].contains("more than 10 files"), "{}", problems[0]);
    }
}
