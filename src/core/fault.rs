//! Faults to plant, so that the tests can be tested.
//!
//! Each variant is one possible mistake in the core. A fault point is a short `planted.is(..)` at the
//! place of the mistake; without the feature `planted-faults`, which only dev-dependencies switch on, it is the
//! constant `false` and leaves no trace. `tests/core/sim.rs` plants each of them and asks that a promise breaks.

/// Whether faults can be planted in this build. The shell has crash points where they can.
pub const PLANTED: bool = cfg!(feature = "planted-faults");

macro_rules! faults {
    ($($name:ident),+ $(,)?) => {
        /// One mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each name says it; docs/TESTING.md has the sentence")]
        pub enum Fault {
            $($name),+
        }

        /// Every one, so that none can be left out.
        #[cfg(feature = "planted-faults")]
        const ALL: &[Fault] = &[$(Fault::$name),+];
    };
}

faults! {
    StaleGenerationKept,
    StaleTicketKept,
    LeaderExitIsTreeGone,
    StopLostWhileSpawning,
    StopForgetsRecord,
    RestartSoftensStop,
    SecondStopIgnored,
    SecondStopIsPatient,
    StopTimeoutIgnored,
    StubbornTreeLeft,
    LostKillTrusted,
    LostSpawnWaitedFor,
    SilentDrainWaitedFor,
    DetachKills,
    BackoffIsZero,
    BudgetNotCounted,
    BudgetOffByOne,
    BreakerIgnored,
    RequestSpendsBudget,
    RequestsUnpaced,
    PlannedUnpaced,
    MergedRestartForgotten,
    UnservedRestartWaits,
    ForceIgnored,
    WaitNotTold,
    CleanExitIsCrash,
    CleanExitsNeverBackOff,
    RefusalRetried,
    RecoveryMissed,
    DegradedIsHung,
    HungAfterOneMiss,
    HungNeverEnded,
    StartupBudgetIgnored,
    DrainingIsHealthy,
    StrangerAnswersForOurs,
    ForeignIsGateway,
    OwnerNotChecked,
    MoveNotFollowed,
    StrangerFollowed,
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
    RefusedLeaseRetried,
    LeaseLossIgnored,
    LostLeaseKeepsGateway,
    UnconfirmedKept,
    UnconfirmedDrains,
    SleepConfirms,
    HeartbeatNotWaitedFor,
    RecordNotWaitedFor,
    StaleConfirmationTrusted,
    SignalWaitsForStore,
    HooksNotCleared,
    LeftBehindForgotten,
    OrphansForgotten,
    AdoptingIgnoresStop,
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
    BlockedWriteKilled,
    PrintsForEver,
    StarvedKilled,
    StarvedForEver,
    EvidenceWaitedForEver,
    MemoryPeakIsLeak,
    MemoryEvidenceSkipped,
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
    UnseenSuccessorKilled,
    RepairedForEver,
    RepairRearmed,
    RepairUnpaid,
    ConfigEndsBackoff,
    FatalSignalRetried,
    StreakForgotten,
    UpdateCounted,
    InstallerKilled,
    InstallerWaitedForEver,
    StoppingOwnerIsConflict,
    StoppingOwnerWaitedForEver,
    LauncherExitIsGatewayExit,
    StopNotForwarded,
    UnseenIsEnded,
    NotFoundRetried,
    DepartureTrusted,
    PausedHangKilled,
    PausedEndCosts,
    PauseNeverEnds,
    PauseWindowKept,
    PauseNotTold,
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
    /// Every fault.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().copied()
    }
}
