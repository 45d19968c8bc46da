//! What a supervisor is doing, for `status` and the service manager.

use super::{Endpoint, Generation, Readiness, Usage, Verdict};
use crate::prelude::*;
use crate::units::is_unprintable;
use core::time::Duration;

/// A snapshot. Durations count back from now, or forward where they speak of the future.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// One word: `leasing`, `standby`, `probing`, `backing_off`, `spawning`, `starting`, `running`, `stopping`,
    /// and others that `docs/CONTROL.md` names.
    pub state: &'static str,
    /// The gateway that is there now.
    pub gateway: Option<GatewayStatus>,
    /// The youngest gateway's number; 0 before the first.
    pub generation: Generation,
    /// The epoch of our lease, while we hold it.
    pub epoch: Option<u64>,
    /// Where the gateway listens, or is expected to.
    pub endpoint: Endpoint,
    /// The supervisor that we stand by behind, where it can be seen.
    pub owner: Option<i32>,
    /// The last verdict of a probe and its detail.
    pub probe: Option<(Verdict, String)>,
    /// Restarts in the window that spent the budget.
    pub restarts: u32,
    /// Restarts for `--memory-max`, which spend none of it unless they come early; since this supervisor began.
    pub memory_restarts: u32,
    /// The budget and its window.
    pub max_restarts: u32,
    /// See `max_restarts`.
    pub restart_window: Duration,
    /// In how long the oldest of `restarts` leaves the window, if there is one.
    pub restart_free: Option<Duration>,
    /// How long a gateway may drain after SIGTERM.
    pub stop_timeout: Duration,
    /// The file that the gateway writes to in place of our standard output and error.
    pub output: Option<String>,
    /// Processes that bear an earlier gateway's id and were left, as `pid command (unit)`.
    pub strays: Vec<String>,
    /// The installations that the end of the last gateway has cut short.
    pub cut_short: Vec<String>,
    /// In how long a requested restart comes that waits, if one does.
    pub restart_waits: Option<Duration>,
    /// In how long a restart that is requested now would be served at the latest, and why not at once.
    pub restart_paced: Option<(Duration, String)>,
    /// How long until we are gone, at most. `None` unless we are ending.
    pub ends_within: Option<Duration>,
    /// In how long a pause of the supervision ends, its reason, and who asked for it.
    pub paused: Option<(Duration, String, String)>,
    /// What will happen next.
    pub next: Next,
}

impl Status {
    /// In how long the planned start comes, if one waits for its time.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match &self.paused {
            Some((within, ..)) => Some(*within),
            None => self.next.within.filter(|_| self.state == "backing_off"),
        }
    }

    /// What there is to say of us in a manager's list of services: one line that stays the same for as long as nothing
    /// happens, so it has no times in it.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.sentence_until(None)
    }

    /// The same with the time at which a wait ends, see [`Status::wait`].
    #[must_use]
    pub fn sentence_until(&self, end: Option<&str>) -> String {
        let Next { action, why, .. } = &self.next;
        let gateway = match (&self.gateway, self.state) {
            (Some(gateway), state) => gateway.sentence(self.generation, state),
            (None, "standby") => format!("standing by: {why}"),
            (None, "stopping") => format!("killing what is left of gateway {}", self.generation),
            (None, "post_stop") => format!("gateway {} exited: {why}", self.generation),
            (None, "exited") => why.clone(),
            (None, "backing_off") if let Some(end) = end => format!("waiting until {end} to {action}: {why}"),
            (None, _) => format!("waiting to {action}: {why}"),
        };
        let sentence = match &self.paused {
            Some((_, reason, _)) => {
                let (until, colon) =
                    (end.map(|end| format!(" until {end}")), if reason.is_empty() { "" } else { ": " });
                let gateway = self.gateway.as_ref().map_or_else(|| "no gateway runs".to_owned(), |_| gateway);
                format!("supervision is paused{}{colon}{reason}; {gateway}", until.unwrap_or_default())
            }
            None => gateway,
        };
        shorten(sentence.replace(is_unprintable, " "))
    }
}

/// A manager shows the sentence in one line of a terminal, or two.
const SENTENCE_CHARS_MAX: usize = 200;

fn shorten(mut sentence: String) -> String {
    if let Some((end, _)) = sentence.char_indices().nth(SENTENCE_CHARS_MAX) {
        let cut = sentence[..end].char_indices().next_back().map_or(0, |(last, _)| last);
        sentence.truncate(cut);
        sentence.push('\u{2026}');
    }
    sentence
}

/// The gateway of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Its process id.
    pub pid: i32,
    /// Since when it has been there.
    pub age: Duration,
    /// Since when it has been up, if it is.
    pub up: Option<Duration>,
    /// Whether its last probe was good.
    pub healthy: bool,
    /// What is wrong with one that lives and is not replaced for it, as a predicate such as `is alive and not healthy: ...`.
    pub condition: Option<String>,
    /// Whether another supervisor started it.
    pub adopted: bool,
    /// What `/readyz` said when it was last asked.
    pub readiness: Option<Readiness>,
    /// What it used when that was last read.
    pub sample: Option<Usage>,
}

impl GatewayStatus {
    fn sentence(&self, generation: Generation, state: &str) -> String {
        let does = match state {
            "starting" | "running" if let Some(condition) = &self.condition => condition,
            "starting" => "is starting",
            "running" if self.healthy => "is healthy",
            "running" => "fails its probes",
            "examining" => "hangs and will be replaced",
            _ => "is stopping",
        };
        let unready =
            self.readiness.as_ref().filter(|readiness| self.healthy && state == "running" && !readiness.ready);
        let but = unready.map_or_else(String::new, |readiness| format!("; {}", readiness.detail));
        format!("gateway {generation} (pid {}) {does}{but}", self.pid)
    }
}

/// The next thing that a supervisor will do by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// A few words, such as `start a gateway`.
    pub action: &'static str,
    /// In how long, where that is known.
    pub within: Option<Duration>,
    /// How long the present phase may take in all, if `within` is the rest of it.
    pub of: Option<Duration>,
    /// What follows it: `gateway 2` or `the supervisor exits`.
    pub then: Option<String>,
    /// Why.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &'static str, action: &'static str, why: &str) -> Status {
        Status {
            state,
            gateway: None,
            generation: 3,
            epoch: None,
            endpoint: Endpoint::local(1),
            owner: None,
            probe: None,
            restarts: 0,
            memory_restarts: 0,
            max_restarts: 6,
            restart_window: Duration::from_hours(1),
            restart_free: None,
            stop_timeout: Duration::from_secs(328),
            output: None,
            strays: Vec::new(),
            cut_short: Vec::new(),
            restart_waits: None,
            restart_paced: None,
            paused: None,
            ends_within: None,
            next: Next { action, within: Some(Duration::from_secs(7)), of: None, then: None, why: why.to_owned() },
        }
    }

    fn with_gateway(state: &'static str, healthy: bool, unready: Option<&str>) -> Status {
        let readiness = unready.map(|detail| Readiness { ready: detail.is_empty(), detail: detail.to_owned() });
        let age = Duration::from_secs(99);
        let gateway = GatewayStatus {
            pid: 123,
            age,
            up: None,
            healthy,
            condition: None,
            adopted: false,
            readiness,
            sample: None,
        };
        Status { gateway: Some(gateway), ..status(state, "look at the gateway again", "it serves") }
    }

    fn with_condition(state: &'static str) -> Status {
        let mut status = with_gateway(state, false, None);
        let condition = "is alive and not healthy: GET /healthz answered 500".to_owned();
        status.gateway.as_mut().unwrap().condition = Some(condition);
        status
    }

    #[test]
    fn the_sentence_says_what_there_is_or_what_is_waited_for() {
        for (status, expected) in [
            (with_gateway("starting", false, None), "gateway 3 (pid 123) is starting"),
            (with_gateway("running", true, None), "gateway 3 (pid 123) is healthy"),
            (with_gateway("running", true, Some("")), "gateway 3 (pid 123) is healthy"),
            (with_gateway("running", true, Some("not ready: chat")), "gateway 3 (pid 123) is healthy; not ready: chat"),
            (with_gateway("running", false, Some("not ready: chat")), "gateway 3 (pid 123) fails its probes"),
            (with_condition("running"), "gateway 3 (pid 123) is alive and not healthy: GET /healthz answered 500"),
            (with_condition("stopping"), "gateway 3 (pid 123) is stopping"),
            (with_gateway("examining", false, None), "gateway 3 (pid 123) hangs and will be replaced"),
            (with_gateway("stopping", false, None), "gateway 3 (pid 123) is stopping"),
            (status("stopping", "end", "it is being ended"), "killing what is left of gateway 3"),
            (status("standby", "take over", "another is in charge"), "standing by: another is in charge"),
            (status("backing_off", "start a gateway", "failure 2"), "waiting to start a gateway: failure 2"),
            (status("leasing", "take the lease", "looking"), "waiting to take the lease: looking"),
            (status("post_stop", "decide", "the post-stop hook runs"), "gateway 3 exited: the post-stop hook runs"),
            (status("exited", "nothing", "the supervisor has ended"), "the supervisor has ended"),
        ] {
            assert_eq!(status.sentence(), expected);
        }
    }

    #[test]
    fn a_planned_start_is_told_with_its_time() {
        let waiting = status("backing_off", "start a gateway", "failure 2");
        assert_eq!(waiting.wait(), Some(Duration::from_secs(7)));
        assert_eq!(
            waiting.sentence_until(Some("10:24:05 UTC")),
            "waiting until 10:24:05 UTC to start a gateway: failure 2"
        );
        assert_eq!(with_gateway("running", true, None).wait(), None);
    }

    #[test]
    fn the_sentence_stays_one_short_line_whatever_the_gateway_says() {
        let bad = with_gateway("running", true, Some("not ready: a\nREADY=1\r\u{0}b"));
        assert_eq!(bad.sentence(), "gateway 3 (pid 123) is healthy; not ready: a READY=1  b");
        for (letter, count) in [('x', 500), ('\u{20ac}', 500)] {
            let long = with_gateway("running", true, Some(&letter.to_string().repeat(count))).sentence();
            assert_eq!(long.chars().count(), SENTENCE_CHARS_MAX, "{long}");
            assert!(long.ends_with(&format!("{letter}\u{2026}")), "{long}");
        }
        let rest = SENTENCE_CHARS_MAX - "gateway 3 (pid 123) is healthy; ".len();
        let full = with_gateway("running", true, Some(&"x".repeat(rest))).sentence();
        assert_eq!((full.chars().count(), full.ends_with('x')), (SENTENCE_CHARS_MAX, true), "{full}");
    }

    #[test]
    fn time_alone_does_not_change_the_sentence() {
        let early = with_gateway("running", true, None);
        let mut late = early.clone();
        late.next.within = None;
        late.gateway.as_mut().unwrap().age = Duration::from_hours(5);
        assert_eq!(early.sentence(), late.sentence());
    }
}
