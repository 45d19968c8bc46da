//! The operator's own commands, and how long each may take.

use super::value::{Given, Pick, Source, Zero};
use crate::gateway::hooks::Commands;
use std::ffi::OsString;
use std::time::Duration;

/// How long a hook may take where nobody says.
const TIME_MAX: Duration = Duration::from_secs(15);

/// What was found out about them.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// What to run.
    pub(super) commands: Commands,
    /// How long each may take, if there is such a hook.
    pub(super) pre_start: Option<Duration>,
    pub(super) post_stop: Option<Duration>,
    /// What is odd.
    pub(super) warnings: Vec<String>,
}

impl Hooks {
    pub(super) fn resolve(source: &mut Source<'_>) -> Self {
        let mut hooks = Self::default();
        let command = hooks.command(
            source,
            ["--pre-start", "--pre-start-timeout"],
            |options| options.pre_start.as_ref(),
            |options| options.pre_start_timeout.as_ref(),
        );
        (hooks.commands.pre_start, hooks.pre_start) = command.unzip();
        let command = hooks.command(
            source,
            ["--post-stop", "--post-stop-timeout"],
            |options| options.post_stop.as_ref(),
            |options| options.post_stop_timeout.as_ref(),
        );
        (hooks.commands.post_stop, hooks.post_stop) = command.unzip();
        hooks
    }

    /// One of them and its time.
    fn command(
        &mut self,
        source: &mut Source<'_>,
        [flag, timeout_flag]: [&'static str; 2],
        pick: Pick,
        pick_timeout: Pick,
    ) -> Option<(OsString, Duration)> {
        let timeout = source.duration(timeout_flag, pick_timeout, TIME_MAX, Zero::Refused);
        let Some(given) = source.given(flag, pick) else {
            if source.given(timeout_flag, pick_timeout).is_some() {
                self.warnings.push(format!("{timeout_flag} is given and {flag} is not: there is no such hook to time"));
            }
            return None;
        };
        if given.text() == Some("") {
            source.mistakes.push(given.mistake("is empty; give a shell command or leave it out"));
        }
        let Given { value, .. } = given;
        Some((value, timeout))
    }
}
