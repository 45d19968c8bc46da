//! A small world for the core: one port, one scripted gateway at a time, a clock that jumps from event to event.

use crate::fake_shell::{Answer, Broken, FakeShell, World as Outside, after, never};
use openclaw_supervise_core::handoff::{HandoffVerdict, Support};
use openclaw_supervise_core::lease::{BEAT, Basis};
use openclaw_supervise_core::policy::OnStoreLost;
use openclaw_supervise_core::{
    Acquired, BlockedWrite, Call, Depth, Effect, Endpoint, Event, ExitStatus, ExitUsage, Fingerprint, Generation,
    HangContext, History, Holder, HookEnd, Installers, LeaseAnswer, LeaseRequest, Moment, MoveReason, Moved, Notice,
    Observation, Outcome, Owner, OwnerPlan, Phase, Policy, ProbeScope, Readiness, Remains, Report, Request, Requester,
    SpawnFailure, Supervisor, TreeEnd, Usage, Verdict,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const STARTED: Verdict = Verdict::Gateway(Phase::Started);
pub(crate) const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };
pub(crate) const TERMED: ExitStatus = ExitStatus::Signal { number: 15, core_dumped: false };
pub(crate) const CRASH: ExitStatus = ExitStatus::Code(1);

/// Where the evidence lies.
pub(crate) const EVIDENCE: &str = "/store/incidents/1.json";

/// How long an answer takes that comes at once.
pub(crate) const PROMPT: Duration = Duration::from_millis(2);

pub(crate) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn sighting(verdict: Verdict, owner: Owner) -> Observation {
    Observation { verdict, owner, detail: format!("scripted {verdict}"), readiness: None, moved: None }
}

pub(crate) fn stranger() -> Owner {
    Owner::Other(Holder { pid: 4242, command: "node stranger.mjs".to_owned(), uid: Some(1000) })
}

/// Another supervisor.
pub(crate) fn owner(pid: i32) -> Holder {
    Holder { pid, command: "openclaw-supervise run".to_owned(), uid: None }
}

pub(crate) fn ours() -> Owner {
    Owner::Ours(Holder { pid: 101, command: "openclaw-gateway".to_owned(), uid: None })
}

/// A write to a full pipe; its reader is named where it was looked for.
pub(crate) fn blocked_write(depth: Depth) -> BlockedWrite {
    let reader = Holder { pid: 55, command: "less".to_owned(), uid: None };
    let reader = (depth == Depth::Reader).then_some(reader);
    BlockedWrite { stream: "stdout".to_owned(), file: "pipe:[7]".to_owned(), reader }
}

pub(crate) fn by(how: &str) -> Requester {
    Requester { how: how.to_owned(), pid: Some(77), uid: None, command: None, inside: None }
}

pub(crate) fn tree_end(survivors: u32) -> TreeEnd {
    let commands = (0..survivors).map(|n| format!("{} ended", 800 + n)).collect();
    let left = (0..survivors).map(|n| format!("{} stuck (D, nfs_wait)", 900 + n)).collect();
    TreeEnd { members: survivors, escaped: 0, survivors, elapsed: PROMPT, commands, left, ..TreeEnd::default() }
}

/// The lease, with what the store remembers.
pub(crate) fn acquired(past: History) -> LeaseAnswer {
    LeaseAnswer::Acquired(Box::new(Acquired { epoch: 1, basis: Basis::Lock, recovered: None, past, trouble: None }))
}

/// What each gateway does with its life. Times count from its spawn, those of `drain` from its SIGTERM.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    pub(crate) boots_in: Duration,
    pub(crate) dies: Option<(Duration, ExitStatus)>,
    pub(crate) drain: Option<(Duration, ExitStatus)>,
}

impl Default for Script {
    fn default() -> Self {
        Self { boots_in: s(8), dies: None, drain: Some((Duration::from_millis(500), ExitStatus::Code(0))) }
    }
}

impl Script {
    pub(crate) fn dying(after: Duration, death: ExitStatus) -> Self {
        Self { dies: Some((after, death)), ..Self::default() }
    }

    /// One that comes up at once and dies later.
    pub(crate) fn serving(lifetime: Duration, death: ExitStatus) -> Self {
        Self { boots_in: Duration::ZERO, ..Self::dying(lifetime, death) }
    }
}

/// What every call of a hook does. Times count from its call, from its SIGTERM and from its SIGKILL.
#[derive(Clone)]
pub(crate) struct HookScript {
    pub(crate) ends: Option<(Duration, HookEnd)>,
    pub(crate) hears: Option<Duration>,
    pub(crate) dies: Option<Duration>,
}

impl HookScript {
    pub(crate) fn ending(after: Duration, code: i32) -> Self {
        Self { ends: Some((after, HookEnd::Ended(ExitStatus::Code(code)))), hears: Some(PROMPT), dies: Some(PROMPT) }
    }

    /// One that never ends by itself.
    pub(crate) fn endless() -> Self {
        Self { ends: None, ..Self::ending(PROMPT, 0) }
    }
}

pub(crate) struct World {
    pub(crate) core: Supervisor,
    pub(crate) now: Moment,
    /// What every probe sees; `None` if the port shows what the gateway does.
    pub(crate) port: Option<Verdict>,
    /// Where the gateway is or will be, and where it is looked for.
    pub(crate) place: Endpoint,
    expected: Endpoint,
    /// Whose that is, before a spawn.
    pub(crate) owner: Option<Owner>,
    /// Whose it is once the gateway was started.
    pub(crate) listener: Owner,
    pub(crate) script: Script,
    pub(crate) hook: HookScript,
    /// What becomes of every attempt on the lease.
    pub(crate) lease: LeaseAnswer,
    /// What the owner of a lease that is not free says about its end.
    pub(crate) plan: OwnerPlan,
    /// What is found of a gateway that an earlier supervisor left.
    pub(crate) remains: Remains,
    /// Effects that the shell leaves without an answer; the test gives its own.
    pub(crate) unanswered: fn(&Effect) -> bool,
    /// The store confirms the lease no more, until a test does.
    pub(crate) stalled: bool,
    /// How long the evidence against a gateway that hangs takes, if it ever comes.
    pub(crate) evidence: Option<Duration>,
    /// How much of a processor the gateway's event loop uses, in percent; nothing where the kernel does not tell.
    pub(crate) work: Option<u32>,
    /// How much of the time it waits for a processor, in percent; nothing where the kernel does not tell.
    pub(crate) waits: Option<u32>,
    /// Whether it sits in a write to its stdout.
    pub(crate) blocked: bool,
    /// How long each of its writes lasts, where they end.
    pub(crate) write: Option<Duration>,
    /// How much memory its tree has.
    pub(crate) tree_rss_kb: Option<u64>,
    /// What its `/readyz` says.
    pub(crate) readiness: Option<Readiness>,
    /// Whether its release supports handoffs.
    pub(crate) support: Support,
    /// The next verdicts, in order (`None` for a lost answer); `Missing` after the last one.
    pub(crate) verdicts: Vec<Option<HandoffVerdict>>,
    /// The state of the configuration and of the program's files.
    pub(crate) fingerprint: Fingerprint,
    /// What becomes of a spawn, if there is no process.
    pub(crate) unborn: Option<SpawnFailure>,
    /// The process that a launcher leaves.
    pub(crate) heir: Option<i32>,
    /// What the ends of the next trees look like. A leader lives on as long as there are survivors of this list.
    pub(crate) survivors: Vec<u32>,
    /// Until then an installer of OpenClaw is at work in its tree, if one is.
    pub(crate) installs_until: Option<Moment>,
    pub(crate) effects: Vec<(Moment, Effect)>,
    policy: Policy,
    pending: BTreeMap<(Moment, usize), Event>,
    shell: FakeShell,
    /// The gateway's process: its number, when it was spawned, and what it does.
    child: Option<(Generation, Moment, Script)>,
    /// The last one.
    former: Option<(Generation, Moment, Script)>,
    /// What the event loop has used until when.
    used: (Moment, Duration),
    /// How long it has waited for a processor by then.
    waited: Duration,
}

impl World {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            core: Supervisor::new(policy.clone()),
            now: s(1000),
            port: None,
            place: policy.endpoint.clone(),
            expected: policy.endpoint.clone(),
            owner: None,
            listener: ours(),
            script: Script::default(),
            hook: HookScript::ending(s(1), 0),
            lease: acquired(History::default()),
            plan: OwnerPlan::Unknown,
            remains: Remains::Nothing { pid: None },
            unanswered: |_| false,
            stalled: false,
            evidence: Some(PROMPT),
            work: Some(0),
            waits: Some(0),
            blocked: false,
            write: None,
            tree_rss_kb: None,
            readiness: None,
            support: Support::Supported,
            verdicts: Vec::new(),
            fingerprint: Fingerprint::default(),
            unborn: None,
            heir: None,
            survivors: Vec::new(),
            installs_until: None,
            effects: Vec::new(),
            policy,
            pending: BTreeMap::new(),
            shell: FakeShell::default(),
            child: None,
            former: None,
            used: (s(1000), Duration::ZERO),
            waited: Duration::ZERO,
        }
    }

    /// A supervisor with the default policy whose gateways follow the script, at its start.
    pub(crate) fn started(script: Script) -> Self {
        Self::started_with(Policy::default(), script)
    }

    pub(crate) fn started_with(policy: Policy, script: Script) -> Self {
        let mut world = Self::new(policy);
        world.script = script;
        world.send(Event::Start);
        world
    }

    /// The same with a gateway that serves.
    pub(crate) fn serving() -> Self {
        let mut world = Self::started(Script::default());
        world.run_for(s(10));
        world
    }

    pub(crate) fn send(&mut self, event: Event) {
        let (since, used) = self.used;
        self.used = (self.now, used + (self.now.saturating_sub(since)) * self.work.unwrap_or(0) / 100);
        self.waited += self.now.saturating_sub(since) * self.waits.unwrap_or(0) / 100;
        let mut shell = std::mem::take(&mut self.shell);
        shell.note(&event);
        self.beat(&event);
        let mut fx = Vec::new();
        self.core.step(self.now, event, &mut fx);
        let mut at_once = Vec::new();
        for effect in fx {
            match shell.perform(&effect, self) {
                Ok(Some((Duration::ZERO, event))) if is_at_once(&event) => at_once.push(event),
                Ok(Some((delay, event))) => self.later(delay, event),
                Ok(None) => {}
                Err(Broken { promise, what }) => panic!("{promise}: {what}: {effect:?}\n{:?}", self.core),
            }
            self.effects.push((self.now, effect));
        }
        self.shell = shell;
        for event in at_once {
            self.send(event);
        }
    }

    /// Plans the next confirmation of the lease, where there is one.
    fn beat(&mut self, event: &Event) {
        let beats = match event {
            Event::Leased { answer: LeaseAnswer::Acquired(acquired), .. } => {
                acquired.basis == Basis::Heartbeat || self.policy.on_store_lost == Some(OnStoreLost::Stop)
            }
            Event::LeaseConfirmed { .. } => true,
            _ => false,
        };
        if beats {
            self.later(BEAT, Event::LeaseConfirmed { age: PROMPT });
        }
    }

    pub(crate) fn request(&mut self, request: Request) {
        let how = format!("{request:?}");
        self.send(Event::Requested { request, by: by(&how) });
    }

    pub(crate) fn leader_exits(&mut self, generation: Generation, death: ExitStatus) {
        if self.child.is_some_and(|(living, ..)| living == generation) {
            self.former = self.child.take();
        }
        self.send(Event::LeaderExited { generation, death, toll: ExitUsage::default() });
    }

    fn later(&mut self, delay: Duration, event: Event) {
        let key = (self.now + delay, self.pending.len() + self.effects.len() * 8);
        assert!(self.pending.insert(key, event).is_none());
    }

    fn dies_in(&mut self, generation: Generation, end: Option<(Duration, ExitStatus)>) {
        if let (Some((delay, death)), Some(_)) = (end, self.child) {
            self.later(delay, Event::LeaderExited { generation, death, toll: ExitUsage::default() });
        }
    }

    fn look(&self, ask: ProbeScope) -> Observation {
        let up = self.child.is_some_and(|(_, spawned, script)| spawned + script.boots_in <= self.now);
        let verdict = self.port.unwrap_or(if up { STARTED } else { Verdict::Free });
        let (verdict, why) = match ask {
            _ if self.place == self.expected => (verdict, None),
            ProbeScope::Port => (verdict, Some(MoveReason::Settings)),
            ProbeScope::Listener(_) if up && matches!(verdict, Verdict::Gateway(_)) => {
                (verdict, Some(MoveReason::Listens))
            }
            ProbeScope::Listener(_) | ProbeScope::Liveness(_) => (Verdict::Free, None),
        };
        let moved = why.map(|why| Moved { to: self.place.clone(), why });
        let owner = match (ask, verdict) {
            (_, Verdict::Free) | (ProbeScope::Liveness(_), _) => Owner::Unseen,
            (ProbeScope::Port, _) => self.owner.clone().unwrap_or_else(stranger),
            (ProbeScope::Listener(_), _) => self.listener.clone(),
        };
        let readiness = self.readiness.clone().filter(|_| matches!(verdict, Verdict::Gateway(_)));
        Observation { readiness, moved, ..sighting(verdict, owner) }
    }

    /// Lets time pass: every event comes at its time, and a tick at every deadline.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub(crate) fn run_until(&mut self, end: Moment) {
        for steps in 0.. {
            assert!(steps < 100_000, "the machine spins: {:?}", self.core);
            let event = self.pending.first_key_value().map(|(key, _)| key.0);
            let wake = [event, self.core.deadline()].into_iter().flatten().min();
            let Some(at) = wake.filter(|at| *at <= end && !self.shell.exited) else { break };
            self.now = self.now.max(at);
            match event.filter(|due| *due <= at).and_then(|_| self.pending.pop_first()) {
                Some((_, Event::LeaderExited { generation, death, .. })) => {
                    if self.child.is_some_and(|(living, ..)| living == generation) {
                        self.leader_exits(generation, death);
                    }
                }
                Some((_, event @ Event::HookEnded { .. })) if !self.shell.is_news(&event) => {}
                Some((_, Event::LeaseConfirmed { .. })) if self.stalled => {}
                Some((_, event)) => self.send(event),
                None => self.send(Event::Tick),
            }
        }
        if !self.shell.exited {
            self.now = self.now.max(end);
        }
    }

    pub(crate) fn exit(&self) -> Option<&Outcome> {
        self.effects.iter().find_map(|(_, effect)| match effect {
            Effect::Exit(outcome) => Some(outcome),
            _ => None,
        })
    }

    /// The exit code and its reason; fails if the supervisor lives.
    pub(crate) fn outcome(&self) -> (u8, &str) {
        let Some(outcome) = self.exit() else { panic!("still running: {:?}", self.core) };
        (outcome.code, &outcome.reason)
    }

    pub(crate) fn when(&self, wanted: impl Fn(&Effect) -> bool) -> Vec<Moment> {
        self.effects.iter().filter(|(_, effect)| wanted(effect)).map(|(at, _)| *at).collect()
    }

    pub(crate) fn spawns(&self) -> Vec<Moment> {
        self.when(|effect| matches!(effect, Effect::Spawn { .. }))
    }

    pub(crate) fn kills(&self) -> Vec<Moment> {
        self.when(|effect| matches!(effect, Effect::KillTree { .. }))
    }

    pub(crate) fn probes(&self) -> Vec<Moment> {
        self.when(|effect| matches!(effect, Effect::Probe { .. }))
    }

    /// When a report of this name was made.
    pub(crate) fn told(&self, name: &str) -> Vec<Moment> {
        self.when(|effect| matches!(effect, Effect::Report(report) if report.name() == name))
    }

    /// The names of all reports but the changes of verdict and a lease that is simply had.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let names = self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Report(report) => Some(report.name()),
            _ => None,
        });
        let usual = ["probe.verdict_changed", "lease.acquire_started", "lease.acquired"];
        names.filter(|name| !usual.contains(name)).collect()
    }

    /// What the service manager was told.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        let notices = self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Notify(notice) => Some(*notice),
            _ => None,
        });
        notices.collect()
    }

    /// The evidence that each `gateway.hung` names.
    pub(crate) fn evidence_told(&self) -> Vec<Option<&str>> {
        let hangs = self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Report(Report::GatewayHung(hung)) => Some(hung.evidence.as_deref()),
            _ => None,
        });
        hangs.collect()
    }

    /// The causes of all `gateway.exited`.
    pub(crate) fn causes(&self) -> Vec<&'static str> {
        let exits = self.effects.iter().filter_map(|(_, effect)| match effect {
            Effect::Report(Report::GatewayExited(exited)) => Some(exited.cause),
            _ => None,
        });
        exits.collect()
    }

    /// The ticket of the youngest attempt on the lease.
    pub(crate) fn lease_ticket(&self) -> u64 {
        let tickets = self.effects.iter().rev().find_map(|(_, effect)| match effect {
            Effect::Lease { ticket, .. } => Some(*ticket),
            _ => None,
        });
        tickets.unwrap_or(0)
    }

    /// The ticket of the youngest probe.
    pub(crate) fn ticket(&self) -> u64 {
        let tickets = self.effects.iter().rev().find_map(|(_, effect)| match effect {
            Effect::Probe { ticket, .. } => Some(*ticket),
            _ => None,
        });
        tickets.unwrap_or(0)
    }

    /// Every call of a hook.
    pub(crate) fn calls(&self) -> Vec<(Moment, Call)> {
        let calls = self.effects.iter().filter_map(|(at, effect)| match effect {
            Effect::Hook { call, .. } => Some((*at, call.clone())),
            _ => None,
        });
        calls.collect()
    }

    /// The ticket of the youngest one.
    pub(crate) fn hook_ticket(&self) -> u64 {
        let tickets = self.effects.iter().rev().find_map(|(_, effect)| match effect {
            Effect::Hook { ticket, .. } => Some(*ticket),
            _ => None,
        });
        tickets.unwrap_or(0)
    }
}

/// Whether the core gets this answer before anything else happens.
fn is_at_once(event: &Event) -> bool {
    matches!(
        event,
        Event::Leased { .. }
            | Event::OwnerAsked { .. }
            | Event::HooksCleared { .. }
            | Event::Adopted { .. }
            | Event::Recorded { .. }
            | Event::Confirmed { .. }
            | Event::Measured { .. }
            | Event::SweepFinished
    )
}

fn at_once<T>(answer: T) -> Answer<T> {
    after(Duration::ZERO, answer)
}

impl Outside for World {
    fn admits(&mut self, effect: &Effect) -> Result<bool, Broken> {
        Ok(!(self.unanswered)(effect))
    }

    fn lease(&mut self, _ticket: u64, _request: LeaseRequest) -> Answer<LeaseAnswer> {
        at_once(self.lease.clone())
    }

    fn owner_plan(&mut self) -> Answer<OwnerPlan> {
        at_once(self.plan)
    }

    /// A leader that is found is a gateway that follows the script, and came up long ago.
    fn adopt(&mut self, generation: Generation) -> Answer<Remains> {
        if matches!(self.remains, Remains::Leader { .. }) {
            self.child = Some((generation, Moment::ZERO, self.script));
            self.dies_in(generation, self.script.dies);
        }
        at_once(self.remains.clone())
    }

    fn follow(&mut self, moved: &Moved) -> Result<(), Broken> {
        self.expected = moved.to.clone();
        Ok(())
    }

    fn watch(&mut self, _pid: i32) -> Answer<()> {
        never()
    }

    fn probe(&mut self, _ticket: u64, scope: ProbeScope) -> Answer<Observation> {
        let seen = self.look(scope);
        let slow = matches!(seen.verdict, Verdict::Silent);
        after(if slow { self.policy.probe_timeout } else { PROMPT }, seen)
    }

    fn spawn(&mut self, generation: Generation) -> Answer<Result<(i32, Fingerprint), SpawnFailure>> {
        if let Some(failure) = self.unborn.clone() {
            return at_once(Err(failure));
        }
        self.child = Some((generation, self.now, self.script));
        self.dies_in(generation, self.script.dies);
        at_once(Ok((100 + i32::try_from(generation).unwrap_or(0), self.fingerprint)))
    }

    fn negotiate(&mut self) -> Answer<Support> {
        after(s(2), self.support.clone())
    }

    fn consume(&mut self, _generation: Generation, _pid: i32) -> Answer<HandoffVerdict> {
        let verdict = if self.verdicts.is_empty() { Some(HandoffVerdict::Missing) } else { self.verdicts.remove(0) };
        Ok(verdict.map(|verdict| (s(4), verdict)))
    }

    fn measure(&mut self, _generation: Generation, depth: Depth, tree: bool) -> Answer<Usage> {
        let tree_rss_kb = self.tree_rss_kb.filter(|_| tree);
        let usage = Usage { cpu: self.work.map(|_| self.used.1), rss_kb: Some(1), tree_rss_kb, ..Usage::default() };
        if depth < Depth::Stall {
            return at_once(usage);
        }
        let blocked = self.blocked.then(|| blocked_write(depth));
        let (waited, throttled) = (self.waits.map(|_| self.waited), self.waits.map(|_| self.waited / 2));
        let ended = self.write.map_or(0, |write| self.now.as_millis() / write.as_millis());
        let turns = Some(1 + u64::try_from(ended).unwrap_or(u64::MAX));
        at_once(Usage { waited, turns, throttled, blocked, ..usage })
    }

    fn examine(&mut self, _generation: Generation, _case: &HangContext) -> Answer<Option<String>> {
        Ok(self.evidence.map(|delay| (delay, Some(EVIDENCE.to_owned()))))
    }

    fn terminate(&mut self, _generation: Generation) -> Answer<ExitStatus> {
        Ok(self.child.and(self.script.drain))
    }

    /// What is left serves as the one before would have.
    fn seek_heir(&mut self, _generation: Generation, _listener: Option<i32>) -> Answer<Option<i32>> {
        self.child = self.former.filter(|_| self.heir.is_some());
        after(PROMPT, self.heir)
    }

    fn terminate_listener(&mut self, _generation: Generation) -> Answer<ExitStatus> {
        Ok(self.child.map(|_| (Duration::from_millis(500), ExitStatus::Code(0))))
    }

    fn kill_tree(&mut self, generation: Generation, installers: Installers) -> Answer<TreeEnd> {
        let survivors = self.survivors.pop().unwrap_or(0);
        let named = || vec!["900 npm install -g openclaw".to_owned()];
        let mut end = tree_end(survivors);
        if self.installs_until.is_some_and(|until| until > self.now) {
            match installers {
                Installers::Finish => end.installing = named(),
                Installers::RollBack | Installers::AsOthers => (end.cut_short, self.installs_until) = (named(), None),
            }
        }
        if survivors == 0 {
            self.dies_in(generation, Some((PROMPT, KILLED)));
        }
        after(PROMPT * 2, end)
    }

    fn hook(&mut self, _ticket: u64, call: &Call) -> Answer<HookEnd> {
        // Whatever else OpenClaw's repair does, it writes down when it ran.
        self.fingerprint.config += u64::from(matches!(call, Call::Repair { .. }));
        Ok(self.hook.ends.clone())
    }

    fn end_hook(&mut self, _ticket: u64) -> Answer<HookEnd> {
        Ok(self.hook.hears.map(|delay| (delay, HookEnd::Ended(TERMED))))
    }

    fn kill_hook(&mut self, _ticket: u64) -> Answer<HookEnd> {
        Ok(self.hook.dies.map(|delay| (delay, HookEnd::Ended(KILLED))))
    }
}
