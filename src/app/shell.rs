//! What the loop acts through: the gateway that is ours, the probe, the store. Each method is one order; none decides.

mod hook_calls;
mod owner;
mod preparation;
mod records;
mod requests;
mod search;
mod whereabouts;

pub use preparation::Prepared;
pub use whereabouts::Whereabouts;

use super::diagnostics::Diagnostics;
use super::input::{Entrance, Input};
use crate::core::event::Remains;
use crate::core::{
    Call, Contested, Event, Fact, Generation, HangContext, Hook, HookEnd, Installers, LeaseAnswer, LeaseRequest,
    LeftRecord, Moved, Observation, Owner, ProbeScope, SpawnFailure,
};
use crate::gateway::adopt::Found;
use crate::gateway::handoff::Handoff;
use crate::gateway::hooks::Hooks;
use crate::gateway::incident::HungGateway;
use crate::gateway::openclaw::Openclaw;
use crate::gateway::probe::{Look, Prober};
use crate::gateway::process::{self, Birth, Departure, Gateway, Heir, Kill, Launch, Sweep};
use crate::gateway::sample::Sampling;
use crate::gateway::tree::Orphans;
use crate::host::clock;
use crate::host::control::BoundSocket;
use crate::platform::claim::Server;
use crate::platform::standard_streams;
use crate::platform::thread::BlockingCall;
use crate::store::{PauseKeeper, RecordedPause, Store};
use hook_calls::HookCalls;
use preparation::{Preparation, Site, Start};
use records::Records;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// What takes longer is a file system that hangs.
const BOUNDING_TIME_MAX: Duration = Duration::from_secs(10);

/// The same for what a lease begins with. The supervisor goes on without it.
const ENTERING_TIME_MAX: Duration = Duration::from_secs(2);

/// The gateway's side, and with it the store's and the hooks'.
pub struct Shell {
    launch: Arc<Launch>,
    /// The program as the user named it.
    program_word: OsString,
    prober: Arc<Prober>,
    orphans: Orphans,
    gateway: Option<Gateway>,
    /// The program and its files, where the command names them.
    openclaw: Option<Openclaw>,
    handoff: Handoff,
    diagnostics: Diagnostics,
    records: Records,
    whereabouts: Whereabouts,
    /// When the write of the last confirmation began that the core was told of, since the boot.
    confirmed: Option<Duration>,
    hooks: HookCalls,
    preparation: Preparation,
    departure: Option<Departure>,
    /// The kill of a tree that was begun last, with the look for strays after it.
    killing: Option<JoinHandle<()>>,
    pause: PauseKeeper,
    /// Keeps the log file small.
    bounding: BlockingCall,
    /// The last look at the members of the gateway, before we end.
    looking: Option<JoinHandle<()>>,
    inputs: Sender<Input>,
    /// That the search for an earlier gateway fails is told. It is repeated each second.
    has_told: bool,
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
        whereabouts: Whereabouts,
        inputs: Sender<Input>,
    ) -> Self {
        let (openclaw, launch) = (Openclaw::of(&launch), Arc::new(launch));
        Self {
            whereabouts,
            records: Records::new(store, Arc::clone(&launch)),
            program_word: launch.program.clone().into(),
            confirmed: None,
            launch,
            prober: Arc::new(prober),
            orphans: Orphans::survey(),
            gateway: None,
            pause: PauseKeeper::in_folder(&diagnostics.store_dir),
            handoff: Handoff::of(openclaw.clone(), &diagnostics.store_dir),
            openclaw,
            diagnostics,
            hooks: HookCalls::new(hooks, inputs.clone()),
            preparation: Preparation::default(),
            departure: None,
            killing: None,
            bounding: BlockingCall::default(),
            looking: None,
            inputs,
            has_told: false,
        }
    }

    pub(super) fn lease(&self, ticket: u64, ask: LeaseRequest) {
        self.records.ask(ticket, ask);
    }

    /// Asks the living owner whether it is stopping; `OwnerAsked` brings its answer.
    pub(super) fn ask_owner(&self, ticket: u64, what: Contested) {
        let (store_dir, port) = (self.diagnostics.store_dir.clone(), self.prober.endpoint().port);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let plan = owner::ask(what, store_dir, port).await;
            let _closed = inputs.send(Event::OwnerAsked { ticket, plan }.into()).await;
        });
    }

    /// The lease is ours. The store knows of this gateway of a predecessor. `bind` makes the control socket. `Entered` comes
    /// when all that blocks on a file system is done, or takes too long: before the first gateway, so that what is known of the
    /// handoff is right for that one too.
    pub(super) fn enter_lease(
        &mut self,
        left: Option<LeftRecord>,
        (ticket, answer): (u64, LeaseAnswer),
        bind: impl FnOnce() -> io::Result<BoundSocket> + Send + 'static,
    ) {
        self.prober.expect_user(left.as_ref().and_then(|left| left.tree.uid));
        self.records.enter_lease(left);
        let (launch, clear_hooks) = (Arc::clone(&self.launch), self.hooks.leaves());
        let (handoff, inputs) = (self.handoff.clone(), self.inputs.clone());
        let store_dir = self.diagnostics.store_dir.clone();
        let looks = move || {
            process::clear_leaves(&launch);
            clear_hooks();
            (handoff.recall(), RecordedPause::read(&store_dir), bind())
        };
        tokio::spawn(async move {
            let looked = BlockingCall::default().run(ENTERING_TIME_MAX, looks).await;
            let (support, pause, socket) = looked.unwrap_or_else(|error| (None, None, Err(error)));
            let entrance = Entrance { ticket, answer, support, socket, pause };
            let _closed = inputs.send(Input::Entered(Box::new(entrance))).await;
        });
    }

    /// Makes a control socket beside the loop; `Bound` brings it.
    pub(super) fn bind(&self, bind: impl FnOnce() -> io::Result<BoundSocket> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let bound = BlockingCall::default().run(ENTERING_TIME_MAX, bind).await;
            let _closed = inputs.send(Input::Bound(bound.unwrap_or_else(Err))).await;
        });
    }

    pub(super) fn watch(&mut self, pid: i32) {
        self.departure = Some(process::watch_departure(pid, &self.inputs));
    }

    pub(super) fn probe(&mut self, ticket: u64, ask: ProbeScope) {
        self.departure = None;
        if standard_streams::log_in_use().is_some() {
            let bounding = self.bounding.clone();
            tokio::spawn(async move { bounding.run(BOUNDING_TIME_MAX, standard_streams::bound).await });
        }
        let prober = Arc::clone(&self.prober);
        match ask {
            ProbeScope::Port => self.answer_probe(ticket, self.whereabouts.look_before_spawn(prober)),
            ProbeScope::Listener(generation) => {
                self.note_members(generation);
                let child =
                    self.owned(generation).and_then(|gateway| Some((gateway.pid()?, gateway.known(), gateway.notes())));
                let settings = self.whereabouts.read();
                self.answer_probe(ticket, async move {
                    match child {
                        Some((leader, known, notes)) => {
                            let members = async { known.await.map(|known| known.members) };
                            let seen = prober.find(leader, members, settings).await;
                            if let Owner::Ours(listener) = &seen.owner {
                                notes.add_listener(listener.pid).await;
                            }
                            seen
                        }
                        None => prober.look(Look::AnswersAndOwner { leader: None }).await,
                    }
                });
            }
            ProbeScope::Liveness(generation) => {
                let leader = self.owned(generation).and_then(Gateway::pid);
                self.answer_probe(ticket, async move { prober.look(Look::Answers { leader }).await });
            }
        }
    }

    fn answer_probe(&self, ticket: u64, look: impl Future<Output = Observation> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let sighting = look.await;
            // A closed channel means that the loop has ended and needs no answer.
            let _closed = inputs.send(Event::Probed { ticket, sighting }.into()).await;
        });
    }

    /// From now on the gateway is looked for there.
    pub(super) fn follow(&mut self, moved: Moved) {
        let claim = self.whereabouts.follow(&moved, self.prober.endpoint().port);
        let Moved { to, .. } = moved;
        self.diagnostics.surroundings.port = to.port;
        self.records.store.move_to(to.host.clone(), to.port, claim);
        self.prober = Arc::new(self.prober.at(to));
        if self.gateway.is_some() {
            self.prober.expect_answer();
        }
    }

    pub(super) fn serve_claim(&mut self, server: Server) {
        self.whereabouts.serve(server);
    }

    /// Has the gateway send `Measured`, if there is one.
    pub(super) fn measure(&self, generation: Generation, sampling: Sampling) {
        let Some(gateway) = self.owned(generation) else { return };
        let (measured, inputs) = (gateway.measure(sampling), self.inputs.clone());
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
        self.records.begin(generation);
    }

    /// The last confirmation of the lease, unless it was told. It does not wait behind other news.
    pub(super) fn confirmation(&mut self) -> Option<Event> {
        let confirmed = self.records.store.confirmed()?;
        let is_news = self.confirmed.replace(confirmed) != Some(confirmed);
        is_news.then(|| Event::LeaseConfirmed { age: clock::since_boot().saturating_sub(confirmed) })
    }

    pub(super) fn confirm(&self, ticket: u64) {
        self.records.store.confirm(ticket);
    }

    /// [`Shell::take_prepared`] starts it.
    pub(super) fn spawn(&mut self, generation: Generation, no_respawn: bool) {
        self.prepare(Start::Gateway { generation, no_respawn });
    }

    fn prepare(&mut self, start: Start) {
        let site = Site {
            program_word: self.program_word.clone(),
            launch: Arc::clone(&self.launch),
            openclaw: self.openclaw.clone(),
            files: self.whereabouts.files(),
        };
        let (looks, inputs) = (self.preparation.begin(start, site), self.inputs.clone());
        tokio::spawn(async move {
            let (number, prepared) = looks.await;
            let _closed = inputs.send(Input::Prepared(number, prepared)).await;
        });
    }

    /// The file systems that a start needs answer, or do not. Returns what the core is told.
    pub(super) fn take_prepared(&mut self, number: u64, prepared: io::Result<Box<Prepared>>) -> Vec<Event> {
        let Some(start) = self.preparation.take(number) else { return Vec::new() };
        let prepared = prepared.map_or_else(|error| Prepared::unknown(&error), |prepared| *prepared);
        let Prepared { moved, obstacle, fingerprint, streams, log } = prepared;
        if let Some((launch, openclaw)) = moved {
            self.move_program(launch, openclaw);
        }
        match start {
            Start::Gateway { generation, .. } if let Some(failure) = obstacle => {
                vec![Event::SpawnFailed { generation, failure }]
            }
            Start::Gateway { generation, no_respawn } => {
                super::crash_point::pass();
                let birth = Birth { generation, instance: self.records.instance(), no_respawn, fingerprint };
                let launch = self.whereabouts.complete(&self.launch);
                let spawned = Gateway::spawn(birth, &launch, &streams, self.orphans, &self.inputs);
                super::crash_point::pass();
                let mut events = vec![Event::OutputMoved { to: log }];
                match spawned {
                    Ok(gateway) => {
                        self.records.spawned(&gateway);
                        self.gateway = Some(gateway);
                    }
                    Err(failure) => events.push(Event::SpawnFailed { generation, failure }),
                }
                events
            }
            Start::Hook { ticket, call } => {
                let end = match obstacle {
                    // A start would not follow.
                    Some(SpawnFailure::Updating(why)) if call.hook() == Hook::PreStart => Some(HookEnd::Postponed(why)),
                    _ => {
                        self.hooks.call(ticket, &call, &streams, self.whereabouts.complete(&self.launch).exports).err()
                    }
                };
                end.map(|end| Event::HookEnded { ticket, end }).into_iter().collect()
            }
        }
    }

    /// Of a gateway that has not been started there is nothing to wait for.
    pub(super) fn take_back_start(&mut self) -> Option<Event> {
        let generation = self.preparation.take_back_gateway()?;
        let failure = SpawnFailure::Resources("it was taken back before it was started".to_owned());
        Some(Event::SpawnFailed { generation, failure })
    }

    fn move_program(&mut self, launch: Launch, openclaw: Option<Openclaw>) {
        tracing::warn!(
            "the gateway's program is another one now: {}; it was {}",
            launch.program.display(),
            self.launch.program.display()
        );
        self.launch = Arc::new(launch);
        self.records.set_launch(Arc::clone(&self.launch));
        self.openclaw = openclaw;
        self.handoff.set_openclaw(self.openclaw.clone());
        self.hooks.set_openclaw(self.openclaw.clone());
    }

    /// The same where the program was found under this name.
    #[must_use]
    pub fn with_program_word(self, program_word: OsString) -> Self {
        Self { program_word, ..self }
    }

    /// Looks for what a predecessor left; [`Shell::take_found`] gets what is found.
    pub(super) fn adopt(&mut self, generation: Generation) {
        let launch = self.whereabouts.read_and_complete(Arc::clone(&self.launch));
        let (inputs, left) = (self.inputs.clone(), self.records.left(generation));
        let (prober, tree, instance) =
            (Arc::clone(&self.prober), self.records.tree(), self.records.instance().to_owned());
        tokio::spawn(async move {
            let launch = launch.await;
            let found = search::find(left, &launch, &prober, &instance, &tree).await;
            let _closed = inputs.send(Input::Found(generation, found)).await;
        });
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
                self.records.adopted(&gateway);
                self.gateway = Some(gateway);
            }
            Ok(remains)
        });
        Some(match adopted {
            Ok(remains) => Event::Adopted { generation, remains },
            Err(error) => {
                if !std::mem::replace(&mut self.has_told, true) {
                    tracing::warn!(generation, %error, "cannot look for an earlier gateway; raise the limit on open files");
                }
                Event::AdoptFailed { generation, why: error.to_string() }
            }
        })
    }

    /// Records a pause, or (`None`) its end.
    pub(super) fn keep_pause(&self, pause: Option<(Duration, &str, &str)>) {
        match pause {
            Some((period, reason, by)) => self.pause.keep(period, reason, by),
            None => self.pause.forget(),
        }
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact) {
        self.records.remember(generation, fact);
        if matches!(fact, Fact::Started | Fact::Stable) {
            self.note_members(generation);
        }
    }

    /// Has the members of the gateway recorded, if there is one.
    fn note_members(&self, generation: Generation) -> Option<JoinHandle<()>> {
        self.owned(generation).map(|gateway| self.records.note_tree(gateway, Arc::clone(&self.prober)))
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
        self.hooks.clear(heir);
    }

    /// [`Shell::take_prepared`] starts it.
    pub(super) fn hook(&mut self, ticket: u64, call: Call) {
        self.prepare(Start::Hook { ticket, call });
    }

    /// Says whether it had not begun.
    fn take_back_hook(&mut self, ticket: u64) -> Option<Event> {
        let is_waiting = self.preparation.take_back_hook(ticket);
        let end = HookEnd::NotStarted("it was taken back before it was started".to_owned());
        is_waiting.then_some(Event::HookEnded { ticket, end })
    }

    pub(super) fn end_hook(&mut self, ticket: u64) -> Option<Event> {
        let taken_back = self.take_back_hook(ticket);
        if taken_back.is_none() {
            self.hooks.end(ticket);
        }
        taken_back
    }

    pub(super) fn kill_hook(&mut self, ticket: u64) -> Option<Event> {
        let taken_back = self.take_back_hook(ticket);
        if taken_back.is_none() {
            self.hooks.kill(ticket);
        }
        taken_back
    }

    pub(super) fn terminate(&self, generation: Generation) {
        if let Some(gateway) = self.owned(generation) {
            gateway.terminate();
        }
    }

    pub(super) fn terminate_listener(&self, generation: Generation, pid: i32) {
        if let Some(gateway) = self.owned(generation) {
            gateway.terminate_member(pid);
        }
    }

    /// Looks for what leads the tree of a gateway after its launcher; [`Shell::take_heir`] gets what is found.
    pub(super) fn seek_heir(&self, generation: Generation, listener: Option<i32>) {
        let Some(gateway) = self.owned(generation) else { return };
        let (heir, inputs) = (gateway.find_heir(listener), self.inputs.clone());
        tokio::spawn(async move {
            let _closed = inputs.send(Input::Heir(generation, heir.await)).await;
        });
    }

    /// The core may have given it up meanwhile: then the tree is being killed, and the news of its end changes nothing.
    pub(super) fn take_heir(&mut self, generation: Generation, heir: Option<Heir>) -> Option<Event> {
        let gateway = self.gateway.as_mut().filter(|gateway| gateway.generation() == generation)?;
        let pid = heir.and_then(|heir| gateway.follow(heir, &self.inputs));
        if pid.is_some() {
            self.records.spawned(gateway);
        }
        Some(Event::HeirSought { generation, pid })
    }

    pub(super) fn kill_tree(&mut self, generation: Generation, grace: Duration, strays: bool, installers: Installers) {
        if let Some(gateway) = self.gateway.as_ref().filter(|gateway| gateway.generation() == generation) {
            let begun = clock::now();
            // A gateway that was told to end may be our last: no later search would find its strays.
            let sweep = if gateway.was_terminated() { Sweep::Now } else { Sweep::Later };
            let elapsed = move || clock::now().saturating_sub(begun);
            let package = self.openclaw.as_ref().and_then(Openclaw::package).map(Path::to_owned);
            let kill = Kill { sweep, grace, strays, installers, package };
            self.killing = Some(gateway.kill_tree(kill, elapsed, &self.inputs));
        }
    }

    fn owned(&self, generation: Generation) -> Option<&Gateway> {
        self.gateway.as_ref().filter(|gateway| gateway.generation() == generation)
    }

    /// Lets go of a gateway that the core has done with.
    pub(super) fn let_go(&mut self, held: Option<Generation>) {
        if held.is_none() {
            self.preparation.take_back_gateway();
        }
        if let Some(gateway) = self.gateway.take_if(|gateway| held != Some(gateway.generation())) {
            // Another one takes its place with nothing between them: a successor, and all the rest is that one's now.
            if held.is_some() {
                let (looked, known) = (gateway.known(), self.records.try_lock_tree());
                tokio::spawn(async move {
                    let tree = looked.await;
                    if let (Some(tree), Ok(mut known)) = (tree, known) {
                        *known = tree;
                    }
                    gateway.release();
                });
            } else {
                gateway.release();
            }
            self.prober.forget();
        }
    }
}
