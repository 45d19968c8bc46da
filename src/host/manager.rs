//! Who runs us, and what becomes of what we leave behind.

use crate::platform::proc;
use crate::platform::process::{Handle, claim, spawn_in_own_session, unclaim};
use std::io::{self, IsTerminal};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// How long systemd may take to answer.
const SYSTEMCTL_TIME_MAX: Duration = Duration::from_secs(2);

/// Longer than any `KillMode`.
const ANSWER_MAX: usize = 64;

/// The name of our outer manager, for the log.
#[must_use]
pub fn name() -> &'static str {
    let has = |name| std::env::var_os(name).is_some();
    if has("INVOCATION_ID") || has("NOTIFY_SOCKET") {
        "systemd"
    } else if has("XPC_SERVICE_NAME") && !io::stderr().is_terminal() {
        "launchd"
    } else if std::process::id() == 1 {
        "container"
    } else if io::stderr().is_terminal() {
        "terminal"
    } else {
        "unknown"
    }
}

/// Why a gateway that we left behind would not outlive us, if that is so.
pub async fn refuses_detach() -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some("with PID 1 the kernel ends every process of the container");
    }
    std::env::var_os("INVOCATION_ID")?;
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let cgroup = proc::cgroup_of(me)?;
    let unit = Unit::of(&cgroup)?;
    match timeout(SYSTEMCTL_TIME_MAX, unit.kill_mode()).await {
        Ok(Ok(mode)) if spares_the_rest(&mode) => None,
        Ok(Ok(_)) => Some("its systemd unit ends every process that is left in it; set KillMode=process there"),
        Ok(Err(_)) | Err(_) => {
            Some("its systemd unit may end every process that is left in it, and systemctl does not tell its KillMode")
        }
    }
}

/// Whether what stays in a unit outlives its main process.
fn spares_the_rest(kill_mode: &str) -> bool {
    matches!(kill_mode.trim(), "process" | "none")
}

/// The systemd unit that we run in.
#[derive(Debug, PartialEq, Eq)]
struct Unit<'a> {
    name: &'a str,
    /// Whether it is one of a user's own manager.
    is_users: bool,
}

impl<'a> Unit<'a> {
    /// The innermost service or scope of a cgroup's path. That of a user's manager is itself a service, and its units
    /// lie below it.
    fn of(cgroup: &'a str) -> Option<Self> {
        let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
        let mut units = cgroup.split('/').filter(is_unit);
        let name = units.next_back()?;
        // systemd puts it before names that mean something to the kernel, such as that of a controller.
        let name = name.strip_prefix('_').unwrap_or(name);
        Some(Self { name, is_users: units.any(|outer| outer.starts_with("user@")) })
    }

    async fn kill_mode(&self) -> io::Result<String> {
        let (answer, theirs) = io::pipe()?;
        let systemctl = {
            let mut command = Command::new("systemctl");
            command
                .args(self.is_users.then_some("--user"))
                .args(["show", "-p", "KillMode", "--value", "--", self.name]);
            command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(theirs);
            // With the command our copy of the pipe's other end goes, or the answer would have no end.
            spawn_in_own_session(&mut command)?
        };
        claim(systemctl.pid());
        let _guard = Helper(systemctl);
        let answer = Receiver::from_owned_fd(answer.into())?;
        read(&answer).await
    }
}

/// A program that we started: it ends with whoever waits for it. The loop reaps it if it is not dead yet.
struct Helper(Handle);

impl Drop for Helper {
    fn drop(&mut self) {
        // ESRCH: it has ended, as it should.
        let _gone = self.0.kill();
        self.0.reap();
        unclaim(self.0.pid());
    }
}

async fn read(pipe: &Receiver) -> io::Result<String> {
    let (mut bytes, mut length) = ([0; ANSWER_MAX], 0);
    while length < bytes.len() {
        pipe.readable().await?;
        match pipe.try_read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_one_and_knows_its_manager() {
        for (cgroup, expected) in [
            ("/system.slice/openclaw.service", Some(("openclaw.service", false))),
            ("/system.slice/openclaw.service/gateway", Some(("openclaw.service", false))),
            ("/system.slice/system-openclaw.slice/openclaw@a.service", Some(("openclaw@a.service", false))),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw-gateway.service",
                Some(("openclaw-gateway.service", true)),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", Some(("session-3.scope", false))),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some(("init.scope", true))),
            ("/user.slice/user-1000.slice/user@1000.service", Some(("user@1000.service", false))),
            ("/system.slice/_cpu.service", Some(("cpu.service", false))),
            ("/", None),
            ("/docker/0123", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, is_users)| Unit { name, is_users });
            assert_eq!(Unit::of(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn only_a_unit_that_is_known_to_leave_the_rest_alone_does() {
        for mode in ["process\n", "none\n", "process"] {
            assert!(spares_the_rest(mode), "{mode}");
        }
        for mode in ["control-group\n", "mixed\n", "", "process\nmixed\n", "\n"] {
            assert!(!spares_the_rest(mode), "{mode}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end() {
        let (answer, mut theirs) = io::pipe().unwrap();
        io::Write::write_all(&mut theirs, b"process\n").unwrap();
        drop(theirs);
        let answer = Receiver::from_owned_fd(answer.into()).unwrap();
        assert_eq!(read(&answer).await.unwrap(), "process\n");
    }

    #[tokio::test]
    async fn a_unit_that_nobody_knows_is_not_known_to_spare_anybody() {
        let unit = Unit { name: "no-such-unit-of-openclaw-supervise.service", is_users: false };
        let mode = timeout(Duration::from_secs(20), unit.kill_mode()).await.unwrap().unwrap_or_default();
        assert!(mode != "process" && mode.len() < ANSWER_MAX, "{mode}");
    }
}
