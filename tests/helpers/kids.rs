//! Children of the stand-in gateway: what the agents and tools of a real one leave in the process table.

use crate::diary::{Diary, stat_fields};
use crate::script::Kid;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

/// Starts one and waits until it has written its line into the log.
pub(crate) fn spawn(diary: &Diary, kid: Kid) -> io::Result<Child> {
    let mut child = command(diary, kid.name())?.stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut String::new())?;
    }
    if kid == Kid::Daemon {
        // It hands over to an orphan and ends.
        child.wait()?;
    }
    Ok(child)
}

fn command(diary: &Diary, name: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["kid", name]).env("FAKE_GATEWAY_DIR", diary.dir());
    // Its own stderr: one that outlives the supervisor must not hold the supervisor's pipe open.
    command.stdin(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The life of one.
pub(crate) fn live(diary: &Diary, words: &[String]) -> io::Result<ExitCode> {
    let name = words.first().map_or("", String::as_str);
    let mut blocked = SigSet::empty();
    let kid = match Kid::from_name(name) {
        Some(Kid::Daemon) => {
            nix::unistd::setsid()?;
            command(diary, "orphan")?.stdout(Stdio::inherit()).spawn()?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(kid) => kid,
        None if name == "orphan" => Kid::Daemon,
        None => return Ok(ExitCode::from(2)),
    };
    if matches!(kid, Kid::Setsid | Kid::Deaf) {
        nix::unistd::setsid()?;
    }
    if kid == Kid::Deaf {
        blocked.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    }
    // The mask came down from the gateway, which blocks what it waits for.
    blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    diary.note(format_args!("KID {} {} kind={}", std::process::id(), stat_fields()?, kid.name()))?;
    writeln!(io::stdout(), "up")?;
    thread::sleep(crate::LIFETIME);
    Ok(ExitCode::SUCCESS)
}
