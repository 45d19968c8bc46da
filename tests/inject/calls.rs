//! The system calls of the program, and the errors that their man pages name.
//!
//! Left out are errors of a caller that passes nonsense (EFAULT, EBADF, most of EINVAL), which no machine brings about, and
//! what an answer in the kernel's place cannot imitate: close(2) releases its descriptor whatever it returns, brk(2) returns no
//! error number, and a wake of futex(2) that is not made is a defect of no kernel. Missing calls (ENOSYS) are the subject of
//! `tests/e2e/old_kernel.rs`.

use libc::{
    E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, ECHILD, ECONNABORTED, ECONNREFUSED,
    ECONNRESET, EDEADLK, EDQUOT, EEXIST, EFBIG, EINTR, EINVAL, EIO, EISDIR, ELOOP, EMFILE, EMLINK, ENAMETOOLONG,
    ENETUNREACH, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOEXEC, ENOLCK, ENOMEM, ENOPROTOOPT, ENOSPC, ENOSYS, ENOTCONN,
    ENOTDIR, ENOTEMPTY, ENXIO, EOPNOTSUPP, EOVERFLOW, EPERM, EPIPE, EPROTO, EPROTONOSUPPORT, EROFS, ESRCH, ESTALE,
    ETIMEDOUT, ETXTBSY, EXDEV,
};

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    None,
    /// The argument with this index is a path.
    Path(usize),
    /// The argument with this index is a descriptor.
    Descriptor(usize),
    /// The argument with this index says what is wanted, in these bits.
    Operation(usize, u64),
    /// The flags of clone3(2).
    Flags,
}

use Argument::{Descriptor, Flags, None, Operation, Path};

macro_rules! calls {
    ($($name:ident $number:ident $argument:expr),* $(,)?) => {
        &[$((stringify!($name), libc::$number, $argument)),*]
    };
}

/// Every call that the program makes, or may make.
const CALLS: &[(&str, i64, Argument)] = calls![
    accept4 SYS_accept4 Descriptor(0), access SYS_access Path(0), arch_prctl SYS_arch_prctl None, bind SYS_bind Descriptor(0),
    brk SYS_brk None, chdir SYS_chdir Path(0), chmod SYS_chmod Path(0), chown SYS_chown Path(0),
    clock_nanosleep SYS_clock_nanosleep None, clone SYS_clone None, clone3 SYS_clone3 Flags, close SYS_close Descriptor(0),
    close_range SYS_close_range None, connect SYS_connect Descriptor(0), dup SYS_dup None, dup2 SYS_dup2 None, dup3 SYS_dup3 None,
    epoll_create1 SYS_epoll_create1 None, epoll_ctl SYS_epoll_ctl Descriptor(2), epoll_pwait2 SYS_epoll_pwait2 None,
    epoll_wait SYS_epoll_wait None, eventfd2 SYS_eventfd2 None, execve SYS_execve Path(0), exit SYS_exit None,
    exit_group SYS_exit_group None, faccessat SYS_faccessat Path(1), faccessat2 SYS_faccessat2 Path(1),
    fallocate SYS_fallocate Descriptor(0), fchdir SYS_fchdir Descriptor(0), fchmod SYS_fchmod Descriptor(0),
    fchmodat SYS_fchmodat Path(1), fchown SYS_fchown Descriptor(0), fchownat SYS_fchownat Path(1), fcntl SYS_fcntl Operation(1, 0xffff),
    fdatasync SYS_fdatasync Descriptor(0), flock SYS_flock Descriptor(0), fork SYS_fork None, fstat SYS_fstat Descriptor(0),
    fstatfs SYS_fstatfs Descriptor(0), fsync SYS_fsync Descriptor(0), ftruncate SYS_ftruncate Descriptor(0),
    futex SYS_futex Operation(1, 0x7f), getcwd SYS_getcwd None, getdents64 SYS_getdents64 Descriptor(0), getegid SYS_getegid None,
    geteuid SYS_geteuid None, getgid SYS_getgid None, getpeername SYS_getpeername None, getpgid SYS_getpgid None,
    getpgrp SYS_getpgrp None, getpid SYS_getpid None, getppid SYS_getppid None, getrandom SYS_getrandom None,
    getrusage SYS_getrusage None, getsid SYS_getsid None, getsockname SYS_getsockname None, getsockopt SYS_getsockopt Descriptor(0),
    gettid SYS_gettid None, getuid SYS_getuid None, getxattr SYS_getxattr Path(0), ioctl SYS_ioctl Descriptor(0), kcmp SYS_kcmp None, kill SYS_kill None,
    lchown SYS_lchown Path(0), linkat SYS_linkat Path(1), listen SYS_listen None, lseek SYS_lseek Descriptor(0), lstat SYS_lstat Path(0),
    madvise SYS_madvise None, mkdir SYS_mkdir Path(0), mkdirat SYS_mkdirat Path(1), mmap SYS_mmap Descriptor(4),
    mprotect SYS_mprotect None, mremap SYS_mremap None, munmap SYS_munmap None, nanosleep SYS_nanosleep None,
    newfstatat SYS_newfstatat Path(1), openat SYS_openat Path(1), openat2 SYS_openat2 Path(1), pidfd_open SYS_pidfd_open None,
    pidfd_send_signal SYS_pidfd_send_signal None, pipe2 SYS_pipe2 None, poll SYS_poll None, ppoll SYS_ppoll None,
    prctl SYS_prctl None, pread64 SYS_pread64 Descriptor(0), prlimit64 SYS_prlimit64 Operation(2, u64::MAX),
    process_vm_readv SYS_process_vm_readv None, pwrite64 SYS_pwrite64 Descriptor(0), read SYS_read Descriptor(0),
    readlink SYS_readlink Path(0), readlinkat SYS_readlinkat Path(1), recvfrom SYS_recvfrom Descriptor(0),
    recvmsg SYS_recvmsg Descriptor(0), rename SYS_rename Path(0), renameat SYS_renameat Path(1), renameat2 SYS_renameat2 Path(1),
    restart_syscall SYS_restart_syscall None, rmdir SYS_rmdir Path(0), rseq SYS_rseq None,
    rt_sigaction SYS_rt_sigaction None, rt_sigprocmask SYS_rt_sigprocmask None, rt_sigreturn SYS_rt_sigreturn None,
    rt_sigtimedwait SYS_rt_sigtimedwait None, sched_getaffinity SYS_sched_getaffinity None, sched_yield SYS_sched_yield None,
    seccomp SYS_seccomp None, sendmsg SYS_sendmsg Descriptor(0), sendto SYS_sendto Descriptor(0), setpgid SYS_setpgid None,
    set_robust_list SYS_set_robust_list None, setsid SYS_setsid None, setsockopt SYS_setsockopt Descriptor(0),
    set_tid_address SYS_set_tid_address None, shutdown SYS_shutdown Descriptor(0), sigaltstack SYS_sigaltstack None,
    socket SYS_socket None, socketpair SYS_socketpair None, stat SYS_stat Path(0), statfs SYS_statfs Path(0),
    statx SYS_statx Path(1), symlinkat SYS_symlinkat Path(2), sysinfo SYS_sysinfo None, tgkill SYS_tgkill None, umask SYS_umask None, uname SYS_uname None,
    unlink SYS_unlink Path(0), unlinkat SYS_unlinkat Path(1), vfork SYS_vfork None, wait4 SYS_wait4 None,
    waitid SYS_waitid None, write SYS_write Descriptor(0), writev SYS_writev Descriptor(0),
];

/// `None` if it is not in the table.
pub(crate) fn name(number: i64) -> Option<&'static str> {
    CALLS.iter().find(|call| call.1 == number).map(|call| call.0)
}

/// The number of one that is in the table.
pub(crate) fn number(name: &str) -> i64 {
    let call = CALLS.iter().find(|call| call.0 == name);
    call.unwrap_or_else(|| panic!("{name} is not in the table of system calls")).1
}

pub(crate) fn argument(name: &str) -> Argument {
    CALLS.iter().find(|call| call.0 == name).map_or(None, |call| call.2)
}

/// What an operation is, as the second word of a call.
pub(crate) fn operation(name: &str, bits: u64) -> &'static str {
    let bits = i32::try_from(bits).unwrap_or(-1);
    match (name, bits) {
        ("fcntl", libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW) => "lock",
        ("fcntl", libc::F_GETLK | libc::F_OFD_GETLK) => "look",
        ("fcntl", libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => "dup",
        ("futex", libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET) => "wait",
        ("futex", _) => "wake",
        ("prlimit64", 0) => "get",
        ("prlimit64", _) => "set",
        _ => "flags",
    }
}

const FILES: [&str; 5] = ["sqlite", "lock", "own", "file", "sys"];

/// Whether it may as well be slow.
pub(crate) fn may_be_slow(call: &str) -> bool {
    !["exit", "exit_group", "rt_sigreturn", "set_robust_list", "rseq"].contains(&call)
}

/// The errors of one call about one kind of file; see `kind` in `notifier.rs`.
pub(crate) fn errors(call: &str) -> &'static [i32] {
    let (name, kind) = call.split_once(' ').unwrap_or((call, ""));
    match of_files(name, kind) {
        // The pair behind the signal handlers is one: its other end is never gone, and what is there can be read.
        [] if kind == "unix" && ["sendto", "sendmsg", "recvfrom", "recvmsg"].contains(&name) => &[],
        [] => of_others(name, kind),
        errors => errors,
    }
}

fn of_files(name: &str, kind: &str) -> &'static [i32] {
    let is_file = FILES.contains(&kind);
    match (name, kind) {
        ("read" | "pread64", "proc") => &[EINTR, EIO, ENOMEM, ESRCH],
        ("read" | "pread64", "sys") => &[EIO, ENODEV],
        ("read" | "pread64", "pipe") => &[EAGAIN, EINTR],
        ("read" | "pread64", "socket") => &[EAGAIN, ECONNRESET, EINTR],
        ("read" | "write", "eventfd") => &[EAGAIN],
        ("read" | "pread64", _) if is_file => &[EINTR, EIO, ENOMEM, ESTALE],
        ("write" | "pwrite64" | "writev", "proc") => &[EACCES, EINVAL, EPERM, ESRCH],
        ("write" | "pwrite64" | "writev", "sys") => &[EBUSY, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP, EPERM],
        ("write" | "writev", "pipe") => &[EAGAIN, EINTR, EPIPE],
        ("write" | "writev", "socket") => &[EAGAIN, ECONNRESET, EINTR, EPIPE],
        ("write" | "pwrite64" | "writev", _) if is_file => &[EDQUOT, EFBIG, EINTR, EIO, ENOSPC, EPERM],
        ("fsync" | "fdatasync", _) => &[EDQUOT, EINTR, EIO, ENOSPC, EROFS],
        ("ftruncate", _) => &[EFBIG, EINTR, EIO, EPERM, EROFS],
        ("fallocate", _) => &[EFBIG, EINTR, EIO, ENODEV, ENOSPC, EOPNOTSUPP, EPERM],
        ("openat" | "openat2", "proc") => &[EACCES, EINTR, EMFILE, ENFILE, ENOENT, ENOMEM, EPERM, ESRCH],
        ("openat" | "openat2", "sys" | "file") => {
            &[EACCES, EINTR, EIO, ELOOP, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, EPERM]
        }
        ("openat" | "openat2", _) => &[
            EACCES,
            EDQUOT,
            EINTR,
            EIO,
            EISDIR,
            ELOOP,
            EMFILE,
            ENAMETOOLONG,
            ENFILE,
            ENODEV,
            ENOENT,
            ENOMEM,
            ENOSPC,
            ENOTDIR,
            ENXIO,
            EOVERFLOW,
            EPERM,
            EROFS,
            ESTALE,
            ETXTBSY,
        ],
        ("newfstatat" | "statx" | "stat" | "lstat", _) => {
            &[EACCES, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EOVERFLOW, ESTALE]
        }
        ("fstat", _) => &[EIO, ENOMEM, EOVERFLOW, ESTALE],
        ("statfs" | "fstatfs", _) => &[EACCES, EINTR, EIO, ELOOP, ENOENT, ENOMEM, ENOSYS, EOVERFLOW, ESTALE],
        ("readlink" | "readlinkat", _) => &[EACCES, EINVAL, EIO, ELOOP, ENOENT, ENOMEM, ENOTDIR],
        ("getdents64", _) => &[EIO, ENOENT],
        ("access" | "faccessat" | "faccessat2", _) => &[EACCES, EIO, ELOOP, ENOENT, ENOMEM, ENOTDIR, EROFS, ETXTBSY],
        ("mkdir" | "mkdirat", _) => {
            &[EACCES, EDQUOT, EEXIST, EIO, ELOOP, EMLINK, ENOENT, ENOMEM, ENOSPC, ENOTDIR, EPERM, EROFS]
        }
        ("rmdir", _) => &[EACCES, EBUSY, ENOENT, ENOMEM, ENOTEMPTY, EPERM, EROFS],
        ("unlink" | "unlinkat", _) => &[EACCES, EBUSY, EIO, EISDIR, ENOENT, ENOMEM, EPERM, EROFS],
        ("rename" | "renameat" | "renameat2" | "linkat" | "symlinkat", _) => {
            &[EACCES, EBUSY, EDQUOT, EEXIST, EIO, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS, EXDEV]
        }
        ("chmod" | "fchmod" | "fchmodat" | "chown" | "fchown" | "fchownat" | "lchown", _) => {
            &[EACCES, EIO, ELOOP, ENOENT, ENOMEM, EPERM, EROFS]
        }
        ("flock", _) => &[EAGAIN, EINTR, EIO, ENOLCK],
        ("fcntl", "lock" | "look") => &[EACCES, EAGAIN, EDEADLK, EINTR, EIO, ENOLCK],
        ("fcntl", "dup") | ("dup", _) => &[EMFILE],
        ("dup2" | "dup3", _) => &[EBUSY, EINTR, EMFILE],
        _ => &[],
    }
}

fn of_others(name: &str, kind: &str) -> &'static [i32] {
    match (name, kind) {
        ("mmap", "sqlite" | "file" | "own") => &[EACCES, EAGAIN, ENFILE, ENODEV, ENOMEM, EPERM],
        ("mmap" | "mremap" | "munmap" | "sigaltstack", _) => &[ENOMEM],
        ("mprotect", _) => &[EACCES, ENOMEM],
        ("madvise", _) => &[EAGAIN, EINVAL, ENOMEM],
        ("clone3", "process") => &[EACCES, EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM],
        ("clone3" | "clone" | "fork" | "vfork", _) => &[EAGAIN, ENOMEM, EPERM],
        ("execve", _) => &[
            E2BIG,
            EACCES,
            EAGAIN,
            EINVAL,
            EIO,
            EISDIR,
            ELOOP,
            EMFILE,
            ENAMETOOLONG,
            ENFILE,
            ENOENT,
            ENOEXEC,
            ENOMEM,
            ENOTDIR,
            EPERM,
            ETXTBSY,
        ],
        ("wait4" | "waitid", _) => &[ECHILD, EINTR],
        ("kill" | "tgkill" | "pidfd_send_signal", _) => &[EAGAIN, EPERM, ESRCH],
        ("pidfd_open" | "eventfd2", _) => &[EMFILE, ENFILE, ENODEV, ENOMEM],
        ("getsid" | "getpgid", _) => &[EPERM, ESRCH],
        ("socket" | "socketpair", _) => &[EACCES, EAFNOSUPPORT, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTONOSUPPORT],
        ("bind", _) => &[EACCES, EADDRINUSE, EADDRNOTAVAIL, ELOOP, ENOENT, ENOMEM, ENOSPC, ENOTDIR, EPERM, EROFS],
        ("listen", _) => &[EADDRINUSE, EOPNOTSUPP],
        ("accept4", _) => &[EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO],
        ("connect", _) => &[
            EACCES,
            EADDRINUSE,
            EADDRNOTAVAIL,
            EAFNOSUPPORT,
            EAGAIN,
            ECONNREFUSED,
            EINTR,
            ENETUNREACH,
            ENOENT,
            EPERM,
            ETIMEDOUT,
        ],
        ("sendto" | "sendmsg", _) => {
            &[EACCES, EAGAIN, ECONNREFUSED, ECONNRESET, EINTR, ENOBUFS, ENOMEM, ENOTCONN, EPIPE]
        }
        ("recvfrom" | "recvmsg", _) => &[EAGAIN, ECONNREFUSED, ECONNRESET, EINTR, ENOMEM, ENOTCONN],
        ("getsockopt" | "setsockopt", _) => &[ENOBUFS, ENOMEM, ENOPROTOOPT],
        ("getsockname" | "getpeername" | "shutdown", _) => &[ENOBUFS, ENOTCONN],
        ("epoll_create1" | "pipe2", _) => &[EMFILE, ENFILE, ENOMEM],
        ("epoll_ctl", _) => &[ENOMEM, ENOSPC],
        ("poll" | "ppoll", _) => &[EAGAIN, EINTR, ENOMEM],
        ("getrandom" | "epoll_wait" | "epoll_pwait2" | "clock_nanosleep" | "nanosleep" | "restart_syscall", _) => {
            &[EINTR]
        }
        ("rt_sigtimedwait", _) | ("futex", "wait") => &[EAGAIN, EINTR],

        ("prctl", _) => &[EINVAL, EPERM],
        ("setsid" | "setpgid", _) | ("prlimit64", "set") => &[EPERM],
        ("getcwd", _) => &[EACCES, ENOENT, ENOMEM],
        ("chdir" | "fchdir", _) => &[EACCES, EIO, ENOENT, ENOMEM, ENOTDIR],
        ("kcmp" | "process_vm_readv", _) => &[ENOMEM, EPERM, ESRCH],
        ("getxattr", _) => &[EACCES, ENODEV, EOPNOTSUPP],
        _ => &[],
    }
}

/// `ENOSPC`, as the table prints it.
pub(crate) fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}
