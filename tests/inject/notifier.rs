//! Answers system calls of the program under test in the kernel's place: `seccomp_unotify(2)`.
//!
//! Why not `strace -e inject`: strace counts calls of each thread by itself and would fail the gateway's as well; it stops
//! every thread at every call, and `/proc` shows a traced process as another one. Here the filter asks about the
//! calls of one case alone, and of those that come from another program than ours each is let through.

use crate::support::supervisor::PROGRAM;
use crate::support::{PATIENCE, wait_for};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io, thread};

use super::calls::{self, Argument};

/// What is done to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// It is not made, and this error is returned.
    Errno(i32),
    /// It is made later.
    Delay(Duration),
}

/// Which call is failed, and how.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// As [`Notifier::counts`] names them.
    pub(crate) call: String,
    /// Counted from 1 within the phase.
    pub(crate) number: u32,
    pub(crate) failure: Failure,
}

/// The call that was failed.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    /// The name of its thread.
    pub(crate) thread: String,
    /// What it was about: a path, or the file behind a descriptor.
    pub(crate) about: String,
}

/// When calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off,
    /// From the `main` of the program on: what the loader does is no work of ours.
    FromMain,
    On,
}

#[derive(Debug)]
struct Shared {
    phase: Phase,
    counts: BTreeMap<String, u32>,
    plan: Option<Plan>,
    hit: Option<Hit>,
    /// The folder of the case.
    root: PathBuf,
}

/// The socket at which the listener of a [trapped](../helpers/trapped.rs) process is announced.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
}

/// The other end of one filter.
pub(crate) struct Notifier {
    shared: Arc<Mutex<Shared>>,
}

impl Door {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("door");
        // Of an earlier process of this case.
        fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// The words in front of a command whose calls of these names are to be answered; all if none is named.
    pub(crate) fn words(&self, calls: &[&str]) -> Vec<String> {
        let mut numbers: Vec<String> = calls.iter().map(|name| calls::number(name).to_string()).collect();
        // The first is waited for by the helper, the second is the first call of Rust's runtime.
        numbers.extend(["execve", "poll"].map(|name| calls::number(name).to_string()));
        let calls = if calls.is_empty() { "all".to_owned() } else { numbers.join(",") };
        let helper = crate::support::fake_gateway().display().to_string();
        vec![helper, "trapped".to_owned(), self.path.display().to_string(), calls]
    }

    /// Waits for the process and answers its calls from now on, which count from its `main` or from [`Notifier::begin`] on.
    pub(crate) fn answer(self, root: &Path, plan: Option<Plan>, from_main: bool) -> Notifier {
        let accepted = || self.listener.accept().ok();
        let (socket, _) = wait_for("a trapped process", PATIENCE, String::new, accepted);
        socket.set_nonblocking(false).expect("a socket can be made blocking");
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).expect("the helper says where its listener is");
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        let (Some(pid), Some(number)) = (numbers.next(), numbers.next()) else { panic!("{line:?} names no listener") };
        let listener = wait_for("the listener", PATIENCE, String::new, || listener_of(pid, number));
        let phase = if from_main { Phase::FromMain } else { Phase::Off };
        let shared = Shared { phase, counts: BTreeMap::new(), plan, hit: None, root: root.to_owned() };
        let shared = Arc::new(Mutex::new(shared));
        let (for_thread, listener) = (Arc::clone(&shared), Arc::new(listener));
        thread::spawn(move || answer_all(&listener, &for_thread));
        Notifier { shared }
    }
}

impl Notifier {
    fn set(&self, phase: Phase) {
        self.shared.lock().expect("no holder panics").phase = phase;
    }

    /// Calls count from now on.
    pub(crate) fn begin(&self) {
        let mut shared = self.shared.lock().expect("no holder panics");
        shared.counts.clear();
        shared.phase = Phase::On;
    }

    /// No call counts any more.
    pub(crate) fn end(&self) {
        self.set(Phase::Off);
    }

    /// How often each call was made in this phase.
    pub(crate) fn counts(&self) -> BTreeMap<String, u32> {
        self.shared.lock().expect("no holder panics").counts.clone()
    }

    pub(crate) fn hit(&self) -> Option<Hit> {
        self.shared.lock().expect("no holder panics").hit.clone()
    }
}

fn listener_of(pid: i32, number: i32) -> Option<OwnedFd> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    if link.to_str() != Some("anon_inode:seccomp notify") {
        return None;
    }
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).ok()
}

/// Until all that have the filter are gone.
fn answer_all(listener: &Arc<OwnedFd>, shared: &Mutex<Shared>) {
    loop {
        let mut ready = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue;
        }
        let revents = ready[0].revents();
        if !revents.contains(PollFlags::IN) && revents.contains(PollFlags::HUP) {
            return;
        }
        // The caller may be gone.
        let Ok(asked) = receive(listener) else { continue };
        match decide(&asked, shared) {
            None => send(listener, asked.id, 0, true),
            Some(Failure::Errno(errno)) => send(listener, asked.id, -errno, false),
            Some(Failure::Delay(time)) => {
                let listener = Arc::clone(listener);
                thread::spawn(move || {
                    thread::sleep(time);
                    send(&listener, asked.id, 0, true);
                });
            }
        }
    }
}

fn decide(asked: &libc::seccomp_notif, shared: &Mutex<Shared>) -> Option<Failure> {
    let mut shared = shared.lock().expect("no holder panics");
    let pid = asked.pid.cast_signed();
    let name = calls::name(i64::from(asked.data.nr));
    let is_ours = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(PROGRAM));
    if shared.phase == Phase::Off || !is_ours() {
        return None;
    }
    if shared.phase == Phase::FromMain {
        if name == Some("poll") {
            shared.phase = Phase::On;
        }
        return None;
    }
    let name = name.map_or_else(|| format!("#{}", asked.data.nr), str::to_owned);
    let about = about(asked, &name);
    let about = if is_unix_socket(asked.pid, &about) { about.replace("socket", "unix") } else { about };
    let is_named = matches!(calls::argument(&name), Argument::Operation(..) | Argument::Flags);
    let kind = if is_named { about.as_str() } else { kind(&about, &shared.root) };
    let call = if kind.is_empty() { name } else { format!("{name} {kind}") };
    let count = shared.counts.entry(call.clone()).or_default();
    *count += 1;
    let number = *count;
    let plan = shared.plan.as_ref().filter(|plan| plan.call == call && plan.number == number)?;
    let failure = plan.failure;
    let thread = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    shared.hit = Some(Hit { thread, about });
    Some(failure)
}

/// The path or the descriptor that a call names.
fn about(asked: &libc::seccomp_notif, name: &str) -> String {
    let argument = |index: usize| asked.data.args[index];
    match calls::argument(name) {
        Argument::None => String::new(),
        Argument::Path(index) => text_at(asked.pid, argument(index)).unwrap_or_default(),
        Argument::Descriptor(index) => {
            // The kernel reads the lower half alone.
            let number = argument(index) & 0xffff_ffff;
            let link = fs::read_link(format!("/proc/{}/fd/{number}", asked.pid));
            link.map_or_else(|_| "none".to_owned(), |link| link.to_string_lossy().into_owned())
        }
        Argument::Operation(index, mask) => calls::operation(name, argument(index) & mask).to_owned(),
        Argument::Flags => {
            let flags = bytes_at::<8>(asked.pid, argument(0)).map(u64::from_ne_bytes).unwrap_or_default();
            let shares_memory = flags & u64::from(libc::CLONE_VM.cast_unsigned()) != 0;
            if shares_memory { "thread" } else { "process" }.to_owned()
        }
    }
}

/// A class of files, so that numbers mean about the same call in each run.
fn kind(about: &str, root: &Path) -> &'static str {
    let path = Path::new(about);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match about {
        "" => "",
        _ if about.starts_with("socket:") => "socket",
        _ if about.starts_with("unix:") => "unix",
        _ if about.starts_with("pipe:") => "pipe",
        _ if about.contains("eventfd") => "eventfd",
        _ if about.contains("eventpoll") => "epoll",
        _ if about.contains("pidfd") => "pidfd",
        _ if about.starts_with("/proc") => "proc",
        _ if about.starts_with("/sys") => "sys",
        _ if path.starts_with(root) && name.starts_with("supervise.sqlite") => "sqlite",
        _ if path.starts_with(root) && name.starts_with("lease") => "lock",
        _ if path.starts_with(root) => "own",
        _ if about.starts_with('/') => "file",
        "none" => "none",
        _ => "other",
    }
}

/// By its inode, which `proc_net_unix(5)` lists.
fn is_unix_socket(pid: u32, about: &str) -> bool {
    let Some(inode) = about.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else { return false };
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().nth(6) == Some(inode))
}

fn bytes_at<const LENGTH: usize>(pid: u32, address: u64) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    fs::File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

/// A string in the memory of a process.
fn text_at(pid: u32, address: u64) -> Option<String> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = [0; 256];
    // It may lie at the end of a mapping.
    let page_end = 4096 - usize::try_from(address % 4096).ok()?;
    let length = memory.read_at(&mut bytes[..page_end.min(256)], address).ok()?;
    let text = bytes[..length].split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[expect(unsafe_code, reason = "ioctl(2)")]
fn receive(listener: &OwnedFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: plain numbers, which the kernel wants to be zero.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the struct, which has the size that the request's number holds.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(asked) }
}

/// One whose caller is gone is answered in vain.
#[expect(unsafe_code, reason = "ioctl(2)")]
fn send(listener: &OwnedFd, id: u64, error: i32, goes_on: bool) {
    let flags = if goes_on { u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1) } else { 0 };
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the kernel reads the struct, which has the size that the request's number holds.
    let _gone = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
}
