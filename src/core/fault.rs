//! Faults to plant, so that the tests can be tested.
//!
//! Each variant is one mistake that somebody could make in the core. A fault point is a short `planted.is(..)` at the
//! place of the mistake; without the feature `planted-faults`, which only this package's own tests switch on, it is the
//! constant `false` and leaves no trace. `tests/sim.rs` plants each of them and asks that a promise breaks.

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it; docs/TESTING.md has the sentence")]
pub enum Fault {
    StaleGenerationKept,
    StaleTicketKept,
    LeaderExitIsTreeGone,
    StopLostWhileSpawning,
    RestartSoftensStop,
    SecondStopIgnored,
    StopTimeoutIgnored,
    StubbornTreeLeft,
    SilentDrainWaitedFor,
    DetachKills,
    BackoffIsZero,
    BudgetNotCounted,
    BudgetOffByOne,
    BreakerIgnored,
    RequestSpendsBudget,
    CleanExitIsCrash,
    CleanExitsNeverBackOff,
    RefusalRetried,
    RecoveryMissed,
    HungAfterOneMiss,
    HungNeverEnded,
    StartupBudgetIgnored,
    DrainingIsHealthy,
    StrangerAnswersForOurs,
    ForeignIsGateway,
    OwnerNotChecked,
    DrainNotWaitedFor,
    ConflictNeverEnds,
    InconclusiveIsFree,
    SilentIsFree,
    JumpNotRearmed,
    LateStepTrusted,
    DeadlineInThePast,
    LostProbeForgotten,
    ExitToldTwice,
    ContendedIsAcquired,
    LeaseLossIgnored,
    HeartbeatNotWaitedFor,
    LeftBehindForgotten,
    OrphansForgotten,
    AdoptedIsNew,
    HistoryForgotten,
    SpentBudgetIgnored,
    EndNotRecorded,
    StandbyTooEager,
    WarmingIsConflict,
    HookFailureIgnored,
    HookTimeoutIgnored,
    PortTrustedAfterHook,
    PostStopForgotten,
    WorkIgnored,
    WorkExtendsForEver,
    EvidenceWaitedForEver,
    MemoryPeakIsLeak,
    MemorySpendsBudget,
    ReadyTooEarly,
    ReadyTwice,
    StoppingNotTold,
    HandoffNotAsked,
    HandoffBesideBoot,
    HandoffTakenForGranted,
    AdoptedExitIsCrash,
    WordNotWaitedFor,
    AdoptedHasNoSuccessor,
    WarmingExitIsFailure,
    LeaderAskedAbout,
    SuccessorKilled,
    RepairedForEver,
    RepairRearmed,
    RepairUnpaid,
    ConfigEndsBackoff,
    FatalSignalRetried,
    UpdateCounted,
}

/// The fault that is planted, if any. Of no size in a normal build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planted(#[cfg(feature = "planted-faults")] Option<Fault>);

#[cfg(not(feature = "planted-faults"))]
impl Planted {
    /// Never.
    #[inline]
    #[must_use]
    pub const fn is(self, _fault: Fault) -> bool {
        false
    }
}

#[cfg(feature = "planted-faults")]
impl Planted {
    /// Whether it is this one.
    #[must_use]
    pub fn is(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}

#[cfg(feature = "planted-faults")]
impl From<Fault> for Planted {
    fn from(fault: Fault) -> Self {
        Self(Some(fault))
    }
}

#[cfg(feature = "planted-faults")]
impl Fault {
    /// Every fault, by the successor that each one names, so that none can be left out.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::successors(Some(Self::StaleGenerationKept), |fault| fault.next())
    }
    fn next(self) -> Option<Self> {
        Some(match self {
            Self::StaleGenerationKept => Self::StaleTicketKept,
            Self::StaleTicketKept => Self::LeaderExitIsTreeGone,
            Self::LeaderExitIsTreeGone => Self::StopLostWhileSpawning,
            Self::StopLostWhileSpawning => Self::RestartSoftensStop,
            Self::RestartSoftensStop => Self::SecondStopIgnored,
            Self::SecondStopIgnored => Self::StopTimeoutIgnored,
            Self::StopTimeoutIgnored => Self::StubbornTreeLeft,
            Self::StubbornTreeLeft => Self::SilentDrainWaitedFor,
            Self::SilentDrainWaitedFor => Self::DetachKills,
            Self::DetachKills => Self::BackoffIsZero,
            Self::BackoffIsZero => Self::BudgetNotCounted,
            Self::BudgetNotCounted => Self::BudgetOffByOne,
            Self::BudgetOffByOne => Self::BreakerIgnored,
            Self::BreakerIgnored => Self::RequestSpendsBudget,
            Self::RequestSpendsBudget => Self::CleanExitIsCrash,
            Self::CleanExitIsCrash => Self::CleanExitsNeverBackOff,
            Self::CleanExitsNeverBackOff => Self::RefusalRetried,
            Self::RefusalRetried => Self::RecoveryMissed,
            Self::RecoveryMissed => Self::HungAfterOneMiss,
            Self::HungAfterOneMiss => Self::HungNeverEnded,
            Self::HungNeverEnded => Self::StartupBudgetIgnored,
            Self::StartupBudgetIgnored => Self::DrainingIsHealthy,
            Self::DrainingIsHealthy => Self::StrangerAnswersForOurs,
            Self::StrangerAnswersForOurs => Self::ForeignIsGateway,
            Self::ForeignIsGateway => Self::OwnerNotChecked,
            Self::OwnerNotChecked => Self::DrainNotWaitedFor,
            Self::DrainNotWaitedFor => Self::ConflictNeverEnds,
            Self::ConflictNeverEnds => Self::InconclusiveIsFree,
            Self::InconclusiveIsFree => Self::SilentIsFree,
            Self::SilentIsFree => Self::JumpNotRearmed,
            Self::JumpNotRearmed => Self::LateStepTrusted,
            Self::LateStepTrusted => Self::DeadlineInThePast,
            Self::DeadlineInThePast => Self::LostProbeForgotten,
            Self::LostProbeForgotten => Self::ExitToldTwice,
            Self::ExitToldTwice => Self::ContendedIsAcquired,
            Self::ContendedIsAcquired => Self::LeaseLossIgnored,
            Self::LeaseLossIgnored => Self::HeartbeatNotWaitedFor,
            Self::HeartbeatNotWaitedFor => Self::LeftBehindForgotten,
            Self::LeftBehindForgotten => Self::OrphansForgotten,
            Self::OrphansForgotten => Self::AdoptedIsNew,
            Self::AdoptedIsNew => Self::HistoryForgotten,
            Self::HistoryForgotten => Self::SpentBudgetIgnored,
            Self::SpentBudgetIgnored => Self::EndNotRecorded,
            Self::EndNotRecorded => Self::StandbyTooEager,
            Self::StandbyTooEager => Self::WarmingIsConflict,
            Self::WarmingIsConflict => Self::HookFailureIgnored,
            Self::HookFailureIgnored => Self::HookTimeoutIgnored,
            Self::HookTimeoutIgnored => Self::PortTrustedAfterHook,
            Self::PortTrustedAfterHook => Self::PostStopForgotten,
            Self::PostStopForgotten => Self::WorkIgnored,
            Self::WorkIgnored => Self::WorkExtendsForEver,
            Self::WorkExtendsForEver => Self::EvidenceWaitedForEver,
            Self::EvidenceWaitedForEver => Self::MemoryPeakIsLeak,
            Self::MemoryPeakIsLeak => Self::MemorySpendsBudget,
            Self::MemorySpendsBudget => Self::ReadyTooEarly,
            Self::ReadyTooEarly => Self::ReadyTwice,
            Self::ReadyTwice => Self::StoppingNotTold,
            Self::StoppingNotTold => Self::HandoffNotAsked,
            Self::HandoffNotAsked => Self::HandoffBesideBoot,
            Self::HandoffBesideBoot => Self::HandoffTakenForGranted,
            Self::HandoffTakenForGranted => Self::AdoptedExitIsCrash,
            Self::AdoptedExitIsCrash => Self::WordNotWaitedFor,
            Self::WordNotWaitedFor => Self::AdoptedHasNoSuccessor,
            Self::AdoptedHasNoSuccessor => Self::WarmingExitIsFailure,
            Self::WarmingExitIsFailure => Self::LeaderAskedAbout,
            Self::LeaderAskedAbout => Self::SuccessorKilled,
            Self::SuccessorKilled => Self::RepairedForEver,
            Self::RepairedForEver => Self::RepairRearmed,
            Self::RepairRearmed => Self::RepairUnpaid,
            Self::RepairUnpaid => Self::ConfigEndsBackoff,
            Self::ConfigEndsBackoff => Self::FatalSignalRetried,
            Self::FatalSignalRetried => Self::UpdateCounted,
            Self::UpdateCounted => return None,
        })
    }
}
