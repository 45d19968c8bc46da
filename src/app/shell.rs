//! What the loop acts through: the gateway that is ours, the probe, the store. Each method is one order; none decides.

use super::Reporter;
use super::diagnostics::Diagnostics;
use super::orders::{Order, Orders};
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
use crate::store::{Intent, News, Store};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// The pause before an earlier gateway is looked for again when the processes could not be listed.
const SEEK_AGAIN: Duration = Duration::from_secs(1);

/// How long an exit waits for a look for strays that goes on.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(2);

/// What was found of an earlier gateway, and which one was looked for.
pub type Find = (Generation, io::Result<Found>);

/// Where the wings tell what they have to say.
pub struct Senders {
    /// Of the gateway.
    pub events: Sender<Event>,
    /// Of the search for an earlier gateway.
    pub finds: Sender<Find>,
    /// In the place of a store that does not answer.
    pub news: Sender<News>,
}

/// What is needed to start a gateway once its record is written.
struct Intended {
    generation: Generation,
    instance: String,
    no_respawn: bool,
}

/// The hands of the loop.
pub struct Shell {
    launch: Arc<Launch>,
    prober: Arc<Prober>,
    orphans: Orphans,
    store: Store,
    gateway: Option<Gateway>,
    orders: Orders,
    hooks: Arc<Hooks>,
    /// The program and its files, where the command names them.
    openclaw: Option<Openclaw>,
    handoff: Handoff,
    diagnostics: Diagnostics,
    /// A hook whose start waits for the store.
    called: Option<(u64, Call)>,
    /// The hook that was started last.
    running: Option<Running>,
    /// The youngest gateway that the store was told of.
    recorded: Generation,
    /// A spawn whose record is being written.
    intended: Option<Intended>,
    /// What the store says of the gateway of a predecessor.
    left: Option<LeftRecord>,
    departure: Option<Departure>,
    /// The kill of a tree that was begun last, with the look for strays after it.
    killing: Option<JoinHandle<()>>,
    /// Who belonged to the gateway when that was last written down.
    members: Arc<Mutex<Vec<(i32, u64)>>>,
    events: Sender<Event>,
    finds: Sender<Find>,
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
        senders: Senders,
    ) -> Self {
        let Senders { events, finds, news } = senders;
        let (orders, openclaw) = (Orders::new(store.clone(), news), Openclaw::of(&launch));
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
            called: None,
            running: None,
            recorded: 0,
            intended: None,
            left: None,
            orders,
            departure: None,
            killing: None,
            members: Arc::default(),
            events,
            finds,
        }
    }

    pub(super) fn lease(&self, ticket: u64, ask: LeaseRequest) {
        self.store.ask(ticket, ask, clock::now());
    }

    /// The lease is ours. The store knows of this gateway of a predecessor.
    pub(super) fn enter_lease(&mut self, left: Option<LeftRecord>, heartbeat: bool) {
        self.left = left;
        self.orders.enter_lease(heartbeat);
        process::clear_leaves(&self.launch);
        self.hooks.clear_leaves();
        if let Some(support) = self.handoff.recall() {
            // Before the first gateway, so that it is right for that one too. A full channel leaves it to be asked for.
            let _full = self.events.try_send(Event::Negotiated { support });
        }
    }

    pub(super) fn watch(&mut self, pid: i32) {
        self.departure = Some(process::watch_departure(pid, &self.events));
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
        let (prober, events) = (Arc::clone(&self.prober), self.events.clone());
        tokio::spawn(async move {
            let sighting = prober.look(look).await;
            // A closed channel means that the loop has ended and nobody waits for the answer.
            let _closed = events.send(Event::Probed { ticket, sighting }).await;
        });
    }

    /// Has the gateway send `Measured`, if there is one.
    pub(super) fn measure(&self, generation: Generation, tree: bool) {
        let Some(gateway) = self.owned(generation) else { return };
        let (measured, events) = (gateway.measure(tree), self.events.clone());
        tokio::spawn(async move {
            if let Some(sample) = measured.await {
                let _closed = events.send(Event::Measured { generation, sample }).await;
            }
        });
    }

    /// Of a gateway that is not there any more nothing can be found; the news of its end is on its way.
    pub(super) fn examine(&self, generation: Generation, case: Box<HangContext>) {
        if let Some(gateway) = self.owned(generation) {
            self.diagnostics.examine(generation, HungGateway::of(gateway), case, &self.events);
        }
    }

    pub(super) fn negotiate(&self) {
        self.handoff.negotiate(&self.events);
    }

    pub(super) fn consume(&self, ticket: u64, pid: i32) {
        self.handoff.consume(ticket, pid, &self.events);
    }

    /// Has the store write down that this gateway will be started; [`Shell::intended`] follows when it has.
    pub(super) fn intend(&mut self, generation: Generation, no_respawn: bool) {
        let instance = process::new_instance(&self.launch.key);
        let command = self.launch.text();
        self.recorded = generation;
        self.orders.intend(Intent { generation, instance: instance.clone(), command });
        self.intended = Some(Intended { generation, instance, no_respawn });
    }

    fn spawn(&mut self, generation: Generation) -> Option<Event> {
        let Intended { instance, no_respawn, .. } =
            self.intended.take_if(|intended| intended.generation == generation)?;
        if let Some(failure) = self.obstacle() {
            return Some(Event::SpawnFailed { generation, failure });
        }
        // Taken before the start: what is changed later is another state of the files.
        let fingerprint = self.fingerprint();
        super::crash_point::pass();
        let birth = Birth { generation, instance: &instance, no_respawn, fingerprint };
        let spawned = Gateway::spawn(birth, &self.launch, self.orphans, &self.events);
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
            self.record(generation, gateway.instance().to_owned());
        }
        if let (Some(pid), Some(start_time)) = (gateway.pid(), gateway.start_time()) {
            self.store.adopted(generation, pid, start_time);
        }
        self.gateway = Some(gateway);
    }

    /// Looks for what a predecessor left; [`Shell::take_find`] gets what is found.
    pub(super) fn adopt(&mut self, generation: Generation) {
        self.seek(generation, self.left(generation), Duration::ZERO);
    }

    fn left(&self, generation: Generation) -> Option<LeftRecord> {
        self.left.clone().filter(|left| left.generation == generation)
    }

    fn seek(&self, generation: Generation, left: Option<LeftRecord>, pause: Duration) {
        let (launch, finds) = (Arc::clone(&self.launch), self.finds.clone());
        let (prober, members) = (Arc::clone(&self.prober), Arc::clone(&self.members));
        tokio::spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
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
            let _closed = finds.send((generation, found)).await;
        });
    }

    pub(super) fn take_find(&mut self, (generation, found): Find) -> Option<Event> {
        let adopted = found.and_then(|found| {
            let remains = found.remains().clone();
            if matches!(remains, Remains::Leader { .. } | Remains::Orphans { .. }) {
                let gateway = Gateway::adopt(generation, found, &self.events)?;
                self.hold_adopted(gateway);
            }
            Ok(remains)
        });
        match adopted {
            Ok(remains) => Some(Event::Adopted { generation, remains }),
            Err(error) => {
                tracing::warn!(generation, %error, "cannot look for an earlier gateway; raise the limit on open files");
                self.seek(generation, self.left(generation), SEEK_AGAIN);
                None
            }
        }
    }

    /// Has the store make a record, which nothing waits for.
    fn record(&mut self, generation: Generation, instance: String) {
        self.recorded = generation;
        self.store.intend(Intent { generation, instance, command: self.launch.text() });
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact) {
        // Its pre-start hook failed: an attempt that counts for the next supervisor too.
        let is_unknown = self.recorded != generation && self.left(generation).is_none();
        if is_unknown && fact == Fact::Settled(Settled::NeverStarted) {
            self.record(generation, process::new_instance(&self.launch.key));
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

    /// Waits for the last look at the members, and for the look for strays, if they go on: some 150 ms.
    pub(super) async fn end_looks(&mut self, members: Option<JoinHandle<()>>, holds_lease: bool) {
        let killing = self.killing.take().filter(|_| holds_lease);
        for look in members.into_iter().chain(killing) {
            // What takes longer than this is in an uninterruptible sleep.
            let _over = tokio::time::timeout(SWEEP_TIME_MAX, look).await;
        }
    }

    /// Ends the hooks that a dead supervisor left, then has the loop take in this event. `is_heir` says that one died.
    /// An event that has nothing to wait for is returned.
    pub(super) fn clear_hooks(&self, is_heir: bool, then: Event) -> Option<Event> {
        if !self.hooks.may_be_left(is_heir) {
            return Some(then);
        }
        let (hooks, events) = (Arc::clone(&self.hooks), self.events.clone());
        tokio::spawn(async move {
            hooks.clear(is_heir).await;
            let _closed = events.send(then).await;
        });
        None
    }

    pub(super) fn hook(&mut self, ticket: u64, call: Call) {
        let generation = call.generation();
        self.called = Some((ticket, call));
        self.ask(generation, Order::Hook);
    }

    fn start_hook(&mut self) {
        // None if it was taken back.
        let Some((ticket, call)) = self.called.take() else { return };
        // A start would not follow.
        if let (Hook::PreStart, Some(SpawnFailure::Updating(why))) = (call.hook(), self.obstacle()) {
            return self.tell_hook_ended(ticket, HookEnd::Postponed(why));
        }
        super::crash_point::pass();
        match self.hooks.call(ticket, &call, &self.events) {
            Ok(running) => self.running = Some(running),
            Err(end) => self.tell_hook_ended(ticket, end),
        }
        super::crash_point::pass();
    }

    fn tell_hook_ended(&self, ticket: u64, end: HookEnd) {
        let events = self.events.clone();
        tokio::spawn(async move {
            let _closed = events.send(Event::HookEnded { ticket, end }).await;
        });
    }

    /// It needs no word of the store: this is a child of our own and no gateway.
    pub(super) fn end_hook(&mut self, ticket: u64) {
        self.signal_hook(ticket, Running::terminate);
    }

    pub(super) fn kill_hook(&mut self, ticket: u64) {
        self.signal_hook(ticket, Running::kill);
    }

    fn signal_hook(&mut self, ticket: u64, signal: impl FnOnce(&Running) -> io::Result<()>) {
        if self.called.take_if(|(called, _)| *called == ticket).is_some() {
            let why = "it was taken back before the store had confirmed the lease".to_owned();
            return self.tell_hook_ended(ticket, HookEnd::NotStarted(why));
        }
        let running = self.running.as_ref().filter(|running| running.ticket() == ticket);
        if let Some(Err(error)) = running.map(signal) {
            // The core's deadline for its end goes on all the same.
            tracing::warn!(%error, "cannot send a signal to a hook");
        }
    }

    pub(super) fn terminate(&mut self, generation: Generation) {
        self.ask(generation, Order::Terminate);
    }

    pub(super) fn kill_tree(&mut self, generation: Generation) {
        self.ask(generation, Order::Kill);
    }

    fn ask(&mut self, generation: Generation, order: Order) {
        let due = self.orders.ask(generation, order);
        self.carry_out(due.into_iter().collect());
    }

    /// The record of this spawn is written, or cannot be.
    pub(super) fn intended(&mut self, generation: Generation) -> Option<Event> {
        let due = self.orders.intended(generation);
        self.carry_out(due)
    }

    /// The lease was ours when this was asked.
    pub(super) fn confirmed(&mut self, ticket: u64) -> Option<Event> {
        let due = self.orders.confirmed(ticket);
        self.carry_out(due)
    }

    /// At most one of the orders is a spawn, and only a spawn is news.
    fn carry_out(&mut self, orders: Vec<(Generation, Order)>) -> Option<Event> {
        let mut news = None;
        for (generation, order) in orders {
            match order {
                Order::Spawn => news = self.spawn(generation),
                Order::Terminate => self.terminate_now(generation),
                Order::Kill => self.kill_now(generation),
                Order::Hook => self.start_hook(),
            }
        }
        news
    }

    fn terminate_now(&mut self, generation: Generation) {
        if let Some(gateway) = self.owned(generation) {
            gateway.terminate();
        }
    }

    fn kill_now(&mut self, generation: Generation) {
        if let Some(gateway) = self.gateway.as_ref().filter(|gateway| gateway.generation() == generation) {
            let begun = clock::now();
            // A gateway that was told to end may be our last: nobody would be there to look for strays afterwards.
            let sweep = if gateway.was_terminated() { Sweep::Now } else { Sweep::Later };
            let elapsed = move || clock::now().saturating_sub(begun);
            self.killing = Some(gateway.kill_tree(sweep, elapsed, &self.events));
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
        let (events, reporter) = (self.events.clone(), reporter.clone());
        tokio::spawn(async move {
            match manager::refuses_detach().await {
                Some(why) => reporter.report(&Report::DetachRefused { why }),
                None => {
                    let _closed = events.send(Event::Requested { request, by }).await;
                }
            }
        });
        None
    }
}
