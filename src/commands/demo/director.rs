//! The chapters: what is done to the supervisor and its gateway, and what has to follow.

use super::screen::{Row, Screen};
use super::stage::Stage;
use super::supervisor::{self, Heard, News, SETTINGS, SETTLED_AFTER, Supervisor};
use super::{Pace, STEP_WITHIN, Trouble, gateway};
use crate::cli::StandIn;
use crate::core::{Moment, exit};
use crate::host::clock;
use crate::platform::process::Handle;
use nix::sys::signal::Signal;
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const CHAPTERS: usize = 6;

/// The second supervisor's words bear a mark.
pub(super) fn mark(index: usize) -> char {
    if index == 0 { ' ' } else { '2' }
}

/// Leads through the chapters.
pub(super) struct Director<'a, W> {
    screen: &'a mut Screen<W>,
    stage: &'a mut Stage,
    pace: Pace,
    gateway: StandIn,
    step: &'static str,
    rows: Vec<Row>,
}

impl<'a, W: Write> Director<'a, W> {
    /// Nothing has happened yet.
    pub(super) fn new(screen: &'a mut Screen<W>, stage: &'a mut Stage, pace: Pace) -> Self {
        let gateway = StandIn { port: stage.port(), boot: pace.boot, drain: pace.drain };
        Self { screen, stage, pace, gateway, step: "start", rows: Vec::new() }
    }

    /// All chapters. Returns what was measured.
    pub(super) async fn play(&mut self) -> Result<Vec<Row>, Trouble> {
        self.introduce()?;
        self.pause(self.pace.read).await?;
        let mut gateway = self.start().await?;
        self.start_duplicate().await?;
        gateway = self.crash(&gateway).await?;
        self.freeze(&gateway).await?;
        self.restart().await?;
        self.stop().await?;
        Ok(std::mem::take(&mut self.rows))
    }

    fn introduce(&mut self) -> io::Result<()> {
        let (port, scratch) = (self.stage.port(), self.stage.scratch().display().to_string());
        let StandIn { boot, drain, .. } = self.gateway;
        self.screen.title("openclaw-supervise demo")?;
        self.screen.paragraph(&format!(
            "A real supervisor and a stand-in gateway on 127.0.0.1:{port}. The stand-in answers /healthz, /startupz and \
             /readyz as OpenClaw does, boots for {}s, drains for {}s, and has two helpers in sessions of their own. \
             Everything else is as it is in service: processes, signals, probes, kills. Nothing of yours is touched. \
             Ctrl-C ends it at any time.",
            boot.as_secs_f64(),
            drain.as_secs_f64()
        ))?;
        self.screen.paragraph(&format!("Scratch directory: {scratch}"))?;
        self.screen.paragraph("Settings, so that you need not wait:")?;
        self.screen.settings(&SETTINGS)
    }

    async fn start(&mut self) -> Result<Handle, Trouble> {
        let about = "It looks at the port before it starts anything, and calls the gateway started when it says so.";
        self.chapter(1, "start", "Start", about).await?;
        let command = format!(
            "openclaw-supervise run --port {} ... -- openclaw-supervise {}",
            self.gateway.port,
            supervisor::gateway_arguments(self.gateway).join(" ")
        );
        self.screen.begin(clock::now());
        let begun = self.act(&command)?;
        let first = Supervisor::start(self.stage, self.gateway).map_err(Trouble::Start)?;
        self.stage.supervisors.push(first);
        let spawned = self.until(0, "gateway.spawned").await?;
        let gateway = self.first()?.gateway(&spawned)?;
        let started = self.until(0, "gateway.started").await?;
        self.rows.push(Row {
            what: "start",
            spawned: Some(spawned.at.saturating_sub(begun)),
            started: Some(started.at.saturating_sub(begun)),
            ..Row::default()
        });
        Ok(gateway)
    }

    async fn start_duplicate(&mut self) -> Result<(), Trouble> {
        let about = "The same command again. It must see that another one is in charge, leave the gateway alone and spawn nothing.";
        self.chapter(2, "duplicate start", "A duplicate start", about).await?;
        let begun = self.act(&format!("openclaw-supervise run --port {} ... -- ...", self.gateway.port))?;
        let second = Supervisor::start(self.stage, self.gateway).map_err(Trouble::Start)?;
        self.stage.supervisors.push(second);
        let noticed = self.until(1, "conflict.detected").await?;
        let (ended, code) = self.until_end(1).await?;
        if code != i32::from(exit::EX_CONFIG) {
            return Err(Trouble::Ended { step: self.step, event: "exit code 78", code });
        }
        self.rows.push(Row {
            what: "duplicate start",
            noticed: Some(noticed.at.saturating_sub(begun)),
            exited: Some((ended.saturating_sub(begun), code)),
            ..Row::default()
        });
        Ok(())
    }

    async fn crash(&mut self, gateway: &Handle) -> Result<Handle, Trouble> {
        let about = "The gateway dies at once, its helpers live on. They are ended before the next one starts.";
        self.settle().await?;
        self.chapter(3, "crash", "A crash", about).await?;
        let begun = self.act(&format!("kill -KILL {}    # the gateway", gateway.pid()))?;
        gateway.kill().map_err(|error| Trouble::Act("kill the gateway", error))?;
        self.replacement("crash", "gateway.exited", begun).await
    }

    async fn freeze(&mut self, gateway: &Handle) -> Result<(), Trouble> {
        let about = "The gateway's event loop blocks. Its port stays open and its process alive, but nobody is answered, \
                     and SIGTERM is not heard either.";
        self.settle().await?;
        self.chapter(4, "freeze", "A freeze", about).await?;
        let begun = self.act(&format!("echo {} > /proc/{}/fd/0    # the gateway", gateway::FREEZE, gateway.pid()))?;
        let ordered = self.stage.supervisors.first_mut().map_or(Ok(()), Supervisor::freeze);
        ordered.map_err(|error| Trouble::Act("tell the gateway to freeze", error))?;
        self.replacement("freeze", "gateway.hung", begun).await.map(drop)
    }

    async fn restart(&mut self) -> Result<(), Trouble> {
        let about = "The gateway drains first; the next one starts when nothing of it is left.";
        self.chapter(5, "restart on request", "A restart on request", about).await?;
        let begun = self.act(&format!("kill -USR1 {}    # the supervisor", self.first()?.pid()))?;
        self.signal(Signal::SIGUSR1)?;
        self.replacement("restart on request", "restart.requested", begun).await.map(drop)
    }

    async fn stop(&mut self) -> Result<(), Trouble> {
        let about = "The gateway drains, its helpers end, and then the supervisor does.";
        self.chapter(CHAPTERS, "stop", "Stop", about).await?;
        let begun = self.act(&format!("kill -TERM {}    # the supervisor", self.first()?.pid()))?;
        self.signal(Signal::SIGTERM)?;
        let noticed = self.until(0, "stop.requested").await?;
        let (ended, code) = self.until_end(0).await?;
        if code != i32::from(exit::OK) {
            return Err(Trouble::Ended { step: self.step, event: "exit code 0", code });
        }
        let left = self.stage.processes().map_err(|error| Trouble::Act("count processes", error))?.len();
        if left > 0 {
            return Err(Trouble::Unproven(format!("{left} processes were left after the stop")));
        }
        self.rows.push(Row {
            what: "stop",
            noticed: Some(noticed.at.saturating_sub(begun)),
            exited: Some((ended.saturating_sub(begun), code)),
            ..Row::default()
        });
        self.pause(self.pace.digest).await
    }

    /// From what was done to the gateway to the start of its successor.
    async fn replacement(
        &mut self,
        what: &'static str,
        notice: &'static str,
        begun: Moment,
    ) -> Result<Handle, Trouble> {
        let noticed = self.until(0, notice).await?;
        let spawned = self.until(0, "gateway.spawned").await?;
        let gateway = self.first()?.gateway(&spawned)?;
        let started = self.until(0, "gateway.started").await?;
        self.rows.push(Row {
            what,
            noticed: Some(noticed.at.saturating_sub(begun)),
            spawned: Some(spawned.at.saturating_sub(begun)),
            started: Some(started.at.saturating_sub(begun)),
            exited: None,
        });
        Ok(gateway)
    }

    /// Lets the gateway run for long enough to count as stable.
    async fn settle(&mut self) -> Result<(), Trouble> {
        self.pause(SETTLED_AFTER.saturating_sub(self.pace.read + self.pace.digest)).await
    }

    /// Opens a chapter.
    async fn chapter(&mut self, number: usize, step: &'static str, title: &str, about: &str) -> Result<(), Trouble> {
        self.pause(self.pace.digest).await?;
        self.step = step;
        self.screen.chapter(number, CHAPTERS, title, about)?;
        self.pause(self.pace.read).await
    }

    /// Shows what is done and tells when.
    fn act(&mut self, text: &str) -> io::Result<Moment> {
        self.screen.act(clock::now(), text)?;
        Ok(clock::now())
    }

    fn first(&self) -> Result<&Supervisor, Trouble> {
        self.stage.supervisors.first().ok_or(Trouble::Start(io::ErrorKind::NotFound.into()))
    }

    fn signal(&self, signal: Signal) -> Result<(), Trouble> {
        self.first()?.signal(signal).map_err(|error| Trouble::Act("signal the supervisor", error))
    }

    /// Waits for an event of a supervisor, and shows all that come before it.
    async fn until(&mut self, index: usize, event: &'static str) -> Result<Heard, Trouble> {
        let deadline = Instant::now() + STEP_WITHIN;
        loop {
            match self.next(index, deadline).await? {
                Some(News::Said(heard)) if heard.event == event => return Ok(heard),
                Some(News::Said(heard)) if index > 0 && heard.event == "gateway.spawned" => {
                    return Err(Trouble::Unproven(format!("the duplicate started a gateway: {}", heard.sentence)));
                }
                // A second one takes the gateway over only from a first one that is gone.
                Some(News::Said(heard)) if index > 0 && heard.event == "gateway.adopted" => {
                    let (_, code) = self.until_end(0).await?;
                    return Err(Trouble::Ended { step: self.step, event, code });
                }
                Some(News::Said(_)) => {}
                Some(News::Ended(_, status)) => {
                    return Err(Trouble::Ended { step: self.step, event, code: supervisor::code(status) });
                }
                None => return Err(Trouble::Missing { step: self.step, event }),
            }
        }
    }

    /// The same for its end.
    async fn until_end(&mut self, index: usize) -> Result<(Moment, i32), Trouble> {
        let deadline = Instant::now() + STEP_WITHIN;
        loop {
            match self.next(index, deadline).await? {
                Some(News::Ended(at, status)) => return Ok((at, supervisor::code(status))),
                Some(News::Said(_)) => {}
                None => return Err(Trouble::Missing { step: self.step, event: "supervisor.stopped" }),
            }
        }
    }

    /// Lets time pass, and shows what the first supervisor says meanwhile.
    async fn pause(&mut self, length: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + length;
        if self.stage.supervisors.first().is_none_or(Supervisor::has_ended) {
            tokio::time::sleep_until(deadline).await;
            return Ok(());
        }
        while let Some(news) = self.next(0, deadline).await? {
            if let News::Ended(_, status) = news {
                let code = supervisor::code(status);
                return Err(Trouble::Ended { step: self.step, event: "the next step", code });
            }
        }
        Ok(())
    }

    /// What a supervisor does next, shown; nothing if that is not before `deadline`.
    async fn next(&mut self, index: usize, deadline: Instant) -> Result<Option<News>, Trouble> {
        let Some(supervisor) = self.stage.supervisors.get_mut(index) else { return Ok(None) };
        let Ok(news) = timeout_at(deadline, supervisor.next()).await else { return Ok(None) };
        let news = news.map_err(|error| Trouble::Act("watch the supervisor", error))?;
        if let News::Said(heard) = &news {
            self.screen.event(heard, mark(index))?;
        }
        Ok(Some(news))
    }
}
