//! What keeps a gateway from answering, as far as the kernel shows it.
//!
//! Three things look like a hang and are none: its event loop works, it could work and gets no processor, or it sits in a
//! write(2) to its own output that nothing reads. Each is decided here, from samples of one window.

use super::fault::Fault;
use super::usage::{BlockedWrite, Depth, Usage};
use super::{Moment, Policy};
use crate::prelude::*;
use crate::units::human;
use core::fmt;
use core::time::Duration;

/// The part of the time that an event loop must have had a processor to count as at work: one in so many. A frozen one
/// uses none, an idle one (2026.9.6 with its channels) less than 1 %; a blocked one all that others leave it.
const WORKING_PART: u32 = 20;

/// The part of the time that it must have waited for a processor to count as starved: one in so many. A thread that
/// sleeps does not wait, so a frozen or deadlocked one waits for nothing.
const WAITING_PART: u32 = 2;

/// The part of the time that it may have had a processor all the same: less than one in so many. With more it would
/// have answered if it could; a loop that runs in circles on a crowded machine, or at its own CPU limit, waits as well.
const STARVED_PART: u32 = 10;

/// How many windows a starved gateway gets. By then one with nearly a tenth of a processor has had the CPU time of a
/// whole window. It cannot be without end: where it has less than a tenth, running in circles looks the same.
pub const STARVED_MAX: u32 = STARVED_PART;

/// One that gets a processor at least so often goes from write to write: a slow reader lets it, so it prints without end or
/// has much to print. It gets [`STARVED_MAX`] windows as well.
const WRITE_TIME_MAX: Duration = Duration::from_secs(1);

/// How long after a blocked write was reported it is reported again.
pub const RETOLD: Duration = Duration::from_hours(1);

/// Why a gateway that does not answer is not taken for hung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stall {
    /// It sits in a write(2) to its output. To kill it cannot help: the next one would write there too. If its writes go
    /// on, a kill may help, so that does not hold without end.
    Blocked(BlockedWrite),
    /// It could run and gets no processor.
    Starved {
        /// How long it waited for one in this window, where the kernel counts that.
        waited: Option<Duration>,
        /// How long its control groups were throttled meanwhile, added up over the processors.
        throttled: Option<Duration>,
        /// How many more windows it can get.
        left: u32,
    },
    /// It works: how much CPU time its event loop used in this window.
    Busy(Duration),
}

/// The samples of one window, and what they showed in those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StallWatch {
    /// The first and the last sample of the window.
    window: Option<Box<[(Moment, Usage); 2]>>,
    /// How many windows it got because it was starved.
    starved: u32,
    /// How many windows it got because it was found in a write, though its writes go on.
    writing: u32,
    /// The write that it sits in.
    blocked: Option<BlockedWrite>,
    /// When that was last reported.
    told: Option<Moment>,
}

impl StallWatch {
    /// Takes in a sample. `anew`: it begins the window.
    pub fn measure(&mut self, now: Moment, sample: Usage, anew: bool) {
        // Not every sample looks for the reader.
        match (&self.blocked, &sample.blocked) {
            (None, _) => {}
            (Some(known), Some(BlockedWrite { file, reader: None, .. })) if *file == known.file => {}
            (Some(_), found) => self.blocked.clone_from(found),
        }
        let last = (now, sample);
        let is_deep = |usage: &Usage| usage.waited.is_some() || usage.pressure.is_some();
        let window = match self.window.take().map(|window| *window) {
            // The first one may not have looked as far as is needed to compare.
            Some([first, _]) if !anew && (is_deep(&first.1) || !is_deep(&last.1)) => Some([first, last]),
            Some(_) | None => Some([last.clone(), last]),
        };
        self.window = window.map(Box::new);
    }

    /// Drops samples that are older than the window.
    pub fn begin(&mut self, since: Moment) {
        self.window = self.window.take().filter(|window| window[1].0 >= since);
        if let Some([first, last]) = self.window.as_deref_mut()
            && first.0 < since
        {
            first.clone_from(last);
        }
    }

    /// It answers: what kept it from that is over.
    pub fn clear(&mut self) {
        (self.starved, self.writing, self.blocked, self.told) = (0, 0, None, None);
    }

    /// Whether there is anything to compare with.
    #[must_use]
    pub fn has_samples(&self) -> bool {
        self.window.is_some()
    }

    /// Whether it was found blocked and still is.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether its writes return, to be followed by others: one that stays in one write gets no processor meanwhile.
    #[must_use]
    pub fn writes_on(&self) -> bool {
        let Some([(began, first), (at, last)]) = self.window.as_deref() else { return false };
        let turns = last.turns.zip(first.turns).map_or(0, |(last, first)| last.saturating_sub(first));
        turns > 0
            && WRITE_TIME_MAX.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX)) >= at.saturating_sub(*began)
    }

    /// How much a sample has to look at, so that what is found can be reported.
    #[must_use]
    pub fn depth(&self, now: Moment) -> Depth {
        if self.is_due(now) { Depth::Reader } else { Depth::Stall }
    }

    fn is_due(&self, now: Moment) -> bool {
        self.told.is_none_or(|told| told.saturating_add(RETOLD) <= now)
    }

    /// The write that it still sits in, if that is to be reported now. It counts as reported.
    pub fn retell(&mut self, now: Moment) -> Option<BlockedWrite> {
        let blocked = self.blocked.clone().filter(|_| self.is_due(now))?;
        self.told = Some(now);
        Some(blocked)
    }

    /// What keeps it from answering at the end of a window; `None` if nothing is known to. `may_work`: work counts.
    pub fn judge(&mut self, may_work: bool, policy: &Policy) -> Option<Stall> {
        let [(began, first), (at, last)] = *self.window.clone()?;
        let wall = at.saturating_sub(began);
        if let Some(blocked) = last.blocked.clone().filter(|_| !policy.planted.is(Fault::BlockedWriteKilled)) {
            let writes_on = self.writes_on();
            if !writes_on || self.writing < STARVED_MAX || policy.planted.is(Fault::PrintsForEver) {
                self.writing = self.writing.saturating_add(u32::from(writes_on));
                self.blocked = Some(blocked.clone());
                return Some(Stall::Blocked(blocked));
            }
        }
        let used = |of: fn(&Usage) -> Option<Duration>| Some(of(&last)?.saturating_sub(of(&first)?));
        let cpu = used(|usage| usage.cpu).unwrap_or_default();
        let has_little = cpu.saturating_mul(STARVED_PART) < wall;
        if may_work && !wall.is_zero() && cpu.saturating_mul(WORKING_PART) >= wall {
            return Some(Stall::Busy(cpu));
        }
        let (waited, throttled) = (used(|usage| usage.waited), used(|usage| usage.throttled));
        let is_most = |time: Duration| !wall.is_zero() && time.saturating_mul(WAITING_PART) >= wall;
        let is_starved = match waited {
            Some(waited) => is_most(waited),
            // A kernel that does not count this for a thread tells it of groups and machines: then the thread must be
            // seen waiting.
            None => last.runnable && [throttled, used(|usage| usage.pressure)].into_iter().flatten().any(is_most),
        };
        let is_spent = self.starved >= STARVED_MAX && !policy.planted.is(Fault::StarvedForEver);
        if !is_starved || !has_little || is_spent || policy.planted.is(Fault::StarvedKilled) {
            return None;
        }
        self.starved = self.starved.saturating_add(1);
        Some(Stall::Starved { waited, throttled, left: STARVED_MAX.saturating_sub(self.starved) })
    }

    /// What keeps it from answering, as a predicate.
    #[must_use]
    pub fn condition(&self) -> Option<String> {
        if let Some(blocked) = &self.blocked {
            return Some(format!("is alive but blocked: {blocked}"));
        }
        (self.starved > 0).then(|| "does not answer: it gets no processor".to_owned())
    }
}

impl Stall {
    /// The word of the event log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Blocked(_) => "blocked",
            Self::Starved { .. } => "starved",
            Self::Busy(_) => "busy",
        }
    }

    pub(crate) fn cpu(&self) -> Option<Duration> {
        match self {
            Self::Busy(cpu) => Some(*cpu),
            Self::Blocked(_) | Self::Starved { .. } => None,
        }
    }

    pub(crate) fn waited(&self) -> Option<Duration> {
        match self {
            Self::Starved { waited, .. } => *waited,
            Self::Blocked(_) | Self::Busy(_) => None,
        }
    }

    pub(crate) fn throttled(&self) -> Option<Duration> {
        match self {
            Self::Starved { throttled, .. } => *throttled,
            Self::Blocked(_) | Self::Busy(_) => None,
        }
    }

    pub(crate) fn left(&self) -> Option<u32> {
        match self {
            Self::Starved { left, .. } => Some(*left),
            Self::Blocked(_) | Self::Busy(_) => None,
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked(blocked) => blocked.fmt(f),
            Self::Busy(cpu) => {
                write!(f, "its event loop used {} of CPU meanwhile: busy, not hung, which counts once", human(*cpu))
            }
            Self::Starved { waited, throttled, left } => {
                f.write_str("it gets no processor")?;
                if let Some(waited) = waited {
                    write!(f, ", for which it waited {}", human(*waited))?;
                }
                if let Some(throttled) = throttled.filter(|throttled| !throttled.is_zero()) {
                    let throttled = human(throttled);
                    write!(f, "; the CPU limit of its control group throttled it for {throttled}: raise that limit")?;
                }
                write!(f, "; {left} more times")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// Two samples a minute apart, of which the later one has so much more of each.
    fn judged(cpu: u64, waited: Option<u64>, pressure: Option<u64>, runnable: bool) -> Option<Stall> {
        let mut watch = StallWatch::default();
        for (second, part) in [(0, 0), (60, 1)] {
            let seconds = |amount: u64| at(1000 + amount * part);
            let (cpu, waited, pressure) = (Some(seconds(cpu)), waited.map(seconds), pressure.map(seconds));
            watch.measure(at(second), Usage { cpu, waited, pressure, runnable, ..Usage::default() }, false);
        }
        watch.judge(true, &Policy::default())
    }

    #[test]
    fn work_comes_before_waiting_and_waiting_is_half_of_the_time() {
        let starved = |waited: Option<u64>| {
            Some(Stall::Starved { waited: waited.map(at), throttled: None, left: STARVED_MAX - 1 })
        };
        for (cpu, waited, pressure, runnable, expected) in [
            (3, Some(57), None, true, Some(Stall::Busy(at(3)))),
            (2, Some(30), None, false, starved(Some(30))),
            (2, Some(29), None, true, None),
            (0, Some(0), Some(60), true, None),
            (0, None, Some(30), true, starved(None)),
            (2, Some(58), None, true, starved(Some(58))),
            (0, None, Some(60), false, None),
            (0, None, None, true, None),
        ] {
            let case = format!("{cpu} {waited:?} {pressure:?} {runnable}");
            assert_eq!(judged(cpu, waited, pressure, runnable), expected, "{case}");
        }
    }

    #[test]
    fn a_sample_that_tells_less_is_no_beginning() {
        let mut watch = StallWatch::default();
        watch.measure(at(0), Usage { cpu: Some(at(1)), ..Usage::default() }, false);
        for second in [10, 60] {
            watch.measure(at(second), Usage { waited: Some(at(second)), ..Usage::default() }, false);
        }
        assert!(matches!(watch.judge(true, &Policy::default()), Some(Stall::Starved { .. })));
    }

    #[test]
    fn what_the_thread_sits_in_at_the_end_decides() {
        let blocked = BlockedWrite { stream: "stdout".into(), file: "pipe:[7]".into(), reader: None };
        let mut watch = StallWatch::default();
        let usage = Usage { cpu: Some(at(0)), blocked: Some(blocked.clone()), ..Usage::default() };
        watch.measure(at(0), usage.clone(), false);
        assert_eq!(watch.judge(true, &Policy::default()), Some(Stall::Blocked(blocked.clone())));
        assert_eq!((watch.retell(at(0)), watch.retell(at(3599))), (Some(blocked.clone()), None));
        assert_eq!(watch.retell(at(3600)), Some(blocked));
        watch.measure(at(3601), Usage::default(), false);
        assert_eq!((watch.judge(true, &Policy::default()), watch.is_blocked()), (None, false));
    }
}
