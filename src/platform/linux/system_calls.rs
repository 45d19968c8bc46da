//! The system calls that are younger than the oldest kernel we run on (Linux 3.4), and what replaces those that are missing:
//! ENOSYS on an older kernel and in some sandboxes, EPERM under seccomp profiles that do not know them, such as
//! Docker's before 20.10.10.
//!
//! They are looked for once. Programs below us, the gateway included, have to do without them as well.

use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};
use std::ffi::c_long;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// `AUDIT_ARCH_*` of `linux/audit.h` for this architecture.
const ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

static FOUND: OnceLock<SystemCalls> = OnceLock::new();

/// What was found.
#[derive(Debug, Default)]
pub(super) struct SystemCalls {
    /// With their errors.
    missing: Vec<(&'static str, Errno)>,
    has_pidfds: bool,
    has_clone3: bool,
    /// Set if the C library makes no thread without clone3(2).
    filter: Option<SeccompFilter>,
}

/// The outcome of [`answer_enosys`].
#[derive(Debug)]
enum SeccompFilter {
    Installed { no_new_privs: bool },
    Failed(io::Error),
}

/// What is missing here, and what that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// The calls, with their errors.
    pub found: String,
    /// What is worse without them.
    pub why: String,
    pub fix: &'static str,
}

/// Makes threads possible where the C library cannot make any: glibc 2.34 and later fall back from clone3(2) to clone(2)
/// on ENOSYS, not on EPERM. To be called before the first thread is started.
pub fn prepare() {
    let _found = system_calls();
}

/// `None` if nothing is missing.
#[must_use]
pub fn shortfall() -> Option<Shortfall> {
    system_calls().shortfall()
}

/// Whether a process can be held by a descriptor: opened, signalled, polled and waited for (Linux 5.4).
pub(super) fn has_pidfds() -> bool {
    system_calls().has_pidfds
}

/// Linux 5.3.
pub(super) fn has_clone3() -> bool {
    system_calls().has_clone3
}

fn system_calls() -> &'static SystemCalls {
    FOUND.get_or_init(|| {
        let mut found = SystemCalls::look();
        found.filter = found.filter();
        found
    })
}

impl SystemCalls {
    fn look() -> Self {
        let fd = pidfd_open(getpid(), PidfdFlags::empty());
        let fd = fd.as_ref().map_err(|error| *error);
        let of_pidfds = [
            ("pidfd_open(2)", fd.err()),
            ("pidfd_send_signal(2)", signal_nothing(fd.ok()).err()),
            ("waitid(2) with P_PIDFD", wait_for(fd.ok()).err()),
        ];
        let missing = |calls: &[(&'static str, Option<Errno>)]| {
            let failed = calls
                .iter()
                .filter_map(|(name, error)| error.filter(|error| is_missing(*error)).map(|error| (*name, error)));
            failed.collect::<Vec<_>>()
        };
        let (pidfds, clone3) = (missing(&of_pidfds), missing(&[("clone3(2)", clone_nothing().err())]));
        let (has_pidfds, has_clone3) = (pidfds.is_empty(), clone3.is_empty());
        Self { missing: [pidfds, clone3].concat(), has_pidfds, has_clone3, filter: None }
    }

    fn filter(&self) -> Option<SeccompFilter> {
        let is_denied = self.missing.iter().any(|(name, error)| *name == "clone3(2)" && *error == Errno::PERM);
        let thread = || std::thread::Builder::new().spawn(|| ()).map(drop);
        let is_stuck = is_denied && thread().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
        is_stuck.then(|| match answer_enosys() {
            Ok(no_new_privs) => SeccompFilter::Installed { no_new_privs },
            Err(error) => SeccompFilter::Failed(error),
        })
    }

    fn shortfall(&self) -> Option<Shortfall> {
        if self.missing.is_empty() {
            return None;
        }
        let names: Vec<_> = self.missing.iter().map(|(name, error)| format!("{name}: {}", name_of(*error))).collect();
        let mut costs = Vec::new();
        if !self.has_pidfds {
            costs.push(
                "a process is signalled by its pid once its start time has been compared, and the end of a process that \
                 is not our child is noticed within 250 ms"
                    .to_owned(),
            );
        }
        if !self.has_clone3 {
            costs.push("a start takes some milliseconds longer".to_owned());
        }
        match &self.filter {
            None => {}
            Some(SeccompFilter::Installed { no_new_privs }) => {
                let mut cost =
                    "clone3 and faccessat2 are answered with ENOSYS for us and the gateway, since the C library \
                                makes no thread otherwise"
                        .to_owned();
                if *no_new_privs {
                    // Writing to a String cannot fail.
                    let _infallible = write!(cost, ", and sudo and other setuid programs gain no rights below us");
                }
                costs.push(cost);
            }
            Some(SeccompFilter::Failed(error)) => {
                costs.push(format!("neither we nor the gateway can start threads, and that cannot be mended: {error}"));
            }
        }
        let is_denied = self.missing.iter().any(|(_, error)| *error == Errno::PERM);
        Some(Shortfall {
            found: names.join(", "),
            why: costs.join("; "),
            fix: if is_denied {
                "update the container runtime (Docker 20.10.10 or later), or run with --security-opt seccomp=unconfined"
            } else {
                "use Linux 5.4 or later"
            },
        })
    }
}

/// Any other error comes from a call that is there. EINVAL is that of a `P_PIDFD` that is not known.
fn is_missing(error: Errno) -> bool {
    [Errno::NOSYS, Errno::PERM, Errno::INVAL].contains(&error)
}

fn name_of(error: Errno) -> String {
    match error {
        Errno::NOSYS => "ENOSYS".to_owned(),
        Errno::PERM => "EPERM".to_owned(),
        Errno::INVAL => "EINVAL".to_owned(),
        other => other.to_string(),
    }
}

/// The number of a descriptor that is never open.
fn number_of(fd: Option<&OwnedFd>) -> i32 {
    fd.map_or(i32::MAX, AsRawFd::as_raw_fd)
}

/// Without a pidfd of ours it fails with EBADF where the call is there.
fn signal_nothing(fd: Option<&OwnedFd>) -> Result<(), Errno> {
    let (number, none) = (number_of(fd), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: signal 0 is never sent, see kill(2); a null pointer stands for its siginfo.
    answer_of(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, 0, none, 0) })
}

/// We are no child of ours: ECHILD where the call is there, and EBADF without a pidfd.
fn wait_for(fd: Option<&OwnedFd>) -> Result<(), Errno> {
    // SAFETY: the number is only passed to the kernel, which checks it.
    let fd = unsafe { BorrowedFd::borrow_raw(number_of(fd)) };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(fd), options).map(drop)
}

/// The kernel refuses arguments of no size with EINVAL, so that this stands for success.
fn clone_nothing() -> Result<(), Errno> {
    // SAFETY: nothing is read through the null pointer, and no process is made.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<libc::clone_args>(), 0_usize) };
    answer_of(answer).or_else(|error| if error == Errno::INVAL { Ok(()) } else { Err(error) })
}

fn answer_of(result: c_long) -> Result<(), Errno> {
    if result >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Lets clone3(2) and faccessat2(2) fail with ENOSYS, for us and all that we start, as Docker does since 20.10.10. Of two
/// filters with an error for the same call, the one that was installed last names it: see seccomp(2). Returns whether that
/// took away the effect of setuid bits: without `CAP_SYS_ADMIN` no filter is installed otherwise.
fn answer_enosys() -> io::Result<bool> {
    let arch = ARCH.ok_or(io::ErrorKind::Unsupported)?;
    let instruction =
        |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let jump = |to: c_long, jt, jf| {
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(to).unwrap_or(u32::MAX), jt, jf)
    };
    let answer = |answer| instruction(libc::BPF_RET | libc::BPF_K, answer, 0, 0);
    // The fields of `struct seccomp_data`: the number at 0, the architecture at 4.
    let mut filter = [
        load(4),
        jump(c_long::from(arch), 0, 4),
        load(0),
        jump(libc::SYS_clone3, 1, 0),
        jump(libc::SYS_faccessat2, 0, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap_or(0), filter: filter.as_mut_ptr() };
    let install = || {
        // SAFETY: the kernel copies the program, which is alive, and checks it.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    match install() {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
        result => return result.map(|()| false),
    }
    // SAFETY: plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    install().map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_on_a_kernel_of_today() {
        let found = SystemCalls::look();
        assert!(found.has_pidfds && found.has_clone3 && found.shortfall().is_none(), "{found:?}");
    }

    #[test]
    fn what_is_missing_is_told_with_what_it_costs() {
        let of = |missing: &[(&'static str, Errno)], has_pidfds, has_clone3, filter| {
            SystemCalls { missing: missing.to_vec(), has_pidfds, has_clone3, filter }.shortfall().unwrap()
        };
        let old = of(&[("pidfd_open(2)", Errno::NOSYS), ("clone3(2)", Errno::NOSYS)], false, false, None);
        assert_eq!(old.found, "pidfd_open(2): ENOSYS, clone3(2): ENOSYS");
        assert!(old.why.contains("start time") && old.why.contains("milliseconds longer"), "{old:?}");
        assert_eq!(old.fix, "use Linux 5.4 or later");
        let filter = Some(SeccompFilter::Installed { no_new_privs: true });
        let docker = of(&[("clone3(2)", Errno::PERM)], true, false, filter);
        assert!(docker.why.contains("ENOSYS") && docker.why.contains("sudo"), "{docker:?}");
        assert!(!docker.why.contains("start time") && docker.fix.contains("20.10.10"), "{docker:?}");
        let failed = Some(SeccompFilter::Failed(io::Error::from_raw_os_error(libc::EACCES)));
        assert!(of(&[("clone3(2)", Errno::PERM)], true, false, failed).why.contains("threads"));
    }

    #[test]
    fn a_shortage_is_no_missing_call() {
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::CHILD, Errno::BADF] {
            assert!(!is_missing(error), "{error}");
        }
    }
}
