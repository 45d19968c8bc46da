//! The loop: wait, step, perform. Nothing else.
//!
//! The core decides, the wings act, and this joins them. Every await stands in the one `select!`, and each of its arms
//! is a receive or a sleep, so that no arm that is dropped can lose anything.

pub mod alerter;
mod control_server;
mod crash_point;
mod diagnostics;
mod gateway_start;
mod hint;
mod input;
mod reporter;
mod shell;

pub use control_server::ControlServer;
pub use diagnostics::Diagnostics;
pub use input::{Entrance, Input};
pub use reporter::Reporter;
pub use shell::{Prepared, Shell, Whereabouts};

use crate::core::supervisor::{Effects, JUMP_MIN, LATE};
use crate::core::{Effect, Event, LeaseAnswer, Moment, Notice, Outcome, Report, Request, Requester, Supervisor, Tally};
use crate::gateway::sample::Sampling;
use crate::host::clock::{self, SuspendClock};
use crate::host::control::Query;
use crate::host::journal;
use crate::host::notify::Notifier;
use crate::host::signals::{Signal, Signals};
use crate::platform::process::reap_unclaimed;
use crate::platform::program_pages;
use crate::store::News;
use gateway_start::GatewayStart;
use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// The supervisor at work.
pub struct App {
    core: Supervisor,
    tally: Tally,
    shell: Shell,
    clock: SuspendClock,
    inputs: Receiver<Input>,
    reporter: Reporter,
    control_server: ControlServer,
    manager: Notifier,
    /// What effects brought about on the spot; taken in before anything else.
    own: VecDeque<Event>,
    /// The end of the present wait, and how it is told: `STATUS` must not change while nothing happens.
    wait: Option<(Moment, String)>,
    gateway_start: GatewayStart,
    /// Whether stderr is a terminal.
    is_attended: bool,
    /// While a lease is being entered: what the store says meanwhile.
    held: Option<Vec<News>>,
}

/// How it ended.
pub struct End {
    /// What the core decided.
    pub outcome: Outcome,
    /// The epoch of the lease, if it was still ours.
    pub lease: Option<u64>,
}

impl App {
    /// Ready to run. To be called before anything is spawned.
    #[must_use]
    pub fn new(
        core: Supervisor,
        shell: Shell,
        inputs: Receiver<Input>,
        reporter: Reporter,
        control_server: ControlServer,
    ) -> Self {
        let (clock, manager) = (SuspendClock::new(), Notifier::from_environment());
        Self {
            core,
            tally: Tally::default(),
            shell,
            clock,
            inputs,
            reporter,
            control_server,
            manager,
            own: VecDeque::from([Event::Start]),
            wait: None,
            gateway_start: GatewayStart::default(),
            is_attended: false,
            held: None,
        }
    }

    /// `is_attended`: stderr is a terminal.
    #[must_use]
    pub fn attended(self, is_attended: bool) -> Self {
        Self { is_attended, ..self }
    }

    /// Runs until the core has decided to exit.
    pub async fn run(mut self, mut signals: Signals) -> End {
        loop {
            let event = self.next_event(&mut signals).await;
            let slept = self.clock.slept(JUMP_MIN);
            let jump = slept.map(|by| Event::ClockJumped { by });
            for event in jump.into_iter().chain(self.shell.confirmation()).chain(event) {
                if let Some(outcome) = self.turn(&event) {
                    self.manager.notify_stopping(&outcome.reason);
                    return End { outcome, lease: self.core.lease() };
                }
            }
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Option<Event> {
        if let Some(event) = self.own.pop_front() {
            return Some(event);
        }
        let now = clock::now();
        let deadline = self.core.deadline();
        let is_overdue = deadline.is_some_and(|deadline| deadline.saturating_add(LATE) <= now);
        self.manager.turn(now, is_overdue, || {
            let status = self.core.status(now);
            let end = status.wait().map(|within| now.saturating_add(within));
            if self.wait.as_ref().map(|(at, _)| *at) != end {
                self.wait = end.map(|at| (at, clock::time_in(at.saturating_sub(now))));
            }
            status.sentence_until(self.wait.as_ref().map(|(_, time)| time.as_str()))
        });
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Event::Tick);
        }
        let until = |at: Option<Moment>| at.map(|at| at.saturating_sub(now));
        let (wait, word) = (until(deadline), until(self.manager.deadline()));
        tokio::select! {
            biased;
            signal = signals.next() => self.take_signal(signal),
            Some(input) = self.inputs.recv() => self.take_input(input),
            () = sleep(wait) => Some(Event::Tick),
            () = sleep(word) => None,
        }
    }

    /// One step of the core, and what it asks for.
    fn turn(&mut self, event: &Event) -> Option<Outcome> {
        crash_point::see(event);
        let (now, mut effects) = (clock::now(), Effects::new());
        self.core.step(now, event.clone(), &mut effects);
        journal::note(now, event, &effects);
        self.tally.see(now, event, &effects);
        if let Some(Effect::FinishSweep) = effects.last() {
            self.shell.look_at_the_end(self.core.generation());
        }
        // A gateway that the core has done with is a zombie at most, and its pid may go.
        self.shell.let_go(self.core.holds());
        let hint = self.is_attended.then(|| hint::hint(&effects, || self.core.status(now))).flatten();
        let mut outcome = None;
        for effect in effects {
            outcome = outcome.or(self.perform(effect));
        }
        if let Some(hint) = hint.filter(|_| hint::has_keyboard()) {
            tracing::info!("{hint}");
        }
        outcome
    }

    fn perform(&mut self, effect: Effect) -> Option<Outcome> {
        crash_point::pass();
        match effect {
            Effect::Lease { ticket, ask } => self.shell.lease(ticket, ask),
            Effect::AskOwner { ticket, what } => self.shell.ask_owner(ticket, what),
            Effect::ClearHooks { heir } => self.shell.clear_hooks(heir),
            Effect::Adopt { generation } => self.shell.adopt(generation),
            Effect::Watch { pid } => self.shell.watch(pid),
            Effect::Remember { generation, fact } => self.shell.remember(generation, fact),
            Effect::Probe { ticket, ask } => self.shell.probe(ticket, ask),
            Effect::Follow(moved) => self.shell.follow(moved),
            Effect::Record { generation } => self.shell.record(generation),
            Effect::Confirm { ticket } => self.shell.confirm(ticket),
            Effect::Spawn { generation, no_respawn } => self.shell.spawn(generation, no_respawn),
            Effect::Negotiate => self.shell.negotiate(),
            Effect::Consume { ticket, pid, .. } => self.shell.consume(ticket, pid),
            Effect::Measure { generation, listener, depth, tree } => {
                self.shell.measure(generation, Sampling { listener, depth, tree });
            }
            Effect::Examine { generation, case } => self.shell.examine(generation, case),
            Effect::SeekHeir { generation, listener } => self.shell.seek_heir(generation, listener),
            Effect::Terminate { generation } => self.shell.terminate(generation),
            Effect::TerminateListener { generation, pid } => self.shell.terminate_listener(generation, pid),
            Effect::KillTree { generation, grace, strays, installers } => {
                self.shell.kill_tree(generation, grace, strays, installers);
            }
            Effect::Hook { ticket, call } => self.shell.hook(ticket, call),
            Effect::EndHook { ticket } => self.own.extend(self.shell.end_hook(ticket)),
            Effect::KillHook { ticket } => self.own.extend(self.shell.kill_hook(ticket)),
            Effect::FinishSweep => self.shell.finish_sweep(),
            Effect::Notify(notice) => {
                if notice == Notice::Ready {
                    program_pages::unmap();
                }
                self.manager.queue(notice);
            }
            Effect::Report(report) => {
                match &report {
                    Report::SupervisionPaused { period, reason, by } => {
                        self.shell.keep_pause(Some((*period, reason, by)));
                    }
                    Report::SupervisionResumed { .. } => self.shell.keep_pause(None),
                    _ => {}
                }
                self.reporter.report(&report);
                if matches!(report, Report::StandbyEntered { .. })
                    && self.core.lease().is_none()
                    && let Some(bind) = self.control_server.standby()
                {
                    self.shell.bind(bind);
                }
            }
            Effect::Exit(outcome) => return Some(outcome),
        }
        None
    }

    fn take_signal(&self, signal: Option<Signal>) -> Option<Event> {
        match signal? {
            Signal::Child => {
                reap_unclaimed();
                None
            }
            Signal::Suspend => {
                tracing::warn!(
                    "SIGTSTP (Ctrl-Z) is not followed: while a supervisor is stopped, its gateway is alone; to have the \
                     terminal back, end this one with Ctrl-C and start it with '&' or as a service"
                );
                None
            }
            Signal::Ignored => None,
            Signal::Operator { name, request, by } => {
                self.shell.hear(name, request, by, self.control_server.is_inside(), &self.reporter);
                None
            }
        }
    }

    fn take_input(&mut self, input: Input) -> Option<Event> {
        match input {
            Input::Event(event) => Some(event),
            Input::News(news) => self.take_news(news),
            Input::Prepared(number, prepared) => {
                self.own.extend(self.shell.take_prepared(number, prepared));
                None
            }
            Input::Entered(entrance) => {
                self.enter(*entrance);
                None
            }
            Input::Bound(socket) => {
                self.control_server.serve(socket, &self.reporter);
                None
            }
            Input::Found(generation, found) => self.shell.take_found(generation, found),
            Input::Heir(generation, heir) => self.shell.take_heir(generation, heir),
            Input::Query(query) => self.take_query(query),
        }
    }

    /// The lease begins, and what the store has said since then follows.
    fn enter(&mut self, Entrance { ticket, answer, support, socket, pause }: Entrance) {
        self.control_server.serve(socket, &self.reporter);
        self.own.extend(support.map(|support| Event::Negotiated { support }));
        self.own.push_back(Event::Leased { ticket, answer });
        // Before any look at the port is back.
        self.own.extend(pause.map(|(pause, how)| {
            let by = Requester { how, pid: None, uid: None, command: None, inside: None };
            Event::PauseRequested { pause: Some(pause), by }
        }));
        for news in self.held.take().into_iter().flatten() {
            let event = self.take_news(news);
            self.own.extend(event);
        }
    }

    /// What the store has to say.
    fn take_news(&mut self, news: News) -> Option<Event> {
        if let Some(held) = &mut self.held {
            held.push(news);
            return None;
        }
        match news {
            News::Claimed(server) => self.shell.serve_claim(server),
            News::Leased { ticket, answer: answer @ LeaseAnswer::Acquired(_), left } => {
                self.held = Some(Vec::new());
                self.shell.enter_lease(left, (ticket, answer), self.control_server.owner());
            }
            News::Leased { ticket, answer, .. } => return Some(Event::Leased { ticket, answer }),
            News::Intended { generation } => return Some(Event::Recorded { generation }),
            News::Confirmed { ticket } => return Some(Event::Confirmed { ticket }),
            // The loop looks at it in each turn.
            News::Beaten => {}
            News::Failed(why) => return Some(Event::StoreFailed { why }),
            News::Returned => return Some(Event::StoreReturned),
            News::Moved if self.core.lease().is_none() => {
                if let Some(bind) = self.control_server.standby_again() {
                    self.shell.bind(bind);
                }
            }
            News::Moved => self.shell.bind(self.control_server.owner()),
            News::Lost { owner, why } => return Some(Event::LeaseLost { owner, why }),
            News::Report(report) => self.reporter.report(&report),
            News::Warning(warning) => tracing::warn!("{warning}"),
        }
        None
    }

    fn take_query(&mut self, query: Query) -> Option<Event> {
        match query {
            // A client that went away needs no answer.
            Query::Status(answer) => {
                let _gone = answer.send(self.core.status(clock::now()));
                None
            }
            Query::Metrics(answer) => {
                let (now, now_ms) = (clock::now(), clock::wall_ms());
                let status = self.core.status(now);
                let age = status.gateway.as_ref().map(|gateway| gateway.age);
                let start = age.map(|age| clock::wall_of(now.saturating_sub(age), now, now_ms));
                let start = start.map(|start| self.gateway_start.steady(status.generation, start));
                let _gone = answer.send((status, self.tally.clone(), start));
                None
            }
            Query::Pause { pause, by } => Some(Event::PauseRequested { pause, by }),
            Query::TestChannels(answer) => {
                self.reporter.test_channels(answer);
                None
            }
            Query::Request { request, by } => {
                if matches!(request, Request::Stop | Request::Detach) {
                    // After the request itself.
                    self.own.extend(self.shell.take_back_start());
                }
                self.shell.admit(request, by, &self.reporter)
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
