//! Commands of the operator that stand before a gateway's start and after its end.

use super::{ExitStatus, Generation};
use crate::prelude::*;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The time that a hook gets between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long killing a hook may take. One that is left then sleeps uninterruptibly and is not waited for.
pub const KILL_TIME_MAX: Duration = Duration::from_secs(15);

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before a spawn that will really follow.
    PreStart,
    /// After a gateway of which nothing is left.
    PostStop,
    /// OpenClaw's own repair, after a gateway that refused its configuration. No command of the operator's, but it
    /// stands at the same place.
    Repair,
}

impl Hook {
    /// Its name in the event log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreStart => "pre-start",
            Self::PostStop => "post-stop",
            Self::Repair => "repair",
        }
    }
}

/// One call of a hook, and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// This gateway will be started.
    PreStart {
        /// Its number.
        generation: Generation,
    },
    /// This gateway has ended.
    PostStop {
        /// Its number.
        generation: Generation,
        /// 0 if unknown.
        pid: i32,
        /// Why it ended, in the words of `gateway.exited`.
        reason: &'static str,
        /// How.
        death: ExitStatus,
    },
    /// This gateway refused to start.
    Repair {
        /// Its number.
        generation: Generation,
    },
}

impl Call {
    /// Which hook is called.
    #[must_use]
    pub fn hook(&self) -> Hook {
        match self {
            Self::PreStart { .. } => Hook::PreStart,
            Self::PostStop { .. } => Hook::PostStop,
            Self::Repair { .. } => Hook::Repair,
        }
    }

    /// The gateway that it is about.
    #[must_use]
    pub fn generation(&self) -> Generation {
        match self {
            Self::PreStart { generation } | Self::Repair { generation } | Self::PostStop { generation, .. } => {
                *generation
            }
        }
    }
}

/// How a call ended, once nothing of the hook is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookEnd {
    /// Its process ended so.
    Ended(ExitStatus),
    /// It could not be started.
    NotStarted(String),
    /// It was not called: no start would follow, because the program is being replaced; why.
    Postponed(String),
}

impl HookEnd {
    /// How its process ended, if there was one.
    pub(crate) fn death(&self) -> Option<ExitStatus> {
        match self {
            Self::Ended(death) => Some(*death),
            Self::NotStarted(_) | Self::Postponed(_) => None,
        }
    }

    /// Why there was no process.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Ended(_) => None,
            Self::NotStarted(why) | Self::Postponed(why) => Some(why),
        }
    }

    /// Whether it did what it was called for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Ended(ExitStatus::Code(0))
    }
}
