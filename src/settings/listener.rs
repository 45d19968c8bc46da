//! Where the gateway's listener is met. Measured on 2026.9.6: `loopback` is 127.0.0.1 and `[::1]`, `lan` is 0.0.0.0,
//! `tailnet` and `custom` are their own address and 127.0.0.1; earlier releases leave 127.0.0.1 out in the last two.

use super::World;
use super::config::{Bind, Config};
use crate::gateway::endpoint::Endpoint;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A value of `--host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// Both loopback addresses.
    Localhost,
    /// That address alone.
    Address(IpAddr),
}

/// Reads a value of `--host`. Names would need a resolver, which may hang; `Err` says what is wrong.
pub(super) fn parse_host(text: &str) -> Result<Host, &'static str> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Host::Localhost);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err("is no address to connect to; use 127.0.0.1 or localhost"),
        Ok(address) => Ok(Host::Address(address)),
        Err(_) => Err("is neither an IP address nor localhost; names are not resolved"),
    }
}

/// The listener, from `--host`, else from COMMAND's `--bind`, else from the config.
pub(super) fn endpoint(
    host: Option<Host>,
    bind: Option<Bind>,
    config: &Config,
    port: u16,
    world: &World,
    warnings: &mut Vec<String>,
) -> Endpoint {
    let addresses = match host {
        Some(Host::Localhost) => vec![V4, V6],
        Some(Host::Address(address)) => vec![address],
        None => match bind.or(config.bind).unwrap_or(Bind::Loopback) {
            Bind::Loopback | Bind::Auto => vec![V4, V6],
            Bind::Lan => vec![V4],
            Bind::Tailnet => {
                if let Some(address) = (world.tailnet)() {
                    vec![IpAddr::V4(address), V4]
                } else {
                    let odd = "gateway.bind is tailnet but no interface has such an address: probing 127.0.0.1";
                    warnings.push(odd.to_owned());
                    vec![V4, V6]
                }
            }
            Bind::Custom => custom(config.custom_host.as_deref(), warnings),
        },
    };
    let name = match host {
        Some(Host::Localhost) => "localhost".to_owned(),
        _ => addresses.first().map_or_else(String::new, |address| url_host(*address)),
    };
    let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    Endpoint { addresses, tls: config.tls, host: name, port }
}

fn custom(host: Option<&str>, warnings: &mut Vec<String>) -> Vec<IpAddr> {
    let address = host.and_then(|host| host.trim().parse::<IpAddr>().ok());
    match address {
        Some(address) if address.is_unspecified() || address == V4 => vec![V4],
        Some(address) => vec![address, V4],
        None => {
            warnings.push(
                "gateway.bind is custom but gateway.customBindHost is no IP address: probing 127.0.0.1".to_owned(),
            );
            vec![V4]
        }
    }
}

fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The first address of this machine in 100.64.0.0/10, which is where tailnets live.
pub(super) fn tailnet_address() -> Option<Ipv4Addr> {
    nix::ifaddrs::getifaddrs().ok()?.find_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let [first, second, ..] = address.octets();
        (first == 100 && second & 0xc0 == 64).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const TAILNET: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 7);

    fn world(tailnet: fn() -> Option<Ipv4Addr>) -> World {
        let cwd = PathBuf::from("/");
        World { env: Box::new(|_| None), home: || None, cwd, terminal: false, pid1: false, launchd: false, tailnet }
    }

    fn met(host: Option<&str>, bind: Option<Bind>, config: &Config, world: &World) -> (String, Vec<String>, usize) {
        let mut warnings = Vec::new();
        let host = host.and_then(|host| parse_host(host).ok());
        let endpoint = endpoint(host, bind, config, 19000, world, &mut warnings);
        (endpoint.to_string(), endpoint.addresses.iter().map(SocketAddr::to_string).collect(), warnings.len())
    }

    #[test]
    fn each_bind_mode_is_met_where_the_gateway_listens() {
        let there = world(|| Some(TAILNET));
        let nowhere = world(|| None);
        let custom = |host: &str| Config { custom_host: Some(host.to_owned()), ..Config::default() };
        let (v4, v6) = ("127.0.0.1:19000", "[::1]:19000");
        for (bind, config, world, addresses, warnings) in [
            (Bind::Loopback, Config::default(), &there, vec![v4, v6], 0),
            (Bind::Auto, Config::default(), &there, vec![v4, v6], 0),
            (Bind::Lan, Config::default(), &there, vec![v4], 0),
            (Bind::Tailnet, Config::default(), &there, vec!["100.64.0.7:19000", v4], 0),
            (Bind::Tailnet, Config::default(), &nowhere, vec![v4, v6], 1),
            (Bind::Custom, custom("10.0.0.1"), &there, vec!["10.0.0.1:19000", v4], 0),
            (Bind::Custom, custom(" 0.0.0.0 "), &there, vec![v4], 0),
            (Bind::Custom, custom("example"), &there, vec![v4], 1),
            (Bind::Custom, Config::default(), &there, vec![v4], 1),
        ] {
            let (_, met, warned) = met(None, Some(bind), &config, world);
            assert_eq!(met, addresses, "{bind:?} {config:?}");
            assert_eq!(warned, warnings, "{bind:?} {config:?}");
        }
    }

    #[test]
    fn the_bind_of_the_command_wins_over_that_of_the_config() {
        let config = Config { bind: Some(Bind::Lan), ..Config::default() };
        let world = world(|| None);
        assert_eq!(met(None, None, &config, &world).1, ["127.0.0.1:19000"]);
        assert_eq!(met(None, Some(Bind::Loopback), &config, &world).1, ["127.0.0.1:19000", "[::1]:19000"]);
    }

    #[test]
    fn a_given_host_is_the_only_address() {
        let world = world(|| Some(TAILNET));
        let tls = Config { tls: true, bind: Some(Bind::Tailnet), ..Config::default() };
        for (host, url, addresses) in [
            ("10.1.2.3", "wss://10.1.2.3:19000", vec!["10.1.2.3:19000"]),
            ("::1", "wss://[::1]:19000", vec!["[::1]:19000"]),
            ("[fe80::1]", "wss://[fe80::1]:19000", vec!["[fe80::1]:19000"]),
            ("localhost", "wss://localhost:19000", vec!["127.0.0.1:19000", "[::1]:19000"]),
        ] {
            let (shown, met, _) = met(Some(host), None, &tls, &world);
            assert_eq!((shown.as_str(), met), (url, addresses.into_iter().map(str::to_owned).collect()), "{host}");
        }
    }

    #[test]
    fn a_host_is_an_address_to_connect_to() {
        for host in ["", "gateway.example", "0.0.0.0", "::", "127.0.0.1:80", "[::1", "300.1.1.1"] {
            assert!(parse_host(host).is_err(), "{host:?}");
        }
    }
}
