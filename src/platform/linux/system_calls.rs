//! The system calls that are younger than the oldest kernel we run on (Linux 3.4), and what replaces those that are missing:
//! ENOSYS on an older kernel and in some sandboxes, EPERM under seccomp profiles that do not know them, such as
//! Docker's before 20.10.10.
//!
//! They are looked for once. Programs below us, the gateway included, have to do without them as well.

use rustix::io::Errno;
use std::ffi::c_long;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

/// `AUDIT_ARCH_*` of `linux/audit.h` for this architecture.
const ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

const CLONE3: &str = "clone3(2)";

/// Never open: the limit on descriptors is lower.
const NO_DESCRIPTOR: i32 = i32::MAX;

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
    /// None of these calls does anything. Where one is there, it fails with the error beside it.
    fn look() -> Self {
        let none = std::ptr::null::<libc::c_void>();
        // SAFETY: there is no process 0.
        let opened = error_of(unsafe { libc::syscall(libc::SYS_pidfd_open, 0, 0) });
        // SAFETY: there is no such descriptor, and signal 0 is never sent.
        let sent = error_of(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, NO_DESCRIPTOR, 0, none, 0) });
        let options = libc::WEXITED | libc::WNOHANG;
        // SAFETY: there is no such descriptor, and nothing is written through null pointers.
        let waited =
            error_of(unsafe { libc::syscall(libc::SYS_waitid, libc::P_PIDFD, NO_DESCRIPTOR, none, options, none) });
        // SAFETY: arguments of no size are refused before they are read.
        let cloned = error_of(unsafe { libc::syscall(libc::SYS_clone3, none, 0_usize) });
        let calls = [
            ("pidfd_open(2)", opened, Errno::INVAL),
            ("pidfd_send_signal(2)", sent, Errno::BADF),
            ("waitid(2) with P_PIDFD", waited, Errno::BADF),
            (CLONE3, cloned, Errno::INVAL),
        ];
        let missing = calls.into_iter().filter(|(_, error, there)| error != there);
        let missing: Vec<_> = missing.map(|(name, error, _)| (name, error)).collect();
        let has_clone3 = missing.iter().all(|(name, _)| *name != CLONE3);
        let has_pidfds = missing.iter().all(|(name, _)| *name == CLONE3);
        Self { missing, has_pidfds, has_clone3, filter: None }
    }

    fn filter(&self) -> Option<SeccompFilter> {
        let is_denied = self.missing.iter().any(|(name, error)| *name == CLONE3 && *error == Errno::PERM);
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

fn name_of(error: Errno) -> String {
    match error {
        Errno::NOSYS => "ENOSYS".to_owned(),
        Errno::PERM => "EPERM".to_owned(),
        Errno::INVAL => "EINVAL".to_owned(),
        other => other.to_string(),
    }
}

/// That of the last system call, which has failed.
fn error_of(_result: c_long) -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
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
}
