//! The record of one gateway.

use super::clock::{Clocks, Stamp};
use super::dating::{Dating, Readings, undated};
use crate::core::restart_policy::{Cause, Run};
use crate::core::{ExitStatus, Fact, Generation, LeftRecord, Moment, PastRun, Settled, TreeRecord, Unfinished};

/// A gateway that a supervisor decided to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GenerationRecord {
    pub generation: Generation,
    /// The id in the environment of its tree.
    pub instance: String,
    /// The supervisor that started it, or adopted it last.
    pub owner: String,
    pub command: String,
    /// The boot in which its pid is valid.
    pub boot_id: Option<String>,
    /// The namespace in which it is valid, see `pid_namespaces(7)`.
    pub pid_namespace: Option<u64>,
    pub pid: Option<i32>,
    /// Of its leader, as in [`crate::platform::proc::Stat`].
    pub start_time: Option<u64>,
    /// Its process group.
    pub group: Option<i32>,
    pub tree: TreeRecord,
    /// When its start was decided.
    pub intent: Option<Stamp>,
    /// When it came up.
    pub started: Option<Stamp>,
    /// When it had been serving long enough to count as stable.
    pub stable: Option<Stamp>,
    /// When it was last seen serving; recorded at its end.
    pub healthy_until: Option<Stamp>,
    /// The exit of its leader.
    pub died: Option<(ExitStatus, Stamp)>,
    /// Whether it ended cannot be seen from here: it is settled without that.
    pub is_unseen: bool,
    /// The end of its tree, and whether OpenClaw counts it as a clean exit.
    pub settled: Option<(Settled<bool>, Stamp)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Spawned {
        pid: i32,
        start_time: u64,
    },
    Adopted {
        pid: i32,
        start_time: u64,
    },
    Tree(TreeRecord),
    /// With the time at which the core reported it.
    Fact(Fact, Moment),
}

impl GenerationRecord {
    /// `at`: when it happened.
    pub(super) fn apply(&mut self, change: Change, at: Stamp, clocks: &Clocks, owner: &str) {
        match change {
            Change::Spawned { pid, start_time } => {
                self.set_leader(pid, start_time, clocks);
            }
            Change::Adopted { pid, start_time } => {
                self.set_leader(pid, start_time, clocks);
                owner.clone_into(&mut self.owner);
            }
            Change::Tree(tree) => self.tree = tree,
            Change::Fact(fact, now) => {
                // Boot clocks of different boots cannot be compared.
                let same_boot = self.boot_id.is_none() || self.boot_id == clocks.boot_id;
                let before = (self.started, self.healthy_until.or(self.stable));
                let at = Stamp { boot_ms: at.boot_ms.filter(|_| same_boot), ..at };
                self.apply_fact(fact, |moment| at.before(now.saturating_sub(moment)), at);
                if let (false, Fact::Settled(Settled::Ran(..))) = (same_boot, fact) {
                    // They were recorded in its own boot, and counted back from this one they would be less exact.
                    self.started = before.0.or(self.started);
                    self.healthy_until = before.1.or(self.healthy_until);
                }
            }
        }
    }

    fn set_leader(&mut self, pid: i32, start_time: u64, clocks: &Clocks) {
        self.pid = Some(pid);
        self.start_time = Some(start_time);
        self.group = Some(pid);
        self.boot_id.clone_from(&clocks.boot_id);
    }

    fn apply_fact(&mut self, fact: Fact, stamp_of: impl Fn(Moment) -> Stamp, at: Stamp) {
        match fact {
            Fact::Started => self.started = Some(at),
            Fact::Stable => self.stable = Some(at),
            Fact::Died(death) => self.died = Some((death, at)),
            Fact::Unseen => self.is_unseen = true,
            Fact::Planned => {
                if let Some((Settled::Ran(clean, cause), _)) = &mut self.settled {
                    (*cause, *clean) = (Cause::Asked, true);
                }
            }
            Fact::Settled(Settled::NeverStarted) => {
                // After a failed pre-start hook there is no intent yet.
                self.intent.get_or_insert(at);
                self.settled = Some((Settled::NeverStarted, at));
            }
            Fact::Succeeded(run) => self.apply_fact(Fact::Settled(Settled::Ran(run, Cause::Asked)), stamp_of, at),
            Fact::Settled(Settled::Postponed) => self.settled = Some((Settled::Postponed, at)),
            Fact::Settled(Settled::Ran(run, cause)) => {
                self.started = run.started.map(&stamp_of);
                self.healthy_until = run.started.map(|_| stamp_of(run.healthy_until));
                if !self.is_unseen {
                    let death = self.died.map_or(ExitStatus::Unknown, |(death, _)| death);
                    self.died = Some((death, stamp_of(run.ended)));
                }
                self.settled = Some((Settled::Ran(run.clean, cause), at));
            }
        }
    }

    /// Settles a gateway without a recorded end, after which another one was started.
    pub(super) fn mark_over(&mut self) {
        let last = [self.died.map(|(_, at)| at), self.healthy_until, self.stable, self.started, self.intent];
        let Some(at) = last.into_iter().flatten().next() else { return };
        self.settled = Some((Settled::Ran(false, Cause::Failed), at));
    }

    /// All its stamps.
    pub(super) fn readings(&self) -> Readings<'_> {
        let (died, settled) = (self.died.map(|(_, at)| at), self.settled.map(|(_, at)| at));
        let later = [self.started, self.stable, self.healthy_until, died, settled];
        Readings { boot_id: self.boot_id.as_deref(), first: self.intent, later }
    }

    /// For the core; `None` if it is not settled, or cannot be dated.
    pub(super) fn past_run(&self, dating: Option<&Dating>) -> Option<PastRun> {
        let moment = |stamp| dating?.moment(stamp);
        let spawned = moment(self.intent?)?;
        let settled = match self.settled? {
            (Settled::NeverStarted, _) => Settled::NeverStarted,
            (Settled::Postponed, _) => Settled::Postponed,
            (Settled::Ran(clean, cause), at) => {
                let started = self.started.and_then(moment);
                let served = self.healthy_until.or(self.stable).and_then(moment).or(started);
                let ended = moment(self.died.map_or(at, |(_, at)| at)).or(served).unwrap_or(spawned).max(spawned);
                let run = Run {
                    started: self.started.map(|_| started.unwrap_or(spawned).clamp(spawned, ended)),
                    healthy_until: served.unwrap_or(ended).clamp(spawned, ended),
                    ended,
                    clean,
                };
                Settled::Ran(run, cause)
            }
        };
        Some(PastRun { spawned, settled, death: self.died.map_or(ExitStatus::Unknown, |(death, _)| death) })
    }

    /// For the core, of a gateway that may still be running.
    pub(super) fn left(&self, dating: Option<&Dating>, now: Moment) -> Unfinished {
        // Without a readable stamp it counts as just started, so that nothing is done too early.
        let moment = |stamp| match (self.intent, dating) {
            (Some(intent), Some(dating)) => dating.moment(stamp).or(dating.moment(intent)).unwrap_or(now),
            (Some(intent), None) => undated(now, intent, stamp),
            (None, _) => now,
        };
        Unfinished {
            generation: self.generation,
            spawned: self.intent.map_or(now, moment),
            started: self.started.map(moment),
            healthy_until: self.stable.or(self.started).map(moment),
            died: self.died.map(|(death, at)| (death, moment(at))),
        }
    }

    /// What is needed to find and adopt it.
    pub(super) fn left_record(&self, has_our_pids: bool, is_elsewhere: bool) -> LeftRecord {
        LeftRecord {
            generation: self.generation,
            instance: self.instance.clone(),
            pid: self.pid,
            start_time: self.start_time,
            has_our_pids,
            is_elsewhere,
            command: Some(self.command.clone()).filter(|command| !command.is_empty()),
            tree: self.tree.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::TestClocks;
    use super::*;
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn run(ended: Moment) -> Fact {
        let run = Run { started: Some(s(1010)), healthy_until: s(1050), ended, clean: false };
        Fact::Settled(Settled::Ran(run, Cause::Failed))
    }

    fn record(watch: &TestClocks) -> GenerationRecord {
        let clocks = watch.clocks();
        let boot_id = clocks.boot_id.clone();
        let mut record = GenerationRecord { generation: 4, boot_id, intent: Some(clocks.now()), ..Default::default() };
        record.apply(Change::Spawned { pid: 7, start_time: 8 }, clocks.now(), &clocks, "us");
        record
    }

    fn dating(record: &GenerationRecord, watch: &TestClocks, now: Moment) -> Option<Dating> {
        Dating::of(&[record.readings()], &watch.clocks(), now).remove(0)
    }

    fn past_run(record: &GenerationRecord, watch: &TestClocks, now: Moment) -> Option<PastRun> {
        record.past_run(dating(record, watch, now).as_ref())
    }

    fn left(record: &GenerationRecord, watch: &TestClocks, now: Moment) -> Unfinished {
        record.left(dating(record, watch, now).as_ref(), now)
    }

    #[test]
    fn moments_come_back_as_they_were_whatever_the_wall_clock_did() {
        let watch = TestClocks::new();
        let mut record = record(&watch);
        watch.go(s(60));
        record.apply(
            Change::Fact(Fact::Died(ExitStatus::Code(1)), s(1060)),
            watch.clocks().now(),
            &watch.clocks(),
            "us",
        );
        record.apply(Change::Fact(run(s(1060)), s(1060)), watch.clocks().now(), &watch.clocks(), "us");
        for step in [0, -86_400_000, 86_400_000] {
            watch.step_wall(step);
            watch.go(s(10));
            // The next supervisor's monotonic clock has another origin: 5000 is its now.
            let past = past_run(&record, &watch, s(5000)).unwrap();
            let since = |moment: Moment| s(5000).saturating_sub(moment);
            let Settled::Ran(run, Cause::Failed) = past.settled else { panic!("{past:?}") };
            assert_eq!(since(run.ended), watch.after(s(60)));
            assert_eq!(since(run.started.unwrap()), watch.after(s(10)));
            assert_eq!(since(run.healthy_until), watch.after(s(50)));
            assert_eq!(since(past.spawned), watch.after(s(0)));
        }
    }

    #[test]
    fn a_start_that_its_hook_prevented_is_recorded_without_an_intent() {
        let watch = TestClocks::new();
        let mut record = GenerationRecord { generation: 4, ..Default::default() };
        let never_started = Change::Fact(Fact::Settled(Settled::NeverStarted), s(1000));
        record.apply(never_started, watch.clocks().now(), &watch.clocks(), "us");
        watch.go(s(60));
        let past = past_run(&record, &watch, s(1060)).unwrap();
        assert_eq!((past.spawned, past.settled), (s(1000), Settled::NeverStarted));
    }

    #[test]
    fn after_a_reboot_the_wall_clock_counts_and_what_it_puts_into_the_future_is_in_no_window() {
        let watch = TestClocks::new();
        let mut record = record(&watch);
        let now = Moment::from_hours(10_000);
        record.apply(Change::Fact(Fact::Started, now), watch.clocks().now(), &watch.clocks(), "us");
        watch.reboot();
        watch.go(s(100));
        let seen = left(&record, &watch, now);
        let at = now.saturating_sub(s(100));
        assert_eq!((seen.spawned, seen.started, seen.died), (at, Some(at), None));
        watch.step_wall(-200_000);
        assert!(left(&record, &watch, now).spawned < now.saturating_sub(Moment::from_hours(7 * 24)));
        // Later stamps are not mixed up with the earlier boot clock, and leave what was recorded in it.
        let started = record.started;
        record.apply(Change::Fact(run(now), now), watch.clocks().now(), &watch.clocks(), "us");
        assert_eq!((record.started, record.died.unwrap().1.boot_ms), (started, None));
        assert_eq!(past_run(&record, &watch, now), None, "a crash in the future counts as no crash of now");
        watch.step_wall(200_000);
        watch.go(s(50));
        assert_eq!(past_run(&record, &watch, now).unwrap().spawned, now.saturating_sub(s(150)));
    }

    #[test]
    fn no_run_ends_before_it_began_whatever_the_stamps() {
        let watch = TestClocks::new();
        let mut record = record(&watch);
        let stamp = |wall_ms| Some(Stamp { wall_ms, boot_ms: None });
        record.started = stamp(i64::MAX);
        record.healthy_until = stamp(i64::MIN);
        record.died = Some((ExitStatus::Unknown, Stamp { wall_ms: i64::MIN, boot_ms: None }));
        record.mark_over();
        let past = past_run(&record, &watch, s(9)).unwrap();
        let Settled::Ran(run, _) = past.settled else { panic!("{past:?}") };
        assert!(past.spawned <= run.started.unwrap() && run.started.unwrap() <= run.ended, "{run:?}");
        assert!(past.spawned <= run.healthy_until && run.healthy_until <= run.ended, "{run:?}");
    }

    #[test]
    fn a_record_without_a_stamp_is_no_past_run_and_counts_as_just_started() {
        let watch = TestClocks::new();
        let mut record = GenerationRecord { generation: 4, ..Default::default() };
        record.mark_over();
        assert_eq!(past_run(&record, &watch, s(9)), None);
        assert_eq!(left(&record, &watch, s(9)).spawned, s(9));
    }

    #[test]
    fn an_adopted_gateway_gets_another_owner_and_keeps_its_history() {
        let watch = TestClocks::new();
        let mut record = record(&watch);
        let before = record.clone();
        record.apply(Change::Adopted { pid: 7, start_time: 8 }, watch.clocks().now(), &watch.clocks(), "them");
        let tree = TreeRecord { members: vec![(7, 8), (9, 10)], uid: Some(5), ..TreeRecord::default() };
        record.apply(Change::Tree(tree.clone()), watch.clocks().now(), &watch.clocks(), "them");
        assert_eq!(record, GenerationRecord { owner: "them".to_owned(), tree, ..before });
    }
}
