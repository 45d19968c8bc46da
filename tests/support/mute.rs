//! A dead file system, and processes that it holds up.
//!
//! In the middle of an execve(2) the kernel holds a lock that a read of `/proc/PID/environ` needs, and it closes files
//! then. One of these is on a file system in user space (FUSE, see fuse(4)) that never answers. It is mounted nowhere, so
//! that no other process comes across it.

use super::root::needs_root;
use super::{PATIENCE, wait_for};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use std::fs::{self, File, OpenOptions};
use std::io::{PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A number above those of all other files: at an execve(2) they are closed in turn, and the file system of a process that
/// kept the other end of it could never be ended.
const LAST: i32 = 500;

/// Every reader of `/proc` on the machine may wait too: not for longer than this, whatever becomes of the test.
const LIFE: Duration = Duration::from_secs(15);

/// The words of the protocol that are answered.
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// Of the answer to OPEN: a read asks the server and waits for it, where not even SIGKILL ends the wait.
const FOPEN_DIRECT_IO: u32 = 1;

/// Such a file system, and the processes that wait for it.
pub(crate) struct Mute {
    mount: OwnedFd,
    kept: Vec<Child>,
    unanswered: Arc<AtomicUsize>,
    server: Option<JoinHandle<()>>,
    stop: Option<PipeWriter>,
}

impl Mute {
    pub(crate) fn new() -> Self {
        needs_root("a FUSE file system");
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.expect("this test needs FUSE: /dev/fuse");
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).expect("a file system can be made");
        // Its root is a file.
        let options =
            [("fd", device.as_raw_fd().to_string()), ("rootmode", "100555".to_owned()), ("user_id", "0".to_owned())];
        for (key, value) in options.into_iter().chain([("group_id", "0".to_owned())]) {
            fsconfig_set_string(&context, key, value.as_str()).expect("FUSE knows these");
        }
        fsconfig_create(&context).expect("it is complete");
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("we are root");
        let (stopped, stop) = pipe().expect("a pipe can be had");
        let unanswered = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&unanswered);
        let server = thread::spawn(move || {
            let (mut request, begun) = (vec![0; 1 << 20], Instant::now());
            loop {
                let mut ready = [PollFd::new(&device, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
                let left = LIFE.saturating_sub(begun.elapsed());
                poll(&mut ready, Some(&left.try_into().unwrap())).expect("both can be polled");
                if !ready[1].revents().is_empty() || left.is_zero() {
                    return;
                }
                if ready[0].revents().is_empty() {
                    continue;
                }
                let length = (&device).read(&mut request).expect("a request comes whole");
                if !serve(&device, &request[..length]) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { mount, kept: Vec::new(), unanswered, server: Some(server), stop: Some(stop) }
    }

    /// The path of its only file, an executable one.
    pub(crate) fn program(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd())
    }

    /// Waits until a process reads that file.
    pub(crate) fn wait_for_reader(&self) {
        let is_read = || (self.unanswered.load(Ordering::Relaxed) > self.kept.len()).then_some(());
        wait_for("a process that reads its program", PATIENCE, String::new, is_read);
    }

    /// A process that is stuck from now on. Even a read of its `/proc/PID/stat` may block.
    pub(crate) fn keep(&mut self) -> i32 {
        // The link leads to the root of the mount, wherever that is.
        let file = File::open(self.program()).expect("its root can be opened");
        let last = rustix::io::fcntl_dupfd_cloexec(&file, LAST).expect("the number is free");
        drop(file);
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep can be started");
        drop(last);
        let pid = i32::try_from(child.id()).unwrap();
        self.kept.push(child);
        let is_stuck = || (self.unanswered.load(Ordering::Relaxed) == self.kept.len()).then_some(());
        wait_for("a process that sleeps in the middle of its execve", PATIENCE, String::new, is_stuck);
        pid
    }

    /// Ends the file system: every wait for it ends with an error.
    pub(crate) fn let_go(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            server.join().expect("it only answers");
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.let_go();
        for child in &mut self.kept {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Whether it exists, by a file whose reads do not block.
pub(crate) fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("\nState:\tZ"))
}

/// Answers all requests but reads, and but the closing of a file by another process.
fn serve(mut device: &File, request: &[u8]) -> bool {
    let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let (opcode, unique, thread) = (number(4), &request[8..16], number(32));
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let body = match opcode {
        // Version 7.31, and no feature.
        INIT => Ok(words(&[7, 31, 0, 0, 0, 4096, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        // For a second; inode 1, a page long, mode 0100555, one link.
        GETATTR => {
            Ok(words(&[1, 0, 0, 0, 1, 0, 4096, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o100_555, 1, 0, 0, 0, 4096, 0]))
        }
        OPEN => Ok(words(&[0, 0, FOPEN_DIRECT_IO, 0])),
        RELEASE => Ok(Vec::new()),
        FLUSH if Path::new(&format!("/proc/self/task/{thread}")).exists() => Ok(Vec::new()),
        READ | FLUSH => return false,
        _ => Err(-rustix::io::Errno::NOSYS.raw_os_error()),
    };
    let error = body.as_ref().err().copied().unwrap_or(0);
    let body = body.unwrap_or_default();
    let mut answer = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    answer.extend(error.to_ne_bytes());
    answer.extend(unique);
    answer.extend(body);
    // Who asked may be gone.
    device.write_all(&answer).ok();
    true
}
