//! The shell of the simulated world: it carries effects out and brings back what came of them.

use super::{Bound, Happening, STRANGER, Sup, World};
use crate::fake_shell::{Answer, Broken, World as Outside, after, must, never};
use crate::gateway::{Fate, Life, Manner, Show, Temper};
use crate::judge::{KILL_MAX, SPAWN_MAX};
use crate::trial::Input;
use openclaw_supervise_core::handoff::{ANSWER_MAX, HandoffVerdict, Support};
use openclaw_supervise_core::{
    Call, Effect, Event, ExitStatus, Fact, Fingerprint, Generation, Holder, HookEnd, Layer, LeaseAnswer, LeaseRequest,
    Moment, Observation, Outcome, Owner, ProbeScope, Readiness, Remains, Report, Request, SpawnFailure, TreeEnd, Usage,
    Verdict,
};
use std::time::Duration;

fn before_spawn(ask: ProbeScope) -> bool {
    ask == ProbeScope::Port
}

/// So long a gateway's own note of its planned restart holds.
const ROW_LIFE: Duration = Duration::from_mins(1);

const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };

impl World<'_> {
    /// One step of a core, and everything that it asks for, unless it is killed on the way.
    pub(super) fn send(&mut self, sup: usize, event: Event) -> Result<(), Broken> {
        self.acting = sup;
        self.steps += 1;
        let Sup { shell, trial, .. } = &mut self.sups[sup];
        shell.note(&event);
        let first = trial.take(self.now, Input::Event(event))?;
        let effects = std::mem::take(&mut trial.effects);
        let mut end = Ok(());
        for (number, (_, effect)) in effects.iter().enumerate().skip(first) {
            if self.is_doomed() {
                self.store.lose_effects(&effects[number..]);
                end = self.kill_supervisor(sup);
                break;
            }
            end = self.perform(sup, effect);
            if end.is_err() {
                break;
            }
        }
        self.sups[sup].trial.effects = effects;
        end
    }

    fn perform(&mut self, sup: usize, effect: &Effect) -> Result<(), Broken> {
        let mut shell = std::mem::take(&mut self.sups[sup].shell);
        let answer = shell.perform(effect, self);
        self.sups[sup].shell = shell;
        if let Some((delay, event)) = answer? {
            self.later(delay, Happening::Deliver(sup, event));
        }
        Ok(())
    }

    /// Somebody asks for something at the worst time.
    pub(super) fn tempt_operator(&mut self) {
        if self.calm || !self.dice.once_in(self.trouble / 2) {
            return;
        }
        for _ in 0..=self.dice.below(3) {
            let requests =
                [Request::Restart, Request::Restart, Request::Retry, Request::Stop, Request::Stop, Request::Detach];
            let (when, request) = (self.dice.ms(0, 3000), self.dice.pick(&requests));
            self.later(when, Happening::Operator(request));
        }
    }

    /// Who is there, and whose it is.
    fn face(&self, sup: usize, ask: ProbeScope) -> (Verdict, Owner) {
        let before_spawn = before_spawn(ask);
        let ours = |id: usize| {
            let life = &self.lives[id];
            let left_by = life.origin.map_or(life, |origin| &self.lives[origin]);
            let asked = matches!(ask, ProbeScope::Listener(generation) if generation == left_by.generation);
            let holder = Holder { pid: life.listener(), command: "openclaw-gateway".to_owned(), uid: None };
            if before_spawn || asked && left_by.held == Some(sup) { Owner::Ours(holder) } else { Owner::Other(holder) }
        };
        match self.bound {
            // A gateway that does not listen has its lock all the same.
            None => match self.lives.iter().position(|life| life.leader).filter(|_| before_spawn) {
                Some(id) => (Verdict::Booting, ours(id)),
                None => (Verdict::Free, Owner::Unseen),
            },
            Some(Bound::Stranger(Verdict::Booting)) if !before_spawn => (Verdict::Free, Owner::Unseen),
            Some(Bound::Stranger(verdict)) => {
                (verdict, Owner::Other(Holder { pid: STRANGER, command: "node other.mjs".to_owned(), uid: None }))
            }
            Some(Bound::Gateway(id)) => (self.lives[id].verdict(), ours(id)),
        }
    }

    /// What a probe sees. A silent listener keeps it busy for the whole of its timeout.
    pub(super) fn look(&mut self, sup: usize, ticket: u64, ask: ProbeScope) {
        let (mut verdict, mut owner) = self.face(sup, ask);
        if !self.calm && self.dice.once_in(self.trouble) {
            verdict = Verdict::Inconclusive;
        }
        if self.hidden
            || matches!(ask, ProbeScope::Liveness(_))
            || matches!(verdict, Verdict::Free | Verdict::Inconclusive)
        {
            owner = Owner::Unseen;
        }
        let timeout = u64::try_from(self.policy.probe_timeout.as_millis()).unwrap_or(0);
        let delay = if verdict == Verdict::Silent {
            Duration::from_millis(timeout)
        } else if !self.calm && self.dice.once_in(self.trouble) {
            // So late that it may have been asked for again.
            self.dice.ms(timeout, timeout + 8000)
        } else if self.dice.once_in(10) {
            self.dice.ms(0, timeout)
        } else {
            self.dice.ms(0, 20)
        };
        let asked = matches!(verdict, Verdict::Gateway(_)) && !before_spawn(ask) && self.dice.once_in(2);
        let readiness = asked.then(|| Readiness { ready: !self.dice.once_in(3), detail: String::new() });
        let sighting = Observation { verdict, owner, detail: String::new(), readiness };
        self.later(delay, Happening::Deliver(sup, Event::Probed { ticket, sighting }));
    }

    /// A process is created. It exists before anybody has written down its number.
    pub(super) fn fork(&mut self, sup: usize, generation: Generation) -> Result<(), Broken> {
        self.acting = sup;
        if self.is_doomed() {
            return self.kill_supervisor(sup);
        }
        if self.store.lease.owner != Some(sup) {
            return Ok(());
        }
        let most = u64::try_from(SPAWN_MAX.as_millis()).unwrap_or(0) / 2;
        let delay = if self.dice.once_in(4) { self.dice.ms(0, most) } else { Duration::ZERO };
        if !self.calm && self.dice.once_in(self.trouble.min(1000)) {
            let failure = match self.dice.below(4) {
                0 => SpawnFailure::Program("cannot execute openclaw".to_owned()),
                1 => SpawnFailure::Updating("package.json is missing".to_owned()),
                _ => SpawnFailure::Resources("out of processes".to_owned()),
            };
            self.later(delay, Happening::Deliver(sup, Event::SpawnFailed { generation, failure }));
            return Ok(());
        }
        let beside = self.lives.iter().any(|life| life.alive() > 0 && !life.excused);
        must(!beside || self.store.lost, "P1", "a gateway is started beside a living one of ours")?;
        must(!self.hook_runs() || self.store.lost, "P1", "a gateway is started beside a hook")?;
        let id = self.bear(sup, generation, delay);
        if let Some(row) = self.store.rows.get_mut(&generation) {
            row.life = Some(id);
        }
        self.tell_alive(id)?;
        if self.is_doomed() {
            return self.kill_supervisor(sup);
        }
        let pid = self.lives[id].pid;
        if !self.calm && self.dice.once_in(8) {
            let Fingerprint { config, program } = &mut self.fingerprint;
            *(if self.dice.once_in(3) { program } else { config }) += 1;
        }
        let fingerprint = self.fingerprint;
        if let Some(row) = self.store.rows.get_mut(&generation) {
            row.pid = Some(pid);
        }
        self.later(delay, Happening::Deliver(sup, Event::Spawned { generation, pid, fingerprint }));
        Ok(())
    }

    /// The start of a gateway is written down.
    pub(super) fn write_record(&mut self, sup: usize, generation: Generation, at: Moment) -> Result<(), Broken> {
        if self.store.lease.owner != Some(sup) {
            return Ok(());
        }
        self.store.intend_once(generation, at)?;
        self.deliver(sup, Event::Recorded { generation })
    }

    /// The store finds the lease to be ours, and has its counter go on.
    pub(super) fn confirm_lease(&mut self, sup: usize, ticket: u64) {
        if self.store.lease.owner == Some(sup) {
            self.store.lease.take(self.now);
            let most = if self.dice.once_in(8) { 12_000 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, Happening::Deliver(sup, Event::Confirmed { ticket }));
        }
    }

    fn bear(&mut self, sup: usize, generation: Generation, delay: Duration) -> usize {
        let mut temper = if self.calm || self.trouble > 1000 && self.dice.once_in(2) {
            Temper::mild(&mut self.dice, &self.policy)
        } else {
            Temper::any(&mut self.dice, &self.policy)
        };
        if let Some(habit) = self.habit.filter(|_| !self.calm && !self.dice.once_in(4)) {
            temper.fate = habit.fate(&mut self.dice);
        }
        let id = self.lives.len();
        if temper.opens < temper.boots {
            self.later(temper.opens, Happening::Shows(id, Show::Warming));
        }
        self.later(temper.boots, Happening::Shows(id, Show::Serving));
        self.schedule_fate(id, temper.fate);
        // Few numbers, so that they come again: a signal to a number is not a signal to a process.
        let pid = 100 + i32::try_from(generation % 3).unwrap_or(0);
        self.lives.push(Life { known: self.now + delay, ..Life::new(sup, generation, pid, self.now, temper) });
        id
    }

    pub(super) fn schedule_fate(&mut self, id: usize, fate: Fate) {
        match fate {
            Fate::Lives => {}
            Fate::Dies(age, _) | Fate::Turns(age, ..) | Fate::RestartsInPlace(age) | Fate::Succeeds(age) => {
                self.later(age, Happening::Fated(id));
            }
        }
    }

    fn ask_to_end(&mut self, id: usize) {
        self.tempt_operator();
        let life = &mut self.lives[id];
        if !life.leader || life.show == Show::Frozen && life.temper.deaf {
            return;
        }
        let manner = life.temper.manner;
        life.termed = manner != Manner::Ignores;
        match manner {
            Manner::Ignores => {}
            Manner::Drains(time, death) => {
                self.show(id, Show::Draining);
                self.later(time, Happening::Dies(id, death));
            }
            Manner::DrainsAndFreezes => {
                self.show(id, Show::Draining);
                let when = self.dice.ms(0, 10_000);
                self.later(when, Happening::Shows(id, Show::Frozen));
            }
            Manner::Closes(time, death) => {
                self.show(id, Show::Closed);
                self.later(time, Happening::Dies(id, death));
            }
        }
    }

    /// SIGKILL to all of a tree. Whoever sleeps uninterruptibly dies when it wakes.
    fn kill(&mut self, sup: usize, id: usize) -> (Duration, TreeEnd) {
        self.tempt_operator();
        let (first, rest) = (self.dice.ms(0, 10), self.dice.ms(0, 50));
        let life = &mut self.lives[id];
        let members = life.alive();
        let (leader, generation) = (life.leader, life.generation);
        let stuck = life.temper.stuck.take();
        let (stuck_leader, slept) = stuck.unwrap_or_default();
        let leader_dies = if stuck_leader { slept } else { first };
        let rest_dies = if stuck_leader { rest } else { slept.max(rest) };
        let ends = if leader { leader_dies.max(rest_dies) } else { rest_dies };
        let stays = ends > KILL_MAX;
        if leader {
            self.later(leader_dies, Happening::Dies(id, KILLED));
        }
        if let Some(heir) = self.lives.iter().position(|life| life.origin == Some(id)) {
            self.later(rest, Happening::Dies(heir, KILLED));
        }
        self.later(rest_dies, Happening::Clears(id));
        let elapsed = ends.min(KILL_MAX);
        let survivors = u32::from(stays);
        let commands = (0..survivors).map(|_| "120 stuck".to_owned()).collect();
        let end = TreeEnd { members, escaped: 0, survivors, elapsed, commands, ..TreeEnd::default() };
        // Its own news, which may come before that of the leader's death.
        if self.dice.once_in(16) {
            // One that had left the tree long ago and was found by its mark.
            let (found_by, when) = (vec![(Layer::Instance, 1)], self.dice.ms(0, 20_000));
            let end = TreeEnd { members: 1, escaped: 1, found_by, ..TreeEnd::default() };
            self.later(when, Happening::Deliver(sup, Event::StraysKilled { generation, end }));
        }
        (elapsed + Duration::from_millis(1), end)
    }
}

impl Outside for World<'_> {
    /// Whoever was robbed has not heard of it yet: the shell looks at the lease first, and does nothing.
    fn admits(&mut self, effect: &Effect) -> Result<bool, Broken> {
        let sup = self.acting;
        let act = matches!(
            effect,
            Effect::Adopt { .. }
                | Effect::Remember { .. }
                | Effect::Spawn { .. }
                | Effect::Terminate { .. }
                | Effect::KillTree { .. }
        );
        let report = matches!(effect, Effect::Report(_));
        // The hook is ours whoever has the lease; whether it may begin is looked at when it does.
        let hook = matches!(effect, Effect::Hook { .. });
        if self.store.lease.owner == Some(sup) || !(act || report || hook) {
            return Ok(true);
        }
        let undoable = matches!(effect, Effect::Adopt { .. } | Effect::Remember { .. });
        let excused = if undoable { self.sups[sup].robbed } else { self.sups[sup].stolen };
        must(excused || report, "P2", "an act of somebody who does not have the lease")?;
        Ok(hook)
    }

    fn lease(&mut self, ticket: u64, request: LeaseRequest) -> Answer<LeaseAnswer> {
        if self.calm || !self.dice.once_in(self.trouble * 16) {
            let most = if self.dice.once_in(10) { 6000 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, Happening::Lease(self.acting, ticket, request));
        }
        never()
    }

    fn clear_hooks(&mut self) -> Answer<Option<String>> {
        if !self.calm && self.dice.once_in(self.trouble) {
            return never();
        }
        if self.scarce && !self.calm && !self.dice.once_in(4) {
            return after(self.dice.ms(0, 500), Some("too many open files".to_owned()));
        }
        after(self.end_old_hooks(), None)
    }

    fn record(&mut self, generation: Generation) -> Answer<()> {
        let most = if self.dice.once_in(10) { 12_000 } else { 5 };
        let delay = self.dice.ms(0, most);
        if self.calm || !self.dice.once_in(self.trouble) {
            self.later(delay, Happening::Record(self.acting, generation, self.now));
        }
        never()
    }

    /// The store looks, and its answer takes its time too.
    fn confirm(&mut self, ticket: u64) -> Answer<()> {
        let most = if self.dice.once_in(8) { 12_000 } else { 5 };
        let delay = self.dice.ms(0, most);
        if self.calm || !self.dice.once_in(self.trouble) {
            self.later(delay, Happening::Confirm(self.acting, ticket));
        }
        never()
    }

    fn finish_sweep(&mut self) -> Answer<()> {
        if self.dice.once_in(8) { never() } else { after(self.dice.ms(0, 500), ()) }
    }

    fn adopt(&mut self, generation: Generation) -> Answer<Remains> {
        let delay = self.dice.ms(0, 400);
        self.later(delay, Happening::Seek(self.acting, generation));
        never()
    }

    fn watch(&mut self, pid: i32) -> Answer<()> {
        if self.exists(pid) { never() } else { after(Duration::ZERO, ()) }
    }

    fn remembered(&mut self, generation: Generation, fact: Fact) -> Result<(), Broken> {
        self.store.remember(generation, fact, self.now)
    }

    fn probe(&mut self, ticket: u64, scope: ProbeScope) -> Answer<Observation> {
        if self.calm || !self.dice.once_in(self.trouble) {
            let most = if self.dice.once_in(8) { 900 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, Happening::Look(self.acting, ticket, scope));
        }
        never()
    }

    fn spawn(&mut self, generation: Generation) -> Answer<Result<(i32, Fingerprint), SpawnFailure>> {
        // A file system that hangs has not written it yet.
        self.store.intend_once(generation, self.now)?;
        self.tempt_operator();
        let most = u64::try_from(SPAWN_MAX.as_millis()).unwrap_or(0) / 2;
        let delay = if self.dice.once_in(4) { self.dice.ms(0, most) } else { Duration::ZERO };
        self.later(delay, Happening::Fork(self.acting, generation));
        never()
    }

    /// The gateway's command line says what it can be asked.
    fn negotiate(&mut self) -> Answer<Support> {
        let support = match self.dice.below(8) {
            0 => Support::TimedOut("no answer".to_owned()),
            1 => Support::Unsupported("unknown command".to_owned()),
            _ if self.knows_handoffs => Support::Supported,
            _ => Support::Unsupported("unknown command".to_owned()),
        };
        let delay = if matches!(support, Support::TimedOut(_)) { ANSWER_MAX } else { self.dice.ms(500, 30_000) };
        after(delay, support)
    }

    /// It is asked about one exit: the word is true, or late, or there is none.
    fn consume(&mut self, generation: Generation, pid: i32) -> Answer<HandoffVerdict> {
        if !self.calm && self.dice.once_in(self.trouble.min(20)) {
            return never();
        }
        let exit = self.lives.iter().rfind(|life| (life.generation, life.listener()) == (generation, pid));
        let planned = exit.is_some_and(|life| life.planned && life.died.is_some_and(|died| self.now < died + ROW_LIFE));
        let word = match self.dice.below(12) {
            0 => HandoffVerdict::TimedOut("no answer".to_owned()),
            1 => HandoffVerdict::Rejected("expired".to_owned()),
            _ if !self.knows_handoffs => HandoffVerdict::Unsupported("unknown command".to_owned()),
            _ if planned => HandoffVerdict::Accepted("update".to_owned()),
            _ => HandoffVerdict::Missing,
        };
        let delay =
            if matches!(word, HandoffVerdict::TimedOut(_)) { ANSWER_MAX * 2 } else { self.dice.ms(500, 60_000) };
        after(delay, word)
    }

    /// A sample is taken, and nothing else happens before it is taken in.
    fn measure(&mut self, generation: Generation, tree: bool) -> Answer<Usage> {
        let id = self.held(self.acting, generation).filter(|id| self.lives[*id].leader);
        let Some(id) = id else { return never() };
        let now = self.now;
        let life = &mut self.lives[id];
        let (cpu, tree_rss_kb) = (life.work(now), life.tree_rss_kb(now));
        let mut known = || self.calm || !self.dice.once_in(self.trouble);
        let cpu = known().then_some(cpu);
        let tree_rss_kb = (tree && known()).then_some(tree_rss_kb);
        after(Duration::ZERO, Usage { cpu, rss_kb: None, tree_rss_kb })
    }

    /// A look at a process that hangs comes to something at once, late, or never.
    fn examine(&mut self, _generation: Generation) -> Answer<Option<String>> {
        self.tempt_operator();
        let delay = match self.dice.below(6) {
            0 => return never(),
            1 => self.dice.ms(4000, 90_000),
            _ => self.dice.ms(0, 500),
        };
        after(delay, (!self.dice.once_in(4)).then(|| format!("/incidents/{}.json", self.now.as_secs())))
    }

    fn terminate(&mut self, generation: Generation) -> Answer<ExitStatus> {
        if let Some(id) = self.held(self.acting, generation) {
            self.ask_to_end(id);
        }
        never()
    }

    fn kill_tree(&mut self, generation: Generation) -> Answer<TreeEnd> {
        Ok(self.held(self.acting, generation).map(|id| self.kill(self.acting, id)))
    }

    fn hook(&mut self, ticket: u64, call: &Call) -> Answer<HookEnd> {
        self.order_hook(self.acting, ticket, call);
        never()
    }

    fn end_hook(&mut self, ticket: u64) -> Answer<HookEnd> {
        self.terminate_hook(self.acting, ticket);
        never()
    }

    fn kill_hook(&mut self, ticket: u64) -> Answer<HookEnd> {
        Ok(self.kill_hook_of(self.acting, ticket))
    }

    fn reported(&mut self, report: &Report) -> Result<(), Broken> {
        if let Report::TreeKilled { generation, end } = report
            && end.survivors > 0
            && let Some(id) = self.held(self.acting, *generation)
        {
            self.lives[id].excused = true;
        }
        self.store.hear(report)
    }

    fn exited(&mut self, outcome: &Outcome) -> Result<(), Broken> {
        self.end_supervisor(self.acting, outcome.code)
    }
}
