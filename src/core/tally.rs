//! Numbers for metrics, counted since the supervisor began: a fold over what goes into the core and comes out of it.

use super::effect::ProbeScope;
use super::event::Event;
use super::report::Report;
use super::{Effect, Moment, Verdict};
use crate::prelude::*;
use core::time::Duration;

/// The upper bounds of the probes' histogram. A healthy gateway answers in a few milliseconds, and 5 s is the limit.
pub const PROBE_BOUNDS: [Duration; 10] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];

/// A counter that begins with its first event has no increase then, so the usual causes are there from the start.
const USUAL_CAUSES: [&str; 5] =
    ["crashed", "hung", "killed by the kernel OOM killer", "over its memory limit", "restart requested"];

/// How many, and how long all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    pub count: u64,
    pub sum: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(time);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Gateways that were started after another one, by the `cause` of its `gateway.exited`.
    pub restarts: Vec<(&'static str, u64)>,
    /// How long gateways took to come up.
    pub startups: Total,
    /// How long a gateway had not answered when it counted as hung.
    pub detections: Total,
    /// How long probes took that were answered.
    pub probes: Total,
    /// Those within each of [`PROBE_BOUNDS`], each without the ones before.
    pub probes_within: [u64; PROBE_BOUNDS.len()],
    /// The probe that is under way.
    asked: Option<(u64, Moment)>,
    last_cause: Option<&'static str>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            restarts: USUAL_CAUSES.map(|cause| (cause, 0)).to_vec(),
            startups: Total::default(),
            detections: Total::default(),
            probes: Total::default(),
            probes_within: [0; PROBE_BOUNDS.len()],
            asked: None,
            last_cause: None,
        }
    }
}

impl Tally {
    /// Takes in one step.
    pub fn see(&mut self, now: Moment, event: &Event, effects: &[Effect]) {
        if let Event::Probed { ticket, sighting } = event
            && let Some((_, asked)) = self.asked.take_if(|(asked, _)| asked == ticket)
            && matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign)
        {
            self.answered(now.saturating_sub(asked));
        }
        for effect in effects {
            match effect {
                Effect::Probe { ticket, ask: ProbeScope::Listener(_) | ProbeScope::Liveness(_) } => {
                    self.asked = Some((*ticket, now));
                }
                Effect::Report(report) => self.reported(report),
                _ => {}
            }
        }
    }

    fn answered(&mut self, time: Duration) {
        self.probes.add(time);
        if let Some(index) = PROBE_BOUNDS.iter().position(|bound| time <= *bound) {
            self.probes_within[index] = self.probes_within[index].saturating_add(1);
        }
    }

    fn reported(&mut self, report: &Report) {
        match report {
            Report::GatewayStarted { boot, .. } => self.startups.add(*boot),
            Report::GatewayHung(hung) => {
                if let Some(ago) = hung.last_good {
                    self.detections.add(ago);
                }
            }
            Report::GatewayExited(exited) => self.last_cause = Some(exited.cause),
            Report::GatewaySpawned { .. } => {
                let Some(cause) = self.last_cause.take() else { return };
                match self.restarts.iter_mut().find(|(known, _)| *known == cause) {
                    Some((_, count)) => *count = count.saturating_add(1),
                    None => self.restarts.push((cause, 1)),
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conclusion::{Conclusion, IncidentCause};
    use crate::report::{Exited, HungReport};
    use crate::{ExitStatus, ExitUsage, Observation, Owner};
    use std::vec;

    fn probed(ticket: u64, verdict: Verdict) -> Event {
        let sighting =
            Observation { verdict, detail: String::new(), owner: Owner::Unseen, readiness: None, moved: None };
        Event::Probed { ticket, sighting }
    }

    #[test]
    fn probes_that_are_answered_fall_into_buckets_and_others_do_not_count() {
        let mut tally = Tally::default();
        let ask = |ticket| Effect::Probe { ticket, ask: ProbeScope::Liveness(1) };
        let healthy = Verdict::Gateway(crate::Phase::Started);
        for (ticket, ms, verdict) in [(1, 4, healthy), (2, 5, healthy), (3, 6000, healthy), (4, 9, Verdict::Silent)] {
            tally.see(Duration::ZERO, &Event::Tick, &[ask(ticket)]);
            tally.see(Duration::from_millis(1), &probed(99, healthy), &[]);
            tally.see(Duration::from_millis(ms), &probed(ticket, verdict), &[]);
        }
        assert_eq!((tally.probes.count, tally.probes.sum), (3, Duration::from_millis(6009)));
        assert_eq!((tally.probes_within[0], tally.probes_within.iter().sum::<u64>()), (2, 2), "one is over all bounds");
    }

    #[test]
    fn a_restart_counts_by_the_cause_of_the_end_before_it() {
        let mut tally = Tally::default();
        let exited = |cause| {
            let (death, uptime, toll) = (ExitStatus::Code(1), Duration::ZERO, ExitUsage::default());
            Report::GatewayExited(Exited { generation: 1, pid: 1, death, uptime, toll, cause })
        };
        let spawned = || Report::GatewaySpawned { generation: 1, pid: 1, attempt: 1 };
        let boot = Duration::from_secs(3);
        let reports = vec![
            spawned(),
            Report::GatewayStarted { generation: 1, pid: 1, boot },
            exited("crashed"),
            spawned(),
            exited("crashed"),
            spawned(),
            Report::GatewayHung(Box::new(HungReport {
                generation: 3,
                last_good: Some(boot),
                failed_probes: 3,
                why: "",
                limit: boot,
                probes: Vec::new(),
                conclusion: Conclusion { cause: IncidentCause::Idle, text: String::new() },
                evidence: None,
            })),
            exited("something new"),
            spawned(),
            exited("stop requested"),
        ];
        for report in reports {
            tally.see(Duration::ZERO, &Event::Tick, &[Effect::Report(report)]);
        }
        let counted: Vec<_> = tally.restarts.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(counted, [("crashed", 2), ("something new", 1)]);
        let three = Total { count: 1, sum: boot };
        assert_eq!((tally.startups, tally.detections), (three, three));
    }
}
