//! What the gateway uses of the machine, and whether that is too much.

use super::stopping::Why;
use super::{Effect, Effects, Moment, Report, Sample, State, Supervisor};
use crate::core::fault::Fault;

/// How many samples in a row must be over `--memory-max`: a peak is no leak.
const SAMPLES_OVER: u32 = 3;

impl Supervisor {
    /// Has a sample taken beside a probe.
    pub(super) fn measure(&self, fx: &mut Effects) {
        let tree = self.policy.memory_max_kb.is_some() && matches!(self.state, State::Running { .. });
        fx.push(Effect::Measure { generation: self.generation, tree });
    }

    pub(super) fn on_measured(&mut self, now: Moment, sample: Sample, fx: &mut Effects) {
        if self.holds().is_none() {
            return;
        }
        self.trail.measure(now, sample);
        let limit = self.policy.memory_max_kb;
        let needed = if self.has(Fault::MemoryPeakIsLeak) { 1 } else { SAMPLES_OVER };
        let State::Running { child, started, liveness, excess, .. } = &mut self.state else { return };
        if let Some(cpu) = sample.cpu {
            liveness.measure(now, cpu);
        }
        // A sample that could not be taken says nothing.
        let (Some(limit_kb), Some(tree_rss_kb)) = (limit, sample.tree_rss_kb) else { return };
        // One that ends or restarts of its own accord is about to give memory back; what it keeps shows once it serves.
        *excess = if tree_rss_kb > limit_kb && liveness.is_serving() { *excess + 1 } else { 0 };
        if *excess < needed {
            return;
        }
        let (child, up, generation) = (*child, Some((*started, liveness.clone())), self.generation);
        fx.push(Effect::Report(Report::MemoryExceeded { generation, tree_rss_kb, limit_kb }));
        self.memory_restarts = self.memory_restarts.saturating_add(1);
        self.tell_reloading(fx);
        self.terminate(now, child, up, Why::Excess, self.policy.stop_timeout, fx);
    }
}
