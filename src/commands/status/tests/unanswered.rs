//! The states of a system of which no supervisor answers.

use super::*;
use crate::commands::status::observe::NEITHER;

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn unanswered_states() -> Vec<(&'static str, Shown)> {
    let gave_up = "gave up after 6 restarts within 1h: the last gateway ended with exit code 1 after 1m35s; see the gateway's \
                   output above; fix the cause, then start again, or raise --max-restarts";
    let refused = exited(721, 3, "refused to start", &json!({"code": 78}));
    let crash = exited(721, 3, "crashed", &json!({"signal": 11}));
    let refusal = "the gateway exited with 78 and no other process is on ws://127.0.0.1:18789: it cannot start with its \
                   configuration; see the gateway's output above; run 'openclaw doctor', then start again";
    let busy = "another gateway instance is already listening on ws://127.0.0.1:18789: pid 812 (openclaw-gateway) is healthy and \
                stays in control; nothing was started; stop it first, or give this one another --port and --state-dir";
    let asked = (722, "stop.requested", json!({"by": "SIGTERM from pid 1 (/sbin/init)"}));
    let silent = |is_stopped| {
        with(unanswered("silent", &[started(900, 3)]), |shown| {
            shown.supervisor.pid = Some(4242);
            shown.trouble = Some("the supervisor (pid 4242) does not answer; is it stopped or frozen?".to_owned());
            (shown.gateway, shown.probe, shown.health) = (Some(gateway(true)), up().probe, Health::Healthy);
            shown.is_stopped = is_stopped;
        })
    };
    vec![
        ("refused", unanswered("none", &[refused.clone(), stopped(78, refusal)])),
        (
            "refused, and its output is known",
            with(unanswered("none", &[refused, stopped(78, refusal)]), |shown| {
                shown.last.past.exit.as_mut().unwrap().output =
                    Some("gateway: Unrecognized key: \"tokne\".".to_owned());
            }),
        ),
        (
            "conflict",
            unanswered(
                "none",
                &[(721, "conflict.detected", json!({"kind": "gateway", "holder_pid": 812})), stopped(78, busy)],
            ),
        ),
        ("gave up", unanswered("none", &[crash.clone(), stopped(69, gave_up)])),
        (
            "stopped on request",
            unanswered(
                "none",
                &[
                    asked.clone(),
                    exited(721, 3, "stop requested", &json!({"code": 0})),
                    stopped(0, "stopped as asked by SIGTERM from pid 1 (/sbin/init); the gateway exited with code 0"),
                ],
            ),
        ),
        ("failed", unanswered("none", &[stopped(1, "the store has been away for 10m: disk I/O error")])),
        (
            "killed",
            with(unanswered("none", &[started(900, 3)]), |shown| {
                shown.last.supervisor.as_mut().unwrap().end = Some("its process has exited".to_owned());
                shown.last.gateway = None;
                (shown.gateway, shown.probe, shown.health) = (Some(gateway(true)), up().probe, Health::Healthy);
            }),
        ),
        (
            "killed, and its gateway too",
            with(unanswered("none", &[started(900, 3)]), |shown| {
                shown.last.supervisor.as_mut().unwrap().end = Some("its process has exited".to_owned());
                shown.options = " --store-dir '/srv/my bot'".to_owned();
            }),
        ),
        (
            "nothing on record",
            with(unanswered("none", &[]), |shown| {
                (shown.last, shown.answered_by, shown.store_user) = (Last::default(), NEITHER, None);
                shown.lease = LeaseReply::default();
            }),
        ),
        (
            "a gateway of another program",
            with(unanswered("none", &[]), |shown| {
                (shown.last, shown.answered_by) = (Last::default(), NEITHER);
                (shown.probe, shown.health) = (up().probe, Health::Healthy);
            }),
        ),
        ("stopped by a signal", silent(true)),
        ("half dead", silent(false)),
        (
            "elsewhere",
            with(unanswered("elsewhere", &[]), |shown| {
                shown.elsewhere = Some(Elsewhere { host: Some("web-2".to_owned()), heartbeat_age_ms: Some(4000) });
                shown.trouble = Some("it has not released the lease and cannot be asked from here".to_owned());
                (shown.health, shown.view) = (Health::Unknown, View::Partial);
                (shown.supervisor.pid, shown.supervisor.since) = (Some(7), Some(stamp(-9000)));
            }),
        ),
        (
            "of another account",
            with(unanswered("unreachable", &[]), |shown| {
                shown.trouble =
                    Some("the control socket belongs to another user; ask as that user or as root".to_owned());
                (shown.view, shown.health) = (View::Forbidden, Health::Unknown);
                (shown.last, shown.answered_by) = (Last::default(), NEITHER);
            }),
        ),
        (
            "without a socket",
            with(unanswered("unreachable", &[]), |shown| {
                shown.trouble = Some("it has no control socket; its log says why".to_owned());
                shown.health = Health::Unhealthy;
            }),
        ),
    ]
}
