//! The rows of the table.

use std::fmt;

/// The measured behaviours, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behaviour {
    Engines,
    Start,
    DuplicateSameState,
    DuplicateOtherState,
    Crash,
    OwnRestart,
    Handoff,
    PlannedRestart,
    Hang,
    Adoption,
    RestartVerb,
    Stop,
    StopInBoot,
    Unsupervised,
    OtherPort,
    UnknownKey,
    AloneDuplicate,
    AloneSamePort,
    AloneOtherPort,
    UpdateRestart,
}

/// Whether a cell decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A promise of the program.
    Required,
    /// How a release differs, or how the program treats it today.
    Noted,
}

/// All of them.
pub(crate) const BEHAVIOURS: &[Behaviour] = &[
    Behaviour::Engines,
    Behaviour::Start,
    Behaviour::DuplicateSameState,
    Behaviour::DuplicateOtherState,
    Behaviour::Crash,
    Behaviour::OwnRestart,
    Behaviour::Handoff,
    Behaviour::PlannedRestart,
    Behaviour::Hang,
    Behaviour::Adoption,
    Behaviour::RestartVerb,
    Behaviour::Stop,
    Behaviour::StopInBoot,
    Behaviour::Unsupervised,
    Behaviour::OtherPort,
    Behaviour::UnknownKey,
    Behaviour::AloneDuplicate,
    Behaviour::AloneSamePort,
    Behaviour::AloneOtherPort,
    Behaviour::UpdateRestart,
];

impl Behaviour {
    pub(crate) fn need(self) -> Need {
        match self {
            Self::Engines
            | Self::OtherPort
            | Self::UnknownKey
            | Self::AloneDuplicate
            | Self::AloneSamePort
            | Self::AloneOtherPort
            | Self::UpdateRestart => Need::Noted,
            Self::Start
            | Self::DuplicateSameState
            | Self::DuplicateOtherState
            | Self::Crash
            | Self::OwnRestart
            | Self::Handoff
            | Self::PlannedRestart
            | Self::Hang
            | Self::Adoption
            | Self::RestartVerb
            | Self::Stop
            | Self::StopInBoot
            | Self::Unsupervised => Need::Required,
        }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engines => "Nodes its package asks for",
            Self::Start => "start",
            Self::DuplicateSameState => "second supervisor, same state",
            Self::DuplicateOtherState => "second supervisor, other state, same port",
            Self::Crash => "crash (SIGKILL)",
            Self::OwnRestart => "its own restart, by its restart signal",
            Self::Handoff => "handoff of that restart",
            Self::PlannedRestart => "planned restart (SIGHUP to us)",
            Self::Hang => "hang (SIGSTOP, `--hang-after 10s`)",
            Self::Adoption => "SIGKILL of the supervisor, next one",
            Self::RestartVerb => "`restart` of the adopted gateway",
            Self::Stop => "stop (SIGTERM to us)",
            Self::StopInBoot => "stop while it boots",
            Self::Unsupervised => "supervisor beside an unsupervised gateway",
            Self::OtherPort => "the same, that gateway on another port",
            Self::UnknownKey => "unknown key in its configuration, `--max-restarts 1`",
            Self::AloneDuplicate => "without us: second gateway, same state and port",
            Self::AloneSamePort => "without us: second gateway, other state, same port",
            Self::AloneOtherPort => "without us: second gateway, same state, other port",
            Self::UpdateRestart => "update restart, provoked",
        })
    }
}
