//! What the loop acts through: the gateway that is ours, the probe, the store. Each method is one order; none decides.

use super::diagnostics::Diagnostics;
use super::input::Input;
use super::reporter::Reporter;
use crate::core::event::Remains;
use crate::core::{
    Call, Event, Fact, Fingerprint, Generation, HangContext, Hook, HookEnd, LeaseRequest, LeftRecord, Owner,
    ProbeScope, Report, Request, Requester, Settled, SpawnFailure,
};
use crate::gateway::adopt::{self, Found};
use crate::gateway::handoff::Handoff;
use crate::gateway::hooks::{Hooks, Running};
use crate::gateway::incident::HungGateway;
use crate::gateway::openclaw::{self, Openclaw};
use crate::gateway::probe::{Look, Prober};
use crate::gateway::process::{self, Birth, Departure, Gateway, Launch, Sweep};
use crate::gateway::tree::Orphans;
use crate::host::{clock, manager};
use crate::store::{Intent, Store};
use std::io;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// The hands of the loop.
pub struct Shell {
    launch: Arc<Launch>,
    prober: Arc<Prober>,
    orphans: Orphans,
    store: Store,
    gateway: Option<Gateway>,
    hooks: Arc<Hooks>,
    /// The program and its files, where the command names them.
    openclaw: Option<Openclaw>,
    handoff: Handoff,
    diagnostics: Diagnostics,
    /// The hook that was started last.
    running: Option<Running>,
    /// The youngest gateway that the store was told of, and its instance id.
    recorded: (Generation, String),
    /// What the store says of the gateway of a predecessor.
    left: Option<LeftRecord>,
    departure: Option<Departure>,
    /// The kill of a tree that was begun last, with the look for strays after it.
    killing: Option<JoinHandle<()>>,
    /// Who belonged to the gateway when that was last written down.
    members: Arc<Mutex<Vec<(i32, u64)>>>,
    /// The last look at them, before we end.
    looking: Option<JoinHandle<()>>,
    /// Where the wings tell the loop what they have to say.
    inputs: Sender<Input>,
}

impl Shell {
    /// Hands that hold nothing. To be made before anything is spawned.
    #[must_use]
    pub fn new(
        launch: Launch,
        hooks: Hooks,
        prober: Prober,
        diagnostics: Diagnostics,
        store: Store,
        inputs: Sender<Input>,
    ) -> Self {
        let openclaw = Openclaw::of(&launch);
        Self {
            launch: Arc::new(launch),
            prober: Arc::new(prober),
            orphans: Orphans::survey(),
            store,
            gateway: None,
            hooks: Arc::new(hooks),
            handoff: Handoff::of(openclaw.clone(), &diagnostics.store_dir),
            openclaw,
            diagnostics,
            running: None,
            recorded: (0, String::new()),
            left: None,
            departure: None,
            killing: None,
            members: Arc::default(),
            looking: None,
            inputs,
        }
    }

    pub(super) fn lease(&self, ticket: u64, ask: LeaseRequest) {
        self.store.ask(ticket, ask, clock::now());
    }

    /// The lease is ours. The store knows of this gateway of a predecessor.
    pub(super) fn enter_lease(&mut self, left: Option<LeftRecord>) -> Option<Event> {
        self.left = left;
        process::clear_leaves(&self.launch);
        self.hooks.clear_leaves();
        // Before the first gateway, so that it is right for that one too.
        self.handoff.recall().map(|support| Event::Negotiated { support })
    }

    pub(super) fn watch(&mut self, pid: i32) {
        self.departure = Some(process::watch_departure(pid, &self.inputs));
    }

    pub(super) fn probe(&mut self, ticket: u64, ask: ProbeScope) {
        self.departure = None;
        let look = match ask {
            ProbeScope::Port => Look::AnswersAndOwner { leader: None },
            ProbeScope::Listener(generation) => {
                self.note_members(generation);
                Look::AnswersAndOwner { leader: self.owned(generation).and_then(Gateway::pid) }
            }
            ProbeScope::Liveness(_) => Look::Answers,
        };
        let (prober, inputs) = (Arc::clone(&self.prober), self.inputs.clone());
        tokio::spawn(async move {
            let sighting = prober.look(look).await;
            // A closed channel means that the loop has ended and nobody waits for the answer.
            let _closed = inputs.send(Event::Probed { ticket, sighting }.into()).await;
        });
    }

    /// Has the gateway send `Measured`, if there is one.
    pub(super) fn measure(&self, generation: Generation, tree: bool) {
        let Some(gateway) = self.owned(generation) else { return };
        let (measured, inputs) = (gateway.measure(tree), self.inputs.clone());
        tokio::spawn(async move {
            if let Some(sample) = measured.await {
                let _closed = inputs.send(Event::Measured { generation, sample }.into()).await;
            }
        });
    }

    /// Of a gateway that is not there any more nothing can be found; the news of its end is on its way.
    pub(super) fn examine(&self, generation: Generation, case: Box<HangContext>) {
        if let Some(gateway) = self.owned(generation) {
            self.diagnostics.examine(generation, HungGateway::of(gateway), case, &self.inputs);
        }
    }

    pub(super) fn negotiate(&self) {
        self.handoff.negotiate(&self.inputs);
    }

    pub(super) fn consume(&self, ticket: u64, pid: i32) {
        self.handoff.consume(ticket, pid, &self.inputs);
    }

    /// Has the store write down that this gateway will be started.
    pub(super) fn record(&mut self, generation: Generation) {
        self.record_as(generation, process::new_instance(&self.launch.key));
    }

    pub(super) fn confirm(&self, ticket: u64) {
        self.store.confirm(ticket);
    }

    pub(super) fn spawn(&mut self, generation: Generation, no_respawn: bool) -> Option<Event> {
        if let Some(failure) = self.obstacle() {
            return Some(Event::SpawnFailed { generation, failure });
        }
        // Taken before the start: what is changed later is another state of the files.
        let fingerprint = self.fingerprint();
        super::crash_point::pass();
        let birth = Birth { generation, instance: &self.recorded.1, no_respawn, fingerprint };
        let spawned = Gateway::spawn(birth, &self.launch, self.orphans, &self.inputs);
        super::crash_point::pass();
        match spawned {
            Ok(gateway) => {
                // On record even if its execve(2) never returns: a successor has to find it.
                let (pid, start_time) = (gateway.pid().unwrap_or(0), gateway.start_time().unwrap_or(0));
                self.store.spawned(generation, pid, start_time);
                self.gateway = Some(gateway);
                None
            }
            Err(failure) => Some(Event::SpawnFailed { generation, failure }),
        }
    }

    /// What keeps the gateway from being started just now.
    fn obstacle(&self) -> Option<SpawnFailure> {
        self.openclaw.as_ref()?.obstacle(clock::wall())
    }

    /// The state of the configuration and of the program's files.
    fn fingerprint(&self) -> Fingerprint {
        let config = openclaw::fingerprint([Some(self.launch.config.as_path())]);
        Fingerprint { config, program: self.openclaw.as_ref().map_or(0, Openclaw::fingerprint) }
    }

    /// Keeps a gateway of a predecessor. One that no record spoke of gets one.
    fn hold_adopted(&mut self, gateway: Gateway) {
        let generation = gateway.generation();
        if self.left(generation).is_none() {
            self.record_as(generation, gateway.instance().to_owned());
        }
        if let (Some(pid), Some(start_time)) = (gateway.pid(), gateway.start_time()) {
            self.store.adopted(generation, pid, start_time);
        }
        self.gateway = Some(gateway);
    }

    /// Looks for what a predecessor left; [`Shell::take_found`] gets what is found.
    pub(super) fn adopt(&mut self, generation: Generation) {
        let (launch, inputs, left) = (Arc::clone(&self.launch), self.inputs.clone(), self.left(generation));
        let (prober, members) = (Arc::clone(&self.prober), Arc::clone(&self.members));
        tokio::spawn(async move {
            let found = if let Some(left) = left {
                adopt::find(&left, &launch).await
            } else {
                let sighting = prober.look(Look::AnswersAndOwner { leader: None }).await;
                let holder = match sighting.owner {
                    Owner::Ours(holder) => Some(holder.pid),
                    Owner::Other(_) | Owner::Unseen => None,
                };
                // Without the lock: another look at the members need not wait.
                let members = members.lock().await.clone();
                adopt::find_by_key(&launch, holder, &members).await
            };
            let _closed = inputs.send(Input::Found(generation, found)).await;
        });
    }

    fn left(&self, generation: Generation) -> Option<LeftRecord> {
        self.left.clone().filter(|left| left.generation == generation)
    }

    /// An answer that was given up for lost may come after another one: a gateway is taken hold of once.
    pub(super) fn take_found(&mut self, generation: Generation, found: io::Result<Found>) -> Option<Event> {
        if self.owned(generation).is_some() {
            return None;
        }
        let adopted = found.and_then(|found| {
            let remains = found.remains().clone();
            if matches!(remains, Remains::Leader { .. } | Remains::Orphans { .. }) {
                let gateway = Gateway::adopt(generation, found, &self.inputs)?;
                self.hold_adopted(gateway);
            }
            Ok(remains)
        });
        Some(match adopted {
            Ok(remains) => Event::Adopted { generation, remains },
            Err(error) => {
                tracing::warn!(generation, %error, "cannot look for an earlier gateway; raise the limit on open files");
                Event::AdoptFailed { generation, why: error.to_string() }
            }
        })
    }

    fn record_as(&mut self, generation: Generation, instance: String) {
        self.recorded = (generation, instance.clone());
        self.store.intend(Intent { generation, instance, command: self.launch.text() });
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact) {
        // Its pre-start hook failed: an attempt that counts for the next supervisor too.
        let is_unknown = self.recorded.0 != generation && self.left(generation).is_none();
        if is_unknown && fact == Fact::Settled(Settled::NeverStarted) {
            self.record(generation);
        }
        self.store.remember(generation, fact, clock::now());
        if matches!(fact, Fact::Started | Fact::Stable) {
            self.note_members(generation);
        }
    }

    /// Has the store write down who belongs to the gateway now, for a successor who has to find them.
    pub(super) fn note_members(&self, generation: Generation) -> Option<JoinHandle<()>> {
        let gateway = self.owned(generation)?;
        let (looked, store, known) = (gateway.members(), self.store.clone(), Arc::clone(&self.members));
        Some(tokio::spawn(async move {
            let Some(members) = looked.await else { return };
            let before = std::mem::replace(&mut *known.lock().await, members.clone());
            if before != members {
                store.members(generation, members);
            }
        }))
    }

    /// What goes on without us has to be found by a successor. [`Shell::finish_sweep`] waits for this look.
    pub(super) fn look_at_the_end(&mut self, generation: Generation) {
        self.looking = self.note_members(generation);
    }

    /// Waits for the last look at the members, and for the look for strays, if they go on: some 150 ms.
    pub(super) fn finish_sweep(&mut self) {
        let looks = [self.looking.take(), self.killing.take()];
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            for look in looks.into_iter().flatten() {
                let _panicked = look.await;
            }
            let _closed = inputs.send(Event::SweepFinished.into()).await;
        });
    }

    pub(super) fn clear_hooks(&self, heir: bool) {
        let (hooks, inputs) = (Arc::clone(&self.hooks), self.inputs.clone());
        tokio::spawn(async move {
            let trouble = hooks.clear(heir).await.err().map(|error| error.to_string());
            if let Some(error) = &trouble {
                tracing::warn!(error, "cannot look for hooks of an earlier supervisor; raise the limit on open files");
            }
            let _closed = inputs.send(Event::HooksCleared { trouble }.into()).await;
        });
    }

    pub(super) fn hook(&mut self, ticket: u64, call: &Call) {
        // A start would not follow.
        if let (Hook::PreStart, Some(SpawnFailure::Updating(why))) = (call.hook(), self.obstacle()) {
            return self.tell_hook_ended(ticket, HookEnd::Postponed(why));
        }
        super::crash_point::pass();
        match self.hooks.call(ticket, call, &self.inputs) {
            Ok(running) => self.running = Some(running),
            Err(end) => self.tell_hook_ended(ticket, end),
        }
        super::crash_point::pass();
    }

    fn tell_hook_ended(&self, ticket: u64, end: HookEnd) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let _closed = inputs.send(Event::HookEnded { ticket, end }.into()).await;
        });
    }

    pub(super) fn end_hook(&self, ticket: u64) {
        self.signal_hook(ticket, Running::terminate);
    }

    pub(super) fn kill_hook(&self, ticket: u64) {
        self.signal_hook(ticket, Running::kill);
    }

    fn signal_hook(&self, ticket: u64, signal: impl FnOnce(&Running) -> io::Result<()>) {
        let running = self.running.as_ref().filter(|running| running.ticket() == ticket);
        if let Some(Err(error)) = running.map(signal) {
            // The core's deadline for its end goes on all the same.
            tracing::warn!(%error, "cannot send a signal to a hook");
        }
    }

    pub(super) fn terminate(&self, generation: Generation) {
        if let Some(gateway) = self.owned(generation) {
            gateway.terminate();
        }
    }

    pub(super) fn kill_tree(&mut self, generation: Generation) {
        if let Some(gateway) = self.gateway.as_ref().filter(|gateway| gateway.generation() == generation) {
            let begun = clock::now();
            // A gateway that was told to end may be our last: nobody would be there to look for strays afterwards.
            let sweep = if gateway.was_terminated() { Sweep::Now } else { Sweep::Later };
            let elapsed = move || clock::now().saturating_sub(begun);
            self.killing = Some(gateway.kill_tree(sweep, elapsed, &self.inputs));
        }
    }

    fn owned(&self, generation: Generation) -> Option<&Gateway> {
        self.gateway.as_ref().filter(|gateway| gateway.generation() == generation)
    }

    /// Lets go of a gateway that the core has done with.
    pub(super) fn let_go(&mut self, held: Option<Generation>) {
        if let Some(gateway) = self.gateway.take_if(|gateway| held != Some(gateway.generation())) {
            // Another one takes its place with nothing between them: a successor, and all the rest is that one's now.
            if held.is_some() {
                let (looked, known) = (gateway.members(), Arc::clone(&self.members).try_lock_owned());
                tokio::spawn(async move {
                    let members = looked.await;
                    if let (Some(members), Ok(mut known)) = (members, known) {
                        *known = members;
                    }
                    gateway.release();
                });
            } else {
                gateway.release();
            }
            self.prober.forget();
        }
    }

    /// Grants a request, or says why not.
    pub(super) fn admit(&self, request: Request, by: Requester, reporter: &Reporter) -> Option<Event> {
        if request != Request::Detach {
            return Some(Event::Requested { request, by });
        }
        let (inputs, reporter) = (self.inputs.clone(), reporter.clone());
        tokio::spawn(async move {
            match manager::refuses_detach().await {
                Some(why) => reporter.report(&Report::DetachRefused { why }),
                None => {
                    let _closed = inputs.send(Event::Requested { request, by }.into()).await;
                }
            }
        });
        None
    }
}
