//! What one address shows, and how the addresses of one endpoint add up to a verdict.

use crate::core::Verdict;
use std::net::{Ipv6Addr, SocketAddr};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum AddressOutcome {
    /// The verdict and its detail.
    Seen(Verdict, String),
    /// This machine has no such address.
    Absent(String),
}

impl AddressOutcome {
    pub(super) fn is_gateway(&self) -> bool {
        matches!(self, Self::Seen(verdict, _) if is_gateway(*verdict))
    }
}

pub(super) fn is_gateway(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Gateway(_) | Verdict::Draining)
}

/// The verdict on the port, which is the strongest one of its addresses. An absent address counts only if all are absent.
/// A program that is not a gateway on `[::1]` does not count beside another address: OpenClaw only warns that it could not
/// bind that alias and serves on the others (seen with 2026.9.6).
pub(super) fn strongest(outcomes: Vec<(SocketAddr, AddressOutcome)>) -> (Option<SocketAddr>, Verdict, String) {
    let mut best = (None, None, "no address to probe".to_owned());
    for (index, (address, outcome)) in outcomes.into_iter().enumerate() {
        let is_alias = index > 0 && address.ip() == Ipv6Addr::LOCALHOST;
        match outcome {
            AddressOutcome::Seen(verdict, _) if is_alias && best.1.is_some() && !is_gateway(verdict) => {}
            AddressOutcome::Seen(verdict, detail) if best.1.is_none_or(|other| rank(verdict) > rank(other)) => {
                best = (Some(address), Some(verdict), detail);
            }
            AddressOutcome::Absent(detail) if best.1.is_none() => best.2 = detail,
            AddressOutcome::Seen(..) | AddressOutcome::Absent(_) => {}
        }
    }
    (best.0, best.1.unwrap_or(Verdict::Inconclusive), best.2)
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Free | Verdict::Booting => 0,
        Verdict::Inconclusive => 1,
        Verdict::Malformed => 2,
        Verdict::Silent => 3,
        // An answer says more than silence on another address: the event loop behind it turns.
        Verdict::Foreign => 4,
        Verdict::Gateway(_) | Verdict::Draining => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Phase;
    use proptest::prelude::*;

    #[test]
    fn an_absent_address_decides_only_when_all_are_absent() {
        let address = "[::1]:1".parse().unwrap();
        let absent = || (address, AddressOutcome::Absent("absent".to_owned()));
        let free = (address, AddressOutcome::Seen(Verdict::Free, "connection refused".to_owned()));
        assert_eq!(strongest(vec![absent(), free]).1, Verdict::Free);
        assert_eq!(strongest(vec![absent(), absent()]), (None, Verdict::Inconclusive, "absent".to_owned()));
        assert_eq!(strongest(vec![]).1, Verdict::Inconclusive);
    }

    #[test]
    fn only_a_gateway_counts_on_the_ipv6_alias() {
        let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let seen = |address, verdict| (address, AddressOutcome::Seen(verdict, String::new()));
        for other in [Verdict::Foreign, Verdict::Malformed, Verdict::Silent, Verdict::Inconclusive] {
            assert_eq!(strongest(vec![seen(v4, Verdict::Free), seen(v6, other)]).1, Verdict::Free);
            assert_eq!(strongest(vec![seen(v6, other)]).1, other, "alone it is the endpoint");
        }
        assert_eq!(strongest(vec![seen(v4, Verdict::Free), seen(v6, Verdict::Draining)]).1, Verdict::Draining);
    }

    proptest! {
        #[test]
        fn the_strongest_verdict_wins_in_any_order(mut picks in proptest::collection::vec(0..8_usize, 1..4)) {
            let all = [
                Verdict::Free, Verdict::Inconclusive, Verdict::Malformed, Verdict::Silent, Verdict::Foreign,
                Verdict::Gateway(Phase::Started), Verdict::Gateway(Phase::Unknown), Verdict::Draining,
            ];
            let address = "127.0.0.1:1".parse().unwrap();
            let verdict_of = |picks: &[usize]| {
                strongest(picks.iter().map(|&i| (address, AddressOutcome::Seen(all[i], String::new()))).collect()).1
            };
            let forward = verdict_of(&picks);
            picks.reverse();
            prop_assert_eq!(rank(forward), rank(verdict_of(&picks)));
            prop_assert!(picks.iter().all(|&i| rank(all[i]) <= rank(forward)));
        }
    }
}
