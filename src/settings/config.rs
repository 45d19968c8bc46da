//! The few keys of the gateway's config that say where it listens. The file is JSON5; all other keys are ignored.

use super::process_context::Environment;
use serde_json::{Map, Value};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Which addresses the gateway listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bind {
    /// 127.0.0.1, and `[::1]` where there is one.
    Loopback,
    /// As loopback, or every IPv4 address in a container.
    Auto,
    /// Every IPv4 address.
    Lan,
    /// The address in the tailnet, and 127.0.0.1.
    Tailnet,
    /// `gateway.customBindHost`, and 127.0.0.1.
    Custom,
}

impl Bind {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "loopback" => Some(Self::Loopback),
            "auto" => Some(Self::Auto),
            "lan" => Some(Self::Lan),
            "tailnet" => Some(Self::Tailnet),
            "custom" => Some(Self::Custom),
            _ => None,
        }
    }
}

/// What the config says about the listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) port: Option<u16>,
    pub(super) bind: Option<Bind>,
    pub(super) custom_host: Option<String>,
    pub(super) tls: bool,
    pub(super) warnings: Vec<String>,
}

/// Why a config cannot be used. Each message names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the gateway's config {path}: {why}; name another with --config")]
    Unreadable { path: String, why: String },
    #[error("the gateway's config {path} is not JSON5: {why}; correct it, or run: openclaw doctor")]
    Syntax { path: String, why: String },
    #[error("{key} in the gateway's config {path} must be {expected}, not {found}; correct it there")]
    Key { key: &'static str, path: String, expected: &'static str, found: String },
}

impl Config {
    /// A missing file is read as an empty one.
    pub(super) fn read(path: &Path, env: &Environment) -> Result<Self, Vec<ConfigError>> {
        let shown = path.display().to_string();
        let unreadable = |why: String| vec![ConfigError::Unreadable { path: shown.clone(), why }];
        match fs::metadata(path) {
            // A file where the state directory should be is reported as such.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(error.to_string())),
            // Opening a FIFO would wait for its writer.
            Ok(found) if !found.is_file() => return Err(unreadable("it is not a regular file".to_owned())),
            Ok(_) => {}
        }
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, &shown, env)
    }

    fn parse(text: &str, path: &str, env: &Environment) -> Result<Self, Vec<ConfigError>> {
        let value: Value = serde_json::from_str(text)
            .or_else(|_| json5::from_str(text))
            .map_err(|error| vec![ConfigError::Syntax { path: path.to_owned(), why: error.to_string() }])?;
        let mut reader = Reader { path, env, errors: Vec::new(), warnings: Vec::new() };
        let config = reader.config(&value);
        if reader.errors.is_empty() { Ok(Self { warnings: reader.warnings, ..config }) } else { Err(reader.errors) }
    }
}

struct Reader<'a> {
    path: &'a str,
    env: &'a Environment,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn config(&mut self, root: &Value) -> Config {
        let Some(root) = self.object("the top level", Some(root)) else { return Config::default() };
        let gateway = self.object("gateway", root.get("gateway"));
        let tls = self.object("gateway.tls", gateway.and_then(|gateway| gateway.get("tls")));
        let key = |name: &str| gateway.and_then(|gateway| gateway.get(name));
        Config {
            port: key("port").and_then(|value| self.port(value)),
            bind: key("bind").and_then(|value| self.bind(value)),
            custom_host: key("customBindHost").and_then(|value| self.text("gateway.customBindHost", value)),
            tls: tls.and_then(|tls| tls.get("enabled")).is_some_and(|value| self.flag(value)),
            warnings: Vec::new(),
        }
    }

    /// The object at `key`. Its own keys win over those of an included file, so only missing keys are uncertain.
    fn object<'v>(&mut self, key: &'static str, value: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
        let value = value?;
        let Some(object) = value.as_object() else {
            self.wrong(key, "an object", value);
            return None;
        };
        if object.contains_key("$include") {
            self.warnings.push(format!(
                "{key} of {} uses $include, and included files are not read; if they set the port or the address, give \
                 --port or --host",
                self.path
            ));
        }
        Some(object)
    }

    fn port(&mut self, value: &Value) -> Option<u16> {
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        // JSON5 may bring 18789.0 or 0x4965 as a float; the gateway sees the same number either way.
        let port = port.or_else(|| {
            let float = value.as_f64()?;
            (1..=u16::MAX).find(|port| (f64::from(*port) - float).abs() < f64::EPSILON)
        });
        if port.is_none() {
            self.wrong("gateway.port", "a whole number from 1 to 65535", value);
        }
        port
    }

    fn bind(&mut self, value: &Value) -> Option<Bind> {
        let word = self.text("gateway.bind", value)?;
        let bind = Bind::parse(word.trim());
        if bind.is_none() {
            self.wrong("gateway.bind", "one of loopback, lan, tailnet, auto, custom", value);
        }
        bind
    }

    fn flag(&mut self, value: &Value) -> bool {
        value.as_bool().unwrap_or_else(|| {
            self.wrong("gateway.tls.enabled", "true or false", value);
            false
        })
    }

    /// A string with its `${NAME}`s substituted; `None` if one of them is unset.
    fn text(&mut self, key: &'static str, value: &Value) -> Option<String> {
        let Some(text) = value.as_str() else {
            self.wrong(key, "a string", value);
            return None;
        };
        match substitute(text, self.env) {
            Ok(text) => Some(text),
            Err(name) => {
                self.warnings
                    .push(format!("{key} in {} uses ${{{name}}}, which is not set; assuming the default", self.path));
                None
            }
        }
    }

    fn wrong(&mut self, key: &'static str, expected: &'static str, value: &Value) {
        let mut found = value.to_string();
        if found.chars().count() > 40 {
            found = found.chars().take(40).chain("...".chars()).collect();
        }
        self.errors.push(ConfigError::Key { key, path: self.path.to_owned(), expected, found });
    }
}

/// Substitutes `${NAME}` from the environment; `$${NAME}` stands for itself. `Err` names a variable that is not set.
fn substitute(text: &str, env: &Environment) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        let name = reference.get(2..).and_then(|tail| tail.split_once('}')).map(|(name, _)| name);
        let Some(name) = name.filter(|name| is_variable(name)) else {
            filled.push_str(before);
            filled.push_str("${");
            rest = reference.get(2..).unwrap_or_default();
            continue;
        };
        if let Some(escaped) = before.strip_suffix('$') {
            filled.push_str(escaped);
            filled.push_str(reference.get(..name.len() + 3).unwrap_or_default());
        } else {
            let value = env(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
            filled.push_str(before);
            filled.push_str(&value.ok_or_else(|| name.to_owned())?);
        }
        rest = reference.get(name.len() + 3..).unwrap_or_default();
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_variable(name: &str) -> bool {
    let tail = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(tail) && !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn env(name: &str) -> Option<OsString> {
        (name == "MODE").then(|| OsString::from("lan"))
    }

    fn read(text: &str) -> Result<Config, String> {
        Config::parse(text, "c.json", &env).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    #[test]
    fn the_keys_of_the_listener_are_read_and_all_others_ignored() {
        let config = read(
            "// c\n{gateway: {port: 19000, bind: 'custom', customBindHost: '10.0.0.1', tls: {enabled: true, x: 1}, \
             auth: [1]}, channels: {}, }",
        )
        .unwrap();
        assert_eq!(config.port, Some(19000));
        assert_eq!(config.bind, Some(Bind::Custom));
        assert_eq!(config.custom_host.as_deref(), Some("10.0.0.1"));
        assert!(config.tls);
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn an_empty_object_means_the_defaults() {
        for text in ["{}", "{gateway: {}}", "\u{feff}{}", "{gateway: {tls: {}}}"] {
            assert_eq!(read(text).unwrap(), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn a_port_may_be_written_in_every_way_of_json5() {
        for text in ["19000", "19000.0", "0x4a38", "+19000", "1.9e4"] {
            assert_eq!(read(&format!("{{gateway: {{port: {text}}}}}")).unwrap().port, Some(19000), "{text}");
        }
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_key() {
        for (text, key) in [
            ("[]", "the top level"),
            ("{gateway: 1}", "gateway"),
            ("{gateway: {port: '19000'}}", "gateway.port"),
            ("{gateway: {port: 0}}", "gateway.port"),
            ("{gateway: {port: 70000}}", "gateway.port"),
            ("{gateway: {port: 1.5}}", "gateway.port"),
            ("{gateway: {port: NaN}}", "gateway.port"),
            ("{gateway: {port: null}}", "gateway.port"),
            ("{gateway: {bind: true}}", "gateway.bind"),
            ("{gateway: {bind: 'everywhere'}}", "gateway.bind"),
            ("{gateway: {customBindHost: 1}}", "gateway.customBindHost"),
            ("{gateway: {tls: true}}", "gateway.tls"),
            ("{gateway: {tls: {enabled: 'yes'}}}", "gateway.tls.enabled"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("{key} in the gateway's config c.json must be ")), "{text}: {error}");
        }
    }

    #[test]
    fn every_wrong_key_is_reported() {
        let error = read("{gateway: {port: 'x', bind: 1, tls: {enabled: 2}}}").unwrap_err();
        assert_eq!(error.lines().count(), 3, "{error}");
    }

    #[test]
    fn what_is_not_json5_is_a_syntax_error() {
        for text in ["", "{", "{gateway: {port: 19000}", "gateway", "{a:}"] {
            assert!(read(text).unwrap_err().starts_with("the gateway's config c.json is not JSON5: "), "{text:?}");
        }
    }

    #[test]
    fn an_include_is_warned_about_and_the_keys_beside_it_count() {
        let config = read("{$include: './base.json5', gateway: {$include: 'g.json5', port: 19000}}").unwrap();
        assert_eq!(config.port, Some(19000));
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    }

    #[test]
    fn a_variable_is_filled_in_and_a_missing_one_warned_about() {
        assert_eq!(read("{gateway: {bind: '${MODE}'}}").unwrap().bind, Some(Bind::Lan));
        let config = read("{gateway: {bind: '${NO_MODE}'}}").unwrap();
        assert_eq!(config.bind, None);
        assert!(config.warnings.concat().contains("${NO_MODE}"), "{:?}", config.warnings);
    }

    #[test]
    fn only_well_formed_references_are_filled_in() {
        for (text, filled) in [
            ("a${MODE}b", Ok("alanb")),
            ("$${MODE}", Ok("${MODE}")),
            ("${mode}", Ok("${mode}")),
            ("${", Ok("${")),
            ("${${MODE}}", Ok("${lan}")),
            ("${1A}", Ok("${1A}")),
            ("${OTHER}", Err("OTHER")),
        ] {
            assert_eq!(substitute(text, &env), filled.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
