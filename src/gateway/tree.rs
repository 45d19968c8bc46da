//! Everything that a gateway has started, and its end.
//!
//! A gateway starts its broker in a session of its own and everything that agents run in further groups, so a signal
//! to a process group ends a fraction of it. The members of the tree are
//! - the leader, the process that we spawned;
//! - what shares its session or process group: its number is taken as long as the leader is not reaped, and we reap it
//!   last;
//! - every descendant of the leader, and of every other member;
//! - orphans of the tree. As a subreaper (prctl(2)) we inherit them, but not only them: a container runtime drops
//!   strangers on PID 1, and a shell may have had children before it became us by exec. So an orphan counts only if it
//!   was seen as a member before, bears the instance id of this gateway, or can come from nowhere else. macOS knows no
//!   subreapers and gives orphans to launchd: there it is only the first two.

use crate::core::TreeEnd;
use crate::platform::proc::{self, Stat};
use crate::platform::process::{self, Handle};
use std::collections::{BTreeMap, BTreeSet};
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

/// The tree of one gateway.
#[derive(Debug, Clone)]
pub struct Tree {
    leader: i32,
    instance: String,
    orphans: Orphans,
    /// Every member ever seen: pid and start time name a process for as long as the machine is up.
    seen: BTreeMap<i32, u64>,
}

impl Tree {
    /// The tree below `leader`, whose environment holds `instance` as `NAME=value`.
    #[must_use]
    pub fn new(leader: &Handle, instance: String, orphans: Orphans) -> Self {
        let seen = BTreeMap::from([(leader.pid(), leader.start_time())]);
        Self { leader: leader.pid(), instance, orphans, seen }
    }

    /// Remembers who belongs to the tree now, so that those who leave it later are still known.
    pub fn remember(&mut self) {
        // What cannot be seen now will be looked for again when the tree is killed.
        let all = proc::processes().unwrap_or_default();
        for member in self.members(&all) {
            self.seen.insert(member.pid, member.start_time);
        }
    }

    /// The members among `all`, the leader first, without those that are dead already.
    fn members(&self, all: &[Stat]) -> Vec<Stat> {
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        let mut inside: BTreeSet<i32> = all
            .iter()
            .filter(|process| process.pid != me && self.belongs(process, me))
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
        members.sort_by_key(|process| process.pid != self.leader);
        members
    }

    /// Whether a process is a member for what it is itself, not for who its parent is.
    fn belongs(&self, process: &Stat, me: i32) -> bool {
        if self.seen.get(&process.pid) == Some(&process.start_time) {
            return true;
        }
        if process.session == self.leader || process.group == self.leader {
            return true;
        }
        if cfg!(target_os = "macos") && process.parent == LAUNCHD {
            return proc::environ_has(process.pid, &self.instance);
        }
        let orphan = process.parent == me && process.pid != self.leader;
        orphan && (self.orphans == Orphans::OursAlone || proc::environ_has(process.pid, &self.instance))
    }

    /// SIGKILL to every member, again and again until nobody else can be left or a scan of all processes finds none, for
    /// at most ten seconds. `elapsed` tells how long it has been going on.
    pub async fn kill(mut self, elapsed: impl Fn() -> Duration) -> TreeEnd {
        let mut killed = BTreeMap::new();
        let mut pauses = SCAN_PAUSES.into_iter();
        loop {
            // A few system calls; a look at every process of the machine takes milliseconds.
            if process::is_all_that_is_left(self.leader) {
                return self.end(&killed, 0, elapsed());
            }
            let members = proc::processes().map(|all| self.members(&all));
            // Where nobody can be seen, somebody may be.
            let left = members.as_ref().map_or(1, Vec::len);
            if left == 0 || elapsed() >= KILL_TIME_MAX {
                if let Err(error) = &members {
                    tracing::warn!(%error, "cannot see what is left of the gateway; raise the limit on open files");
                }
                return self.end(&killed, u32::try_from(left).unwrap_or(u32::MAX), elapsed());
            }
            for member in members.iter().flatten() {
                self.seen.insert(member.pid, member.start_time);
                killed.entry(member.pid).or_insert_with(|| Killed {
                    escaped: member.group != self.leader,
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
        let mut named: Vec<_> = killed.iter().filter(|(pid, _)| **pid != self.leader).collect();
        named.extend(killed.get_key_value(&self.leader));
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
        Tree { leader: LEADER, instance: "X=1".to_owned(), orphans, seen: BTreeMap::from([(LEADER, 5)]) }
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
        assert_eq!(pids(&tree(Orphans::Mixed).members(&all)), [LEADER, 99, 200, 300]);
    }

    #[test]
    fn a_group_member_whose_parents_are_gone_counts_and_a_stranger_does_not() {
        let all = [stat(201, 1, LEADER, LEADER, 6), stat(202, 1, 7, LEADER, 6), stat(203, 1, 7, 7, 6)];
        assert_eq!(pids(&tree(Orphans::Mixed).members(&all)), [201, 202]);
    }

    #[test]
    fn a_member_seen_before_counts_and_a_recycled_pid_does_not() {
        let mut tree = tree(Orphans::Mixed);
        tree.seen.insert(400, 8);
        tree.seen.insert(401, 8);
        let all = [stat(400, 1, 400, 400, 8), stat(401, 1, 401, 401, 9)];
        assert_eq!(pids(&tree.members(&all)), [400]);
    }

    #[test]
    fn an_inherited_orphan_counts_only_where_none_can_come_from_elsewhere() {
        let me = i32::try_from(std::process::id()).unwrap();
        let all = [stat(i32::MAX, me, 3, 3, 9)];
        assert_eq!(tree(Orphans::OursAlone).members(&all).len(), 1);
        assert_eq!(tree(Orphans::Mixed).members(&all).len(), 0);
    }

    #[test]
    fn we_are_never_a_member_of_the_tree() {
        let me = i32::try_from(std::process::id()).unwrap();
        let all = [stat(me, LEADER, LEADER, LEADER, 1)];
        assert_eq!(tree(Orphans::OursAlone).members(&all), []);
    }

    #[test]
    fn zombies_need_no_signal() {
        let mut zombie = stat(LEADER, 2, LEADER, LEADER, 5);
        zombie.is_dead = true;
        let all = [zombie, stat(200, LEADER, 200, 200, 6)];
        assert_eq!(pids(&tree(Orphans::Mixed).members(&all)), [200]);
    }
}
