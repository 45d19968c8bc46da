//! The chapters: chapter is done to the supervisor and its gateway, and which events must follow.

use super::error::{DemoError, STEP_TIME_MAX};
use super::gateway;
use super::sandbox::Sandbox;
use super::supervisor::{self, LogLine, SETTINGS, STABLE_AFTER, SupervisorEvent, SupervisorProcess, VerbProcess};
use super::terminal_ui::{TerminalUi, Timing};
use crate::cli::StandIn;
use crate::core::{Moment, exit};
use crate::host::clock;
use crate::platform::process::Handle;
use nix::sys::signal::Signal;
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const CHAPTERS: usize = 7;

/// The commands of the last look.
const LOOKS: [&[&str]; 2] = [&["status"], &["explain", "incident"]];

/// Marks the log lines of the second supervisor.
pub(super) fn prefix(index: usize) -> char {
    if index == 0 { ' ' } else { '2' }
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Pause before each action.
    before: Duration,
    /// Pause after the last event of a chapter.
    after: Duration,
}

pub(super) struct Script<'a, W> {
    ui: &'a mut TerminalUi<W>,
    sandbox: &'a mut Sandbox,
    pace: Pace,
    gateway: StandIn,
    step: &'static str,
    timings: Vec<Timing>,
}

impl<'a, W: Write> Script<'a, W> {
    pub(super) fn new(ui: &'a mut TerminalUi<W>, sandbox: &'a mut Sandbox, is_fast: bool) -> Self {
        let [before, after, boot, drain] =
            if is_fast { [0, 0, 200, 100] } else { [1600, 800, 1500, 700] }.map(Duration::from_millis);
        let gateway = StandIn { port: sandbox.port(), boot, drain };
        Self { ui, sandbox, pace: Pace { before, after }, gateway, step: "start", timings: Vec::new() }
    }

    /// Plays all chapters.
    pub(super) async fn play(&mut self) -> Result<Vec<Timing>, DemoError> {
        self.introduce()?;
        self.pause(self.pace.before).await?;
        let mut gateway = self.start().await?;
        self.start_duplicate().await?;
        gateway = self.crash(&gateway).await?;
        self.freeze(&gateway).await?;
        self.restart().await?;
        self.look_back().await?;
        self.stop().await?;
        Ok(std::mem::take(&mut self.timings))
    }

    fn introduce(&mut self) -> io::Result<()> {
        let (port, scratch) = (self.sandbox.port(), self.sandbox.scratch().display().to_string());
        let StandIn { boot, drain, .. } = self.gateway;
        self.ui.title("openclaw-supervise demo")?;
        self.ui.paragraph(&format!(
            "A real supervisor and a stand-in gateway on 127.0.0.1:{port}. The stand-in answers /healthz, /startupz and \
             /readyz as OpenClaw does, boots for {}s, drains for {}s, and has two helper processes in their own sessions. \
             Processes, signals, probes and kills are real. Your own gateway and files are not touched. Ctrl-C stops \
             the demo at any time.",
            boot.as_secs_f64(),
            drain.as_secs_f64()
        ))?;
        self.ui.paragraph(&format!("Scratch directory: {scratch}"))?;
        self.ui.paragraph("Settings, shortened for the demo:")?;
        self.ui.settings(&SETTINGS)
    }

    async fn start(&mut self) -> Result<Handle, DemoError> {
        let about = "The supervisor probes the port before it starts anything, then waits until the gateway reports that it has started.";
        self.chapter(1, "start", "Start", about).await?;
        let command = format!(
            "openclaw-supervise run --port {} ... -- openclaw-supervise {}",
            self.gateway.port,
            supervisor::gateway_arguments(self.gateway).join(" ")
        );
        self.ui.begin(clock::now());
        let begun = self.act(&command)?;
        self.start_supervisor()?;
        let spawned = self.until(0, "gateway.spawned").await?;
        let gateway = self.first()?.gateway(&spawned)?;
        let started = self.until(0, "gateway.started").await?;
        self.timings.push(Timing {
            chapter: "start",
            spawned: Some(spawned.at.saturating_sub(begun)),
            started: Some(started.at.saturating_sub(begun)),
            ..Timing::default()
        });
        Ok(gateway)
    }

    fn start_supervisor(&mut self) -> Result<(), DemoError> {
        let started = SupervisorProcess::start(self.sandbox.scratch(), self.sandbox.tag(), self.gateway);
        self.sandbox.supervisors.push(started.map_err(DemoError::Start)?);
        Ok(())
    }

    async fn start_duplicate(&mut self) -> Result<(), DemoError> {
        let about =
            "The same command again. It must find the first supervisor, leave its gateway alone and spawn nothing.";
        self.chapter(2, "duplicate start", "A duplicate start", about).await?;
        let begun = self.act(&format!("openclaw-supervise run --port {} ... -- ...", self.gateway.port))?;
        self.start_supervisor()?;
        let noticed = self.until(1, "conflict.detected").await?;
        let (ended, code) = self.until_exit(1).await?;
        if code != i32::from(exit::EX_CONFIG) {
            return Err(DemoError::Exited { step: self.step, event: "exit code 78", code });
        }
        self.timings.push(Timing {
            chapter: "duplicate start",
            noticed: Some(noticed.at.saturating_sub(begun)),
            exited: Some((ended.saturating_sub(begun), code)),
            ..Timing::default()
        });
        Ok(())
    }

    async fn crash(&mut self, gateway: &Handle) -> Result<Handle, DemoError> {
        let about = "The gateway is killed, its helpers survive. They are killed before the next gateway starts.";
        self.wait_until_stable().await?;
        self.chapter(3, "crash", "A crash", about).await?;
        let begun = self.act(&format!("kill -KILL {}    # the gateway", gateway.pid()))?;
        gateway.kill().map_err(|error| DemoError::Act("kill the gateway", error))?;
        self.replacement("crash", "gateway.exited", begun).await
    }

    async fn freeze(&mut self, gateway: &Handle) -> Result<(), DemoError> {
        let about = "The gateway's event loop blocks. The process and its port stay, but requests and SIGTERM get no \
                     reaction.";
        self.wait_until_stable().await?;
        self.chapter(4, "freeze", "A freeze", about).await?;
        let begun = self.act(&format!("echo {} > /proc/{}/fd/0    # the gateway", gateway::FREEZE, gateway.pid()))?;
        let ordered = self.sandbox.supervisors.first_mut().map_or(Ok(()), SupervisorProcess::freeze);
        ordered.map_err(|error| DemoError::Act("freeze the gateway", error))?;
        self.replacement("freeze", "gateway.hung", begun).await.map(drop)
    }

    async fn restart(&mut self) -> Result<(), DemoError> {
        let about = "The gateway drains first; the next one starts when its whole process tree is gone.";
        self.chapter(5, "restart on request", "A restart on request", about).await?;
        let begun = self.act("openclaw-supervise restart")?;
        let verb = self.verb(&["restart"])?;
        self.replacement("restart on request", "restart.requested", begun).await?;
        self.show(verb, "restart the gateway").await
    }

    /// What an operator sees who comes later.
    async fn look_back(&mut self) -> Result<(), DemoError> {
        let about =
            "What is running, and why the frozen gateway was replaced. Ask in the morning: the record outlives both.";
        self.chapter(6, "look back", "Looking back", about).await?;
        for words in LOOKS {
            self.act(&format!("openclaw-supervise {}", words.join(" ")))?;
            let verb = self.verb(words)?;
            self.show(verb, "show the record").await?;
            self.pause(self.pace.after).await?;
        }
        Ok(())
    }

    fn verb(&self, words: &[&str]) -> Result<VerbProcess, DemoError> {
        let (scratch, tag, width) = (self.sandbox.scratch(), self.sandbox.tag(), self.ui.width());
        VerbProcess::start(words, scratch, tag, width).map_err(|error| DemoError::Act("start this program", error))
    }

    /// Waits until it has ended and shows what it printed.
    async fn show(&mut self, verb: VerbProcess, what: &'static str) -> Result<(), DemoError> {
        let missing = DemoError::Missing { step: self.step, event: "an answer" };
        let printed = timeout_at(Instant::now() + STEP_TIME_MAX, verb.output()).await.map_err(|_| missing)?;
        Ok(self.ui.printed(&printed.map_err(|error| DemoError::Act(what, error))?)?)
    }

    async fn stop(&mut self) -> Result<(), DemoError> {
        let about = "The gateway drains, its helpers exit, then the supervisor.";
        self.chapter(CHAPTERS, "stop", "Stop", about).await?;
        let begun = self.act(&format!("kill -TERM {}    # the supervisor", self.first()?.pid()))?;
        self.signal(Signal::SIGTERM)?;
        let noticed = self.until(0, "stop.requested").await?;
        let (ended, code) = self.until_exit(0).await?;
        if code != i32::from(exit::OK) {
            return Err(DemoError::Exited { step: self.step, event: "exit code 0", code });
        }
        let left = self.sandbox.processes().map_err(|error| DemoError::Act("count processes", error))?.len();
        if left > 0 {
            return Err(DemoError::Unproven(format!("{left} processes were left after the stop")));
        }
        self.timings.push(Timing {
            chapter: "stop",
            noticed: Some(noticed.at.saturating_sub(begun)),
            exited: Some((ended.saturating_sub(begun), code)),
            ..Timing::default()
        });
        self.pause(self.pace.after).await
    }

    /// Waits for the reaction to an action and for the start of the next gateway.
    async fn replacement(
        &mut self,
        chapter: &'static str,
        notice: &'static str,
        begun: Moment,
    ) -> Result<Handle, DemoError> {
        let noticed = self.until(0, notice).await?;
        let spawned = self.until(0, "gateway.spawned").await?;
        let gateway = self.first()?.gateway(&spawned)?;
        let started = self.until(0, "gateway.started").await?;
        self.timings.push(Timing {
            chapter,
            noticed: Some(noticed.at.saturating_sub(begun)),
            spawned: Some(spawned.at.saturating_sub(begun)),
            started: Some(started.at.saturating_sub(begun)),
            exited: None,
        });
        Ok(gateway)
    }

    /// Lets the gateway run long enough to count as stable.
    async fn wait_until_stable(&mut self) -> Result<(), DemoError> {
        self.pause(STABLE_AFTER.saturating_sub(self.pace.before + self.pace.after)).await
    }

    async fn chapter(&mut self, number: usize, step: &'static str, title: &str, about: &str) -> Result<(), DemoError> {
        self.pause(self.pace.after).await?;
        self.step = step;
        self.ui.chapter(number, CHAPTERS, title, about)?;
        self.pause(self.pace.before).await
    }

    /// Shows an action and returns its time.
    fn act(&mut self, text: &str) -> io::Result<Moment> {
        self.ui.command(clock::now(), text)?;
        Ok(clock::now())
    }

    fn first(&self) -> Result<&SupervisorProcess, DemoError> {
        self.sandbox.supervisors.first().ok_or(DemoError::Start(io::ErrorKind::NotFound.into()))
    }

    fn signal(&self, signal: Signal) -> Result<(), DemoError> {
        self.first()?.signal(signal).map_err(|error| DemoError::Act("signal the supervisor", error))
    }

    /// Waits for an event of a supervisor and shows all log lines up to it.
    async fn until(&mut self, index: usize, event: &'static str) -> Result<LogLine, DemoError> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        loop {
            match self.next(index, deadline).await? {
                Some(SupervisorEvent::Logged(line)) if line.event == event => return Ok(line),
                Some(SupervisorEvent::Logged(line)) if index > 0 && line.event == "gateway.spawned" => {
                    return Err(DemoError::Unproven(format!("the duplicate started a gateway: {}", line.sentence)));
                }
                // The second supervisor adopts the gateway only if the first one has died.
                Some(SupervisorEvent::Logged(line)) if index > 0 && line.event == "gateway.adopted" => {
                    let (_, code) = self.until_exit(0).await?;
                    return Err(DemoError::Exited { step: self.step, event, code });
                }
                Some(SupervisorEvent::Logged(_)) => {}
                Some(SupervisorEvent::Exited(_, status)) => {
                    return Err(DemoError::Exited { step: self.step, event, code: supervisor::code(status) });
                }
                None => return Err(DemoError::Missing { step: self.step, event }),
            }
        }
    }

    /// Waits for the exit of a supervisor.
    async fn until_exit(&mut self, index: usize) -> Result<(Moment, i32), DemoError> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        loop {
            match self.next(index, deadline).await? {
                Some(SupervisorEvent::Exited(at, status)) => return Ok((at, supervisor::code(status))),
                Some(SupervisorEvent::Logged(_)) => {}
                None => return Err(DemoError::Missing { step: self.step, event: "supervisor.stopped" }),
            }
        }
    }

    /// Waits, and shows chapter the first supervisor logs meanwhile.
    async fn pause(&mut self, length: Duration) -> Result<(), DemoError> {
        let deadline = Instant::now() + length;
        if self.sandbox.supervisors.first().is_none_or(SupervisorProcess::has_ended) {
            tokio::time::sleep_until(deadline).await;
            return Ok(());
        }
        while let Some(event) = self.next(0, deadline).await? {
            if let SupervisorEvent::Exited(_, status) = event {
                let code = supervisor::code(status);
                return Err(DemoError::Exited { step: self.step, event: "the next step", code });
            }
        }
        Ok(())
    }

    /// Shows and returns the next event of a supervisor. `None` at the deadline.
    async fn next(&mut self, index: usize, deadline: Instant) -> Result<Option<SupervisorEvent>, DemoError> {
        let Some(supervisor) = self.sandbox.supervisors.get_mut(index) else { return Ok(None) };
        let Ok(event) = timeout_at(deadline, supervisor.next()).await else { return Ok(None) };
        let event = event.map_err(|error| DemoError::Act("watch the supervisor", error))?;
        if let SupervisorEvent::Logged(line) = &event {
            self.ui.event(line, prefix(index))?;
        }
        Ok(Some(event))
    }
}
