//! Who owns a gateway: the rules, without the lock, the row and the clock that they speak of.
//!
//! A kernel lock is held for life and says whether an owner lives; a row says who it is. Where the file system's locks
//! cannot be trusted, a counter in the row that goes on does. `tests/core/lease_model.rs` walks through every order in which
//! two supervisors can take these steps.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// How often an owner makes its counter go on, where that is needed.
pub const BEAT: Duration = Duration::from_secs(10);

/// How long an observer must see the same counter, on its own monotonic clock, to take the owner for gone: two beats may
/// be lost on a bad day.
pub const UNCHANGED_FOR: Duration = Duration::from_secs(30);

/// How old, on a clock that goes on while the machine sleeps, a confirmed ownership may be when its owner goes on to spawn
/// or to signal on [`Basis::Heartbeat`]. A confirmation is a transaction that finds our owner id and epoch in the row and
/// makes the counter go on, so that for [`UNCHANGED_FOR`] from then on no other supervisor can take the lease. An older one is
/// renewed first: what is left is an owner held up for 20 s between this look at the clock and the act itself.
pub const FRESH_FOR: Duration = BEAT;

/// How old, on the same clock, a confirmation may be while a gateway runs. The time before the write began counts, so that
/// no other supervisor takes the lease for another third of [`UNCHANGED_FOR`].
pub const CONFIRMED_FOR: Duration = Duration::from_secs(20);

/// The age of the confirmation at which the tree of a gateway gets SIGKILL at the latest. What is left until
/// [`UNCHANGED_FOR`] is for a late timer, the kill itself (250 ms for 200 processes) and clocks that differ by 1 %.
pub const KILLED_BY: Duration = Duration::from_secs(27);

/// How long an owner that was away leaves its row alone after its first write, before it looks whether that is still its own.
/// Where locks do not reach other machines, that write may have overwritten the row of a next owner. By then that one has
/// written its own again, or has ended its gateway; and a third one that saw this write may not take the lease yet.
pub const DOUBTED_FOR: Duration = Duration::from_millis(28_900);

/// How long the write may take that ends such a wait.
pub const UNDOUBTED_WITHIN: Duration = Duration::from_millis(500);

/// How long a gateway may drain once another supervisor has the lease: long enough to close its files and remove its locks
/// from a shared volume.
pub const LOST_DRAIN: Duration = Duration::from_secs(2);

/// How long a start waits for the store to confirm the lease again. A manager that starts us anew may get a new mount.
pub const RETURN_MAX: Duration = Duration::from_mins(10);

/// How long a spawn waits for its record on [`Basis::Lock`]. The store bounds its own waits below that; a file system that
/// hangs does not, and with the kernel's lock in our hands a gateway without a record is better than none.
pub const RECORD_MAX: Duration = Duration::from_secs(8);

/// What shows whether an owner lives. A row says on which its owner holds the lease; an observer that sees the file system
/// differently (a virtual machine and its host, a container and its volume) may only be able to judge the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Basis {
    /// The kernel lock: free means gone, at once.
    Lock,
    /// The counter in the row: the file system may keep locks from other machines, or drop them.
    Heartbeat,
}

/// What can be told from here about the process that a row names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is there: same boot, same pid namespace, same pid and start time.
    Alive,
    /// It is not, and why that is certain.
    Gone(&'static str),
    /// It lives in a place that cannot be seen from here.
    Unknown,
}

/// A row of `state_leases`, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whether its owner gave the lease back.
    pub released: bool,
    /// Whether its owner lives.
    pub life: Life,
    /// Its counter. It never goes back and never stands at one number for two owners: who takes the lease makes it go on.
    pub beat: u64,
    /// What it is held on. An owner by lock has no fence, so that its silence proves nothing.
    pub basis: Basis,
}

/// What an attempt to take the lease comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// It is free. Where an owner left it without giving it back, why he counts as gone.
    Take {
        /// As above.
        recovered: Option<&'static str>,
    },
    /// A live supervisor has it.
    Contended,
    /// Unclear yet: look again, and compare the counter.
    Observe {
        /// The counter now.
        beat: u64,
    },
    /// Its owner holds a lock that cannot be seen from here, and did not answer: nothing shows that it is gone.
    Unjudged,
}

/// Decides. `sees` is the basis that can be judged from here: the lock only where every supervisor that could hold it uses
/// the same kernel's locks. An owner on [`Basis::Heartbeat`] may be one that these do not reach. `locked` says whether we hold the kernel lock now, `row` is what the last owner left, and `unchanged` is the
/// counter that has stood still for [`UNCHANGED_FOR`] before our eyes.
#[must_use]
pub fn rule(sees: Basis, locked: bool, row: Option<&Row>, unchanged: Option<u64>) -> Ruling {
    if !locked {
        return Ruling::Contended;
    }
    let Some(row) = row.filter(|row| !row.released) else { return Ruling::Take { recovered: None } };
    match (row.life, sees, row.basis) {
        (Life::Gone(why), ..) => Ruling::Take { recovered: Some(why) },
        (Life::Alive | Life::Unknown, Basis::Lock, Basis::Lock) => Ruling::Take { recovered: Some("its lock is free") },
        (Life::Alive, ..) => Ruling::Contended,
        (Life::Unknown, ..) if unchanged != Some(row.beat) => Ruling::Observe { beat: row.beat },
        (Life::Unknown, _, Basis::Heartbeat) => {
            Ruling::Take { recovered: Some("its heartbeat has stood still for 30s") }
        }
        (Life::Unknown, Basis::Heartbeat, Basis::Lock) => Ruling::Unjudged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(basis: Basis, life: Life) -> Row {
        Row { released: false, life, beat: 7, basis }
    }

    const BASES: [Basis; 2] = [Basis::Lock, Basis::Heartbeat];
    const LIVES: [Life; 3] = [Life::Alive, Life::Unknown, Life::Gone("x")];

    #[test]
    fn without_the_lock_nothing_is_taken_whatever_the_row_says() {
        for sees in BASES {
            assert_eq!(rule(sees, false, None, Some(7)), Ruling::Contended);
            for row in BASES.into_iter().flat_map(|basis| LIVES.map(|life| row(basis, life))) {
                assert_eq!(rule(sees, false, Some(&row), Some(7)), Ruling::Contended);
                assert_eq!(rule(sees, false, Some(&Row { released: true, ..row }), Some(7)), Ruling::Contended);
            }
        }
    }

    #[test]
    fn a_free_lock_is_the_end_of_its_owner_where_locks_can_be_trusted() {
        assert_eq!(rule(Basis::Lock, true, None, None), Ruling::Take { recovered: None });
        for life in LIVES {
            let row = row(Basis::Lock, life);
            assert!(matches!(rule(Basis::Lock, true, Some(&row), None), Ruling::Take { recovered: Some(_) }));
        }
    }

    #[test]
    fn of_an_owner_by_heartbeat_only_certainty_or_thirty_seconds_of_silence_count() {
        for sees in BASES {
            let ruling = |life, unchanged| rule(sees, true, Some(&row(Basis::Heartbeat, life)), unchanged);
            assert_eq!(ruling(Life::Alive, Some(7)), Ruling::Contended);
            assert_eq!(ruling(Life::Gone("x"), None), Ruling::Take { recovered: Some("x") });
            assert_eq!(ruling(Life::Unknown, None), Ruling::Observe { beat: 7 });
            assert_eq!(ruling(Life::Unknown, Some(6)), Ruling::Observe { beat: 7 });
            assert!(matches!(ruling(Life::Unknown, Some(7)), Ruling::Take { recovered: Some(_) }));
        }
    }

    #[test]
    fn an_owner_by_a_lock_that_cannot_be_seen_is_never_taken_for_gone_by_its_silence() {
        let ruling = |life, unchanged| rule(Basis::Heartbeat, true, Some(&row(Basis::Lock, life)), unchanged);
        assert_eq!(ruling(Life::Alive, None), Ruling::Contended);
        assert_eq!(ruling(Life::Gone("x"), None), Ruling::Take { recovered: Some("x") });
        assert_eq!(ruling(Life::Unknown, None), Ruling::Observe { beat: 7 });
        assert_eq!(ruling(Life::Unknown, Some(6)), Ruling::Observe { beat: 7 });
        assert_eq!(ruling(Life::Unknown, Some(7)), Ruling::Unjudged);
    }

    #[test]
    fn a_released_lease_is_free_and_nothing_is_recovered() {
        for (sees, basis) in BASES.into_iter().flat_map(|sees| BASES.map(|basis| (sees, basis))) {
            let row = Row { released: true, ..row(basis, Life::Unknown) };
            assert_eq!(rule(sees, true, Some(&row), None), Ruling::Take { recovered: None });
        }
    }
}
