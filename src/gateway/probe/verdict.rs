//! What the replies of a port mean.

use super::http::{Body, Reply};
use super::outcome::AddressOutcome;
use crate::core::{Phase, Readiness, Verdict};
use serde_json::Value;

/// The strict check of `/healthz`. The Control UI answers any path with 200, as do many file servers.
pub(super) fn is_live(reply: &Reply) -> bool {
    let Body::Json(body) = &reply.body else { return false };
    reply.status == 200 && body.get("ok") == Some(&Value::Bool(true)) && text(body, "status") == Some("live")
}

/// The outcome of a `/healthz` reply that is not a gateway's.
pub(super) fn foreign(reply: &Reply) -> AddressOutcome {
    let note = match &reply.body {
        Body::Json(_) if reply.status == 200 => ", but not with ok: true and status: live",
        Body::TooLong => ", with a body over the limit",
        Body::Json(_) | Body::Other => "",
    };
    AddressOutcome::Seen(Verdict::Foreign, format!("GET /healthz answered {}{note}", reply.describe()))
}

/// The verdict on a gateway with a good `/healthz`, from its `/startupz`.
pub(super) fn phase(reply: &Reply) -> AddressOutcome {
    let status = match &reply.body {
        Body::Json(body) => text(body, "status"),
        Body::Other | Body::TooLong => None,
    };
    let (verdict, word) = match (reply.status, status) {
        (200, Some("started")) => (Verdict::Gateway(Phase::Started), "started"),
        (503, Some("starting")) => (Verdict::Gateway(Phase::Starting), "starting"),
        (503, Some("draining")) => (Verdict::Draining, "draining"),
        _ => {
            let detail = format!("GET /healthz answered 200 live, and /startupz {}", reply.describe());
            return AddressOutcome::Seen(Verdict::Gateway(Phase::Unknown), detail);
        }
    };
    AddressOutcome::Seen(verdict, format!("GET /startupz answered {} {word}", reply.status))
}

/// The reply to `/readyz`, with the names of what fails. `None` if it is not of that kind: a release without the endpoint
/// answers it like any unknown path, with 200 and HTML.
pub(super) fn readiness(reply: &Reply) -> Option<Readiness> {
    let Body::Json(body) = &reply.body else { return None };
    let ready = body.get("ready")?.as_bool()? && reply.status == 200;
    if ready {
        return Some(Readiness { ready, detail: "ready".to_owned() });
    }
    let failing: Vec<_> =
        body.get("failing").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let names = if failing.is_empty() { "nothing named".to_owned() } else { failing.join(", ") };
    let shown: String = names.chars().map(|c| if c.is_control() { '?' } else { c }).take(160).collect();
    Some(Readiness { ready, detail: format!("not ready: {shown}") })
}

fn text<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, text: &str) -> Reply {
        Reply { status, media_type: "application/json".to_owned(), body: Body::parse(text.as_bytes()) }
    }

    #[test]
    fn only_the_exact_body_of_a_gateway_passes() {
        assert!(is_live(&reply(200, r#"{"ok":true,"status":"live","extra":1}"#)));
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
            assert!(!is_live(&reply(status, text)), "{status} {text}");
        }
    }

    #[test]
    fn a_phase_counts_only_with_its_own_status_code() {
        for (status, text, expected) in [
            (200, r#"{"status":"started"}"#, Verdict::Gateway(Phase::Started)),
            (503, r#"{"status":"starting"}"#, Verdict::Gateway(Phase::Starting)),
            (503, r#"{"status":"draining"}"#, Verdict::Draining),
            (200, r#"{"status":"draining"}"#, Verdict::Gateway(Phase::Unknown)),
            (503, r#"{"status":"started"}"#, Verdict::Gateway(Phase::Unknown)),
            (200, "<html>", Verdict::Gateway(Phase::Unknown)),
            (404, "", Verdict::Gateway(Phase::Unknown)),
        ] {
            let AddressOutcome::Seen(verdict, _) = phase(&reply(status, text)) else {
                panic!("the address is not absent")
            };
            assert_eq!(verdict, expected, "{status} {text}");
        }
    }

    #[test]
    fn readiness_names_what_fails_and_is_unknown_for_any_other_reply() {
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
            assert_eq!(readiness(&reply(status, text)), expected, "{status} {text}");
        }
    }
}
