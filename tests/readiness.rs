//! A probe asks for readiness without delaying the verdict.
#![expect(clippy::unwrap_used, reason = "a test may")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod probe_support;

use openclaw_supervise::core::{Observation, Owner, Phase, Readiness, Verdict};
use openclaw_supervise::gateway::probe::Look;
use probe_support::*;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

const READY: &str = r#"{"ready":true,"failing":[]}"#;
const UNREADY: &str = r#"{"ready":false,"failing":["telegram","discord"]}"#;
/// Long enough for a busy machine; the test waits for a fifth of it.
const LONG: Duration = Duration::from_secs(5);

const BUSY: &str = "503 Service Unavailable";

/// A gateway with a good `/healthz` and these two replies.
async fn serve_both(startup: Act, ready: Act) -> Server {
    let act = move |path: &str| match path {
        "/healthz" => json("200 OK", LIVE),
        "/startupz" => startup.clone(),
        _ => ready.clone(),
    };
    serve("127.0.0.1:0", act).await
}

/// Probes as a supervisor probes its own child.
async fn look(server: &Server, timeout: Duration) -> Observation {
    let ours = Look::AnswersAndOwner { leader: Some(std::process::id().cast_signed()) };
    prober(&[server.address], timeout).look(ours).await
}

#[tokio::test]
async fn our_gateway_is_asked_for_readiness_over_the_same_connection() {
    for (name, answer, expected) in [
        ("ready", json("200 OK", READY), Some((true, "ready"))),
        ("not ready", json(BUSY, UNREADY), Some((false, "not ready: telegram, discord"))),
        ("a release without it", html("200 OK"), None),
        ("unknown", html("404 Not Found"), None),
        ("other json", json("200 OK", LIVE), None),
        ("broken off", Act::SendAndClose(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), None),
        ("binary garbage", Act::SendAndHang(vec![0, 1, 2, 10]), None),
    ] {
        let server = serve_both(json("200 OK", STARTED), answer).await;
        let seen = look(&server, PATIENT).await;
        assert!(matches!(seen.owner, Owner::Ours(_)), "{name}: {seen:?}");
        assert_eq!(seen.verdict, Verdict::Gateway(Phase::Started), "{name}");
        assert_eq!(seen.detail, "GET /startupz answered 200 started", "{name}");
        let expected = expected.map(|(ready, detail)| Readiness { ready, detail: detail.to_owned() });
        assert_eq!(seen.readiness, expected, "{name}");
        assert_eq!(server.connections(), 2, "{name}: one plain connect, one for all requests");
        assert_eq!(server.requests(), 3, "{name}");
    }
}

#[tokio::test]
async fn only_a_started_gateway_of_ours_is_asked_for_readiness() {
    let unavailable = |body| json(BUSY, body);
    for (name, startup, verdict) in [
        ("one that boots", unavailable(STARTING), Verdict::Gateway(Phase::Starting)),
        ("one that drains", unavailable(DRAINING), Verdict::Draining),
    ] {
        let server = serve_both(startup, json("200 OK", READY)).await;
        let seen = look(&server, PATIENT).await;
        assert_eq!((seen.verdict, seen.readiness, server.requests()), (verdict, None, 2), "{name}");
    }

    let mut unrelated = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let elsewhere = Look::AnswersAndOwner { leader: Some(unrelated.id().cast_signed()) };
    for look in [Look::Answers { leader: None }, Look::AnswersAndOwner { leader: None }, elsewhere] {
        let server = serve_both(json("200 OK", STARTED), json("200 OK", READY)).await;
        let seen = prober(&[server.address], PATIENT).look(look).await;
        assert_eq!(seen.verdict, Verdict::Gateway(Phase::Started), "{look:?}");
        assert_eq!((seen.readiness, server.requests()), (None, 2), "{look:?}");
    }
    drop(unrelated.stdin.take());
    unrelated.wait().unwrap();
}

#[tokio::test]
async fn a_missing_readiness_reply_costs_a_fraction_of_the_timeout_and_not_the_verdict() {
    for (name, answer) in [
        ("nothing at all", Act::SendAndHang(vec![])),
        ("a head that trickles", Act::Trickle(b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b'x')),
        ("half a body", Act::SendAndHang(b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{".to_vec())),
    ] {
        let server = serve_both(json("200 OK", STARTED), answer).await;
        let before = Instant::now();
        let seen = look(&server, LONG).await;
        assert_eq!((seen.verdict, seen.readiness), (Verdict::Gateway(Phase::Started), None), "{name}");
        assert!(before.elapsed() < LONG / 2, "{name}: a fifth of the time, not all of it: {:?}", before.elapsed());
        assert_eq!(server.requests(), 3, "{name}");
    }
}
