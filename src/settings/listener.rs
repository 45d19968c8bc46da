//! The addresses on which the gateway's listener is reached. Measured on 2026.9.6: `loopback` is 127.0.0.1 and `[::1]`, `lan` is 0.0.0.0,
//! `tailnet` and `custom` are their own address and 127.0.0.1; earlier releases leave 127.0.0.1 out in the last two.

use super::config::{Bind, Config};
use super::process_context::ProcessContext;
use crate::cli::Host;
use crate::core::Endpoint;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The listener, from `--host`, else from COMMAND's `--bind`, else from the config.
pub(super) fn endpoint(
    host: Option<Host>,
    bind: Option<Bind>,
    config: &Config,
    port: u16,
    context: &ProcessContext,
    warnings: &mut Vec<String>,
) -> Endpoint {
    let addresses = match host {
        Some(Host::Localhost) => vec![V4, V6],
        Some(Host::Address(address)) => vec![address],
        None => match bind.or(config.bind).unwrap_or(Bind::Loopback) {
            Bind::Loopback | Bind::Auto => vec![V4, V6],
            Bind::Lan => vec![V4],
            Bind::Tailnet => {
                if let Some(address) = (context.tailnet)() {
                    vec![IpAddr::V4(address), V4]
                } else {
                    let odd = "gateway.bind is tailnet, but no interface has a tailnet address; probing 127.0.0.1";
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
                "gateway.bind is custom, but gateway.customBindHost is not an IP address; probing 127.0.0.1".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::Arc;

    const TAILNET: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 7);

    fn context(tailnet: fn() -> Option<Ipv4Addr>) -> ProcessContext {
        let cwd = PathBuf::from("/");
        ProcessContext {
            env: Arc::new(|_| None),
            home: || None,
            cwd,
            terminal: false,
            journal: false,
            container: None,
            process_manager: None,
            launchd: false,
            tailnet,
        }
    }

    fn met(
        host: Option<Host>,
        bind: Option<Bind>,
        config: &Config,
        context: &ProcessContext,
    ) -> (String, Vec<String>, usize) {
        let mut warnings = Vec::new();
        let endpoint = endpoint(host, bind, config, 19000, context, &mut warnings);
        (endpoint.to_string(), endpoint.addresses.iter().map(SocketAddr::to_string).collect(), warnings.len())
    }

    #[test]
    fn each_bind_mode_is_met_where_the_gateway_listens() {
        let there = context(|| Some(TAILNET));
        let nowhere = context(|| None);
        let custom = |host: &str| Config { custom_host: Some(host.to_owned()), ..Config::default() };
        let (v4, v6) = ("127.0.0.1:19000", "[::1]:19000");
        for (bind, config, context, addresses, warnings) in [
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
            let (_, met, warned) = met(None, Some(bind), &config, context);
            assert_eq!(met, addresses, "{bind:?} {config:?}");
            assert_eq!(warned, warnings, "{bind:?} {config:?}");
        }
    }

    #[test]
    fn the_bind_of_the_command_wins_over_that_of_the_config() {
        let config = Config { bind: Some(Bind::Lan), ..Config::default() };
        let context = context(|| None);
        assert_eq!(met(None, None, &config, &context).1, ["127.0.0.1:19000"]);
        assert_eq!(met(None, Some(Bind::Loopback), &config, &context).1, ["127.0.0.1:19000", "[::1]:19000"]);
    }

    #[test]
    fn a_given_host_is_the_only_address() {
        let context = context(|| Some(TAILNET));
        let tls = Config { tls: true, bind: Some(Bind::Tailnet), ..Config::default() };
        let address = |text: &str| Host::Address(text.parse().unwrap());
        for (host, url, addresses) in [
            (address("10.1.2.3"), "wss://10.1.2.3:19000", vec!["10.1.2.3:19000"]),
            (address("::1"), "wss://[::1]:19000", vec!["[::1]:19000"]),
            (Host::Localhost, "wss://localhost:19000", vec!["127.0.0.1:19000", "[::1]:19000"]),
        ] {
            let (shown, met, _) = met(Some(host), None, &tls, &context);
            assert_eq!((shown.as_str(), met), (url, addresses.into_iter().map(str::to_owned).collect()), "{host:?}");
        }
    }
}
