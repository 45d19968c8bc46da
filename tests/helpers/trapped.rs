//! A process whose system calls wait for the answer of a test, see `seccomp_unotify(2)`, and all that it starts.

#![expect(unsafe_code, reason = "seccomp(2) has no safe wrapper with a listener")]

use nix::sys::prctl::set_no_new_privs;
use std::error::Error;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes `command`. The calls of these numbers are asked about, or all of them. The test at the other end of the socket
/// is told where the listener will be: it takes it with `pidfd_getfd(2)`, and execve(2), always among the calls, waits for it.
/// Returns only why it could not.
///
/// # Errors
/// Words that make no sense; no seccomp; no such program.
pub(crate) fn run(words: &[String]) -> Result<std::convert::Infallible, Box<dyn Error>> {
    let [socket, calls, program, rest @ ..] = words else { return Err("trapped SOCKET CALLS COMMAND...".into()) };
    let calls: Option<Vec<u32>> = match calls.as_str() {
        "all" => None,
        calls => Some(calls.split(',').map(str::parse).collect::<Result<_, _>>()?),
    };
    let mut test = UnixStream::connect(socket)?;
    // The lowest free number, which the listener gets next.
    let number = std::fs::File::open("/dev/null")?.as_raw_fd();
    writeln!(test, "{} {number}", std::process::id())?;
    let got = install(calls.as_deref())?;
    if got != number {
        return Err(format!("the listener is {got}, not {number}").into());
    }
    Err(Command::new(program).args(rest).exec().into())
}

fn install(calls: Option<&[u32]>) -> Result<i32, Box<dyn Error>> {
    let instruction =
        |code: u32, k: u32, jt: u8, jf: u8| u16::try_from(code).map(|code| libc::sock_filter { code, jt, jf, k });
    let give = |answer| instruction(libc::BPF_RET | libc::BPF_K, answer, 0, 0);
    let mut filter = Vec::new();
    if let Some(calls) = calls {
        filter.push(instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)?);
        for &call in calls {
            filter.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1)?);
            filter.push(give(libc::SECCOMP_RET_USER_NOTIF)?);
        }
        filter.push(give(libc::SECCOMP_RET_ALLOW)?);
    } else {
        filter.push(give(libc::SECCOMP_RET_USER_NOTIF)?);
    }
    let program = libc::sock_fprog { len: u16::try_from(filter.len())?, filter: filter.as_mut_ptr() };
    if !nix::unistd::geteuid().is_root() {
        set_no_new_privs()?;
    }
    // A call that was taken up waits for its answer, whatever signals come.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the kernel copies the program, which is alive, and checks it.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if listener < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(i32::try_from(listener)?) }
}
