//! Everything that a gateway has started, and its end.
//!
//! A gateway starts its broker in a session of its own and everything that agents run in further groups, so a signal
//! to a process group ends a fraction of it. The members of the tree are
//! - the leader, the process that was spawned;
//! - what shares its session or process group, for as long as that number is known to be the leader's: a leader of ours
//!   keeps it until we reap it, which we do last; an adopted one keeps it while it lives;
//! - every descendant of the leader, and of every other member;
//! - orphans of the tree. As a subreaper (prctl(2)) we inherit those of our own gateways, but not only them: a container
//!   runtime drops strangers on PID 1, and a shell may have had children before it became us by exec. So an orphan
//!   counts only if it was seen as a member before, bears the instance id of this gateway, or can come from nowhere
//!   else. The orphans of an adopted tree, and all orphans on macOS, come to init: there it is only the first two.

use crate::core::TreeEnd;
use crate::platform::proc::{self, Stat};
use crate::platform::process::{self, Handle};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// How long killing may take. What is left then sleeps uninterruptibly and dies when it wakes.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// The pauses between two scans, the second and all later ones: a killed process needs a moment to become a zombie.
const SCAN_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];

/// Who inherits orphans on macOS.
const LAUNCHD: i32 = 1;

/// How many commands a report names.
const NAMED_MAX: usize = 8;

/// Where orphans that we inherit can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// From our gateways alone: we had no child before them, and nothing else drops any on us.
    OursAlone,
    /// From elsewhere too.
    Mixed,
}

impl Orphans {
    /// To be asked once, before the first spawn.
    #[must_use]
    pub fn survey() -> Self {
        let childless = proc::children().is_ok_and(|children| children.is_empty());
        if childless && std::process::id() != 1 { Self::OursAlone } else { Self::Mixed }
    }
}

/// What the tree hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// A leader that we spawned and have not reaped.
    Child { pid: i32, orphans: Orphans },
    /// A leader that another supervisor spawned: when it ends, its number may go to anybody.
    Adopted { pid: i32, start_time: u64 },
    /// Nothing: the leader is gone. Its number is known, perhaps.
    Gone { pid: Option<i32> },
}

/// The tree of one gateway.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Root,
    /// `NAME=value` in the environment of whatever the gateway starts.
    instance: String,
    /// Every member ever seen: pid and start time name a process for as long as the machine is up.
    seen: BTreeMap<i32, u64>,
}

impl Tree {
    /// The tree below `leader`, whose environment holds `instance` as `NAME=value`.
    #[must_use]
    pub fn new(leader: &Handle, instance: String, orphans: Orphans) -> Self {
        let seen = BTreeMap::from([(leader.pid(), leader.start_time())]);
        Self { root: Root::Child { pid: leader.pid(), orphans }, instance, seen }
    }

    /// The tree of a leader that another supervisor spawned. `members` are those that are on record.
    #[must_use]
    pub fn adopted(leader: &Handle, instance: String, members: &[(i32, u64)]) -> Self {
        let (pid, start_time) = (leader.pid(), leader.start_time());
        let seen = members.iter().copied().chain([(pid, start_time)]).collect();
        Self { root: Root::Adopted { pid, start_time }, instance, seen }
    }

    /// What is left of a tree whose leader is gone. `leader` is the pid that it had, where that is known.
    #[must_use]
    pub fn orphaned(leader: Option<i32>, instance: String, members: &[(i32, u64)]) -> Self {
        Self { root: Root::Gone { pid: leader }, instance, seen: members.iter().copied().collect() }
    }

    /// Remembers who belongs to the tree now, so that those who leave it later are still known.
    pub fn remember(&mut self) {
        // What cannot be seen now will be looked for again when the tree is killed.
        for member in self.scan().unwrap_or_default() {
            self.seen.insert(member.pid, member.start_time);
        }
    }

    /// The members now, with their start times, as far as they can be told without a look at every process of the
    /// machine; remembers them, and forgets those that are gone. Of an adopted tree it misses what left it unseen.
    pub fn snapshot(&mut self) -> Vec<(i32, u64)> {
        let members = self.descend().or_else(|_| self.scan());
        // Where nothing can be seen, what was known stays known.
        if let Ok(members) = members {
            self.seen = members.iter().map(|member| (member.pid, member.start_time)).collect();
        }
        self.seen.iter().map(|(&pid, &start_time)| (pid, start_time)).collect()
    }

    /// The living members, found from the known ones downwards.
    fn descend(&self) -> io::Result<Vec<Stat>> {
        let mut members = Vec::new();
        for (&pid, &start_time) in &self.seen {
            members.extend(living(pid)?.filter(|process| process.start_time == start_time));
        }
        if let Root::Child { .. } = self.root {
            for pid in proc::children()? {
                members.extend(living(pid)?.filter(|process| self.belongs(process, self.number())));
            }
        }
        let mut found = BTreeSet::new();
        members.retain(|member| found.insert(member.pid));
        let mut next = 0;
        while let Some(&parent) = members.get(next) {
            next += 1;
            members
                .extend(children_of(&parent)?.into_iter().filter(|child| child.pid != me() && found.insert(child.pid)));
        }
        Ok(members)
    }

    /// The living members, found by a look at every process.
    fn scan(&self) -> io::Result<Vec<Stat>> {
        let all = proc::processes()?;
        // Asked for after the walk: a number that is the leader's then was so all the while.
        let number = match self.root {
            Root::Adopted { pid, start_time } => {
                self.number().filter(|_| proc::stat(pid).is_ok_and(|leader| leader.start_time == start_time))
            }
            Root::Child { .. } => self.number(),
            Root::Gone { .. } => None,
        };
        Ok(self.members(&all, number))
    }

    /// The members among `all`, the leader first, without those that are dead already. `number` names the leader's
    /// session and group, where these are the leader's for certain.
    fn members(&self, all: &[Stat], number: Option<i32>) -> Vec<Stat> {
        let me = me();
        let mut inside: BTreeSet<i32> = all
            .iter()
            .filter(|process| process.pid != me && self.belongs(process, number))
            .map(|process| process.pid)
            .collect();
        loop {
            let known = inside.len();
            for process in all {
                if process.pid != me && inside.contains(&process.parent) {
                    inside.insert(process.pid);
                }
            }
            if inside.len() == known {
                break;
            }
        }
        let mut members: Vec<Stat> =
            all.iter().filter(|process| inside.contains(&process.pid) && !process.is_dead).copied().collect();
        members.sort_by_key(|process| Some(process.pid) != self.number());
        members
    }

    /// Whether a process is a member for what it is itself, not for who its parent is.
    fn belongs(&self, process: &Stat, number: Option<i32>) -> bool {
        if self.was_seen(process) || number.is_some_and(|number| [process.session, process.group].contains(&number)) {
            return true;
        }
        let bears_id = || proc::environ_has(process.pid, &self.instance);
        match self.root {
            // A zombie has no environment, and needs no signal.
            Root::Adopted { .. } | Root::Gone { .. } => !process.is_dead && bears_id(),
            Root::Child { .. } if cfg!(target_os = "macos") => process.parent == LAUNCHD && bears_id(),
            Root::Child { pid, orphans } => {
                let is_orphan = process.parent == me() && process.pid != pid;
                is_orphan && (orphans == Orphans::OursAlone || bears_id())
            }
        }
    }

    fn was_seen(&self, process: &Stat) -> bool {
        self.seen.get(&process.pid) == Some(&process.start_time)
    }

    /// The leader's pid, for which its session and group are named: who has it now is another question.
    fn number(&self) -> Option<i32> {
        match self.root {
            Root::Child { pid, .. } | Root::Adopted { pid, .. } => Some(pid),
            Root::Gone { pid } => pid,
        }
    }

    /// How many scans in a row must find nobody. Orphans that do not come to us are known by their environment, and in
    /// the middle of an execve(2) a process has none.
    fn empty_scans_min(&self) -> u32 {
        match self.root {
            Root::Child { .. } if !cfg!(target_os = "macos") => 1,
            Root::Child { .. } | Root::Adopted { .. } | Root::Gone { .. } => 2,
        }
    }

    fn is_all_that_is_left(&self) -> bool {
        matches!(self.root, Root::Child { pid, .. } if process::is_all_that_is_left(pid))
    }

    /// SIGKILL to every member, again and again until nobody else can be left or scans of all processes find none, for
    /// at most ten seconds. `elapsed` tells how long it has been going on.
    pub async fn kill(mut self, elapsed: impl Fn() -> Duration) -> TreeEnd {
        let mut killed = BTreeMap::new();
        let mut pauses = SCAN_PAUSES.into_iter();
        let mut empty_scans = 0;
        loop {
            // A few system calls; a look at every process of the machine takes milliseconds.
            if self.is_all_that_is_left() {
                return self.end(&killed, 0, elapsed());
            }
            let members = self.scan();
            // Where nobody can be seen, somebody may be.
            let left = members.as_ref().map_or(1, Vec::len);
            empty_scans = if left == 0 { empty_scans + 1 } else { 0 };
            if empty_scans == self.empty_scans_min() || elapsed() >= KILL_TIME_MAX {
                if let Err(error) = &members {
                    tracing::warn!(%error, "cannot see what is left of the gateway; raise the limit on open files");
                }
                return self.end(&killed, u32::try_from(left).unwrap_or(u32::MAX), elapsed());
            }
            for member in members.iter().flatten() {
                self.seen.insert(member.pid, member.start_time);
                killed.entry(member.pid).or_insert_with(|| Killed {
                    escaped: Some(member.group) != self.number(),
                    command: proc::command_of(member.pid).unwrap_or_default(),
                });
                kill(member);
            }
            tokio::time::sleep(pauses.next().unwrap_or(SCAN_PAUSES[1])).await;
        }
    }

    fn end(&self, killed: &BTreeMap<i32, Killed>, survivors: u32, elapsed: Duration) -> TreeEnd {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let escaped = killed.values().filter(|member| member.escaped).count();
        // The strays are what a person wants to know of; the leader was named when it ended.
        let (leader, mut named): (Vec<_>, Vec<_>) = killed.iter().partition(|(pid, _)| Some(**pid) == self.number());
        named.extend(leader);
        let commands =
            named.into_iter().take(NAMED_MAX).map(|(pid, member)| format!("{pid} {}", member.command)).collect();
        TreeEnd { members: count(killed.len()), escaped: count(escaped), survivors, elapsed, commands }
    }
}

#[derive(Debug)]
struct Killed {
    escaped: bool,
    command: String,
}

/// The process that has this pid, unless it is dead.
fn living(pid: i32) -> io::Result<Option<Stat>> {
    match proc::stat(pid) {
        Ok(process) => Ok(Some(process).filter(|process| !process.is_dead)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// ENOENT comes from the folder in /proc, ESRCH from a file that was opened in time, and from macOS.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The living children of the process that was seen as `parent`.
fn children_of(parent: &Stat) -> io::Result<Vec<Stat>> {
    let pids = match proc::children_of(parent.pid) {
        Err(error) if living(parent.pid)?.is_some() => return Err(error),
        pids => pids.unwrap_or_default(),
    };
    let mut children = Vec::new();
    for pid in pids {
        children.extend(living(pid)?.filter(|child| child.parent == parent.pid));
    }
    // They were its children only if its pid was its own all the while.
    let is_same = children.is_empty() || living(parent.pid)?.is_some_and(|now| now.start_time == parent.start_time);
    Ok(if is_same { children } else { Vec::new() })
}

fn me() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// SIGKILL to the process that the scan saw, and to no other one that has its pid by now.
fn kill(member: &Stat) {
    let Ok(handle) = Handle::open(member.pid) else { return };
    if handle.start_time() == member.start_time
        && let Err(error) = handle.kill()
    {
        tracing::debug!(pid = member.pid, %error, "kill failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: i32 = 100;

    fn stat(pid: i32, parent: i32, group: i32, session: i32, start_time: u64) -> Stat {
        Stat { pid, is_dead: false, parent, group, session, start_time }
    }

    fn tree(orphans: Orphans) -> Tree {
        let root = Root::Child { pid: LEADER, orphans };
        Tree { root, instance: "X=1".to_owned(), seen: BTreeMap::from([(LEADER, 5)]) }
    }

    fn members(tree: &Tree, all: &[Stat]) -> Vec<Stat> {
        tree.members(all, Some(LEADER))
    }

    fn pids(members: &[Stat]) -> Vec<i32> {
        members.iter().map(|member| member.pid).collect()
    }

    #[test]
    fn descendants_count_in_whatever_session_and_order_they_are_listed() {
        let all = [
            stat(50, 1, 50, 50, 1),
            stat(99, 300, 99, 99, 9),
            stat(LEADER, 2, LEADER, LEADER, 5),
            stat(200, LEADER, 200, 200, 6),
            stat(300, 200, 300, 300, 7),
        ];
        assert_eq!(pids(&members(&tree(Orphans::Mixed), &all)), [LEADER, 99, 200, 300]);
    }

    #[test]
    fn a_group_member_whose_parents_are_gone_counts_and_a_stranger_does_not() {
        let all = [stat(201, 1, LEADER, LEADER, 6), stat(202, 1, 7, LEADER, 6), stat(203, 1, 7, 7, 6)];
        assert_eq!(pids(&members(&tree(Orphans::Mixed), &all)), [201, 202]);
    }

    #[test]
    fn a_member_seen_before_counts_and_a_recycled_pid_does_not() {
        let mut tree = tree(Orphans::Mixed);
        tree.seen.insert(400, 8);
        tree.seen.insert(401, 8);
        let all = [stat(400, 1, 400, 400, 8), stat(401, 1, 401, 401, 9)];
        assert_eq!(pids(&members(&tree, &all)), [400]);
    }

    #[test]
    fn an_inherited_orphan_counts_only_where_none_can_come_from_elsewhere() {
        let all = [stat(i32::MAX, me(), 3, 3, 9)];
        assert_eq!(members(&tree(Orphans::OursAlone), &all).len(), 1);
        assert_eq!(members(&tree(Orphans::Mixed), &all).len(), 0);
    }

    #[test]
    fn we_are_never_a_member_of_the_tree() {
        let all = [stat(me(), LEADER, LEADER, LEADER, 1)];
        assert_eq!(members(&tree(Orphans::OursAlone), &all), []);
    }

    #[test]
    fn zombies_need_no_signal() {
        let mut zombie = stat(LEADER, 2, LEADER, LEADER, 5);
        zombie.is_dead = true;
        let all = [zombie, stat(200, LEADER, 200, 200, 6)];
        assert_eq!(pids(&members(&tree(Orphans::Mixed), &all)), [200]);
    }

    #[test]
    fn a_recycled_session_number_makes_no_member_of_an_adopted_tree() {
        let adopted = Tree { root: Root::Adopted { pid: LEADER, start_time: 5 }, ..tree(Orphans::Mixed) };
        let all = [
            stat(LEADER, 1, LEADER, LEADER, 5),
            stat(i32::MAX, 1, LEADER, LEADER, 6),
            stat(i32::MAX - 1, i32::MAX, 7, 7, 7),
        ];
        assert_eq!(pids(&adopted.members(&all, Some(LEADER))), [LEADER, i32::MAX, i32::MAX - 1]);
        assert_eq!(pids(&adopted.members(&all, None)), [LEADER]);
        let gone = Tree { root: Root::Gone { pid: Some(LEADER) }, seen: BTreeMap::new(), ..adopted };
        assert_eq!(gone.members(&all, None), []);
    }

    #[test]
    fn an_inherited_process_is_no_orphan_of_an_adopted_tree() {
        let adopted = Tree { root: Root::Adopted { pid: LEADER, start_time: 5 }, ..tree(Orphans::OursAlone) };
        assert_eq!(members(&adopted, &[stat(i32::MAX, me(), 3, 3, 9)]), []);
    }
}
