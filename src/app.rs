//! The loop: wait, step, perform. Nothing else.
//!
//! The core decides, the wings act, and this joins them. Every await stands in the one `select!`, and each of its arms
//! is a receive or a sleep, so that no arm that is dropped can lose anything.

use crate::core::supervisor::{Effects, JUMP_MIN};
use crate::core::{Ask, Effect, Event, Generation, Outcome, Report, Supervisor};
use crate::gateway::probe::{Look, Prober};
use crate::gateway::process::{Gateway, Launch};
use crate::gateway::tree::Orphans;
use crate::host::clock::{self, Clock};
use crate::host::signals::{Signal, Signals};
use crate::host::{journal, telemetry};
use crate::platform::{proc, process};
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many events of the wings may wait for the loop. Each gateway has at most one probe, one kill and one exit under
/// way, so more than a handful never do.
const EVENTS_WAITING_MAX: usize = 64;

/// The supervisor at work.
pub struct App {
    core: Supervisor,
    launch: Launch,
    prober: Arc<Prober>,
    orphans: Orphans,
    clock: Clock,
    gateway: Option<Gateway>,
    /// What effects brought about on the spot; taken in before anything else.
    own: VecDeque<Event>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl App {
    /// Ready to run. To be called before anything is spawned.
    #[must_use]
    pub fn new(core: Supervisor, launch: Launch, prober: Prober) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS_WAITING_MAX);
        Self {
            core,
            launch,
            prober: Arc::new(prober),
            orphans: Orphans::survey(),
            clock: Clock::new(),
            gateway: None,
            own: VecDeque::from([Event::Start]),
            events,
            inbox,
        }
    }

    /// Runs until the core has decided to exit.
    pub async fn run(mut self, mut signals: Signals) -> Outcome {
        loop {
            let event = self.next_event(&mut signals).await;
            let slept = self.clock.slept();
            let jump = (slept >= JUMP_MIN).then_some(Event::ClockJumped { by: slept });
            for event in jump.into_iter().chain(event) {
                if let Some(outcome) = self.turn(&event) {
                    return outcome;
                }
            }
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Option<Event> {
        if let Some(event) = self.own.pop_front() {
            return Some(event);
        }
        let wait = self.core.deadline().map(|deadline| deadline.saturating_sub(clock::now()));
        if wait.is_some_and(|wait| wait.is_zero()) {
            return Some(Event::Tick);
        }
        tokio::select! {
            biased;
            signal = signals.next() => self.take_signal(signal),
            event = self.inbox.recv() => event,
            () = sleep(wait) => Some(Event::Tick),
        }
    }

    /// One step of the core, and what it asks for.
    fn turn(&mut self, event: &Event) -> Option<Outcome> {
        let (now, mut effects) = (clock::now(), Effects::new());
        self.core.step(now, event.clone(), &mut effects);
        journal::note(now, event, &effects);
        // A gateway that the core has done with is a zombie at most, and its pid may go.
        if let Some(gateway) = self.gateway.take_if(|gateway| self.core.holds() != Some(gateway.generation())) {
            gateway.release();
            self.prober.forget();
        }
        let mut outcome = None;
        for effect in effects {
            outcome = outcome.or(self.perform(effect));
        }
        outcome
    }

    fn perform(&mut self, effect: Effect) -> Option<Outcome> {
        match effect {
            Effect::Probe { ticket, ask } => self.probe(ticket, ask),
            Effect::Spawn { generation } => self.spawn(generation),
            Effect::Terminate { generation } => self.terminate(generation),
            Effect::KillTree { generation } => self.kill_tree(generation),
            Effect::Report(report) => telemetry::emit(&report),
            Effect::Exit(outcome) => return Some(outcome),
        }
        None
    }

    fn probe(&self, ticket: u64, ask: Ask) {
        let look = match ask {
            Ask::Port => Look::AnswersAndOwner { leader: None },
            Ask::Listener(generation) => Look::AnswersAndOwner { leader: self.owned(generation).map(Gateway::pid) },
            Ask::Liveness(_) => Look::Answers,
        };
        let (prober, events) = (Arc::clone(&self.prober), self.events.clone());
        tokio::spawn(async move {
            let sighting = prober.look(look).await;
            // A closed channel means that the loop has ended and nobody waits for the answer.
            let _closed = events.send(Event::Probed { ticket, sighting }).await;
        });
    }

    fn spawn(&mut self, generation: Generation) {
        let event = match Gateway::spawn(generation, &self.launch, self.orphans, &self.events) {
            Ok(gateway) => {
                let pid = gateway.pid();
                self.gateway = Some(gateway);
                Event::Spawned { generation, pid }
            }
            Err(failure) => Event::SpawnFailed { generation, failure },
        };
        self.own.push_back(event);
    }

    fn terminate(&mut self, generation: Generation) {
        let owned = self.gateway.as_mut().filter(|gateway| gateway.generation() == generation);
        if let Some(Err(error)) = owned.map(Gateway::terminate) {
            // The core's deadline for the drain ends it all the same.
            tracing::warn!(generation, %error, "cannot send SIGTERM to the gateway");
        }
    }

    fn kill_tree(&self, generation: Generation) {
        if let Some(gateway) = self.owned(generation) {
            let begun = clock::now();
            gateway.kill_tree(move || clock::now().saturating_sub(begun), &self.events);
        }
    }

    fn owned(&self, generation: Generation) -> Option<&Gateway> {
        self.gateway.as_ref().filter(|gateway| gateway.generation() == generation)
    }

    fn take_signal(&self, signal: Option<Signal>) -> Option<Event> {
        match signal? {
            Signal::Child => {
                self.reap_orphans();
                None
            }
            Signal::Operator { name, request, by } => {
                telemetry::emit(&Report::SignalReceived { signal: name, by: by.clone() });
                request.map(|request| Event::Requested { request, by })
            }
        }
    }

    /// Reaps every dead child but the gateway, whose status `gateway::process` collects and whose pid must stay taken.
    fn reap_orphans(&self) {
        let gateway = self.gateway.as_ref().map(Gateway::pid);
        for pid in proc::children().unwrap_or_default() {
            if Some(pid) != gateway {
                process::reap(pid);
            }
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}
