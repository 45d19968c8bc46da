//! Why the demo did not finish.

use std::io;
use std::time::Duration;

/// How long one step may take. A slow machine needs a fraction of it.
pub(super) const STEP_TIME_MAX: Duration = Duration::from_secs(12);

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("cannot install the signal handlers: {0}; nothing was started; raise the limit on open files")]
    Signals(io::Error),
    #[error("cannot create a scratch directory or find a free port on 127.0.0.1: {0}; check TMPDIR")]
    Sandbox(io::Error),
    #[error("cannot start the supervisor: {0}; check that this program's file has not been moved")]
    Start(io::Error),
    /// The log line `gateway.spawned` has no pid of a living child.
    #[error("the supervisor's log does not name its gateway: {0:?}; please report this")]
    Gateway(String),
    #[error("cannot {0}: {1}; run the demo again")]
    Act(&'static str, io::Error),
    #[error(
        "step '{step}' timed out after {}s without {event}; run the demo again on a less busy machine",
        STEP_TIME_MAX.as_secs()
    )]
    Missing { step: &'static str, event: &'static str },
    /// A code from 128 stands for a signal.
    #[error("the supervisor exited with {code} in step '{step}', before {event}; see its last lines above")]
    Exited { step: &'static str, event: &'static str, code: i32 },
    /// The demo's own check failed.
    #[error("{0}; please report this")]
    Unproven(String),
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
    #[error("cannot clean up after the demo: {0}")]
    Cleanup(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_failed_and_what_to_do() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let all = [
            DemoError::Signals(full()),
            DemoError::Sandbox(full()),
            DemoError::Start(full()),
            DemoError::Gateway("gateway 1 is pid x".to_owned()),
            DemoError::Act("kill the gateway", full()),
            DemoError::Missing { step: "crash", event: "gateway.exited" },
            DemoError::Exited { step: "stop", event: "exit code 0", code: 137 },
            DemoError::Unproven("2 processes were left after the stop".to_owned()),
            DemoError::Output(full()),
            DemoError::Cleanup(full()),
        ];
        let lines = all.iter().map(ToString::to_string).collect::<Vec<_>>();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
