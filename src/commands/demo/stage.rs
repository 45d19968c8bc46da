//! Where the demo takes place: a scratch directory, a free port, the supervisors, and the proof that nothing is left.

use super::supervisor::{News, Supervisor};
use crate::platform::proc::{self, Stat};
use crate::platform::process::Handle;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Inherited by everything that the demo starts, however it was daemonised: what bears it is the demo's.
const MARK: &str = "OPENCLAW_SUPERVISE_DEMO";

/// How long the supervisors may take to end: `--stop-timeout` and some more. What is left then is killed.
const ENDED_WITHIN: Duration = Duration::from_secs(8);

/// How long killed processes may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// What the demo has made, until [`Stage::clear`] takes it away.
pub(super) struct Stage {
    id: String,
    scratch: PathBuf,
    port: u16,
    pub(super) supervisors: Vec<Supervisor>,
}

impl Stage {
    /// Makes a scratch directory and finds a free port.
    pub(super) fn set() -> io::Result<Self> {
        // Bound for a moment only: the gateway binds it soon, and that somebody else did is no worse than anywhere.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let id = format!("{:016x}", RandomState::new().build_hasher().finish());
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

    /// The variable that marks the demo's processes.
    pub(super) fn mark(&self) -> (&'static str, &str) {
        (MARK, &self.id)
    }

    /// The processes of the demo that live, other than this one.
    pub(super) fn processes(&self) -> io::Result<Vec<Stat>> {
        let entry = format!("{MARK}={}", self.id);
        let all = proc::processes()?;
        Ok(all.into_iter().filter(|process| !process.is_dead() && proc::environ_has(process.pid, &entry)).collect())
    }

    /// Waits until every supervisor has ended and shows what they do; the time for that is bounded.
    pub(super) async fn wait_for_all(&mut self, mut show: impl FnMut(usize, &News)) {
        let deadline = Instant::now() + ENDED_WITHIN;
        for (index, supervisor) in self.supervisors.iter_mut().enumerate() {
            while !supervisor.has_ended() {
                match timeout_at(deadline, supervisor.next()).await {
                    Ok(Ok(news)) => show(index, &news),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    /// Kills what is still there, removes the scratch directory, and says how many processes it could not end.
    pub(super) async fn clear(&mut self) -> io::Result<usize> {
        let deadline = Instant::now() + GONE_WITHIN;
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

/// SIGKILL to the process that was seen, and to no other one that has its pid by now.
fn kill(process: &Stat) {
    if let Ok(handle) = Handle::open(process.pid)
        && handle.start_time() == process.start_time
    {
        // One that is gone already needs no signal.
        let _gone = handle.kill();
    }
}
