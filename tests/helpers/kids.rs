//! Children of the stand-in gateway: what the agents and tools of a real one leave in the process table.
//!
//! `kid NAME DIR` starts the life of one, `kid NAME DIR settled` goes on with it where it took another process or another
//! program to get there. For the rest of the words see `storm`. Each carries DIR among its arguments, whatever becomes of
//! its environment: so a test finds them all.

use crate::diary::{Diary, stat_fields};
use crate::script::Kid;
use crate::storm;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::unistd::{Pid, setpgid, setsid};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

/// What `/proc/PID/stat` shows between parentheses, and what looks like the end of it.
#[cfg(target_os = "linux")]
const ODD_NAME: &std::ffi::CStr = c"a) S 1 (b\nc) ";

/// The same as the name of a program.
const ODD_FILE: &str = ") R 1 1\n(d e";

/// How much memory a large one uses.
const LARGE: usize = 96 * 1024 * 1024;

/// Starts one and waits until it has written its line into the log.
pub(crate) fn spawn(diary: &Diary, kid: Kid, stdin: Stdio) -> io::Result<Child> {
    let mut child = command(diary, kid, &[])?.stdin(stdin).stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut String::new())?;
    }
    if matches!(kid, Kid::Daemon | Kid::Lost) {
        // It hands over to an orphan and ends.
        child.wait()?;
    }
    Ok(child)
}

pub(crate) fn command(diary: &Diary, kid: Kid, more: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["kid", kid.name()]).arg(diary.dir()).args(more);
    // Its own stderr: one that outlives the supervisor must not hold the supervisor's pipe open.
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The life of one.
pub(crate) fn live(words: &[String]) -> io::Result<ExitCode> {
    let [name, dir, more @ ..] = words else { return Ok(ExitCode::from(2)) };
    let (diary, Some(kid)) = (Diary::new(dir.into()), Kid::from_name(name)) else { return Ok(ExitCode::from(2)) };
    match more.first().map(String::as_str) {
        None => begin(&diary, kid),
        Some("settled") => settle(&diary, kid),
        Some(_) => storm::go_on(&diary, kid, more),
    }
}

/// Gets where its kind lives.
fn begin(diary: &Diary, kid: Kid) -> io::Result<ExitCode> {
    let rest = || command(diary, kid, &["settled"]);
    match kid {
        Kid::Plain => {}
        Kid::Group => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
        Kid::Setsid
        | Kid::Deaf
        | Kid::Stopped
        | Kid::Odd
        | Kid::Heir
        | Kid::Storm
        | Kid::Gale
        | Kid::Shedder
        | Kid::Large => {
            setsid()?;
        }
        Kid::Daemon => {
            setsid()?;
            rest()?.stdout(Stdio::inherit()).spawn()?;
            return Ok(ExitCode::SUCCESS);
        }
        Kid::Lost => {
            setsid()?;
            rest()?.env_clear().stdout(Stdio::inherit()).spawn()?;
            return Ok(ExitCode::SUCCESS);
        }
        Kid::Wiped => return Err(rest()?.env_clear().exec()),
        Kid::Ignoring => {
            setsid()?;
            let rest = rest()?;
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "trap '' TERM INT HUP; exec \"$0\" \"$@\""]).arg(rest.get_program());
            return Err(shell.args(rest.get_args()).exec());
        }
        Kid::OddFile => {
            setsid()?;
            let rest = rest()?;
            let link = diary.dir().join(ODD_FILE);
            // One of its kind may have made it.
            drop(std::os::unix::fs::symlink(rest.get_program(), &link));
            return Err(Command::new(link).args(rest.get_args()).exec());
        }
    }
    settle(diary, kid)
}

/// Writes its line, says so, and lives.
fn settle(diary: &Diary, kid: Kid) -> io::Result<ExitCode> {
    let mut blocked = SigSet::empty();
    if kid == Kid::Deaf {
        blocked.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    }
    // The mask came down from the gateway, which blocks what it waits for.
    blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    #[cfg(target_os = "linux")]
    if kid == Kid::Odd {
        nix::sys::prctl::set_name(ODD_NAME)?;
    }
    let _touched = std::hint::black_box(vec![1_u8; if kid == Kid::Large { LARGE } else { 0 }]);
    diary.note(format_args!("KID {} {} kind={}", std::process::id(), stat_fields()?, kid.name()))?;
    writeln!(io::stdout(), "up")?;
    match kid {
        Kid::Stopped => {
            // Nothing else would ever end it: a stopped process does not wake to see that its time is over.
            #[cfg(target_os = "linux")]
            let _deadline = kill_at_the_end()?;
            raise(Signal::SIGSTOP)?;
        }
        Kid::Storm | Kid::Gale | Kid::Shedder => storm::rage(diary, kid)?,
        _ => {}
    }
    thread::sleep(crate::LIFETIME);
    Ok(ExitCode::SUCCESS)
}

/// SIGKILL to this process when its time is over.
#[cfg(target_os = "linux")]
fn kill_at_the_end() -> io::Result<nix::sys::timer::Timer> {
    use nix::sys::signal::{SigEvent, SigevNotify};
    use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
    let notify = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
    let mut timer = Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
    let end = nix::sys::time::TimeSpec::from(crate::LIFETIME);
    timer.set(Expiration::OneShot(end), TimerSetTimeFlags::empty())?;
    Ok(timer)
}
