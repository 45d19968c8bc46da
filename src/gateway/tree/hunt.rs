//! The killing of a tree.
//!
//! A tree that forks all the while outruns whoever looks at all processes between two strikes. So there are two loops.
//! The inner one needs no look at others: below us, the reaper of all orphans, every member is on the list of our own
//! children or on that of a member. Who has been struck starts nobody any more, so once a pass over these lists finds
//! nobody new, nobody can come. The outer one looks at all processes, for who has left that family.

use super::evidence::{self, Evidence};
use super::scan::{Held, Member};
use super::{Orphans, Root, Tree};
use crate::core::{Layer, TreeEnd};
use crate::platform::proc::{self, Stat, State};
use crate::platform::strike;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

/// How long killing may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The same where all that is left sleeps uninterruptibly: it dies when it wakes, and nobody can wake it.
const ASLEEP_TIME_MAX: Duration = Duration::from_secs(2);

/// The pauses in which those that were struck become zombies, before the next look at all processes.
const PAUSES_MS: [u64; 8] = [1, 1, 2, 2, 4, 5, 10, 25];

/// How long the look around before the first strike may take.
const SURVEY_TIME_MAX: Duration = Duration::from_millis(50);

/// How many passes of the inner loop go by without a turn for anybody else: for the reaper of the zombies, above all.
const PASSES_MAX: u32 = 64;

/// How long strikes go on without a turn for anybody else, whoever comes to light below those that are struck.
const SLICE_MAX: Duration = Duration::from_millis(250);

/// How often those are tried that we may not signal, as a child that became root: nothing changes that.
const REFUSED_ROUNDS: u32 = 2;

/// How many commands a report names.
const NAMED_MAX: usize = 8;

/// One that had to be killed.
#[derive(Debug)]
struct Killed {
    /// Whether the signal was sent, or only that it has to be.
    is_struck: bool,
    escaped: bool,
    evidence: Evidence,
    command: Option<String>,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Arrived,
    /// There was nobody to take it.
    Missed,
    /// It was not ours to send.
    Refused,
}

/// A living child of ours that `/proc` does not show, as with `hidepid`: see proc(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    Struck,
    Refused,
    /// It may be anybody's.
    Unknown,
}

/// A member that is struck now.
#[derive(Debug)]
enum Quarry {
    /// A child of ours.
    Child(Member),
    /// Anybody else's.
    Other(Held),
}

impl Quarry {
    fn member(&self) -> Member {
        match self {
            Self::Child(member) => *member,
            Self::Other(held) => held.member,
        }
    }

    /// SIGKILL.
    fn strike(&self) -> Strike {
        let pid = self.member().process.pid;
        told(
            pid,
            match self {
                Self::Child(_) => strike::kill_child(pid),
                Self::Other(held) => held.handle.kill(),
            },
        )
    }

    /// Whether its pid is still its own for certain: that of our child is until we reap it.
    fn is_there(&self) -> bool {
        match self {
            Self::Child(_) => true,
            Self::Other(held) => !held.handle.has_ended().unwrap_or(true),
        }
    }

    /// SIGKILL to all of its group at once, where that is the tree's without a doubt.
    fn strike_group(&self) {
        let Member { process, evidence } = self.member();
        if evidence.is_born() {
            // What is not struck together is struck one by one.
            let _one_by_one = match self {
                Self::Child(_) => strike::kill_group_of_child(process.pid),
                Self::Other(held) if process.group == process.pid => held.handle.kill_group(),
                Self::Other(_) => return,
            };
        }
    }
}

fn told(pid: i32, sent: io::Result<()>) -> Strike {
    match sent {
        Ok(()) => Strike::Arrived,
        Err(error) => {
            if error.raw_os_error() != Some(libc::ESRCH) {
                tracing::debug!(pid, %error, "kill failed");
            }
            if error.raw_os_error() == Some(libc::EPERM) { Strike::Refused } else { Strike::Missed }
        }
    }
}

/// The killing of one tree.
pub(super) struct Hunt<E> {
    tree: Tree,
    elapsed: E,
    killed: BTreeMap<(i32, u64), Killed>,
    /// Those that were struck and may not be zombies yet.
    dying: BTreeSet<(i32, u64)>,
    /// Those that we may not signal.
    refused: BTreeSet<(i32, u64)>,
    /// Those that live and cannot be looked at.
    hidden: BTreeMap<i32, Hidden>,
    /// Children of ours that were dealt with in this turn: until the next await nobody reaps them.
    settled: BTreeSet<i32>,
    /// Groups that were struck through a zombie in this turn.
    groups: BTreeSet<i32>,
}

impl<E: Fn() -> Duration> Hunt<E> {
    pub(super) fn new(tree: Tree, elapsed: E) -> Self {
        Self {
            tree,
            elapsed,
            killed: BTreeMap::new(),
            dying: BTreeSet::new(),
            refused: BTreeSet::new(),
            hidden: BTreeMap::new(),
            settled: BTreeSet::new(),
            groups: BTreeSet::new(),
        }
    }

    pub(super) async fn run(mut self) -> TreeEnd {
        let (mut empty_scans, mut rounds) = (0, 0);
        if self.inherits() {
            self.survey_family();
            self.strike_all(&[]);
        }
        loop {
            self.begin_turn();
            self.hidden.retain(|&pid, _| strike::is_living_child(pid));
            let begun = proc::tick();
            let members = self.tree.scan();
            let left = members.as_deref().unwrap_or_default();
            if members.as_ref().is_ok_and(Vec::is_empty) && self.hidden.is_empty() {
                empty_scans += 1;
                if empty_scans >= self.tree.empty_scans_min() {
                    return self.end(&[], 0);
                }
            } else {
                empty_scans = 0;
            }
            // However long it took to get here: nobody is left unstruck.
            if self.is_over(left, rounds) && (rounds > 0 || members.is_err()) {
                if let Err(error) = &members {
                    tracing::warn!(%error, "cannot see what is left of the gateway; raise the limit on open files");
                }
                // Where nobody can be seen, somebody may be.
                let survivors = members.as_ref().map_or(1, Vec::len);
                return self.end(left, survivors);
            }
            self.tree.note(left, begun);
            self.strike_all(left);
            rounds += 1;
            self.wait().await;
        }
    }

    fn is_over(&self, left: &[Member], rounds: u32) -> bool {
        let elapsed = (self.elapsed)();
        let is_refused = |member: &Member| self.refused.contains(&name(&member.process));
        let sleeps =
            |member: &Member| member.process.state == State::Uninterruptible && self.is_struck(&member.process);
        let is_any = !left.is_empty() || !self.hidden.is_empty();
        // Whether a hidden one sleeps cannot be seen.
        let none_can_die = left.iter().all(|member| is_refused(member) || sleeps(member));
        let none_may_be_struck =
            left.iter().all(is_refused) && self.hidden.values().all(|&hidden| hidden != Hidden::Struck);
        elapsed >= TIME_MAX
            || is_any && none_can_die && elapsed >= ASLEEP_TIME_MAX
            || is_any && none_may_be_struck && rounds >= REFUSED_ROUNDS
    }

    /// Others had their turn: what was known of our children may be of others by now.
    fn begin_turn(&mut self) {
        self.settled.clear();
        self.groups.clear();
    }

    /// Writes down whom the first strikes will end, before they do: many end with their group, unseen. In a storm of
    /// forks every moment counts, so there are not many moments.
    fn survey_family(&mut self) {
        let (begun, start) = (proc::tick(), (self.elapsed)());
        let (number, leaf) = (self.tree.number_now(), self.tree.leaf_members());
        let mut members = Vec::new();
        let mut pids: VecDeque<_> =
            proc::children().unwrap_or_default().into_iter().chain(leaf.iter().copied()).collect();
        let mut parents = BTreeMap::new();
        while let Some(pid) = pids.pop_front() {
            if (self.elapsed)().saturating_sub(start) > SURVEY_TIME_MAX {
                break;
            }
            let Ok(process) = proc::stat(pid) else { continue };
            let inherited = parents.get(&process.parent).copied().map(Evidence::inherited).unwrap_or_default();
            let shown = self.tree.judge(&process, number, &leaf);
            let evidence =
                if shown.is_hearsay() { self.tree.judge_all(&process, inherited) } else { shown.and(inherited) };
            if evidence.is_none() || process.is_dead() || parents.insert(pid, evidence).is_some() {
                continue;
            }
            members.push(Member { process, evidence });
            pids.extend(proc::children_of(pid).unwrap_or_default());
        }
        for member in &members {
            self.note(member);
        }
        self.tree.note(&members, begun);
    }

    /// SIGKILL to all of these, and to what they start in the meantime.
    fn strike_all(&mut self, members: &[Member]) {
        for member in members {
            self.note(member);
        }
        if let Some(leaf) = &self.tree.leaf
            && let Err(error) = leaf.kill()
        {
            tracing::debug!(%error, "cannot kill the control group at once");
        }
        // Most are found this way, and the fewer are left alone for long the fewer they become. An error is that of the
        // scan, and will be seen by the next one.
        let _seen_by_the_scan = self.strike_family();
        let strays = members.iter().filter(|member| !self.is_struck(&member.process));
        let quarries = strays.filter_map(|member| self.corner(member)).collect();
        self.fell(quarries);
    }

    /// Takes hold of a member that a scan has seen. Children of ours need no hold, and are found by their list.
    fn corner(&self, member: &Member) -> Option<Quarry> {
        let pid = member.process.pid;
        if self.inherits() && member.process.parent == super::me() {
            return self.child(pid);
        }
        self.tree.hold(pid, |process| self.tree.parentage(process)).map(Quarry::Other)
    }

    /// A living child of ours that is a member, judged by what is read now.
    fn child(&self, pid: i32) -> Option<Quarry> {
        let process = proc::stat(pid).ok().filter(|process| !process.is_dead() && process.parent == super::me())?;
        self.judge_child(process).map(Quarry::Child)
    }

    fn judge_child(&self, process: Stat) -> Option<Member> {
        let evidence = self.tree.judge_all(&process, Evidence::default());
        (!evidence.is_none()).then_some(Member { process, evidence })
    }

    /// Strikes them and all that is found below them. Says how many were new; nothing if it takes so long that others
    /// need a turn: who is left is found again.
    fn fell(&mut self, mut quarries: VecDeque<Quarry>) -> Option<usize> {
        let (begun, mut new) = ((self.elapsed)(), 0);
        while let Some(quarry) = quarries.pop_front() {
            let member = quarry.member();
            self.note(&member);
            new += usize::from(self.mark_struck(&member.process));
            // Orphans that cannot be told from others have to be held before they are some.
            if self.tree.empty_scans_min() > 1 {
                self.add_children(&quarry, &mut quarries);
            }
            quarry.strike_group();
            match quarry.strike() {
                Strike::Arrived => self.add_children(&quarry, &mut quarries),
                Strike::Missed => {}
                Strike::Refused => {
                    self.dying.remove(&name(&member.process));
                    self.refused.insert(name(&member.process));
                    self.add_children(&quarry, &mut quarries);
                }
            }
            if (self.elapsed)().saturating_sub(begun) > SLICE_MAX {
                return None;
            }
        }
        Some(new)
    }

    /// Adds the children of one that is struck, if they were not struck before.
    fn add_children(&self, parent: &Quarry, quarries: &mut VecDeque<Quarry>) {
        let Member { process, evidence } = parent.member();
        for pid in proc::children_of(process.pid).unwrap_or_default() {
            let is_still_its_parent = |child: &Stat| child.parent == process.pid && parent.is_there();
            let parentage = |child: &Stat| {
                if is_still_its_parent(child) { evidence.inherited() } else { Evidence::default() }
            };
            let is_queued = |quarry: &Quarry| quarry.member().process.pid == pid;
            if !quarries.iter().any(is_queued)
                && let Some(held) = self.tree.hold(pid, parentage)
                && !self.is_struck(&held.member.process)
            {
                quarries.push_back(Quarry::Other(held));
            }
        }
    }

    /// The inner loop. Says whether it came to its end.
    fn strike_family(&mut self) -> io::Result<bool> {
        if !self.inherits() {
            return Ok(true);
        }
        for _ in 0..PASSES_MAX {
            let mut quarries = VecDeque::new();
            for pid in proc::children()? {
                if !self.settled.contains(&pid) {
                    quarries.extend(self.meet(pid)?);
                }
            }
            match self.fell(quarries) {
                Some(0) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// A child of ours that was not dealt with in this turn.
    fn meet(&mut self, pid: i32) -> io::Result<Option<Quarry>> {
        let process = match proc::stat(pid) {
            Ok(process) => process,
            Err(error) if is_unseen(&error) => {
                self.meet_hidden(pid);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let member = self.judge_child(process);
        if process.is_dead() {
            self.settled.insert(pid);
            // It cannot leave its group any more, and nobody reaps it now: the number is that group's for certain.
            if member.is_some_and(|member| member.evidence.is_born()) && self.groups.insert(process.group) {
                let _one_by_one = strike::kill_group_of_child(pid);
            }
            return Ok(None);
        }
        if member.is_some() {
            self.settled.insert(pid);
        }
        Ok(member.map(Quarry::Child))
    }

    /// A child that cannot be looked at. One that lives is struck where it can only be of this tree.
    fn meet_hidden(&mut self, pid: i32) {
        if !strike::is_living_child(pid) || self.tree.is_elsewhere(pid) {
            return;
        }
        self.settled.insert(pid);
        let Root::Child { pid: leader, orphans } = self.tree.root else { return };
        if pid != leader && orphans == Orphans::Mixed {
            self.hidden.insert(pid, Hidden::Unknown);
            return;
        }
        let is_refused = told(pid, strike::kill_child(pid)) == Strike::Refused;
        self.hidden.insert(pid, if is_refused { Hidden::Refused } else { Hidden::Struck });
        // Nobody has a start time of 0 whom we could have started.
        self.killed.entry((pid, 0)).or_insert_with(|| Killed {
            is_struck: true,
            escaped: pid != leader,
            evidence: Evidence::of(Layer::Descent),
            command: Some("(hidden)".to_owned()),
        });
    }

    /// Strikes whatever comes to light below us until those that were struck are dead, or a look around is due.
    async fn wait(&mut self) {
        // Others get their turn even where there is nothing to wait for.
        tokio::task::yield_now().await;
        for pause in PAUSES_MS {
            loop {
                self.begin_turn();
                match self.strike_family() {
                    Ok(true) => break,
                    Ok(false) if (self.elapsed)() < TIME_MAX => tokio::task::yield_now().await,
                    // The look at all processes will tell.
                    Ok(false) | Err(_) => return,
                }
            }
            self.dying.retain(|&(pid, start_time)| {
                proc::stat(pid).is_ok_and(|process| process.start_time == start_time && !process.is_dead())
            });
            self.hidden.retain(|&pid, _| strike::is_living_child(pid));
            if self.dying.is_empty() && self.hidden.values().all(|&hidden| hidden != Hidden::Struck) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Whether the orphans of this tree come to us.
    fn inherits(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self.tree.root, Root::Child { .. })
    }

    /// Writes one down before it is struck: then it loses its command and its environment. What was known of it before
    /// this hunt is what shows it.
    fn note(&mut self, member: &Member) {
        let Member { process, evidence } = *member;
        let (number, is_named) = (self.tree.number(), self.killed.len() <= NAMED_MAX);
        self.killed.entry((process.pid, process.start_time)).or_insert_with(|| Killed {
            is_struck: false,
            escaped: Some(process.group) != number,
            evidence,
            command: is_named.then(|| proc::command_of(process.pid).unwrap_or_default()),
        });
    }

    /// Says whether that is new.
    fn mark_struck(&mut self, process: &Stat) -> bool {
        self.dying.insert(name(process));
        self.killed.get_mut(&name(process)).is_some_and(|killed| !std::mem::replace(&mut killed.is_struck, true))
    }

    fn is_struck(&self, process: &Stat) -> bool {
        self.killed.get(&name(process)).is_some_and(|killed| killed.is_struck)
    }

    fn end(&self, left: &[Member], survivors: usize) -> TreeEnd {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        // The strays are what a person wants to know of; the leader was named when it ended.
        let (leader, mut named): (Vec<_>, Vec<_>) =
            self.killed.iter().partition(|((pid, _), _)| Some(*pid) == self.tree.number());
        named.extend(leader);
        let commands =
            named.iter().filter_map(|((pid, _), killed)| Some(format!("{pid} {}", killed.command.as_ref()?)));
        TreeEnd {
            members: count(self.killed.len()),
            escaped: count(self.killed.values().filter(|killed| killed.escaped).count()),
            survivors: count(survivors + self.hidden.len()),
            elapsed: (self.elapsed)(),
            commands: commands.take(NAMED_MAX).collect(),
            found_by: evidence::count(&self.killed.values().map(|killed| killed.evidence).collect::<Vec<_>>()),
            left: self.describe(left).take(NAMED_MAX).collect(),
        }
    }

    /// The survivors, and why they are some: what the kernel says that they are doing.
    fn describe(&self, left: &[Member]) -> impl Iterator<Item = String> {
        let seen = left.iter().map(|member| {
            let pid = member.process.pid;
            let command = proc::command_of(pid).unwrap_or_default();
            let condition = match proc::uid_of(pid) {
                Some(uid) if self.refused.contains(&name(&member.process)) => {
                    format!("not permitted, it is of user {uid}")
                }
                _ => proc::condition_of(pid).unwrap_or_else(|| "gone by now".to_owned()),
            };
            format!("{pid} {command} ({condition})")
        });
        let hidden = self.hidden.iter().map(|(pid, hidden)| match hidden {
            Hidden::Struck | Hidden::Unknown => format!("{pid} (hidden)"),
            Hidden::Refused => format!("{pid} (hidden, not permitted)"),
        });
        seen.chain(hidden)
    }
}

fn name(process: &Stat) -> (i32, u64) {
    (process.pid, process.start_time)
}

/// ENOENT and ESRCH are said of what is gone and of what is hidden alike, the others of what is hidden in part.
fn is_unseen(error: &io::Error) -> bool {
    super::is_gone(error) || error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn strikes_that_find_no_end_make_room_for_others() {
        let calls = Cell::new(0);
        let elapsed = || {
            calls.set(calls.get() + 1);
            Duration::from_millis(calls.get())
        };
        let mut hunt = Hunt::new(Tree::orphaned(None, "A=1".to_owned(), &[]), elapsed);
        let nobody = |number| {
            let pid = i32::MAX - number;
            let process = Stat { pid, state: State::Other, parent: 1, group: pid, session: pid, start_time: 1 };
            Quarry::Child(Member { process, evidence: Evidence::of(Layer::Instance) })
        };
        assert_eq!(hunt.fell((0..10).map(nobody).collect()), Some(10));
        assert_eq!(hunt.fell((0..10_000).map(nobody).collect()), None);
        assert!(calls.get() < 1000, "{}", calls.get());
    }
}
