//! A run of chaos on real processes: one seed decides every disturbance and its time, and the promises are checked all along.

#[path = "../sim/dice.rs"]
#[expect(dead_code, reason = "the simulation uses the rest")]
mod dice;
#[path = "chaos/judge.rs"]
mod judge;

use super::sweep;
use crate::support::bystander::Bystander;
use crate::support::jail::gateways;
use crate::support::process::Process;
use crate::support::root::needs_root;
use crate::support::supervisor::{Launch, PROGRAM, Supervisor};
use crate::support::{Scene, http, let_pass};
use dice::Dice;
use judge::Judge;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

const USUAL: Duration = Duration::from_secs(30);

/// Once the disturbances are over a gateway serves again within this time. A hang takes 0.6 s and three probes of 1 s to be seen, its
/// evidence 5 s at most, a record in a store that was full 8 s; a standby waits for 15 s where nothing owns the port.
const BACK: Duration = Duration::from_secs(40);

/// Between two looks.
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    KillGateway,
    ExitGateway(u8),
    FreezeLoop,
    StopGateway(Duration),
    KillSupervisor,
    StopSupervisor(Duration),
    StarveSupervisor(Duration),
    StealPort(Duration),
    FillDisk(Duration),
    Duplicate,
    DuplicateElsewhere,
    Standby(Duration),
    RestartByVerb,
    Hangup,
    Terminate,
    Detach,
    /// The clocks of the supervisors to come run ahead by so many seconds.
    StepClock(u32),
}

const ALL: [Action; 17] = [
    Action::KillGateway,
    Action::ExitGateway(0),
    Action::FreezeLoop,
    Action::StopGateway(Duration::ZERO),
    Action::KillSupervisor,
    Action::StopSupervisor(Duration::ZERO),
    Action::StarveSupervisor(Duration::ZERO),
    Action::StealPort(Duration::ZERO),
    Action::FillDisk(Duration::ZERO),
    Action::Duplicate,
    Action::DuplicateElsewhere,
    Action::Standby(Duration::ZERO),
    Action::RestartByVerb,
    Action::Hangup,
    Action::Terminate,
    Action::Detach,
    Action::StepClock(0),
];

impl Action {
    /// What it does depends on the dice alone, so that a seed is one sequence.
    fn draw(dice: &mut Dice, from: &[Self]) -> Self {
        let time = dice.ms(100, 3000);
        let number = dice.small(1_000_000);
        match dice.pick(from) {
            Self::ExitGateway(_) => Self::ExitGateway(u8::try_from(number % 4).unwrap_or(0)),
            Self::StopGateway(_) => Self::StopGateway(time),
            Self::StopSupervisor(_) => Self::StopSupervisor(time),
            Self::StarveSupervisor(_) => Self::StarveSupervisor(time),
            Self::StealPort(_) => Self::StealPort(time),
            Self::FillDisk(_) => Self::FillDisk(time),
            Self::Standby(_) => Self::Standby(time),
            Self::StepClock(_) => Self::StepClock(number),
            other => other,
        }
    }
}

/// What ends a disturbance that lasts.
enum Undo {
    Continue(Process),
    Release(Arc<AtomicBool>),
    /// The file that fills the disk.
    Free,
    /// A standby is stopped.
    Stop(i32),
}

struct Chaos {
    scene: Scene,
    judge: Judge,
    /// Those that live.
    supervisors: Vec<Supervisor>,
    verbs: Vec<Child>,
    undo: Vec<(Instant, Undo)>,
    clock: u32,
    /// Those with a state directory of their own.
    elsewhere: BTreeSet<i32>,
    /// Whether the last owner of the gateway was one of them: a service manager starts that one again.
    is_elsewhere: bool,
}

/// `CHAOS=30m` in place of the usual time, `CHAOS_SEED=N` in place of the usual seed.
pub(crate) fn run_from_environment() {
    let time = env::var("CHAOS").map_or(Ok(USUAL), |text| humantime::parse_duration(&text)).expect("CHAOS is a time");
    let seed = sweep::number("CHAOS_SEED").unwrap_or(1);
    sweep::say(&format!("CHAOS_SEED={seed}"));
    // In a thread of its own: it has its own mounts.
    let end = thread::spawn(move || run(seed, time)).join();
    if let Err(panic) = end {
        std::panic::resume_unwind(panic);
    }
}

fn run(seed: u64, time: Duration) {
    needs_root("a small file system for the store, and namespaces");
    let scene = Scene::new("boot=30ms drain=50ms kid=setsid kid=daemon");
    let elsewhere = Scene::new("");
    own_disk(&scene);
    let bystander = Bystander::namesake(&elsewhere);
    let mut chaos = Chaos {
        judge: Judge::new(scene.diary(), bystander),
        scene,
        supervisors: Vec::new(),
        verbs: Vec::new(),
        undo: Vec::new(),
        clock: 0,
        elsewhere: BTreeSet::new(),
        is_elsewhere: false,
    };
    let (mut dice, started) = (Dice::new(seed), Instant::now());
    let only = env::var("CHAOS_ONLY").unwrap_or_default();
    let is_drawn = |action: &&Action| only.split(',').any(|name| format!("{action:?}").starts_with(name));
    let actions: Vec<_> = ALL.iter().filter(is_drawn).copied().collect();
    chaos.start(&[]);
    chaos.wait_back("the first start");
    while started.elapsed() < time {
        let burst: Vec<_> = (0..=dice.below(3)).map(|_| (Action::draw(&mut dice, &actions), dice.ms(0, 400))).collect();
        chaos.judge.note(&format!("{burst:?}"));
        for &(action, pause) in &burst {
            chaos.act(action);
            chaos.pass(pause);
        }
        while !chaos.undo.is_empty() {
            chaos.pass(TICK);
        }
        chaos.wait_back(&format!("{burst:?}"));
        chaos.judge.renew_bystander(&elsewhere);
    }
    chaos.end(seed);
}

/// Mounts that this thread and what it starts see: a small one where the store will be.
fn own_disk(scene: &Scene) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may have a mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("mounts can be private");
    mount("tmpfs", scene.state_dir(), "tmpfs", MountFlags::empty(), Some(c"size=8m")).expect("a tmpfs can be mounted");
}

impl Chaos {
    fn launch(&self) -> Launch<'_> {
        self.scene.launch().option("--max-restarts", "1000000").option("--conflict-timeout", "500ms")
    }

    /// Starts another supervisor.
    fn start(&mut self, flags: &[&str]) {
        let clock = self.clock.to_string();
        let launch = self.launch().flags(flags);
        let command = match self.clock {
            0 => launch.command(),
            // An execve(2) enters the namespace, since Linux 6.1.
            _ => launch.behind(&["unshare", "--time", "--monotonic", &clock, "--boottime", &clock]),
        };
        self.supervisors.push(Supervisor::spawn(command));
    }

    fn start_elsewhere(&mut self) {
        let other = self.scene.root().join("other").display().to_string();
        let one = Supervisor::spawn(self.launch().env("OPENCLAW_STATE_DIR", &other).command());
        self.elsewhere.insert(one.pid());
        self.supervisors.push(one);
    }

    /// The one with the gateway, as far as a look from outside can say: the oldest.
    fn owner(&self) -> Option<i32> {
        self.supervisors.first().map(Supervisor::pid)
    }

    fn signal_owner(&self, signal: Signal) {
        if let Some(pid) = self.owner() {
            kill(Pid::from_raw(pid), signal).ok();
        }
    }

    fn gateway(&self) -> Option<Process> {
        gateways(&self.scene).first().copied()
    }

    fn later(&mut self, time: Duration, undo: Undo) {
        self.undo.push((Instant::now() + time, undo));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::KillGateway => self.end_gateway(Process::kill),
            Action::ExitGateway(code) => {
                let diary = self.scene.diary();
                self.end_gateway(|gateway| diary.command(gateway.pid, &format!("exit={code}")));
            }
            Action::FreezeLoop => {
                let diary = self.scene.diary();
                self.end_gateway(|gateway| diary.command(gateway.pid, "freeze"));
            }
            Action::StopGateway(time) => {
                if let Some(gateway) = self.gateway() {
                    self.end_gateway(|gateway| gateway.signal(Signal::SIGSTOP));
                    self.later(time, Undo::Continue(gateway));
                }
            }
            Action::KillSupervisor => self.signal_owner(Signal::SIGKILL),
            Action::StopSupervisor(time) => {
                if let Some(owner) = self.owner().and_then(Process::find) {
                    owner.signal(Signal::SIGSTOP);
                    self.later(time, Undo::Continue(owner));
                }
            }
            Action::StarveSupervisor(time) => {
                if let Some(owner) = self.owner().and_then(Process::find) {
                    let over = Arc::new(AtomicBool::new(false));
                    starve(owner, Arc::clone(&over));
                    self.later(time, Undo::Release(over));
                }
            }
            Action::StealPort(time) => {
                self.judge.excuse_exits();
                self.end_gateway(Process::kill);
                let over = Arc::new(AtomicBool::new(false));
                steal(self.scene.port(), Arc::clone(&over));
                self.later(time, Undo::Release(over));
            }
            Action::FillDisk(time) => {
                self.judge.excuse_exits();
                fill(&self.scene.state_dir().join("filler"));
                self.later(time, Undo::Free);
            }
            Action::Duplicate => self.start(&[]),
            Action::DuplicateElsewhere => self.start_elsewhere(),
            Action::Standby(time) => {
                self.start(&["--on-conflict", "standby"]);
                let pid = self.supervisors.last().map_or(0, Supervisor::pid);
                self.later(time, Undo::Stop(pid));
            }
            Action::RestartByVerb => self.verb(&["restart", "--timeout", "10s"]),
            Action::Hangup => self.request(Signal::SIGHUP),
            Action::Terminate => self.request(Signal::SIGTERM),
            Action::Detach => self.signal_owner(Signal::SIGQUIT),
            Action::StepClock(ahead) => self.clock = ahead,
        }
    }

    fn end_gateway(&mut self, how: impl Fn(Process)) {
        for gateway in gateways(&self.scene) {
            self.judge.excuse(gateway);
            how(gateway);
        }
    }

    /// A request ends the gateway that lives, or the next one, where it comes during a start.
    fn request(&mut self, signal: Signal) {
        self.judge.excuse_request();
        self.signal_owner(signal);
    }

    fn verb(&mut self, words: &[&str]) {
        self.judge.excuse_request();
        let mut command = self.scene.command(PROGRAM);
        command.args(words).stdout(Stdio::null()).stderr(Stdio::null());
        self.verbs.push(command.spawn().expect("the program starts"));
    }

    /// Lets time go by, ends what is due and collects the supervisors that have ended.
    fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let (due, later) = std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
            self.undo = later;
            let due: Vec<(Instant, Undo)> = due;
            for (_, undo) in due {
                self.undo(undo);
            }
            self.collect();
            let supervisors = &self.supervisors;
            self.judge.look(&self.scene, || stories(supervisors));
            if Instant::now() >= until {
                return;
            }
            let_pass(TICK);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Continue(process) => process.signal(Signal::SIGCONT),
            Undo::Release(over) => over.store(true, Ordering::Relaxed),
            Undo::Free => {
                fs::remove_file(self.scene.state_dir().join("filler")).ok();
            }
            Undo::Stop(pid) => {
                if self.supervisors.iter().any(|one| one.pid() == pid) {
                    self.judge.excuse_request();
                    kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
                }
            }
        }
    }

    fn collect(&mut self) {
        let (mut ended, mut living) = (Vec::new(), Vec::new());
        for mut one in std::mem::take(&mut self.supervisors) {
            if one.try_exit().is_some() { ended.push(one) } else { living.push(one) }
        }
        self.supervisors = living;
        for mut one in ended {
            let status = one.try_exit();
            if status.is_some_and(|status| status.code() != Some(78)) {
                self.is_elsewhere = self.elsewhere.contains(&one.pid());
            }
            self.judge.judge_exit(&mut one, status, self.supervisors.is_empty());
        }
        self.verbs.retain_mut(|verb| verb.try_wait().is_ok_and(|status| status.is_none()));
    }

    /// One supervisor with one gateway that serves. As a service manager does, a new supervisor is started if none is left.
    fn wait_back(&mut self, what: &str) {
        let since = Instant::now();
        loop {
            self.pass(TICK);
            match (self.supervisors.is_empty(), self.is_elsewhere) {
                (true, true) => self.start_elsewhere(),
                (true, false) => self.start(&[]),
                (false, _) => {}
            }
            let is_up = http::startup_status(self.scene.port()).is_some_and(|status| status == "started");
            if is_up
                && self.supervisors.len() == 1
                && self.verbs.is_empty()
                && gateways(&self.scene).len() == 1
                && self.is_managed()
            {
                break;
            }
            if since.elapsed() > BACK {
                self.judge.broken(&format!("P4: not back {BACK:?} after {what}"), &stories(&self.supervisors));
            }
        }
        self.judge.calm(since.elapsed());
    }

    /// The supervisor has said so itself, since a gateway that an earlier one left serves as well.
    fn is_managed(&self) -> bool {
        let mut command = self.scene.command(PROGRAM);
        command.arg("status").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn end(mut self, seed: u64) {
        for one in &self.supervisors {
            one.signal(Signal::SIGTERM);
        }
        self.judge.excuse_request();
        let since = Instant::now();
        while !self.supervisors.is_empty() && since.elapsed() < BACK {
            self.pass(TICK);
        }
        self.judge.finish(&self.scene, seed, self.supervisors.len());
    }
}

fn stories(supervisors: &[Supervisor]) -> String {
    supervisors.iter().map(Supervisor::story).collect::<Vec<_>>().join("\n")
}

/// A processor for a twentieth of the time.
fn starve(process: Process, over: Arc<AtomicBool>) {
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) && process.is_alive() {
            process.signal(Signal::SIGSTOP);
            let_pass(Duration::from_millis(95));
            process.signal(Signal::SIGCONT);
            let_pass(Duration::from_millis(5));
        }
        process.signal(Signal::SIGCONT);
    });
}

/// Takes the port as soon as it is free, and answers nothing.
fn steal(port: u16, over: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut stolen = None;
        while !over.load(Ordering::Relaxed) {
            stolen = stolen.or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
            let_pass(Duration::from_millis(1));
        }
    });
}

fn fill(path: &std::path::Path) {
    let zeroes = vec![0; 64 * 1024];
    if let Ok(mut file) = File::create(path) {
        while file.write_all(&zeroes).is_ok() {}
        while file.write_all(&zeroes[..1]).is_ok() {}
    }
}
