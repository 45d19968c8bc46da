//! What answers mean.

use std::net::{Ipv6Addr, SocketAddr};

use serde_json::Value;

use super::http::{Answer, Body};
use crate::core::{Phase, Readiness, Verdict};

/// What one address shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Glimpse {
    /// A verdict, and how it came about.
    Seen(Verdict, String),
    /// There is no such address here.
    Absent(String),
}

impl Glimpse {
    pub(super) fn is_gateway(&self) -> bool {
        matches!(self, Self::Seen(verdict, _) if is_gateway(*verdict))
    }
}

/// Whether a gateway answered.
pub(super) fn is_gateway(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Gateway(_) | Verdict::Draining)
}

/// The verdict on the port: that of the address with the most to say. An address that does not exist says nothing,
/// unless there is no other. Nor does a stranger on `[::1]` beside 127.0.0.1: there the gateway only warns that it could
/// not bind the alias, and serves all the same (run on 2026.9.6).
pub(super) fn strongest(seen: Vec<(SocketAddr, Glimpse)>) -> (Option<SocketAddr>, Verdict, String) {
    let mut best = (None, None, "no address to look at".to_owned());
    for (index, (address, glimpse)) in seen.into_iter().enumerate() {
        let spare = index > 0 && address.ip() == Ipv6Addr::LOCALHOST;
        match glimpse {
            Glimpse::Seen(verdict, _) if spare && best.1.is_some() && !is_gateway(verdict) => {}
            Glimpse::Seen(verdict, detail) if best.1.is_none_or(|other| rank(verdict) > rank(other)) => {
                best = (Some(address), Some(verdict), detail);
            }
            Glimpse::Absent(detail) if best.1.is_none() => best.2 = detail,
            Glimpse::Seen(..) | Glimpse::Absent(_) => {}
        }
    }
    (best.0, best.1.unwrap_or(Verdict::Inconclusive), best.2)
}

fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Free | Verdict::Booting => 0,
        Verdict::Inconclusive => 1,
        Verdict::Foreign => 2,
        Verdict::Silent => 3,
        Verdict::Gateway(_) | Verdict::Draining => 4,
    }
}

/// The strict check of `/healthz`. The Control UI answers 200 on any path, and so does many a file server.
pub(super) fn is_live(answer: &Answer) -> bool {
    let Body::Json(body) = &answer.body else { return false };
    answer.status == 200 && body.get("ok") == Some(&Value::Bool(true)) && word(body, "status") == Some("live")
}

/// What to call somebody whose `/healthz` is not a gateway's.
pub(super) fn foreign(answer: &Answer) -> Glimpse {
    let note = match &answer.body {
        Body::Json(_) if answer.status == 200 => ", but not with ok: true and status: live",
        Body::TooLong => ", with a body that does not end",
        Body::Json(_) | Body::Other => "",
    };
    Glimpse::Seen(Verdict::Foreign, format!("GET /healthz answered {}{note}", answer.describe()))
}

/// The verdict on a gateway whose `/healthz` was good, from its `/startupz`.
pub(super) fn phase(answer: &Answer) -> Glimpse {
    let status = match &answer.body {
        Body::Json(body) => word(body, "status"),
        Body::Other | Body::TooLong => None,
    };
    let (verdict, word) = match (answer.status, status) {
        (200, Some("started")) => (Verdict::Gateway(Phase::Started), "started"),
        (503, Some("starting")) => (Verdict::Gateway(Phase::Starting), "starting"),
        (503, Some("draining")) => (Verdict::Draining, "draining"),
        _ => {
            let detail = format!("GET /healthz answered 200 live, and /startupz {}", answer.describe());
            return Glimpse::Seen(Verdict::Gateway(Phase::Unknown), detail);
        }
    };
    Glimpse::Seen(verdict, format!("GET /startupz answered {} {word}", answer.status))
}

/// What `/readyz` says, and what it names as failing. Nothing where it is no answer of that kind: a release without it
/// answers as it does any path, with 200 and HTML.
pub(super) fn readiness(answer: &Answer) -> Option<Readiness> {
    let Body::Json(body) = &answer.body else { return None };
    let ready = body.get("ready")?.as_bool()? && answer.status == 200;
    if ready {
        return Some(Readiness { ready, detail: "ready".to_owned() });
    }
    let failing: Vec<_> =
        body.get("failing").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let names = if failing.is_empty() { "nothing named".to_owned() } else { failing.join(", ") };
    let shown: String = names.chars().map(|c| if c.is_control() { '?' } else { c }).take(160).collect();
    Some(Readiness { ready, detail: format!("not ready: {shown}") })
}

fn word<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, text: &str) -> Answer {
        Answer { status, kind: "application/json".to_owned(), body: Body::parse(text.as_bytes()) }
    }

    #[test]
    fn only_the_very_words_of_a_gateway_pass_for_one() {
        assert!(is_live(&answer(200, r#"{"ok":true,"status":"live","extra":1}"#)));
        for (status, text) in [
            (200, r#"{"ok":"true","status":"live"}"#),
            (200, r#"{"ok":1,"status":"live"}"#),
            (200, r#"{"ok":true}"#),
            (200, r#"{"ok":true,"status":"Live"}"#),
            (200, r#"{"ok":false,"status":"live"}"#),
            (200, r#"[{"ok":true,"status":"live"}]"#),
            (200, r#"{"ok":true,"status":"live"} x"#),
            (200, "<html>"),
            (200, ""),
            (201, r#"{"ok":true,"status":"live"}"#),
            (503, r#"{"ok":true,"status":"live"}"#),
        ] {
            assert!(!is_live(&answer(status, text)), "{status} {text}");
        }
    }

    #[test]
    fn a_phase_counts_only_with_its_own_status() {
        for (status, text, expected) in [
            (200, r#"{"status":"started"}"#, Verdict::Gateway(Phase::Started)),
            (503, r#"{"status":"starting"}"#, Verdict::Gateway(Phase::Starting)),
            (503, r#"{"status":"draining"}"#, Verdict::Draining),
            (200, r#"{"status":"draining"}"#, Verdict::Gateway(Phase::Unknown)),
            (503, r#"{"status":"started"}"#, Verdict::Gateway(Phase::Unknown)),
            (200, "<html>", Verdict::Gateway(Phase::Unknown)),
            (404, "", Verdict::Gateway(Phase::Unknown)),
        ] {
            let Glimpse::Seen(verdict, _) = phase(&answer(status, text)) else { panic!("it is there") };
            assert_eq!(verdict, expected, "{status} {text}");
        }
    }

    #[test]
    fn an_address_that_does_not_exist_decides_only_when_it_is_alone() {
        let address = "[::1]:1".parse().unwrap();
        let absent = || (address, Glimpse::Absent("absent".to_owned()));
        let free = (address, Glimpse::Seen(Verdict::Free, "connection refused".to_owned()));
        assert_eq!(strongest(vec![absent(), free]).1, Verdict::Free);
        assert_eq!(strongest(vec![absent(), absent()]), (None, Verdict::Inconclusive, "absent".to_owned()));
        assert_eq!(strongest(vec![]).1, Verdict::Inconclusive);
    }

    #[test]
    fn a_stranger_on_the_ipv6_loopback_does_not_matter_but_a_gateway_there_does() {
        let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let seen = |address, verdict| (address, Glimpse::Seen(verdict, String::new()));
        for stranger in [Verdict::Foreign, Verdict::Silent, Verdict::Inconclusive] {
            assert_eq!(strongest(vec![seen(v4, Verdict::Free), seen(v6, stranger)]).1, Verdict::Free);
            assert_eq!(strongest(vec![seen(v6, stranger)]).1, stranger, "alone it is what was asked about");
        }
        assert_eq!(strongest(vec![seen(v4, Verdict::Free), seen(v6, Verdict::Draining)]).1, Verdict::Draining);
    }

    #[test]
    fn readiness_names_what_fails_and_is_unknown_where_nothing_is_said_of_it() {
        for (status, text, expected) in [
            (200, r#"{"ready":true}"#, Some((true, "ready"))),
            (503, r#"{"ready":false,"failing":["a\nb","c"]}"#, Some((false, "not ready: a?b, c"))),
            (503, r#"{"ready":false,"failing":[]}"#, Some((false, "not ready: nothing named"))),
            (503, r#"{"ready":true}"#, Some((false, "not ready: nothing named"))),
            (200, r#"{"ready":"true"}"#, None),
            (200, r#"{"ok":true}"#, None),
            (200, "<html>", None),
            (404, "", None),
        ] {
            let expected = expected.map(|(ready, detail)| Readiness { ready, detail: detail.to_owned() });
            assert_eq!(readiness(&answer(status, text)), expected, "{status} {text}");
        }
    }

    proptest! {
        #[test]
        fn the_strongest_verdict_wins_in_any_order(mut picks in proptest::collection::vec(0..7_usize, 1..4)) {
            let all = [
                Verdict::Free, Verdict::Inconclusive, Verdict::Foreign, Verdict::Silent,
                Verdict::Gateway(Phase::Started), Verdict::Gateway(Phase::Unknown), Verdict::Draining,
            ];
            let address = "127.0.0.1:1".parse().unwrap();
            let judge = |picks: &[usize]| {
                strongest(picks.iter().map(|&i| (address, Glimpse::Seen(all[i], String::new()))).collect()).1
            };
            let forward = judge(&picks);
            picks.reverse();
            prop_assert_eq!(rank(forward), rank(judge(&picks)));
            prop_assert!(picks.iter().all(|&i| rank(all[i]) <= rank(forward)));
        }
    }
}
