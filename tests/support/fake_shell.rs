//! The one shell of the core's tests. It performs effects in a world that a test makes up, and keeps what a shell keeps:
//! the tickets, the hook that runs, the gateway that is created, adopted, alive or being killed.
//!
//! The scenarios, the random walks and the simulation differ only in what their [`World`] answers, and when.

use openclaw_supervise_core::handoff::{HandoffVerdict, Support};
use openclaw_supervise_core::{
    Call, Conclusion, Depth, Effect, Event, ExitStatus, ExitUsage, Fact, Fingerprint, Generation, HangContext, History,
    HookEnd, Installers, LeaseAnswer, LeaseRequest, Moved, Observation, Outcome, OwnerPlan, ProbeScope, Remains,
    Report, SpawnFailure, TreeEnd, Usage,
};
use std::time::Duration;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
}

impl Broken {
    pub(crate) fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

pub(crate) fn must(kept: bool, promise: &'static str, what: &str) -> Result<(), Broken> {
    if kept { Ok(()) } else { Err(Broken::new(promise, what)) }
}

/// What the world answers, and after how long. `None` if the answer is lost, or if the world delivers it itself.
pub(crate) type Answer<T> = Result<Option<(Duration, T)>, Broken>;

#[expect(clippy::unnecessary_wraps, reason = "an answer")]
pub(crate) fn after<T>(delay: Duration, answer: T) -> Answer<T> {
    Ok(Some((delay, answer)))
}

#[expect(clippy::unnecessary_wraps, reason = "an answer")]
pub(crate) fn never<T>() -> Answer<T> {
    Ok(None)
}

/// What lies beyond the shell.
pub(crate) trait World {
    /// Whether this effect reaches the world: the lease may be gone, or the test answers by hand.
    fn admits(&mut self, effect: &Effect) -> Result<bool, Broken>;
    fn lease(&mut self, ticket: u64, request: LeaseRequest) -> Answer<LeaseAnswer>;
    /// What the owner of the lease says about its own end.
    fn owner_plan(&mut self) -> Answer<OwnerPlan> {
        after(Duration::ZERO, OwnerPlan::Unknown)
    }
    /// Answers with why it could not be done.
    fn clear_hooks(&mut self) -> Answer<Option<String>> {
        after(Duration::ZERO, None)
    }
    fn adopt(&mut self, generation: Generation) -> Answer<Remains>;
    /// Answers when there is no such process.
    fn watch(&mut self, pid: i32) -> Answer<()>;
    fn remembered(&mut self, _generation: Generation, _fact: Fact) -> Result<(), Broken> {
        Ok(())
    }
    fn probe(&mut self, ticket: u64, scope: ProbeScope) -> Answer<Observation>;
    fn follow(&mut self, _moved: &Moved) -> Result<(), Broken> {
        Ok(())
    }
    fn record(&mut self, _generation: Generation) -> Answer<()> {
        after(Duration::ZERO, ())
    }
    fn confirm(&mut self, _ticket: u64) -> Answer<()> {
        after(Duration::ZERO, ())
    }
    fn spawn(&mut self, generation: Generation) -> Answer<Result<(i32, Fingerprint), SpawnFailure>>;
    fn negotiate(&mut self) -> Answer<Support>;
    fn consume(&mut self, generation: Generation, pid: i32) -> Answer<HandoffVerdict>;
    fn measure(&mut self, generation: Generation, depth: Depth, tree: bool) -> Answer<Usage>;
    /// `case` says whether it hangs or is over its memory limit.
    fn examine(&mut self, generation: Generation, case: &HangContext) -> Answer<Option<String>>;
    /// Answers with the process that leads what a launcher has left.
    fn seek_heir(&mut self, _generation: Generation, _listener: Option<i32>) -> Answer<Option<i32>> {
        after(Duration::ZERO, None)
    }
    /// Answers with the end of the leader.
    fn terminate(&mut self, generation: Generation) -> Answer<ExitStatus>;
    /// The same for the process that listens, which a launcher has not told.
    fn terminate_listener(&mut self, generation: Generation) -> Answer<ExitStatus> {
        self.terminate(generation)
    }
    /// Answers with the end of the tree; that of the leader is its own news.
    fn kill_tree(&mut self, generation: Generation, installers: Installers) -> Answer<TreeEnd>;
    fn hook(&mut self, ticket: u64, call: &Call) -> Answer<HookEnd>;
    fn end_hook(&mut self, ticket: u64) -> Answer<HookEnd>;
    fn kill_hook(&mut self, ticket: u64) -> Answer<HookEnd>;
    fn finish_sweep(&mut self) -> Answer<()> {
        after(Duration::ZERO, ())
    }
    fn reported(&mut self, _report: &Report) -> Result<(), Broken> {
        Ok(())
    }
    fn exited(&mut self, _outcome: &Outcome) -> Result<(), Broken> {
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FakeShell {
    /// The youngest one, and that of the youngest probe.
    pub(crate) ticket: u64,
    pub(crate) probe: u64,
    /// The youngest gateway.
    pub(crate) generation: Generation,
    /// The spawn that was written down and has not come yet.
    recorded: Option<Generation>,
    pub(crate) spawning: Option<Generation>,
    adopting: Option<Generation>,
    /// The gateway that a predecessor left, where its end is on record: it is not told again.
    ended: Option<Generation>,
    /// The gateway whose leader lives, as far as the shell has heard.
    pub(crate) leader: Option<Generation>,
    /// The gateway of which something may be left, and whether a kill of it is under way.
    pub(crate) tree: Option<Generation>,
    killing: bool,
    following: Option<Generation>,
    hook: Option<u64>,
    pub(crate) watched: Option<i32>,
    pub(crate) exited: bool,
}

impl FakeShell {
    /// Performs one effect. The event that answers it is for the caller to deliver, if the world gives one.
    #[expect(clippy::too_many_lines, reason = "one row for each effect")]
    pub(crate) fn perform(&mut self, effect: &Effect, world: &mut impl World) -> Answer<Event> {
        self.begin(effect)?;
        if !world.admits(effect)? {
            return never();
        }
        Ok(match *effect {
            Effect::Lease { ticket, ask } => {
                world.lease(ticket, ask)?.map(|(delay, answer)| (delay, Event::Leased { ticket, answer }))
            }
            Effect::AskOwner { ticket, .. } => {
                world.owner_plan()?.map(|(delay, plan)| (delay, Event::OwnerAsked { ticket, plan }))
            }
            Effect::ClearHooks { .. } => {
                world.clear_hooks()?.map(|(delay, trouble)| (delay, Event::HooksCleared { trouble }))
            }
            Effect::Follow(ref moved) => {
                world.follow(moved)?;
                None
            }
            Effect::Record { generation } => {
                world.record(generation)?.map(|(delay, ())| (delay, Event::Recorded { generation }))
            }
            Effect::Confirm { ticket } => {
                world.confirm(ticket)?.map(|(delay, ())| (delay, Event::Confirmed { ticket }))
            }
            Effect::FinishSweep => world.finish_sweep()?.map(|(delay, ())| (delay, Event::SweepFinished)),
            Effect::Adopt { generation } => {
                world.adopt(generation)?.map(|(delay, remains)| (delay, Event::Adopted { generation, remains }))
            }
            Effect::Watch { pid } => world.watch(pid)?.map(|(delay, ())| (delay, Event::Departed { pid })),
            Effect::Remember { generation, fact } => {
                world.remembered(generation, fact)?;
                None
            }
            Effect::Probe { ticket, ask } => {
                world.probe(ticket, ask)?.map(|(delay, sighting)| (delay, Event::Probed { ticket, sighting }))
            }
            Effect::Spawn { generation, .. } => world.spawn(generation)?.map(|(delay, spawned)| {
                let event = match spawned {
                    Ok((pid, fingerprint)) => Event::Spawned { generation, pid, fingerprint },
                    Err(failure) => Event::SpawnFailed { generation, failure },
                };
                (delay, event)
            }),
            Effect::Negotiate => world.negotiate()?.map(|(delay, support)| (delay, Event::Negotiated { support })),
            Effect::Consume { ticket, generation, pid } => {
                world.consume(generation, pid)?.map(|(delay, word)| (delay, Event::Consumed { ticket, word }))
            }
            Effect::Measure { generation, depth, tree, .. } => world
                .measure(generation, depth, tree)?
                .map(|(delay, sample)| (delay, Event::Measured { generation, sample })),
            Effect::Examine { generation, ref case } => world.examine(generation, case)?.map(|(delay, evidence)| {
                let conclusion = Some(Conclusion::of(case, None));
                (delay, Event::Examined { generation, evidence, conclusion })
            }),
            Effect::SeekHeir { generation, listener } => world
                .seek_heir(generation, listener)?
                .map(|(delay, pid)| (delay, Event::HeirSought { generation, pid })),
            Effect::TerminateListener { generation, .. } => world
                .terminate_listener(generation)?
                .map(|(delay, death)| (delay, Event::LeaderExited { generation, death, toll: ExitUsage::default() })),
            Effect::Terminate { generation } => world
                .terminate(generation)?
                .map(|(delay, death)| (delay, Event::LeaderExited { generation, death, toll: ExitUsage::default() })),
            Effect::KillTree { generation, installers, .. } => world
                .kill_tree(generation, installers)?
                .map(|(delay, end)| (delay, Event::TreeGone { generation, end })),
            Effect::Hook { ticket, ref call } => hook_ended(ticket, world.hook(ticket, call)?),
            Effect::EndHook { ticket } => hook_ended(ticket, world.end_hook(ticket)?),
            Effect::KillHook { ticket } => hook_ended(ticket, world.kill_hook(ticket)?),
            Effect::Notify(_) => None,
            Effect::Report(ref report) => {
                world.reported(report)?;
                None
            }
            Effect::Exit(ref outcome) => {
                world.exited(outcome)?;
                None
            }
        })
    }

    /// Keeps what an effect begins, and refuses one that no shell could perform.
    fn begin(&mut self, effect: &Effect) -> Result<(), Broken> {
        must(!self.exited, "exit", "the exit is the last effect")?;
        match *effect {
            Effect::Lease { ticket, .. } | Effect::AskOwner { ticket, .. } | Effect::Consume { ticket, .. } => {
                self.draw(ticket)?;
            }
            Effect::Probe { ticket, .. } => {
                self.draw(ticket)?;
                self.probe = ticket;
            }
            // One on record has the youngest number, one found by its mark gets the next.
            Effect::Adopt { generation } => {
                must(generation >= self.generation, "P2", "numbers count up")?;
                (self.generation, self.adopting) = (generation, Some(generation));
            }
            Effect::Watch { pid } => self.watched = Some(pid),
            Effect::Record { generation } => {
                must(self.tree.is_none() && self.leader.is_none(), "P1", "one tree at a time")?;
                must(generation > self.generation, "P2", "numbers count up")?;
                (self.generation, self.recorded) = (generation, Some(generation));
            }
            Effect::Spawn { generation, .. } => {
                must(self.recorded.take() == Some(generation), "P8", "a spawn that no record was asked for")?;
                self.spawning = Some(generation);
            }
            Effect::SeekHeir { generation, .. } => {
                must(self.tree == Some(generation) && self.leader.is_none(), "P2", "a living leader is looked for")?;
                self.following = Some(generation);
            }
            Effect::Terminate { generation } | Effect::TerminateListener { generation, .. } => {
                must(self.tree == Some(generation), "P2", "SIGTERM to what was neither spawned nor adopted")?;
            }
            Effect::KillTree { generation, .. } => {
                let ours = self.tree == Some(generation) || self.leader == Some(generation);
                must(ours, "P2", "SIGKILL to what was neither spawned nor adopted")?;
                // What is killed is no longer followed: an answer that is under way names a process that dies with it.
                (self.killing, self.tree, self.following) = (true, Some(generation), None);
            }
            Effect::Hook { ticket, .. } => {
                must(self.tree.is_none(), "P1", "a hook runs alone")?;
                self.draw(ticket)?;
                self.hook = Some(ticket);
            }
            Effect::EndHook { ticket } | Effect::KillHook { ticket } => {
                must(self.hook == Some(ticket), "P2", "a signal to a hook that is over")?;
            }
            Effect::Measure { generation, .. } | Effect::Examine { generation, .. } => {
                let ours = self.leader == Some(generation) || self.tree == Some(generation);
                must(ours, "P2", "a look at what was neither spawned nor adopted")?;
            }
            // A pre-start hook that failed uses a number up.
            Effect::Remember { generation, fact } => {
                self.generation = self.generation.max(generation);
                // Two kills found nothing of it: it is dead, and the news of that is lost.
                if self.tree.is_none() && matches!(fact, Fact::Died(_)) {
                    self.leader = None;
                }
            }
            Effect::Exit(_) => self.exited = true,
            Effect::ClearHooks { .. }
            | Effect::Follow(_)
            | Effect::Confirm { .. }
            | Effect::FinishSweep
            | Effect::Negotiate
            | Effect::Notify(_)
            | Effect::Report(_) => {}
        }
        Ok(())
    }

    fn draw(&mut self, ticket: u64) -> Result<(), Broken> {
        must(ticket > self.ticket, "P2", "each question has a ticket of its own")?;
        self.ticket = ticket;
        Ok(())
    }

    /// Keeps what the core is about to be told.
    pub(crate) fn note(&mut self, event: &Event) {
        match *event {
            Event::Leased { answer: LeaseAnswer::Acquired(ref acquired), .. } => {
                let History { generation, left, .. } = acquired.past;
                self.generation = self.generation.max(generation);
                self.ended = left.filter(|left| left.died.is_some()).map(|left| left.generation);
            }
            Event::Spawned { generation, .. } if self.spawning == Some(generation) => {
                (self.spawning, self.leader, self.tree) = (None, Some(generation), Some(generation));
                self.following = None;
            }
            Event::SpawnFailed { generation, .. } if self.spawning == Some(generation) => self.spawning = None,
            Event::Adopted { generation, ref remains } if self.adopting == Some(generation) => {
                self.adopting = None;
                // The rest of the gateway that left a successor goes over to the number of that one.
                (self.leader, self.tree) = match remains {
                    Remains::Leader { .. } if self.ended == Some(generation) => (None, Some(generation)),
                    Remains::Leader { .. } => (Some(generation), Some(generation)),
                    Remains::Orphans { .. } => (None, Some(generation)),
                    Remains::Nothing { .. } | Remains::Unseen { .. } => (None, None),
                };
            }
            Event::LeaderExited { generation, .. } if self.leader == Some(generation) => self.leader = None,
            Event::HeirSought { generation, pid } if self.following == Some(generation) => {
                self.following = None;
                // A late answer is about a tree that is gone.
                if self.tree == Some(generation) {
                    self.leader = pid.map(|_| generation);
                }
            }
            Event::TreeGone { generation, ref end } if self.killing && self.tree == Some(generation) => {
                self.killing = false;
                if end.installing.is_empty() && (end.survivors == 0 || self.leader.is_none()) {
                    self.tree = None;
                }
            }
            Event::HookEnded { ticket, .. } if self.hook == Some(ticket) => self.hook = None,
            Event::Start
            | Event::Tick
            | Event::Leased { .. }
            | Event::OwnerAsked { .. }
            | Event::LeaseLost { .. }
            | Event::LeaseConfirmed { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReturned
            | Event::HooksCleared { .. }
            | Event::AdoptFailed { .. }
            | Event::Recorded { .. }
            | Event::Confirmed { .. }
            | Event::SweepFinished
            | Event::Adopted { .. }
            | Event::Departed { .. }
            | Event::Probed { .. }
            | Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::LeaderExited { .. }
            | Event::HeirSought { .. }
            | Event::Measured { .. }
            | Event::Examined { .. }
            | Event::TreeGone { .. }
            | Event::StraysKilled { .. }
            | Event::HookEnded { .. }
            | Event::Negotiated { .. }
            | Event::Consumed { .. }
            | Event::OutputMoved { .. }
            | Event::StopBudget { .. }
            | Event::Requested { .. }
            | Event::PauseRequested { .. }
            | Event::ClockJumped { .. } => {}
        }
    }

    /// Whether this is still news about the present gateway or hook: each begins and ends once.
    pub(crate) fn is_news(&self, event: &Event) -> bool {
        match *event {
            Event::Spawned { generation, .. } => self.spawning == Some(generation),
            Event::Adopted { generation, .. } => self.adopting == Some(generation),
            Event::LeaderExited { generation, .. } => self.leader == Some(generation),
            Event::HeirSought { generation, .. } => self.following == Some(generation),
            Event::TreeGone { generation, .. } => self.killing && self.tree == Some(generation),
            Event::HookEnded { ticket, .. } => self.hook == Some(ticket),
            Event::Start
            | Event::Tick
            | Event::Leased { .. }
            | Event::OwnerAsked { .. }
            | Event::LeaseLost { .. }
            | Event::LeaseConfirmed { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReturned
            | Event::HooksCleared { .. }
            | Event::AdoptFailed { .. }
            | Event::Recorded { .. }
            | Event::Confirmed { .. }
            | Event::SweepFinished
            | Event::Departed { .. }
            | Event::Probed { .. }
            | Event::SpawnFailed { .. }
            | Event::Measured { .. }
            | Event::Examined { .. }
            | Event::StraysKilled { .. }
            | Event::Negotiated { .. }
            | Event::Consumed { .. }
            | Event::OutputMoved { .. }
            | Event::StopBudget { .. }
            | Event::Requested { .. }
            | Event::PauseRequested { .. }
            | Event::ClockJumped { .. } => true,
        }
    }
}

fn hook_ended(ticket: u64, end: Option<(Duration, HookEnd)>) -> Option<(Duration, Event)> {
    end.map(|(delay, end)| (delay, Event::HookEnded { ticket, end }))
}
