//! Which port the gateway serves on, by its own rules.

use crate::cli::is_profile;
use std::ffi::OsStr;

/// The port of a gateway without any setting.
pub(super) const DEFAULT: u16 = 18789;
/// The port that `openclaw --profile dev` sets.
pub(super) const OF_DEV: u16 = 19001;

/// Every place where a port can be written. The fields are in the order in which they win.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates<'a> {
    pub(super) flag: Option<u16>,
    pub(super) command: Option<u16>,
    pub(super) variable: Option<&'a OsStr>,
    pub(super) config: Option<u16>,
    pub(super) profile: Option<&'a OsStr>,
}

impl Candidates<'_> {
    /// The port that wins.
    pub(super) fn choose(&self) -> u16 {
        self.configured().or_else(|| self.profile.and_then(of_profile)).unwrap_or(DEFAULT)
    }

    /// The port that one of them names; `None` if it is a default.
    pub(super) fn configured(&self) -> Option<u16> {
        self.flag.or(self.command).or_else(|| self.variable.and_then(of_variable)).or(self.config)
    }
}

/// A port as the gateway reads it: digits only, where `str::parse` would accept a sign; 1 to 65535.
pub(super) fn parse(text: &str) -> Option<u16> {
    let text = text.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port > 0 && is_plain)
}

/// The port in a value of `OPENCLAW_GATEWAY_PORT`: `N`, `host:N` or `[v6]:N`. The gateway ignores anything else.
pub(super) fn of_variable(value: &OsStr) -> Option<u16> {
    let text = value.to_str()?.trim();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    if let Some((host, port)) = bracketed
        && !host.is_empty()
    {
        return parse(port);
    }
    match text.split_once(':') {
        None => parse(text),
        Some(("", _)) => None,
        Some((_, port)) => parse(port),
    }
}

/// The port of a named profile: 20000 + FNV-1a 32 of its name modulo 40000. `None` for `default` and invalid names.
pub(super) fn of_profile(profile: &OsStr) -> Option<u16> {
    let name = profile.to_str()?.trim();
    if name.eq_ignore_ascii_case("default") || !is_profile(name) {
        return None;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u16::try_from(20_000 + hash % 40_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_ports_are_those_that_the_gateway_computes() {
        let longest = "x".repeat(64);
        let too_long = "x".repeat(65);
        for (profile, port) in [
            ("work", Some(41984)),
            ("  work  ", Some(41984)),
            ("dev", Some(38556)),
            ("Dev", Some(57916)),
            ("a", Some(22220)),
            ("main", Some(23592)),
            ("test-1", Some(20139)),
            ("under_score", Some(29572)),
            ("Z9", Some(24252)),
            ("staging", Some(28422)),
            (longest.as_str(), Some(23077)),
            (too_long.as_str(), None),
            ("default", None),
            ("DEFAULT", None),
            ("bad name", None),
            ("-x", None),
            ("", None),
        ] {
            assert_eq!(of_profile(OsStr::new(profile)), port, "{profile:?}");
        }
    }

    #[test]
    fn the_variable_is_read_as_the_gateway_reads_it() {
        for (value, port) in [
            ("1", Some(1)),
            ("18790", Some(18790)),
            ("host:4000", Some(4000)),
            ("[::1]:4001", Some(4001)),
            (" 700 ", Some(700)),
            ("0080", Some(80)),
            ("::1:4002", None),
            (":5", None),
            ("a:b:6", None),
            ("0", None),
            ("65536", None),
            ("+5", None),
            ("12x", None),
            ("host:", None),
            ("host:0", None),
            ("[::1]4001", None),
            ("[]:7", Some(7)),
            ("", None),
        ] {
            assert_eq!(of_variable(OsStr::new(value)), port, "{value:?}");
        }
    }

    #[test]
    fn the_earlier_place_wins() {
        let mut all = Candidates {
            flag: Some(1),
            command: Some(2),
            variable: Some(OsStr::new("3")),
            config: Some(4),
            profile: Some(OsStr::new("work")),
        };
        assert_eq!(all.choose(), 1);
        all.flag = None;
        assert_eq!(all.choose(), 2);
        all.command = None;
        assert_eq!(all.choose(), 3);
        all.variable = Some(OsStr::new("garbage"));
        assert_eq!(all.choose(), 4);
        all.config = None;
        assert_eq!(all.choose(), 41984);
        all.profile = None;
        assert_eq!(all.choose(), DEFAULT);
    }
}
