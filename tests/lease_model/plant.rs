//! What can be wrong with the protocol, and how it shows.

/// A mistake in the protocol that has to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Goes on without the lock.
    SkipsLock,
    /// Decides by what it read before the transaction.
    SkipsReread,
    /// A new owner's counter starts at 0, so that a number seen of one epoch can be seen again of another.
    ResetsCounter,
    /// The beat does not ask whose row it is.
    BeatsBlindly,
    /// The release does not ask whose row it is.
    ReleasesBlindly,
    /// The intent does not ask whose row it is.
    IntendsBlindly,
    /// A confirmation does not make the counter go on.
    ConfirmsQuietly,
    /// Acts on a confirmation however old it is.
    IgnoresClock,
    /// Spawns without a record where no lock stands behind it.
    SpawnsUnrecorded,
    /// Takes a row of its own, whose commit it did not hear of, for another's.
    ForgetsItself,
    /// Finds a gateway by a recorded pid alone.
    WantsPid,
    /// Looks only for the gateway that is the youngest on record.
    LooksForYoungest,
    /// Takes a lease that was given back for one that was left.
    ForgetsRelease,
    /// Finds out whether the lock is free by taking it.
    PeeksByLocking,
    /// Does not look, after a hook, whether its lock is still the one that others find.
    TrustsFolder,
    /// Where a lock can be seen, a free one is the end of every owner, also of one that does not go by it.
    LockJudgesAll,
    /// Where none can be seen, silence is the end of every owner, also of one that has no heartbeat.
    SilenceJudgesAll,
    /// None, but more is promised than the protocol can keep: that no supervisor acts late, and that no invisible
    /// gateway is started twice.
    PromisesTooMuch,
}

pub(crate) const TWO_OWNERS: &str = "two supervisors own the lease";
pub(crate) const ONE_EPOCH: &str = "two supervisors hold one epoch";
pub(crate) const TWO_GATEWAYS: &str = "two gateways live";
pub(crate) const STALE: &str = "a supervisor that lost the lease acts, though it was not held up for long";
pub(crate) const EPOCH: &str = "an epoch does not go on";
pub(crate) const GIVEN_BACK: &str = "a lease that was given back is reported as recovered";
pub(crate) const ITSELF: &str = "a supervisor takes itself for gone";
pub(crate) const REFUSED: &str = "a start is refused although the lease is free";
