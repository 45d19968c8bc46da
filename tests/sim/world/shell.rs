//! The shell of the simulated world: it performs effects and schedules their results as events.

use super::moves::Place;
use super::{Bound, FOREIGN_PID, Sup, World, WorldEvent};
use crate::dice::Dice;
use crate::fake_shell::{Answer, Broken, World as Outside, after, must, never};
use crate::gateway::{FaultPlan, GatewayFault, Launcher, OnSigterm, Show, SimGateway};
use crate::judge::{KILL_MAX, SPAWN_MAX};
use crate::trial::Input;
use openclaw_supervise_core::handoff::{ANSWER_MAX, HandoffVerdict, Support};
use openclaw_supervise_core::{
    BlockedWrite, Call, Depth, Effect, Event, ExitStatus, Fact, Fingerprint, Generation, HangContext, Holder, HookEnd,
    Installers, Layer, LeaseAnswer, LeaseRequest, Moment, Moved, Observation, Outcome, Owner, OwnerPlan, ProbeScope,
    Readiness, Remains, Report, Request, SpawnFailure, TreeEnd, Usage, Verdict,
};
use std::time::Duration;

fn before_spawn(ask: ProbeScope) -> bool {
    ask == ProbeScope::Port
}

/// How long the gateway's own record of a planned restart is valid.
const ROW_LIFE: Duration = Duration::from_mins(1);

const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };

impl World<'_> {
    /// Runs one step of a core and performs its effects, unless the supervisor is killed between two of them.
    pub(super) fn send(&mut self, sup: usize, event: Event) -> Result<(), Broken> {
        self.acting = sup;
        self.steps += 1;
        let Sup { shell, trial, .. } = &mut self.sups[sup];
        shell.note(&event);
        let first = trial.take(self.now, Input::Event(event))?;
        let effects = std::mem::take(&mut trial.effects);
        let mut end = Ok(());
        for (number, (_, effect)) in effects.iter().enumerate().skip(first) {
            if self.kill_is_due() {
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
            self.later(delay, WorldEvent::Deliver(sup, event));
        }
        Ok(())
    }

    /// Whether an effect brings nothing about, and no answer, as where a thread hangs. Decided apart from the dice, whose
    /// throws mean the same with it and without it.
    fn swallows(&self, effect: &Effect) -> bool {
        let is_one = matches!(effect, Effect::Adopt { .. } | Effect::Hook { .. } | Effect::EndHook { .. });
        is_one && !self.calm && self.chance().once_in(self.trouble * 2)
    }

    /// Whether a spawn or a kill is carried out and its answer is lost. Decided apart from the dice as well.
    fn loses_answer(&self) -> bool {
        !self.calm && self.chance().once_in(self.trouble * 4)
    }

    /// Dice of this moment alone.
    pub(super) fn chance(&self) -> Dice {
        Dice::new(self.steps as u64 ^ u64::try_from(self.now.as_nanos()).unwrap_or(0))
    }

    /// Sometimes schedules requests of an operator at an inconvenient moment.
    pub(super) fn maybe_request(&mut self) {
        if self.calm || !self.dice.once_in(self.trouble / 2) {
            return;
        }
        for _ in 0..=self.dice.below(3) {
            let requests =
                [Request::Restart, Request::Restart, Request::Retry, Request::Stop, Request::Stop, Request::Detach];
            let (when, request) = (self.dice.ms(0, 3000), self.dice.pick(&requests));
            self.later(when, WorldEvent::Operator(request));
        }
    }

    /// What holds the port, and which supervisor it belongs to.
    pub(super) fn observe_port(&self, sup: usize, ask: ProbeScope, place: Place) -> (Verdict, Owner) {
        let before_spawn = before_spawn(ask);
        let ours = |id: usize| {
            let gateway = &self.gateways[id];
            let left_by = gateway.origin.map_or(gateway, |origin| &self.gateways[origin]);
            let asked = matches!(ask, ProbeScope::Listener(generation) | ProbeScope::Liveness(generation)
                if generation == left_by.generation);
            let holder = Holder { pid: gateway.listener(), command: "openclaw-gateway".to_owned(), uid: None };
            if before_spawn || asked && left_by.held == Some(sup) { Owner::Ours(holder) } else { Owner::Other(holder) }
        };
        match self.bound_at(place.port) {
            // A gateway that does not listen still holds its lock.
            None => {
                match self.gateways.iter().position(|gateway| gateway.leader && !gateway.away).filter(|_| before_spawn)
                {
                    Some(id) => (Verdict::Booting, ours(id)),
                    None => (Verdict::Free, Owner::Unseen),
                }
            }
            Some(Bound::Foreign(Verdict::Booting)) if !before_spawn => (Verdict::Free, Owner::Unseen),
            Some(Bound::Foreign(verdict)) => {
                (verdict, Owner::Other(Holder { pid: FOREIGN_PID, command: "node other.mjs".to_owned(), uid: None }))
            }
            // A TLS server closes a connection that speaks no TLS, and the other way round.
            Some(Bound::Gateway(id)) if self.gateways[id].place.tls != place.tls => (Verdict::Silent, ours(id)),
            Some(Bound::Gateway(id)) => (self.gateways[id].verdict(), ours(id)),
        }
    }

    /// The result of a probe. A silent listener takes the whole timeout.
    pub(super) fn look(&mut self, sup: usize, ticket: u64, ask: ProbeScope) {
        let mut moved = if before_spawn(ask) { self.resolve(sup) } else { None };
        let place = if moved.is_some() { self.moves.settings } else { self.sups[sup].expected };
        let (mut verdict, mut owner) = self.observe_port(sup, ask, place);
        if let ProbeScope::Listener(generation) = ask
            && !(matches!(verdict, Verdict::Gateway(_) | Verdict::Draining) && matches!(owner, Owner::Ours(_)))
            && !self.hidden
            && let Some((found, of, to)) = self.search(sup, generation)
        {
            (verdict, owner, moved) = (found, of, Some(to));
        }
        if !self.calm && self.dice.once_in(self.trouble) {
            verdict = Verdict::Inconclusive;
            moved = moved.filter(|_| before_spawn(ask));
        }
        // The search for the process may take longer than its time.
        let mut luck = Dice::new(self.policy.seed ^ ticket);
        let seeks = before_spawn(ask) && self.sups[sup].trial.core.holds().is_some();
        if self.hidden
            || seeks && !self.calm && luck.once_in(4)
            || matches!(ask, ProbeScope::Liveness(_)) && verdict != Verdict::Foreign
            || matches!(verdict, Verdict::Free | Verdict::Inconclusive)
        {
            owner = Owner::Unseen;
        }
        let timeout = u64::try_from(self.policy.probe_timeout.as_millis()).unwrap_or(0);
        let delay = if verdict == Verdict::Silent {
            Duration::from_millis(timeout)
        } else if !self.calm && self.dice.once_in(self.trouble) {
            // So late that a new probe may be under way.
            self.dice.ms(timeout, timeout + 8000)
        } else if self.dice.once_in(10) {
            self.dice.ms(0, timeout)
        } else {
            self.dice.ms(0, 20)
        };
        let asked = matches!(verdict, Verdict::Gateway(_)) && !before_spawn(ask) && self.dice.once_in(2);
        let readiness = asked.then(|| Readiness { ready: !self.dice.once_in(3), detail: String::new() });
        let sighting = Observation { verdict, owner, detail: String::new(), readiness, moved };
        self.later(delay, WorldEvent::Deliver(sup, Event::Probed { ticket, sighting }));
    }

    /// Creates a process. It exists before its process id is on record.
    pub(super) fn fork(&mut self, sup: usize, generation: Generation) -> Result<(), Broken> {
        self.acting = sup;
        if self.kill_is_due() {
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
            self.later(delay, WorldEvent::Deliver(sup, Event::SpawnFailed { generation, failure }));
            return Ok(());
        }
        let beside = self.gateways.iter().any(|gateway| gateway.alive() > 0 && !gateway.excused);
        must(!beside || self.store.lost, "P1", "a gateway is started while another of ours lives")?;
        must(!self.hook_runs() || self.store.lost, "P1", "a gateway is started while a hook runs")?;
        let id = self.create_gateway(sup, generation, delay);
        if let Some(row) = self.store.rows.get_mut(&generation) {
            row.gateway = Some(id);
        }
        self.tell_alive(id)?;
        if self.kill_is_due() {
            return self.kill_supervisor(sup);
        }
        let pid = self.gateways[id].pid;
        if !self.calm && self.dice.once_in(8) {
            let Fingerprint { config, program } = &mut self.fingerprint;
            *(if self.dice.once_in(3) { program } else { config }) += 1;
        }
        let fingerprint = self.fingerprint;
        if let Some(row) = self.store.rows.get_mut(&generation) {
            row.pid = Some(pid);
        }
        if self.loses_answer() {
            // It cannot be ended before it is looked for.
            self.gateways[id].known = Moment::MAX / 2;
        } else {
            self.later(delay, WorldEvent::Deliver(sup, Event::Spawned { generation, pid, fingerprint }));
        }
        Ok(())
    }

    /// The store records the start of a gateway.
    pub(super) fn write_record(&mut self, sup: usize, generation: Generation, at: Moment) -> Result<(), Broken> {
        if self.store.lease.owner != Some(sup) {
            return Ok(());
        }
        self.store.intend_once(generation, at)?;
        self.deliver(sup, Event::Recorded { generation })
    }

    /// The store confirms the lease and advances the heartbeat counter.
    pub(super) fn confirm_lease(&mut self, sup: usize, ticket: u64) {
        if self.store.lease.owner == Some(sup) {
            self.store.lease.beat += 1;
            let most = if self.dice.once_in(8) { 12_000 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, WorldEvent::Deliver(sup, Event::Confirmed { ticket }));
        }
    }

    fn create_gateway(&mut self, sup: usize, generation: Generation, delay: Duration) -> usize {
        let mut plan = if self.calm || self.trouble > 1000 && self.dice.once_in(2) {
            FaultPlan::healthy(&mut self.dice, &self.policy)
        } else {
            FaultPlan::any(&mut self.dice, &self.policy)
        };
        if let Some(repeated_fault) = self.repeated_fault.filter(|_| !self.calm && !self.dice.once_in(4)) {
            plan.fault = repeated_fault.fault(&mut self.dice);
        }
        let mut installers = Dice::new(self.policy.seed ^ generation);
        plan.installer = (self.installing && !self.calm && !installers.once_in(3)).then(|| installers.ms(0, 40_000));
        let (id, place) = (self.gateways.len(), self.moves.place());
        if plan.opens < plan.boots {
            self.later(plan.opens, WorldEvent::Shows(id, Show::Warming));
        }
        self.later(plan.boots, WorldEvent::Shows(id, Show::Serving));
        self.schedule_fault(id, plan.fault);
        if let Some(Launcher::Leaves(age, death)) = plan.launcher {
            self.later(age, WorldEvent::LauncherExits(id, death));
        }
        // Few process ids, so that they are reused: a signal to a reused id must not reach the wrong process.
        let pid = 100 + i32::try_from(generation % 3).unwrap_or(0);
        self.gateways.push(SimGateway {
            known: self.now + delay,
            ..SimGateway::new(sup, generation, pid, self.now, plan, place)
        });
        id
    }

    pub(super) fn schedule_fault(&mut self, id: usize, fault: GatewayFault) {
        match fault {
            GatewayFault::None => {}
            GatewayFault::Exits(age, _)
            | GatewayFault::Misbehaves(age, ..)
            | GatewayFault::RestartsInPlace(age)
            | GatewayFault::LeavesSuccessor(age) => {
                self.later(age, WorldEvent::FaultBegins(id));
            }
        }
    }

    /// SIGTERM to the process that was started.
    fn handle_first_sigterm(&mut self, id: usize) {
        match self.gateways[id].plan.launcher.filter(|_| self.gateways[id].launcher_lives) {
            Some(Launcher::Deaf) => self.maybe_request(),
            Some(Launcher::Dies) => {
                self.maybe_request();
                let (delay, death) = (self.dice.ms(0, 5), ExitStatus::Signal { number: 15, core_dumped: false });
                self.later(delay, WorldEvent::LauncherExits(id, death));
            }
            Some(Launcher::Forwards | Launcher::Leaves(..)) | None => self.handle_sigterm(id),
        }
    }

    fn handle_sigterm(&mut self, id: usize) {
        self.maybe_request();
        let gateway = &mut self.gateways[id];
        if !gateway.leader || matches!(gateway.show, Show::Frozen | Show::Blocked) && gateway.plan.deaf {
            return;
        }
        let on_sigterm = gateway.plan.on_sigterm;
        gateway.terminated = on_sigterm != OnSigterm::Ignores;
        match on_sigterm {
            OnSigterm::Ignores => {}
            OnSigterm::Drains(time, death) => {
                self.show(id, Show::Draining);
                self.later(time, WorldEvent::Dies(id, death));
            }
            OnSigterm::DrainsAndFreezes => {
                self.show(id, Show::Draining);
                let when = self.dice.ms(0, 10_000);
                self.later(when, WorldEvent::Shows(id, Show::Frozen));
            }
            OnSigterm::Closes(time, death) => {
                self.show(id, Show::Closed);
                self.later(time, WorldEvent::Dies(id, death));
            }
        }
    }

    /// SIGKILL to a whole tree. A process in uninterruptible sleep dies when it wakes.
    fn kill(&mut self, sup: usize, id: usize, installers: Installers) -> (Duration, TreeEnd) {
        self.maybe_request();
        let (first, rest) = (self.dice.ms(0, 10), self.dice.ms(0, 50));
        let (now, gateway) = (self.now, &mut self.gateways[id]);
        gateway.killed = true;
        let (installing, cut_short) = gateway.install(now, installers);
        let members = gateway.alive();
        let (leader, generation) = (gateway.leader, gateway.generation);
        let stuck = gateway.plan.stuck.take();
        let (stuck_leader, slept) = stuck.unwrap_or_default();
        let leader_dies = if stuck_leader { slept } else { first };
        let rest_dies = if stuck_leader { rest } else { slept.max(rest) };
        let ends = if leader { leader_dies.max(rest_dies) } else { rest_dies };
        let stays = ends > KILL_MAX;
        if leader {
            self.later(leader_dies, WorldEvent::Dies(id, KILLED));
        }
        if let Some(successor) = self.gateways.iter().position(|gateway| gateway.origin == Some(id)) {
            self.later(rest, WorldEvent::Dies(successor, KILLED));
        }
        self.later(rest_dies, WorldEvent::Clears(id));
        let elapsed = ends.min(KILL_MAX);
        let survivors = u32::from(stays);
        let commands = (0..survivors).map(|_| "120 stuck".to_owned()).collect();
        let end = TreeEnd { members, survivors, elapsed, commands, installing, cut_short, ..TreeEnd::default() };
        // The kill has its own report, which may come before the leader's exit.
        if self.dice.once_in(16) {
            // A process that had left the tree long ago and was found by its mark.
            let (found_by, when) = (vec![(Layer::Instance, 1)], self.dice.ms(0, 20_000));
            let end = TreeEnd { members: 1, escaped: 1, found_by, ..TreeEnd::default() };
            self.later(when, WorldEvent::Deliver(sup, Event::StraysKilled { generation, end }));
        }
        (elapsed + Duration::from_millis(1), end)
    }
}

impl Outside for World<'_> {
    /// A supervisor may not know yet that it lost the lease; the shell checks the lease first and does nothing.
    fn admits(&mut self, effect: &Effect) -> Result<bool, Broken> {
        let sup = self.acting;
        // A signal reaches only a gateway of its own.
        let act = matches!(
            effect,
            Effect::Adopt { .. } | Effect::Remember { .. } | Effect::Spawn { .. } | Effect::SeekHeir { .. }
        );
        let report = matches!(effect, Effect::Report(_));
        // A hook may be ordered without the lease; the shell checks the lease when the hook starts.
        let hook = matches!(effect, Effect::Hook { .. });
        if self.store.lease.owner == Some(sup) || !(act || report || hook) {
            return Ok(!self.swallows(effect));
        }
        let undoable = matches!(effect, Effect::Adopt { .. } | Effect::Remember { .. } | Effect::SeekHeir { .. });
        let excused = if undoable { self.sups[sup].lease_lost } else { self.sups[sup].stolen };
        must(excused || report, "P2", "an act without the lease")?;
        Ok(hook)
    }

    fn lease(&mut self, ticket: u64, request: LeaseRequest) -> Answer<LeaseAnswer> {
        if self.calm || !self.dice.once_in(self.trouble * 16) {
            let most = if self.dice.once_in(10) { 6000 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, WorldEvent::Lease(self.acting, ticket, request));
        }
        never()
    }

    /// Of its own end an owner knows what its core says. It may be frozen, or overstay its time.
    fn owner_plan(&mut self) -> Answer<OwnerPlan> {
        if !self.calm && self.dice.once_in(self.trouble) {
            return never();
        }
        let delay = self.dice.ms(0, 5);
        let owner = self.store.lease.owner.filter(|owner| self.sups[*owner].paused_until <= self.now);
        let within = owner.map(|owner| self.sups[owner].trial.core.status(self.now).ends_within);
        let plan = match within {
            None => OwnerPlan::Unknown,
            Some(None) => OwnerPlan::Stays,
            Some(Some(_)) if self.dice.once_in(4) => OwnerPlan::Ends(self.dice.ms(0, 3000)),
            Some(Some(within)) => OwnerPlan::Ends(within),
        };
        after(delay, plan)
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

    fn follow(&mut self, moved: &Moved) -> Result<(), Broken> {
        self.follow_move(self.acting, moved);
        Ok(())
    }

    fn record(&mut self, generation: Generation) -> Answer<()> {
        let most = if self.dice.once_in(10) { 12_000 } else { 5 };
        let delay = self.dice.ms(0, most);
        // Under a heartbeat the store answers as soon as it can.
        if self.calm || self.remote || !self.dice.once_in(self.trouble) {
            self.later(delay, WorldEvent::Record(self.acting, generation, self.now));
        }
        never()
    }

    /// Both the store's check and its answer have a delay.
    fn confirm(&mut self, ticket: u64) -> Answer<()> {
        let most = if self.dice.once_in(8) { 12_000 } else { 5 };
        let delay = self.dice.ms(0, most);
        if self.calm || self.remote || !self.dice.once_in(self.trouble) {
            self.later(delay, WorldEvent::Confirm(self.acting, ticket));
        }
        never()
    }

    fn finish_sweep(&mut self) -> Answer<()> {
        if self.dice.once_in(8) { never() } else { after(self.dice.ms(0, 500), ()) }
    }

    fn adopt(&mut self, generation: Generation) -> Answer<Remains> {
        let delay = self.dice.ms(0, 400);
        self.later(delay, WorldEvent::Seek(self.acting, generation));
        never()
    }

    fn watch(&mut self, pid: i32) -> Answer<()> {
        if self.exists(pid) { never() } else { after(Duration::ZERO, ()) }
    }

    fn remembered(&mut self, generation: Generation, fact: Fact) -> Result<(), Broken> {
        self.store.remember(generation, fact, self.now)?;
        if let Fact::Succeeded(_) = fact {
            // What bears the mark of the old one belongs to it.
            let old = self.held(self.acting, generation);
            let heir = self.gateways.iter().position(|gateway| gateway.origin.is_some() && gateway.origin == old);
            if let Some(row) = self.store.rows.get_mut(&(generation + 1)) {
                row.gateway = heir.or(old);
            }
        }
        Ok(())
    }

    fn probe(&mut self, ticket: u64, scope: ProbeScope) -> Answer<Observation> {
        if self.calm || !self.dice.once_in(self.trouble) {
            let most = if self.dice.once_in(8) { 900 } else { 5 };
            let delay = self.dice.ms(0, most);
            self.later(delay, WorldEvent::Look(self.acting, ticket, scope));
        }
        never()
    }

    fn spawn(&mut self, generation: Generation) -> Answer<Result<(i32, Fingerprint), SpawnFailure>> {
        // A file system that hangs may not have written the record yet.
        self.store.intend_once(generation, self.now)?;
        self.maybe_request();
        let most = u64::try_from(SPAWN_MAX.as_millis()).unwrap_or(0) / 2;
        let delay = if self.dice.once_in(4) { self.dice.ms(0, most) } else { Duration::ZERO };
        self.later(delay, WorldEvent::Fork(self.acting, generation));
        never()
    }

    /// Whether the installed OpenClaw supports handoffs.
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

    /// The verdict on one exit: true, late, or none at all.
    fn consume(&mut self, generation: Generation, pid: i32) -> Answer<HandoffVerdict> {
        if !self.calm && self.dice.once_in(self.trouble.min(20)) {
            return never();
        }
        let exit = self.gateways.iter().rfind(|gateway| (gateway.generation, gateway.listener()) == (generation, pid));
        let planned =
            exit.is_some_and(|gateway| gateway.planned && gateway.died.is_some_and(|died| self.now < died + ROW_LIFE));
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

    /// A sample of CPU time and memory, delivered before any other event.
    fn measure(&mut self, generation: Generation, depth: Depth, tree: bool) -> Answer<Usage> {
        let id = self.held(self.acting, generation).filter(|id| self.gateways[*id].leader);
        let Some(id) = id else { return never() };
        let now = self.now;
        let gateway = &mut self.gateways[id];
        let (cpu, tree_rss_kb) = (gateway.work(now), gateway.tree_rss_kb(now));
        let mut known = || self.calm || !self.dice.once_in(self.trouble);
        let cpu = known().then_some(cpu);
        let tree_rss_kb = (tree && known()).then_some(tree_rss_kb);
        let usage = Usage { cpu, tree_rss_kb, ..Usage::default() };
        if depth < Depth::Stall || !known() {
            return after(Duration::ZERO, usage);
        }
        let gateway = &self.gateways[id];
        let reader = Holder { pid: 55, command: "less".to_owned(), uid: None };
        let blocked = (gateway.show == Show::Blocked).then(|| BlockedWrite {
            stream: "stdout".to_owned(),
            file: "pipe:[7]".to_owned(),
            reader: Some(reader).filter(|_| depth == Depth::Reader),
        });
        // Its writes go on, to a slow reader.
        let prints = gateway.plan.works == 100;
        let turns = if prints { now.saturating_sub(gateway.born).as_millis() / 300 } else { 0 };
        let turns = u64::try_from(turns).ok();
        let waited = Some(gateway.waited);
        let (waited, pressure) = if gateway.plan.counted { (waited, None) } else { (None, waited) };
        let runnable = gateway.show == Show::Starved;
        after(Duration::ZERO, Usage { waited, turns, pressure, runnable, blocked, ..usage })
    }

    /// Evidence arrives at once, late, or never.
    fn examine(&mut self, generation: Generation, case: &HangContext) -> Answer<Option<String>> {
        if case.excess.is_none() {
            self.judge_hang(self.acting, generation)?;
        }
        self.maybe_request();
        let delay = match self.dice.below(6) {
            0 => return never(),
            1 => self.dice.ms(4000, 90_000),
            _ => self.dice.ms(0, 500),
        };
        after(delay, (!self.dice.once_in(4)).then(|| format!("/incidents/{}.json", self.now.as_secs())))
    }

    fn terminate(&mut self, generation: Generation) -> Answer<ExitStatus> {
        if let Some(id) = self.held(self.acting, generation) {
            self.handle_first_sigterm(id);
        }
        never()
    }

    fn terminate_listener(&mut self, generation: Generation) -> Answer<ExitStatus> {
        if let Some(id) = self.held(self.acting, generation) {
            // An older release does not show that it drains, and another process may answer in its place.
            let shows = !self.gateways[id].plan.old && !self.hidden && !self.remote;
            let drains = self.gateways[id].terminated && shows;
            must(!drains, "P3", "a gateway that drains gets a second SIGTERM")?;
            self.handle_sigterm(id);
        }
        never()
    }

    fn seek_heir(&mut self, generation: Generation, listener: Option<i32>) -> Answer<Option<i32>> {
        if !self.calm && self.dice.once_in(self.trouble) {
            return never();
        }
        let most = if self.dice.once_in(8) { 4000 } else { 50 };
        let (delay, now) = (self.dice.ms(0, most), self.now);
        let Some(id) = self.held(self.acting, generation) else { return never() };
        let gateway = &mut self.gateways[id];
        let is_there = gateway.leader && gateway.is_left() && listener.is_none_or(|pid| pid == gateway.listener());
        if is_there {
            (gateway.pid, gateway.plan.launcher, gateway.known) = (gateway.listener(), None, now + delay);
            if let Some(row) = self.store.rows.get_mut(&generation) {
                row.pid = Some(self.gateways[id].pid);
            }
        }
        after(delay, is_there.then(|| self.gateways[id].pid))
    }

    fn kill_tree(&mut self, generation: Generation, installers: Installers) -> Answer<TreeEnd> {
        let answer = self.held(self.acting, generation).map(|id| self.kill(self.acting, id, installers));
        Ok(answer.filter(|_| !self.loses_answer()))
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
        self.record_pause(report);
        if let Report::TreeKilled { generation, end } = report
            && end.survivors > 0
            && let Some(id) = self.held(self.acting, *generation)
        {
            self.gateways[id].excused = true;
        }
        // What the loser of a lease tells of its gateway is not on record.
        if self.sups[self.acting].lease_lost { Ok(()) } else { self.store.note_report(report) }
    }

    fn exited(&mut self, outcome: &Outcome) -> Result<(), Broken> {
        self.end_supervisor(self.acting, outcome.code)
    }
}
