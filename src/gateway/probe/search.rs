//! Where a gateway of ours serves that is not found at its endpoint: its settings may have changed, or we misread them.
//!
//! The living process knows better than its settings: it is asked wherever its tree listens.

use super::owner::{self, Served};
use super::{HEAD_START, LOOKUP_TIME_MAX, Look, Prober, outcome};
use crate::core::{Endpoint, MoveReason, Moved, Observation, Owner, Verdict};
use crate::platform::listener;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a search may take in all. A gateway on this machine answers in milliseconds, and the next look searches again.
const TIME_MAX: Duration = Duration::from_secs(2);

/// How many ports are asked. A gateway has one or two; others belong to what its agents have started.
const PORTS_MAX: usize = 8;

/// Of how many members of its tree the sockets are looked at.
const MEMBERS_MAX: usize = 256;

impl Prober {
    /// Looks for our child: at the endpoint and, where no gateway of ours answers there, elsewhere. It takes no longer than
    /// the look at a listener that keeps silent. `members` are the processes of its tree, `settings` the endpoint that its
    /// settings name now; both are waited for only in a search.
    pub async fn find(
        &self,
        leader: i32,
        members: impl Future<Output = Option<Vec<(i32, u64)>>>,
        settings: impl Future<Output = Option<Endpoint>>,
    ) -> Observation {
        let (start, ask) = (Instant::now(), Look::AnswersAndOwner { leader: Some(leader) });
        let mut expected = pin!(self.look(ask));
        let early = timeout(HEAD_START, &mut expected).await.ok();
        if let Some(seen) = early.as_ref().filter(|seen| is_ours(seen)) {
            let seen = self.prefer_settings(ask, leader, seen.clone(), settings).await;
            self.note_server(&seen);
            return seen;
        }
        let so_far = early.as_ref().map(|seen| seen.verdict);
        let until = start + self.timeout.min(HEAD_START + TIME_MAX);
        let search = timeout_at(until, self.search(ask, leader, so_far, members, settings));
        let (seen, found) = if let Some(seen) = early { (seen, search.await) } else { tokio::join!(expected, search) };
        // A slow answer at its endpoint counts more than one from elsewhere.
        let seen = if is_ours(&seen) { seen } else { found.ok().flatten().unwrap_or(seen) };
        self.note_server(&seen);
        seen
    }

    /// Before ours has come up, or while its launcher starts it again, a gateway of its agents may have been followed. Two
    /// that are not `leader` are told apart by the settings: the one that answers where they say is ours.
    async fn prefer_settings(
        &self,
        ask: Look,
        leader: i32,
        seen: Observation,
        settings: impl Future<Output = Option<Endpoint>>,
    ) -> Observation {
        let Some(known) = seen.holder().map(|holder| holder.pid).filter(|pid| *pid != leader) else { return seen };
        let settings = timeout(HEAD_START, settings).await.ok().flatten();
        let Some(to) = settings.filter(|to| to.port != self.endpoint.port) else { return seen };
        let other = self.at(to.clone()).look(ask).await;
        match &other.owner {
            Owner::Ours(holder) if holder.pid != known && is_ours(&other) => moved(other, to, MoveReason::Settings),
            Owner::Ours(_) | Owner::Other(_) | Owner::Unseen | Owner::Hidden { .. } => seen,
        }
    }

    /// `so_far`: what the endpoint has shown within the head start.
    async fn search(
        &self,
        ask: Look,
        leader: i32,
        so_far: Option<Verdict>,
        members: impl Future<Output = Option<Vec<(i32, u64)>>>,
        settings: impl Future<Output = Option<Endpoint>>,
    ) -> Option<Observation> {
        let served = self.served();
        let others = members.await.unwrap_or_default().into_iter().map(|(pid, _)| pid).filter(|pid| *pid != leader);
        let mut pids: Vec<_> = std::iter::once(leader).chain(others).collect();
        match served {
            // While it lives, no other gateway that its agents have started can stand for it.
            Served::By(pid) if pids.contains(&pid) => pids = vec![pid],
            Served::By(_) | Served::Unseen | Served::Never => pids.truncate(MEMBERS_MAX),
        }
        let members = pids.clone();
        let sockets = self.searching.run(LOOKUP_TIME_MAX, move || listener::of(&pids)).await.ok()?.unwrap_or_default();
        let candidates = candidates(&sockets, &self.endpoint, so_far.is_none());
        let is_closed = so_far == Some(Verdict::Free);
        let (found, settings) = tokio::join!(self.ask_all(ask, candidates), settings);
        match (found, settings) {
            (Some((seen, to)), Some(settings)) if settings.tls == to.tls && settings.overlaps(&to) => {
                Some(moved(seen, settings, MoveReason::Settings))
            }
            (Some((seen, to)), _) => Some(moved(seen, to, MoveReason::Listens)),
            // A tree in another namespace, or of another user, shows no sockets. That it has gone from its old port and
            // lives is what proves that the answer at the new one is its own: beside another process it could not.
            (None, Some(to)) if sockets.is_empty() && is_closed && served == Served::Unseen && to != self.endpoint => {
                let seen = self.at(to.clone()).look(ask).await;
                is_ours(&seen).then(|| moved(seen, to, MoveReason::Settings))
            }
            (None, _) if sockets.is_empty() && is_closed && served == Served::Never => {
                self.find_secluded(members).await
            }
            (None, _) => None,
        }
    }

    /// One that listens on its port in another network namespace cannot be asked, but it has come up. It counts as alive
    /// and not healthy.
    async fn find_secluded(&self, members: Vec<i32>) -> Option<Observation> {
        let port = self.endpoint.port;
        let find = move || owner::holder(members.into_iter().find(|&pid| listener::holds_port(pid, port))?);
        let holder = self.searching.run(LOOKUP_TIME_MAX, find).await.ok()??;
        let detail = format!(
            "pid {} listens on port {port} in another network namespace, where it cannot be asked: start this supervisor in \
             that namespace, or give it the --host at which the gateway is reached from here",
            holder.pid
        );
        let (verdict, owner) = (Verdict::Foreign, Owner::Ours(holder));
        Some(Observation { verdict, owner, detail, readiness: None, moved: None })
    }

    /// The first gateway among the candidates. Those with the scheme of this endpoint have a head start, so that a gateway
    /// that has kept it is not asked in the other one, of which it would complain.
    async fn ask_all(&self, ask: Look, candidates: Vec<Endpoint>) -> Option<(Observation, Endpoint)> {
        let mut asks = JoinSet::new();
        for endpoint in candidates {
            let pause = if endpoint.tls == self.endpoint.tls { Duration::ZERO } else { HEAD_START };
            let prober = self.at(endpoint).with_patience(Duration::ZERO);
            // It listens: the plain connect would only make a TLS listener complain.
            prober.expect_answer();
            asks.spawn(async move {
                sleep(pause).await;
                (prober.look(ask).await, prober.endpoint().clone())
            });
        }
        while let Some(asked) = asks.join_next().await {
            if let Ok((seen, endpoint)) = asked
                && is_ours(&seen)
            {
                return Some((seen, endpoint));
            }
        }
        None
    }

    fn note_server(&self, seen: &Observation) {
        if is_ours(seen) {
            self.note_served(seen.holder().map_or(Served::Unseen, |holder| Served::By(holder.pid)));
        }
    }
}

fn is_ours(seen: &Observation) -> bool {
    outcome::is_gateway(seen.verdict) && !matches!(seen.owner, Owner::Other(_))
}

fn moved(seen: Observation, to: Endpoint, why: MoveReason) -> Observation {
    Observation { moved: Some(Moved { to, why }), ..seen }
}

/// What is worth asking: for each port an endpoint of each scheme. While the port of `expected` is one
/// of them the gateway is still there, and nothing that another part of its tree serves can stand for it.
///
/// One that `is_silent` speaks no other scheme either: a server breaks off at once where the other scheme is spoken to it.
fn candidates(sockets: &[SocketAddr], expected: &Endpoint, is_silent: bool) -> Vec<Endpoint> {
    let mut ports = BTreeMap::<u16, Vec<SocketAddr>>::new();
    for &address in sockets {
        let addresses = ports.entry(address.port()).or_default();
        addresses.extend(Some(reached(address)).filter(|address| !addresses.contains(address)));
    }
    if let Some(addresses) = ports.remove(&expected.port) {
        ports = BTreeMap::from([(expected.port, addresses)]);
    }
    let schemes = |(port, mut addresses): (u16, Vec<SocketAddr>)| {
        addresses.sort_by_key(|address| (address.is_ipv6(), !address.ip().is_loopback()));
        let host = match addresses.first()?.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let endpoint = |tls| Endpoint { addresses: addresses.clone(), tls, host: host.clone(), port };
        let is_new = |endpoint: &Endpoint| !(is_silent || endpoint.tls == expected.tls) || !endpoint.overlaps(expected);
        Some([expected.tls, !expected.tls].map(endpoint).into_iter().filter(is_new))
    };
    ports.into_iter().take(PORTS_MAX).filter_map(schemes).flatten().collect()
}

/// Where a client on this machine reaches a socket.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(sockets: &[&str], expected: &Endpoint) -> Vec<String> {
        let sockets: Vec<_> = sockets.iter().map(|address| address.parse().unwrap()).collect();
        candidates(&sockets, expected, false).iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn each_port_of_the_tree_is_asked_with_both_schemes() {
        let plain = Endpoint::local(1);
        let tls = Endpoint { tls: true, ..Endpoint::local(1) };
        let sockets = ["127.0.0.1:7", "[::1]:7", "0.0.0.0:8", "[::]:9", "10.1.1.1:9"];
        assert_eq!(
            asked(&sockets, &plain),
            [
                "ws://127.0.0.1:7",
                "wss://127.0.0.1:7",
                "ws://127.0.0.1:8",
                "wss://127.0.0.1:8",
                "ws://10.1.1.1:9",
                "wss://10.1.1.1:9"
            ]
        );
        assert_eq!(asked(&sockets[..1], &tls), ["wss://127.0.0.1:7", "ws://127.0.0.1:7"]);
        assert_eq!(asked(&[], &plain), Vec::<String>::new());
    }

    #[test]
    fn while_its_tree_listens_on_the_expected_port_only_another_scheme_or_address_of_it_is_asked() {
        let plain = Endpoint::local(1);
        for (sockets, expected) in [
            (&["127.0.0.1:1", "127.0.0.1:2"][..], vec!["wss://127.0.0.1:1"]),
            (&["0.0.0.0:1"][..], vec!["wss://127.0.0.1:1"]),
            (&["10.1.1.1:1"][..], vec!["ws://10.1.1.1:1", "wss://10.1.1.1:1"]),
        ] {
            assert_eq!(asked(sockets, &plain), expected, "{sockets:?}");
        }
    }

    #[test]
    fn a_listener_that_keeps_silent_is_not_asked_again() {
        let plain = Endpoint::local(1);
        let asked = |sockets: &[SocketAddr]| candidates(sockets, &plain, true).len();
        let (here, elsewhere) = ("127.0.0.1:1".parse().unwrap(), "10.1.1.1:1".parse().unwrap());
        assert_eq!((asked(&[here]), asked(&[elsewhere])), (0, 2));
    }

    #[test]
    fn no_more_ports_are_asked_than_a_gateway_has() {
        let many: Vec<_> = (2..100).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        assert_eq!(candidates(&many, &Endpoint::local(1), false).len(), 2 * PORTS_MAX);
    }
}
