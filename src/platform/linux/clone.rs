//! Starting a process of ours: clone3(2), or fork(2) on a kernel without it, and execve(2).
//!
//! `std::process::Command` returns only after the execve(2) of its child, which a dead file system holds up for as long
//! as it likes, and tells the pid afterwards. Here the pid is known when clone3(2) returns, and the outcome of the
//! execve(2) comes through a pipe that it closes. The child is created in its control group (`CLONE_INTO_CGROUP`): a
//! move by a write to `cgroup.procs` waits for an RCU grace period, 10 ms on a machine that was idle.

use super::cgroup::Leaf;
use super::handle::Handle;
use super::rlimit_tag::RlimitTag;
use super::system_calls::has_clone3;
use crate::platform::child::positive;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use tokio::net::unix::pipe::Receiver;

/// What a process is started with. All that it starts inherits the leaf and the tag.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// The control group to be created in.
    pub leaf: Option<&'a Leaf>,
    /// A mark in its resource limits.
    pub tag: Option<RlimitTag>,
    /// Standard input, output and error; `None` if ours.
    pub streams: [Option<BorrowedFd<'a>>; 3],
}

/// A process that was started. It may not have executed its program yet.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub handle: Handle,
    /// Why it is not in its leaf, but in our own control group.
    pub outside: Option<io::Error>,
    /// The outcome of its execve(2).
    pub exec: Exec,
}

/// The pipe through which a child tells why its execve(2) failed. It is closed when that succeeds, or when the child ends.
#[derive(Debug)]
pub struct Exec(OwnedFd);

impl Exec {
    /// Waits until the program was executed. It needs the reactor of a tokio runtime. A pipe that cannot be watched
    /// (`epoll_ctl(2)`: ENOMEM, ENOSPC) says nothing about the child, which may well run: it counts as executed, and its end
    /// tells otherwise.
    ///
    /// # Errors
    /// The error of execve(2). The child exits with 127 then, and has to be reaped.
    pub async fn done(self) -> io::Result<()> {
        let Ok(pipe) = Receiver::from_owned_fd(self.0) else { return Ok(()) };
        while pipe.readable().await.is_ok() {
            let mut code = [0; size_of::<i32>()];
            match pipe.try_read(&mut code) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
                Ok(length) => return outcome(length, code),
            }
        }
        Ok(())
    }
}

fn outcome(length: usize, code: [u8; size_of::<i32>()]) -> io::Result<()> {
    if length == code.len() { Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code))) } else { Ok(()) }
}

/// Starts a command in a session of its own. Of `command`, its program, arguments and environment count.
///
/// # Errors
/// clone3(2): EAGAIN, ENOMEM; EMFILE. That the leaf cannot be entered is no error, and that of execve(2) comes later.
pub fn spawn(command: &mut Command, setup: Setup<'_>) -> io::Result<Spawned> {
    let Setup { leaf, tag, streams } = setup;
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let image = Image::of(command)?;
    let plan = ChildPlan {
        image: &image,
        tag,
        streams: streams.map(|fd| fd.map(|fd| fd.as_raw_fd())),
        tell: tell.as_raw_fd(),
        last: last_descriptor(),
    };
    let directory = leaf.map(Leaf::directory);
    let (pid, outside) = create(directory.as_deref(), &plan, &told, tell)?;
    // It is not reaped yet, so the pid is its own. Its execve(2) does not block the read of its start time: no file is
    // closed during it.
    let handle = Handle::open(pid).inspect_err(|_| {
        // EMFILE: what cannot be held must not run. It is reaped with the children that nothing here waits for.
        let _killed = positive(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
    })?;
    Ok(Spawned { handle, outside, exec: Exec(told) })
}

/// Starts a command in a session of its own, with its own standard streams. It blocks until execve(2) is over.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub fn spawn_in_own_session(command: &mut Command) -> io::Result<Handle> {
    // SAFETY: setsid(2) is async-signal-safe, allocates nothing and touches no lock that the fork could have copied.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
    Handle::open(command.spawn()?.id().cast_signed())
}

/// The highest descriptor that is open now, and a few more: other threads may open some until the clone.
fn last_descriptor() -> RawFd {
    const MANY: RawFd = 1024;
    const MARGIN: RawFd = 16;
    let numbers = fs::read_dir("/proc/self/fd")
        .map(|all| all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).max());
    numbers.ok().flatten().unwrap_or(MANY).saturating_add(MARGIN)
}

/// What execve(2) takes, made before the clone: afterwards nothing may be allocated.
struct Image {
    _strings: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
}

impl Image {
    fn of(command: &Command) -> io::Result<Self> {
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => environment.insert(name.to_owned(), value.to_owned()),
                None => environment.remove(name),
            };
        }
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(ToOwned::to_owned);
        let entries = environment.into_iter().map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            entry
        });
        let strings = |all: &mut dyn Iterator<Item = OsString>| {
            all.map(|text| CString::new(text.into_vec())).collect::<Result<Vec<_>, _>>()
        };
        let (words, entries) = (strings(&mut words.into_iter())?, strings(&mut entries.into_iter())?);
        let pointers =
            |strings: &[CString]| strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>();
        // The strings are on the heap, and stay where they are when the list that owns them moves.
        let (argv, envp) = (pointers(&words), pointers(&entries));
        Ok(Self { _strings: words.into_iter().chain(entries).collect(), argv, envp })
    }
}

/// What the child does before it is another program.
struct ChildPlan<'a> {
    image: &'a Image,
    tag: Option<RlimitTag>,
    streams: [Option<RawFd>; 3],
    tell: RawFd,
    last: RawFd,
}

/// From `linux/sched.h`; libc's own constants of these names do not hold the bits.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A child that follows the plan: its pid, and why it is not in the leaf.
fn create(
    leaf: Option<&OwnedFd>,
    plan: &ChildPlan<'_>,
    told: &OwnedFd,
    tell: OwnedFd,
) -> io::Result<(i32, Option<io::Error>)> {
    match if has_clone3() { clone(leaf, plan) } else { Err(Errno::NOSYS.into()) } {
        // Before Linux 5.7 it knows fewer flags.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => fork(leaf, plan, told, tell),
        Err(error) if leaf.is_some() => Ok((clone(None, plan)?, Some(error))),
        result => Ok((result?, None)),
    }
}

fn clone(leaf: Option<&OwnedFd>, plan: &ChildPlan<'_>) -> io::Result<i32> {
    // SAFETY: all of it is plain numbers, for which zeroes are valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // Our handlers would tell us of signals that were meant for the child.
    arguments.flags = CLONE_CLEAR_SIGHAND;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(leaf) = leaf {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(leaf.as_raw_fd()).unwrap_or(u64::MAX);
    }
    // SAFETY: no memory is shared and no stack is given, so both return from the call as from a fork(2). The C library
    // does not learn of the child, which makes system calls alone before it executes another program or ends.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            close_ours(plan, None);
            follow(plan)
        }
        pid if pid > 0 => i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// With all signals blocked until the child has no handler of ours any more. The child
/// enters its control group by itself, for which the parent waits.
fn fork(
    leaf: Option<&OwnedFd>,
    plan: &ChildPlan<'_>,
    told: &OwnedFd,
    tell: OwnedFd,
) -> io::Result<(i32, Option<io::Error>)> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child makes system calls alone before it executes another program or ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Before it enters its control group: that waits for other processes.
        close_ours(plan, leaf.map(AsRawFd::as_raw_fd));
        if let Some(leaf) = leaf {
            tell_parent(plan.tell, enter(leaf).err().map_or(0, Errno::raw_os_error));
        }
        follow(plan);
    }
    let result = if pid > 0 { Ok(pid) } else { Err(io::Error::last_os_error()) };
    before.thread_set_mask()?;
    let pid = result?;
    // A child that is killed before it tells leaves an end of file.
    drop(tell);
    Ok((pid, leaf.and_then(|_| entered(told).err())))
}

fn enter(leaf: &OwnedFd) -> Result<(), Errno> {
    let file = openat(leaf, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, b"0").map(drop)
}

fn entered(told: &OwnedFd) -> io::Result<()> {
    let mut code = [0; size_of::<i32>()];
    let length = retry_on_intr(|| rustix::io::read(told, &mut code))?;
    match i32::from_ne_bytes(code) {
        _ if length < code.len() => Err(io::ErrorKind::UnexpectedEof.into()),
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn tell_parent(pipe: RawFd, code: i32) {
    let code = code.to_ne_bytes();
    // SAFETY: the bytes are there.
    unsafe {
        libc::write(pipe, code.as_ptr().cast(), code.len());
    }
}

/// The first thing that the child does is to close what must end with us: the claim on the port, the control socket, the
/// lock of the lease, the database. A child that is held up later would keep them for a supervisor that was killed. The
/// sockets go first: close(2) of a file may wait for its file system (FUSE, NFS), and that of a socket for nothing.
fn close_ours(plan: &ChildPlan<'_>, leaf: Option<RawFd>) {
    for are_sockets in [true, false] {
        for number in 3..=plan.last {
            let is_kept = [Some(plan.tell), leaf].iter().chain(&plan.streams).any(|kept| *kept == Some(number));
            // SAFETY: a flag of a number is asked for, and the number is closed: what owns it is in our parent.
            unsafe {
                if !is_kept
                    && libc::fcntl(number, libc::F_GETFD) == libc::FD_CLOEXEC
                    && (!are_sockets || is_socket(number))
                {
                    libc::close(number);
                }
            }
        }
    }
}

/// fstat(2) would ask the file system.
fn is_socket(number: RawFd) -> bool {
    let (mut kind, mut length): (libc::c_int, libc::socklen_t) =
        (0, libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0));
    // SAFETY: both are on the stack, and of the size that is said.
    unsafe { libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut length) == 0 }
}

/// The child, until it is another program. It allocates nothing and takes no lock: another thread of ours may have held
/// one when it was copied.
fn follow(plan: &ChildPlan<'_>) -> ! {
    // A gateway without a tag is better than none.
    let _tagged = plan.tag.map(RlimitTag::put_on_us);
    let failed = attempt(plan);
    tell_parent(plan.tell, failed.raw_os_error());
    // SAFETY: no handler of exit(3) of the process that this is a copy of is run.
    unsafe { libc::_exit(127) }
}

fn attempt(plan: &ChildPlan<'_>) -> Errno {
    if let Err(error) = rustix::process::setsid() {
        return error;
    }
    let last = || Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL));
    // SAFETY: plain system calls, on descriptors that are open, a signal set on the stack, and lists of strings that end
    // with a null pointer. An action that is refused is that of SIGKILL, SIGSTOP or the C library.
    unsafe {
        for (number, stream) in (0..).zip(plan.streams) {
            if stream.is_some_and(|stream| libc::dup2(stream, number) < 0) {
                return last();
            }
        }
        // What we or our parent ignore is inherited, as is the mask. A shell cannot trap what it was started to ignore.
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execvpe(plan.image.argv[0], plan.image.argv.as_ptr(), plan.image.envp.as_ptr());
    }
    last()
}
