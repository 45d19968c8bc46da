//! The environment of a measurement: a scratch folder, a port, a supervised process and a clock. Each is cleaned up on drop.

use crate::SUPERVISOR;
use crate::measure::Failure;
use crate::stand_in::{Kind, NEWS_LENGTH, News, OPENCLAW, ROLE};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;
use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// The timeout of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often survivors are killed: a killed process needs a moment to exit.
const SWEEPS_MAX: usize = 1000;

/// The monotonic time in nanoseconds, the same for all processes.
pub(crate) fn now() -> u64 {
    let read = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(read.as_nanos()).unwrap_or(u64::MAX)
}

/// The milliseconds from `since` to `until`.
pub(crate) fn milliseconds(since: u64, until: u64) -> f64 {
    Duration::from_nanos(until.saturating_sub(since)).as_secs_f64() * 1e3
}

/// CPU and kernel of this machine.
pub(crate) fn machine() -> String {
    let first = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let info = first("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{model}, {cpus} CPUs, Linux {}", first("/proc/sys/kernel/osrelease"))
}

/// The load of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The scratch folder.
pub(crate) struct World {
    folder: PathBuf,
    places: Cell<u32>,
}

impl World {
    /// An empty one.
    pub(crate) fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("openclaw-supervise-bench-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self { folder, places: Cell::new(0) })
    }

    /// A new state directory and a free port.
    pub(crate) fn place(&self) -> io::Result<Place> {
        let number = self.places.get();
        self.places.set(number + 1);
        let home = self.folder.join(number.to_string());
        fs::create_dir(&home)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Place { home, port, started: Cell::new(0) })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.folder);
    }
}

/// The state directory and port of a gateway.
pub(crate) struct Place {
    home: PathBuf,
    port: u16,
    started: Cell<u32>,
}

impl Place {
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Another state directory with the same port.
    pub(crate) fn beside(&self, other: &Self) -> Self {
        Self { home: other.home.clone(), port: self.port, started: Cell::new(0) }
    }

    /// The gateway without a supervisor.
    pub(crate) fn gateway(&self) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ROLE, "gateway", &self.port.to_string()]);
        self.start(command)
    }

    /// The gateway under a supervisor with `options`; `kids` are the children of the gateway.
    pub(crate) fn supervisor(&self, options: &[&str], kids: &[&str]) -> io::Result<Process> {
        let mut command = Command::new(SUPERVISOR);
        self.describe(&mut command, options)?;
        command.args(kids);
        self.start(command)
    }

    /// The same without control groups: in a mount namespace without cgroupfs.
    pub(crate) fn supervisor_without_group(&self, options: &[&str], kids: &[&str]) -> io::Result<Process> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "umount -a -t cgroup2 && exec \"$@\"", "sh", SUPERVISOR]);
        self.describe(&mut command, options)?;
        command.args(kids);
        self.start(command)
    }

    /// OpenClaw's CLI without a supervisor.
    pub(crate) fn openclaw(&self) -> io::Result<Process> {
        let mut command = Command::new(self.program()?);
        command.args(["gateway", "--port", &self.port.to_string()]);
        self.start(command)
    }

    /// OpenClaw's CLI under a supervisor, which recognises it.
    pub(crate) fn supervised_openclaw(&self, options: &[&str]) -> io::Result<Process> {
        let mut command = Command::new(SUPERVISOR);
        let port = self.port.to_string();
        command.env_clear().env("HOME", &self.home).env("PATH", "/usr/bin:/bin");
        command.args(["run", "--log-format", "json", "--port", &port]).args(options).arg("--");
        command.arg(self.program()?).args(["gateway", "--port", &port]);
        self.start(command)
    }

    /// This program under OpenClaw's name.
    fn program(&self) -> io::Result<PathBuf> {
        let link = self.home.join(OPENCLAW);
        if !link.exists() {
            std::os::unix::fs::symlink(std::env::current_exe()?, &link)?;
        }
        Ok(link)
    }

    /// A supervisor without options that starts when the last writer of `gate` closes it.
    pub(crate) fn supervisor_behind(&self, gate: &PipeReader) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ROLE, "starter", SUPERVISOR]);
        self.describe(&mut command, &[])?;
        self.start_with(command, gate.try_clone()?.into())
    }

    fn describe(&self, command: &mut Command, options: &[&str]) -> io::Result<()> {
        let port = self.port.to_string();
        command.env_clear().env("HOME", &self.home).env("PATH", "/usr/bin:/bin");
        command.args(["run", "--log-format", "json", "--port", &port]).args(options).arg("--");
        command.arg(std::env::current_exe()?).args([ROLE, "gateway", &port]);
        Ok(())
    }

    fn start(&self, command: Command) -> io::Result<Process> {
        self.start_with(command, Stdio::null())
    }

    /// Starts a command in this folder.
    fn start_with(&self, mut command: Command, stdin: Stdio) -> io::Result<Process> {
        let number = self.started.get();
        self.started.set(number + 1);
        let folder = self.home.join(format!("process-{number}"));
        fs::create_dir(&folder)?;
        Process::start(command.current_dir(&folder).stdin(stdin), folder)
    }

    /// A process that exits at once.
    pub(crate) fn nothing(&self) -> io::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ROLE, "nothing"]);
        self.start(command)
    }
}

/// A child process, the reports of its gateways, and its log.
pub(crate) struct Process {
    child: Child,
    pub(crate) begun: u64,
    told: Receiver<News>,
    /// Log lines and when they were read.
    log: Receiver<(u64, String)>,
    /// Its working directory, which identifies its descendants.
    folder: PathBuf,
}

impl Process {
    fn start(command: &mut Command, folder: PathBuf) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = now();
        let mut child = command.spawn()?;
        let (news, told) = channel();
        if let Some(mut pipe) = child.stdout.take() {
            thread::spawn(move || {
                let mut word = [0; NEWS_LENGTH];
                while pipe.read_exact(&mut word).is_ok() && News::decode(word).is_some_and(|n| news.send(n).is_ok()) {}
            });
        }
        let (lines, log) = channel();
        if let Some(pipe) = child.stderr.take() {
            thread::spawn(move || {
                BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| lines.send((now(), line)))
            });
        }
        Ok(Self { child, begun, told, log, folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next report of one kind.
    pub(crate) fn next(&self, kind: Kind) -> Result<News, Failure> {
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(news) if news.kind == kind => return Ok(news),
                Ok(_) => {}
                Err(_) => return Err(format!("no {kind:?} came; the log ends with {:?}", self.log_end()).into()),
            }
        }
    }

    /// Counts the reports of one kind until the last writer has exited.
    pub(crate) fn count_rest(&self, kind: Kind) -> Result<usize, Failure> {
        let mut count = 0;
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(news) => count += usize::from(news.kind == kind),
                Err(RecvTimeoutError::Disconnected) => return Ok(count),
                Err(RecvTimeoutError::Timeout) => return Err("a process holds the pipe open".into()),
            }
        }
    }

    /// Waits for an event of the log.
    pub(crate) fn event(&self, name: &str) -> Result<serde_json::Value, Failure> {
        self.event_at(name).map(|(_, event)| event)
    }

    /// Waits for an event and returns its time.
    pub(crate) fn event_at(&self, name: &str) -> Result<(u64, serde_json::Value), Failure> {
        loop {
            let (at, line) = self.log.recv_timeout(PATIENCE).map_err(|_| format!("no {name} in the log"))?;
            let event: serde_json::Value = serde_json::from_str(&line)?;
            if event["event"] == name {
                return Ok((at, event));
            }
        }
    }

    /// Lets time pass. Fails if the process closes its pipe.
    pub(crate) fn pass(&self, time: Duration) -> Result<(), Failure> {
        let end = now() + u64::try_from(time.as_nanos())?;
        loop {
            let left = Duration::from_nanos(end.saturating_sub(now()));
            match self.log.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err("it ended too early".into()),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Waits for the exit.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Failure> {
        let (pid, end) = (self.pid(), self.handle()?);
        let patience = Timespec::try_from(PATIENCE)?;
        if poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(format!("{pid} does not end; its log ends with {:?}", self.log_end()).into());
        }
        Ok(self.child.wait()?)
    }

    /// Readable after the exit.
    fn handle(&self) -> Result<OwnedFd, Failure> {
        Ok(rustix::process::pidfd_open(rustix::process::Pid::from_child(&self.child), PidfdFlags::empty())?)
    }

    /// Its gateways and their children that still run: every process of this program in its working directory. A zombie has
    /// neither.
    pub(crate) fn survivors(&self) -> io::Result<Vec<i32>> {
        let program = fs::read_link("/proc/self/exe")?;
        let is = |link: PathBuf, target: &Path| fs::read_link(link).is_ok_and(|found| found == target);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            let pid: Option<i32> =
                process.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            found.extend(pid.filter(|_| is(process.join("cwd"), &self.folder) && is(process.join("exe"), &program)));
        }
        Ok(found)
    }

    fn log_end(&self) -> Option<String> {
        self.log.try_iter().last().map(|(_, line)| line)
    }
}

/// Waits until `left` of them remain. Returns the exits of the others.
pub(crate) fn wait_until_left(processes: &mut [Process], left: usize) -> Result<Vec<(usize, ExitStatus)>, Failure> {
    let mut running = Vec::new();
    for (index, process) in processes.iter().enumerate() {
        running.push((index, process.handle()?));
    }
    let (until, mut ended) = (now() + u64::try_from(PATIENCE.as_nanos())?, Vec::new());
    while running.len() > left {
        let patience = Timespec::try_from(Duration::from_nanos(until.saturating_sub(now())))?;
        let mut ends: Vec<_> = running.iter().map(|(_, end)| PollFd::new(end, PollFlags::IN)).collect();
        if poll(&mut ends, Some(&patience))? == 0 {
            return Err(format!("{} processes still run, not {left}", running.len()).into());
        }
        let is_over: Vec<_> = ends.iter().map(|end| !end.revents().is_empty()).collect();
        let mut over = is_over.into_iter();
        for (index, _) in running.extract_if(.., |_| over.next().unwrap_or_default()) {
            if let Some(process) = processes.get_mut(index) {
                ended.push((index, process.child.wait()?));
            }
        }
    }
    Ok(ended)
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // ESRCH: it has exited.
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
        // A killed process may have just started another.
        for _ in 0..SWEEPS_MAX {
            let pids = self.survivors().unwrap_or_default();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // ESRCH: it has exited.
                let _gone: Result<(), Errno> = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
