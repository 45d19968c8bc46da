//! Failures that a restart does not mend: the same fast death again and again, and a program that is being replaced.

use super::{Effect, Effects, Generation, Intent, Moment, Report, Supervisor, exit};
use crate::core::event::{Death, Fingerprint};
use crate::core::fault::Fault;
use crate::core::past::{Fact, PastRun, Settled};
use crate::core::restart_policy::{Cause, Run};
use std::time::Duration;

/// Signals by which a program ends itself, or the kernel a program that is broken: ILL, TRAP, ABRT, BUS, SEGV, SYS.
#[cfg(not(target_os = "macos"))]
const FATAL: [i32; 6] = [4, 5, 6, 7, 11, 31];
#[cfg(target_os = "macos")]
const FATAL: [i32; 6] = [4, 5, 6, 10, 11, 12];

/// A death within this time after the spawn is fast.
const FAST: Duration = Duration::from_secs(30);

/// So many equal ones in a row, with the same configuration and program, are no accident: a refused migration ended in a
/// tight loop of signal 11 (openclaw #109831).
const EQUAL_MAX: u32 = 3;

/// The first pause of a start that waits for an update, doubled up to the last.
const UPDATE_PAUSE_MIN: Duration = Duration::from_secs(1);
const UPDATE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long an update may take: npm needs 43 s on two cores. A program that is not back then counts as broken.
const UPDATE_TIME_MAX: Duration = Duration::from_mins(10);

/// How far OpenClaw's own repair has come since a gateway last came up. It is tried once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    Untried,
    /// The next start will show what of the configuration it has changed.
    Fresh,
    Tried,
}

/// Equal fast deaths in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streak {
    signal: i32,
    count: u32,
    /// A supervisor before us saw the first ones: nobody knows with which configuration and program.
    recalled: bool,
}

/// A start that waits for an update of the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    since: Moment,
    tries: u32,
}

impl Supervisor {
    /// Takes in what happened before us, oldest first: the same rules give the same state.
    pub(super) fn recall(&mut self, runs: &[PastRun]) {
        for past in runs {
            self.restarts.recall(std::slice::from_ref(past), &self.policy);
            let Settled::Ran(run, cause) = past.settled else { continue };
            // What was asked for says nothing of the next one.
            if cause == Cause::Asked || self.has(Fault::StreakForgotten) {
                continue;
            }
            if self.is_deterministic(past.death, run.ended.saturating_sub(past.spawned)) {
                self.restarts.doom(run.ended);
            }
        }
        if let Some(streak) = &mut self.streak {
            streak.recalled = true;
        }
    }

    /// Whether this death is one too many of its kind.
    pub(super) fn is_deterministic(&mut self, death: Death, age: Duration) -> bool {
        let Death::Signal { number, .. } = death else {
            self.streak = None;
            return false;
        };
        if !FATAL.contains(&number) || age >= FAST {
            self.streak = None;
            return false;
        }
        let before = self.streak.filter(|streak| streak.signal == number);
        let count = before.map_or(1, |streak| streak.count + 1);
        let recalled = before.is_some_and(|streak| streak.recalled);
        self.streak = Some(Streak { signal: number, count, recalled });
        count >= EQUAL_MAX && !self.has(Fault::FatalSignalRetried)
    }

    /// The configuration and the program's files, as they were when this process was started.
    pub(super) fn take_fingerprint(&mut self, fingerprint: Fingerprint) {
        let before = self.fingerprint.replace(fingerprint).unwrap_or(fingerprint);
        let repaired = self.repair == Repair::Fresh && !self.has(Fault::RepairRearmed);
        if repaired {
            self.repair = Repair::Tried;
        }
        if before.program != fingerprint.program {
            self.restarts.renew();
        }
        if before != fingerprint {
            self.streak = None;
            // A configuration that it refuses may be all that kept the command line from answering.
            if before.program != fingerprint.program || self.handoffs.support() == Some(false) {
                self.handoffs.renew();
            }
        }
        // A repair writes into the configuration: what it has changed is no news for which it is tried again.
        if before.program != fingerprint.program || before.config != fingerprint.config && !repaired {
            self.repair = Repair::Untried;
        }
        // A gateway may write into its configuration at each boot: that must not keep it from backing off.
        if before.config != fingerprint.config && self.has(Fault::ConfigEndsBackoff) {
            self.restarts.renew();
        }
    }

    /// Gives up early.
    pub(super) fn give_up_on(&mut self, now: Moment, run: Run, told: &str, fx: &mut Effects) {
        self.remember_settled(run, Cause::Failed, fx);
        let restarts = self.restarts.spent_at(now, &self.policy);
        self.restarts.after_run(now, run, Cause::Failed, &self.policy);
        self.restarts.doom(now);
        let (count, alike) = match self.streak {
            Some(Streak { count, recalled: true, .. }) => (count, "the first of them before this supervisor began"),
            Some(Streak { count, .. }) => (count, "with the same configuration and the same program"),
            None => (EQUAL_MAX, "with the same configuration and the same program"),
        };
        let why = format!(
            "gave up: {count} gateways in a row {told}, {alike}, so another would as well; its own messages {}; run \
             'openclaw doctor', or mend the installation, then start again",
            self.policy.messages
        );
        let window = self.policy.restart_window;
        fx.push(Effect::Report(Report::RestartGaveUp { restarts, window, why: why.clone() }));
        self.exit(exit::GAVE_UP, why, fx);
    }

    /// Waits for the end of an update. The start of this gateway, which did not come about, costs nothing. Says no when
    /// that has lasted for too long.
    pub(super) fn wait_for_update(&mut self, now: Moment, generation: Generation, why: &str, fx: &mut Effects) -> bool {
        let update = self.update.unwrap_or(Update { since: now, tries: 0 });
        if update.since.saturating_add(UPDATE_TIME_MAX) <= now || self.has(Fault::UpdateCounted) {
            return false;
        }
        let pause = UPDATE_PAUSE_MIN.saturating_mul(1 << update.tries.min(5)).min(UPDATE_PAUSE_MAX);
        self.update = Some(Update { tries: update.tries + 1, ..update });
        fx.push(Effect::Report(Report::SpawnFailed { generation, why: why.to_owned() }));
        // Before the hook nothing was written down, and the number is free.
        if generation == self.generation {
            fx.push(Effect::Remember { generation, fact: Fact::Settled(Settled::Postponed) });
        }
        self.intent = Intent::Run;
        let why = "an update of OpenClaw seems to be under way, which is waited for and costs no budget";
        self.start_at(now, now.saturating_add(pause), why, fx);
        true
    }
}
