//! The demo's scratch directory, port and supervisors, and the check that no process is left.

use super::supervisor::{SupervisorEvent, SupervisorProcess};
use crate::platform::proc::{self, Stat};
use crate::platform::process::Handle;
use crate::platform::random;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Inherited by every process that the demo starts, even a daemonised one.
const TAG: &str = "OPENCLAW_SUPERVISE_DEMO";

/// `--stop-timeout` and a margin. Afterwards the supervisors are killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(8);

/// How long killed processes may take to exit.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);

/// Everything that the demo creates, until [`Sandbox::clean_up`] removes it.
pub(super) struct Sandbox {
    id: String,
    scratch: PathBuf,
    port: u16,
    pub(super) supervisors: Vec<SupervisorProcess>,
}

impl Sandbox {
    /// Creates a scratch directory and finds a free port.
    pub(super) fn create() -> io::Result<Self> {
        // Bound only for a moment. If another program takes the port before the gateway does, the demo fails.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let id = format!("{:016x}", random::bits());
        let scratch = std::path::absolute(std::env::temp_dir())?.join(format!("openclaw-supervise-demo-{id}"));
        DirBuilder::new().mode(0o700).create(&scratch)?;
        Ok(Self { id, scratch, port, supervisors: Vec::new() })
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The variable that tags the demo's processes.
    pub(super) fn tag(&self) -> (&'static str, &str) {
        (TAG, &self.id)
    }

    /// The demo's living processes, without this one.
    pub(super) fn processes(&self) -> io::Result<Vec<Stat>> {
        let entry = format!("{TAG}={}", self.id);
        let all = proc::processes()?;
        Ok(all.into_iter().filter(|process| !process.is_dead() && proc::environ_has(process.pid, &entry)).collect())
    }

    /// Waits until every supervisor has ended, for at most [`STOP_TIME_MAX`], and shows what they log.
    pub(super) async fn wait_for_all(&mut self, mut show: impl FnMut(usize, &SupervisorEvent)) {
        let deadline = Instant::now() + STOP_TIME_MAX;
        for (index, supervisor) in self.supervisors.iter_mut().enumerate() {
            while !supervisor.has_ended() {
                match timeout_at(deadline, supervisor.next()).await {
                    Ok(Ok(event)) => show(index, &event),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    /// Kills what is left and removes the scratch directory. Returns the number of processes that survived.
    pub(super) async fn clean_up(&mut self) -> io::Result<usize> {
        let deadline = Instant::now() + KILL_TIME_MAX;
        let mut left = self.processes()?;
        while !left.is_empty() && Instant::now() < deadline {
            left.iter().for_each(kill);
            sleep(Duration::from_millis(10)).await;
            left = self.processes()?;
        }
        self.supervisors.clear();
        match fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(left.len()),
        }
    }
}

/// Sends SIGKILL unless the pid has been reused.
fn kill(process: &Stat) {
    if let Ok(handle) = Handle::open(process.pid)
        && handle.start_time() == process.start_time
    {
        // ESRCH: it has exited.
        let _gone = handle.kill();
    }
}
