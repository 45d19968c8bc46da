//! What a person at the terminal of `run` is told when a boot or a drain begins: how long it may take, and what cuts it short.
//! A line that is redrawn would stand between those of the log and the gateway.

use crate::core::report::human;
use crate::core::{Effect, Report, Status};
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;
use std::time::Duration;

/// How a person stops what has the terminal.
const CTRL_C: &str = "SIGINT";

/// Whether the keyboard of our terminal is for us.
pub(super) fn has_keyboard() -> bool {
    tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == getpgrp())
}

/// `None` unless the effects of this turn begin a boot or a drain, or ask for the end during one.
pub(super) fn hint(effects: &[Effect], status: impl FnOnce() -> Status) -> Option<String> {
    let is_told = |effect: &Effect| match effect {
        Effect::Report(report) => matches!(report, Report::GatewaySpawned { .. } | Report::StopRequested { .. }),
        effect => matches!(effect, Effect::Terminate { .. }),
    };
    if !effects.iter().any(is_told) {
        return None;
    }
    let is_by_keyboard =
        |effect: &Effect| matches!(effect, Effect::Report(Report::StopRequested { by }) if by.how == CTRL_C);
    sentence(&status(), effects.iter().any(is_by_keyboard))
}

/// `is_repeated`: Ctrl-C was pressed already.
fn sentence(status: &Status, is_repeated: bool) -> Option<String> {
    let (generation, next) = (status.generation, &status.next);
    let whole =
        |time: Duration| human(Duration::from_secs(u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)));
    match (status.state, next.of, next.within) {
        ("starting", _, Some(within)) => {
            Some(format!("gateway {generation} may take up to {} to start; Ctrl-C stops it", whole(within)))
        }
        ("stopping", Some(of), _) => {
            let limit = whole(of);
            let is_stop = next.why.ends_with("a stop was requested");
            let cut = match &next.then {
                _ if is_stop && is_repeated => "Ctrl-C again ends it now".to_owned(),
                _ if is_stop => "Ctrl-C ends it now".to_owned(),
                Some(then) => format!("then {then}; Ctrl-C twice ends all now"),
                None => "Ctrl-C twice ends all now".to_owned(),
            };
            Some(format!("gateway {generation} may take up to {limit} to drain; {cut}"))
        }
        _ => None,
    }
}
