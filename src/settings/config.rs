//! The few keys of the gateway's config that say where it listens. All others are ignored.

use super::document::shorten;
use super::process_context::ProcessContext;
use serde_json::{Map, Value};

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

    /// As in the config, where the gateway replaces the addresses that earlier releases took (measured on 2026.9.6).
    fn of_config(word: &str) -> Option<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "0.0.0.0" | "::" | "[::]" | "*" => Some(Self::Lan),
            "127.0.0.1" | "localhost" | "::1" | "[::1]" => Some(Self::Loopback),
            _ => Self::parse(word.trim()),
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
}

/// The variables that a config sets in the gateway where they are unset or blank.
pub(super) fn variables(root: &Map<String, Value>, context: &ProcessContext) -> Vec<(String, String)> {
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut all = object(root.get("env"));
    let vars = object(all.shift_remove("vars").as_ref());
    // What earlier releases wrote beside `vars` counts where that does not have it.
    let entries = vars.iter().chain(all.iter().filter(|(name, _)| !vars.contains_key(*name)));
    let set = entries.filter_map(|(name, value)| Some((name.clone(), substitute(value.as_str()?, context).ok()?)));
    set.filter(|(name, value)| !value.trim().is_empty() && context.variable(name).is_none()).collect()
}

impl Config {
    /// `problems` gets what is not as the gateway wants it, each with the file's `name` in front.
    pub(super) fn of(
        root: &Map<String, Value>,
        name: &str,
        context: &ProcessContext,
        problems: &mut Vec<String>,
    ) -> Self {
        let mut reader = Reader { name, context, problems };
        let gateway = reader.object("gateway", root.get("gateway"));
        let tls = reader.object("gateway.tls", gateway.and_then(|gateway| gateway.get("tls")));
        let key = |name: &str| gateway.and_then(|gateway| gateway.get(name));
        Self {
            port: key("port").and_then(|value| reader.port(value)),
            bind: key("bind").and_then(|value| reader.bind(value)),
            custom_host: key("customBindHost").and_then(|value| reader.text("gateway.customBindHost", value)),
            tls: tls.and_then(|tls| tls.get("enabled")).is_some_and(|value| reader.flag(value)),
        }
    }
}

struct Reader<'a> {
    name: &'a str,
    context: &'a ProcessContext,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn object<'v>(&mut self, key: &'static str, value: Option<&'v Value>) -> Option<&'v Map<String, Value>> {
        let value = value?;
        let object = value.as_object();
        if object.is_none() {
            self.wrong(key, "an object", value);
        }
        object
    }

    /// JSON5 may bring 18789.0 or 0x4965 as a float; the gateway sees the same number either way.
    fn port(&mut self, value: &Value) -> Option<u16> {
        let port = value
            .as_f64()
            .and_then(|float| (1..=u16::MAX).find(|port| (f64::from(*port) - float).abs() < f64::EPSILON));
        if port.is_none() {
            self.wrong("gateway.port", "a whole number from 1 to 65535", value);
        }
        port
    }

    fn bind(&mut self, value: &Value) -> Option<Bind> {
        let bind = Bind::of_config(&self.text("gateway.bind", value)?);
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
        match substitute(text, self.context) {
            Ok(text) => Some(text),
            Err(variable) => {
                self.problems.push(format!("{}: {key} uses ${{{variable}}}, which is not set", self.name));
                None
            }
        }
    }

    fn wrong(&mut self, key: &'static str, expected: &'static str, value: &Value) {
        self.problems.push(format!("{}: {key} must be {expected}, not {}", self.name, shorten(value)));
    }
}

/// Substitutes `${NAME}` from the environment; `$${NAME}` stands for itself. `Err` names a variable that is not set.
fn substitute(text: &str, context: &ProcessContext) -> Result<String, String> {
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
            let value =
                (context.env)(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
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
    use super::super::paths::tests::context;
    use super::*;
    use serde_json::json;

    fn read(root: &Value) -> (Config, Vec<String>) {
        let mut problems = Vec::new();
        let root = root.as_object().unwrap();
        (Config::of(root, "c.json", &context(&[("MODE", "lan"), ("BLANK", " ")]), &mut problems), problems)
    }

    #[test]
    fn the_keys_of_the_listener_are_read_and_all_others_ignored() {
        let tls = json!({"enabled": true, "x": 1});
        let gateway = json!({"port": 19000, "bind": "custom", "customBindHost": "10.0.0.1", "tls": tls, "auth": [1]});
        let expected =
            Config { port: Some(19000), bind: Some(Bind::Custom), custom_host: Some("10.0.0.1".to_owned()), tls: true };
        assert_eq!(read(&json!({"gateway": gateway, "channels": {}})), (expected, vec![]));
        for root in [json!({}), json!({"gateway": {}}), json!({"gateway": {"tls": {}}})] {
            assert_eq!(read(&root), (Config::default(), vec![]), "{root}");
        }
        assert_eq!(read(&json!({"gateway": {"port": 19000.0}})).0.port, Some(19000));
    }

    #[test]
    fn the_addresses_that_earlier_releases_took_are_read_as_the_gateway_migrates_them() {
        for (word, bind) in [
            ("0.0.0.0", Bind::Lan),
            (" 0.0.0.0 ", Bind::Lan),
            ("::", Bind::Lan),
            ("[::]", Bind::Lan),
            ("*", Bind::Lan),
            ("127.0.0.1", Bind::Loopback),
            ("LocalHost", Bind::Loopback),
            ("::1", Bind::Loopback),
            ("[::1]", Bind::Loopback),
            (" lan ", Bind::Lan),
            ("${MODE}", Bind::Lan),
        ] {
            let config = Config { bind: Some(bind), ..Config::default() };
            assert_eq!(read(&json!({"gateway": {"bind": word}})), (config, vec![]), "{word}");
        }
    }

    #[test]
    fn a_wrong_value_is_a_problem_that_names_the_key_and_leaves_the_others() {
        for (gateway, key) in [
            (json!(1), "gateway"),
            (json!({"port": "19000"}), "gateway.port"),
            (json!({"port": 0}), "gateway.port"),
            (json!({"port": 70000}), "gateway.port"),
            (json!({"port": -1}), "gateway.port"),
            (json!({"port": 1.5}), "gateway.port"),
            (json!({"port": null}), "gateway.port"),
            (json!({"bind": true}), "gateway.bind"),
            (json!({"bind": "LAN"}), "gateway.bind"),
            (json!({"bind": "${NO_MODE}"}), "gateway.bind"),
            (json!({"customBindHost": 1}), "gateway.customBindHost"),
            (json!({"tls": true}), "gateway.tls"),
            (json!({"tls": {"enabled": "yes"}}), "gateway.tls.enabled"),
        ] {
            let (config, problems) = read(&json!({"gateway": gateway}));
            assert_eq!((config, problems.len()), (Config::default(), 1), "{gateway}");
            assert!(problems[0].starts_with(&format!("c.json: {key} ")), "{gateway}: {}", problems[0]);
        }
        let (config, problems) = read(&json!({"gateway": {"port": 19000, "bind": 1, "tls": {"enabled": 2}}}));
        assert_eq!((config.port, problems.len()), (Some(19000), 2), "{problems:?}");
    }

    #[test]
    fn the_variables_of_a_config_count_where_none_are_set() {
        let root = json!({"env": {
            "vars": {"A": "1", "B": 2, "C": "", "D": "${MODE}", "E": "${NONE}", "MODE": "x", "BLANK": "y"},
            "A": "3", "F": "4", "shellEnv": {"enabled": true},
        }});
        let set = variables(root.as_object().unwrap(), &context(&[("MODE", "lan"), ("BLANK", " ")]));
        let set: Vec<_> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(set, ["A=1", "D=lan", "BLANK=y", "F=4"]);
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
            let context = context(&[("MODE", "lan")]);
            assert_eq!(substitute(text, &context), filled.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
