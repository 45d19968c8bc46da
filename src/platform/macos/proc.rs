//! What the kernel says about processes, through libproc (`libproc.h`, `sys/proc_info.h`) and sysctl(3).
//!
//! Unless we are root it tells the parent and the start time of our own user's processes only. Others are not seen;
//! neither could we signal them.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::ptr;

use crate::platform::command_line;
use crate::platform::environment::ProcessEnvironment;
pub use crate::platform::stat::{ProcessState, Stat, Surveyed};

/// Looks one process up, be it a zombie.
pub fn stat(pid: i32) -> io::Result<Stat> {
    // SAFETY: it is the struct of this flavor, and plain numbers.
    let info: libc::proc_bsdinfo = unsafe { info(pid, libc::PROC_PIDTBSDINFO) }?;
    let session = rustix::process::Pid::from_raw(pid).map(|pid| rustix::process::getsid(Some(pid)));
    Ok(Stat {
        pid,
        state: match info.pbi_status {
            libc::SZOMB => ProcessState::Dead,
            libc::SSTOP => ProcessState::Stopped,
            _ => ProcessState::Other,
        },
        parent: info.pbi_ppid.cast_signed(),
        group: info.pbi_pgid.cast_signed(),
        session: session.and_then(Result::ok).map_or(0, |session| session.as_raw_nonzero().get()),
        start_time: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
    })
}

/// One struct about one process.
///
/// # Safety
/// `T` is the struct that `sys/proc_info.h` has for `flavor`, and all zeroes are a valid one.
pub(super) unsafe fn info<T>(pid: i32, flavor: c_int) -> io::Result<T> {
    let size = c_int::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut info = MaybeUninit::<T>::zeroed();
    // SAFETY: `info` has the `size` bytes that may be written. The argument 1 includes zombies.
    let written = unsafe { libc::proc_pidinfo(pid, flavor, 1, info.as_mut_ptr().cast(), size) };
    if written < size {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, then filled by the kernel.
    Ok(unsafe { info.assume_init() })
}

/// Whether the list of processes is that of others: there are no pid namespaces here.
#[must_use]
pub fn is_foreign() -> bool {
    false
}

/// Runs a job on a thread of its own: it may sleep. No read about a process blocks here.
///
/// # Errors
/// EAGAIN.
pub async fn run<T: Send + 'static>(job: impl Fn() -> T + Send + Sync + 'static) -> io::Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A closed channel means that nothing waits for the answer any more.
    std::thread::Builder::new().spawn(move || drop(answer.send(job())))?;
    answered.await.map_err(io::Error::other)
}

/// No.
#[must_use]
pub fn is_stuck(_pid: i32) -> bool {
    false
}

/// No.
#[must_use]
pub fn is_left_behind() -> bool {
    false
}

/// No.
#[must_use]
pub fn was_left_behind(_thread: std::thread::ThreadId) -> bool {
    false
}

/// Past every start time: these are so fine here that a pid and a start time always name one process.
#[must_use]
pub fn tick() -> u64 {
    u64::MAX
}

/// What a process that does not end is doing, in words.
#[must_use]
pub fn condition_of(pid: i32) -> Option<String> {
    Some(format!("status {}", short_info(pid)?.pbsi_status))
}

/// A walk that can be taken a few processes at a time.
#[derive(Debug)]
pub struct Walk {
    pids: Vec<i32>,
}

/// How many processes a step looks at.
const STEP: usize = 64;

impl Walk {
    /// At the first process.
    ///
    /// # Errors
    /// The list of pids cannot be had.
    pub fn begin() -> io::Result<Self> {
        Ok(Self { pids: pids()? })
    }

    /// The same as [`survey`] of the next few processes; `None` if there are no more.
    ///
    /// # Errors
    /// None.
    pub fn advance<T>(
        &mut self,
        is_asked: impl Fn(&Stat) -> bool,
        answer: impl Fn(&ProcessEnvironment) -> T,
    ) -> io::Result<Option<Surveyed<T>>> {
        let rest = self.pids.len().saturating_sub(STEP);
        let pids: Vec<_> = self.pids.drain(rest..).collect();
        Ok((!pids.is_empty()).then(|| look(pids, is_asked, answer)))
    }
}

/// Every process that can be seen. One that ends during the walk is left out.
pub fn processes() -> io::Result<Vec<Stat>> {
    Ok(pids()?.into_iter().filter(|&pid| pid > 0).filter_map(|pid| stat(pid).ok()).collect())
}

fn pids() -> io::Result<Vec<i32>> {
    loop {
        // SAFETY: without a buffer it only tells the number of processes, with room for some new ones.
        let room = unsafe { libc::proc_listallpids(ptr::null_mut(), 0) };
        let mut pids = vec![0; usize::try_from(room).unwrap_or(0)];
        let bytes = c_int::try_from(size_of_val(pids.as_slice())).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel writes at most these bytes, which `pids` has.
        let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), bytes) };
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err(io::Error::last_os_error());
        }
        // A full list may be a cut one.
        if count < pids.len() {
            pids.truncate(count);
            return Ok(pids);
        }
    }
}

/// The children of any process.
pub fn children_of(pid: i32) -> io::Result<Vec<i32>> {
    let mut room = 64;
    loop {
        let mut pids = vec![0; room];
        let bytes = c_int::try_from(size_of_val(pids.as_slice())).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the kernel writes at most these bytes, which `pids` has.
        let count = unsafe { libc::proc_listchildpids(pid, pids.as_mut_ptr().cast(), bytes) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // A full list may be a cut one.
        if count < room {
            pids.truncate(count);
            return Ok(pids);
        }
        room *= 2;
    }
}

/// The children of this process. Orphans are not among them: they go to launchd.
pub fn children() -> io::Result<Vec<i32>> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    Ok(processes()?.into_iter().filter(|process| process.parent == me).map(|process| process.pid).collect())
}

/// The command line of a process, its name in brackets where it has none (a zombie) or hides it (another user's),
/// nothing where it is gone. Control characters are replaced, so that the result stays one line in a log.
#[must_use]
pub fn command_of(pid: i32) -> Option<String> {
    let start = started_with(pid);
    let arguments = start.as_deref().and_then(parse).map(|start| start.arguments);
    arguments.and_then(command_line::of_arguments).or_else(|| Some(command_line::of_name(name_of(pid)?.as_bytes())))
}

/// The name of a process: of its program file, of at most 15 bytes.
#[must_use]
pub fn name_of(pid: i32) -> Option<String> {
    let name = short_info(pid)?.pbsi_comm.map(i8::cast_unsigned);
    name.split(|&byte| byte == 0).next().map(|name| String::from_utf8_lossy(name).into_owned())
}

/// The environment that a process was started with; nothing where it cannot be read: another user's process, and while
/// System Integrity Protection is on the programs of macOS itself, its shells too.
#[must_use]
pub fn environment_of(pid: i32) -> Option<ProcessEnvironment> {
    let start = started_with(pid)?;
    parse(&start).map(|start| ProcessEnvironment::new(start.environment.join(&0)))
}

/// Whether that environment holds this `NAME=value`. What cannot be read holds nothing.
#[must_use]
pub fn environ_has(pid: i32, entry: &str) -> bool {
    environment_of(pid).is_some_and(|environment| environment.has(entry))
}

/// Every process that can be seen, each with what `answer` makes of its environment: `None` if it is not asked for
/// or has none that can be read.
///
/// # Errors
/// The list of pids cannot be had.
pub fn survey<T>(
    is_asked: impl Fn(&Stat) -> bool,
    answer: impl Fn(&ProcessEnvironment) -> T,
) -> io::Result<Surveyed<T>> {
    Ok(look(pids()?, is_asked, answer))
}

fn look<T>(pids: Vec<i32>, is_asked: impl Fn(&Stat) -> bool, answer: impl Fn(&ProcessEnvironment) -> T) -> Surveyed<T> {
    let ask = |process: Stat| {
        let environment = is_asked(&process).then(|| environment_of(process.pid)).flatten();
        (process, environment.as_ref().map(&answer))
    };
    pids.into_iter().filter(|&pid| pid > 0).filter_map(|pid| stat(pid).ok()).map(ask).collect()
}

/// None: there are no cgroups.
#[must_use]
pub fn cgroup_of(_pid: i32) -> Option<String> {
    None
}

/// What execve(2) was given, as `KERN_PROCARGS2` tells it.
fn started_with(pid: i32) -> Option<Vec<u8>> {
    let mut size = 0;
    sysctl_procargs(pid, ptr::null_mut(), &mut size)?;
    let mut bytes = vec![0; size];
    sysctl_procargs(pid, bytes.as_mut_ptr().cast(), &mut size)?;
    bytes.truncate(size);
    Some(bytes)
}

fn sysctl_procargs(pid: i32, buffer: *mut c_void, size: &mut usize) -> Option<()> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    // SAFETY: the name has the three numbers that are announced; the kernel writes at most `size` bytes to `buffer`, of
    // which the one caller owns as many, or none to a null pointer; nothing is to be set.
    let result = unsafe { libc::sysctl(name.as_mut_ptr(), 3, buffer, size, ptr::null_mut(), 0) };
    (result == 0).then_some(())
}

/// What a process was started with.
#[derive(Debug, PartialEq, Eq)]
struct Start<'a> {
    arguments: Vec<&'a [u8]>,
    environment: Vec<&'a [u8]>,
}

/// Takes it apart: an `int` with the number of arguments, the path of the program, NULs up to a
/// word's border, the arguments, the environment, each with a NUL at its end.
fn parse(start: &[u8]) -> Option<Start<'_>> {
    let (count, strings) = start.split_first_chunk()?;
    let count = usize::try_from(c_int::from_ne_bytes(*count)).ok()?;
    let path_end = strings.iter().position(|&byte| byte == 0)?;
    let padding = strings[path_end..].iter().position(|&byte| byte != 0)?;
    let mut words = strings[path_end + padding..].split(|&byte| byte == 0);
    let arguments = words.by_ref().take(count).collect();
    Some(Start { arguments, environment: words.collect() })
}

/// The working directory of a process: not shown here.
#[must_use]
pub fn working_directory_of(_pid: i32) -> Option<PathBuf> {
    None
}

/// The files that a process has open for writing: not shown here.
#[must_use]
pub fn written_files_of(_pid: i32) -> Vec<PathBuf> {
    Vec::new()
}

/// The real user of a process. A program that is set-user-id does not change it.
#[must_use]
pub fn real_uid_of(pid: i32) -> Option<u32> {
    Some(short_info(pid)?.pbsi_ruid)
}

/// Whether a process is the first one of a pid namespace: there are none.
#[must_use]
pub fn is_first_of_namespace(_pid: i32) -> bool {
    false
}

/// Whether SIGTERM does nothing to a process: not shown here.
#[must_use]
pub fn ignores_sigterm(_pid: i32) -> bool {
    false
}

/// Whether a process has not taken a signal yet that was sent to it: not shown here.
#[must_use]
pub fn has_pending(_pid: i32, _signal: i32) -> bool {
    false
}

/// The effective user of a process.
#[must_use]
pub fn uid_of(pid: i32) -> Option<u32> {
    Some(short_info(pid)?.pbsi_uid)
}

/// The fields of a process that every user may read.
fn short_info(pid: i32) -> Option<libc::proc_bsdshortinfo> {
    // SAFETY: it is the struct of this flavor, and plain numbers.
    unsafe { info(pid, libc::PROC_PIDT_SHORTBSDINFO) }.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_from_the_environment() {
        let mut start = 3_i32.to_ne_bytes().to_vec();
        start.extend(b"/bin/node\0\0\0node\0A=1\0\0HOME=/\0A=2\0\0");
        let Start { arguments, environment } = parse(&start).unwrap();
        assert_eq!(arguments, [&b"node"[..], b"A=1", b""]);
        assert_eq!(environment[..2], [&b"HOME=/"[..], b"A=2"]);
        assert_eq!(parse(&start[..3]), None);
        assert_eq!(parse(&start[..8]), None);
    }

    #[test]
    fn we_find_ourselves() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = stat(me).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id().cast_signed());
        assert!(processes().unwrap().contains(&stat));
        assert!(command_of(me).unwrap().contains("openclaw_supervise"));
        assert_eq!(uid_of(me), Some(rustix::process::geteuid().as_raw()));
        let path = std::env::var("PATH").unwrap();
        assert!(environ_has(me, &format!("PATH={path}")));
        assert!(!environ_has(me, &format!("PATH={path}-")));
        assert_eq!(environment_of(me).unwrap().get("PATH"), Some(path.as_bytes()));
    }
}
