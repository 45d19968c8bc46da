//! A process whose system calls are answered as an older kernel or a strict sandbox answers them, and all that it starts.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Above every system call that there is.
const END: c_long = 600;

/// Becomes `command` on such a machine. Returns only why it could not.
///
/// # Errors
/// Words that make no sense; no seccomp; no such program.
pub(crate) fn run(words: &[String]) -> Result<std::convert::Infallible, Box<dyn Error>> {
    let [machine, program, rest @ ..] = words else { return Err("on-machine MACHINE COMMAND...".into()) };
    // Before Linux 5.4, and in sandboxes with a part of the pidfds.
    if machine != "docker-19" {
        let is_pidfd = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(libc::P_PIDFD))?;
        install([(libc::SYS_waitid, vec![SeccompRule::new(vec![is_pidfd])?])].into(), libc::EINVAL)?;
    }
    // Last: seccomp(2) itself came with Linux 3.17.
    for (calls, errno) in denied(machine)? {
        install(calls.into_iter().map(|call| (call, Vec::new())).collect(), errno)?;
    }
    Err(Command::new(program).args(rest).exec().into())
}

fn denied(machine: &str) -> Result<Vec<(Vec<c_long>, i32)>, String> {
    Ok(match machine {
        // kcmp(2) came with Linux 3.5, copy_file_range(2) with 4.5.
        "linux-3.4" => vec![((libc::SYS_kcmp..END).collect(), libc::ENOSYS)],
        "linux-4.4" => vec![((libc::SYS_copy_file_range..END).collect(), libc::ENOSYS)],
        // Its seccomp profile knows no call from Linux 5.1 on.
        "docker-19" => vec![((libc::SYS_pidfd_send_signal..END).collect(), libc::EPERM)],
        // A bit of each.
        "sandbox" => vec![
            (vec![libc::SYS_faccessat2, libc::SYS_statx, libc::SYS_close_range], libc::EPERM),
            (vec![libc::SYS_pidfd_send_signal, libc::SYS_clone3, libc::SYS_openat2], libc::ENOSYS),
        ],
        other => return Err(format!("no machine {other:?}")),
    })
}

fn install(rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: i32) -> Result<(), Box<dyn Error>> {
    let error = SeccompAction::Errno(errno.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, error, arch)?;
    Ok(seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?)
}
