//! The kill of a tree.
//!
//! A fork bomb outruns a killer that scans all processes between two rounds of signals. So there are two loops. The inner
//! one scans only our descendants: we are the subreaper, so every member is a child of ours or of another member. A
//! process with a pending SIGKILL cannot fork, so once a pass finds no new member, none can appear. The outer loop scans
//! all processes, for members that are no longer our descendants.
//!
//! It runs on a worker of [`proc::run`], because its reads of `/proc` may block. If one does, the kill is restarted on
//! another worker, which kills first what needs no look, and the process that blocks the read is killed unseen, if that is
//! proven to be a member.

use super::around::end_gently;
use super::members::{Root, Tree, me};
use super::membership::{Evidence, TreeMember};
use super::target::{KillTarget, Sent, sent};
use super::toll::{self, NAMED_MAX, Name, Toll, count, name};
use super::units;
use crate::core::{Installers, TreeEnd};
use crate::platform::descent::is_unseen;
use crate::platform::kill;
use crate::platform::proc::{self, ProcessState, Stat};
use crate::platform::process::{Handle, Turn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a kill may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The same if every survivor is in uninterruptible sleep: no signal wakes it, and it dies when it wakes.
const ASLEEP_TIME_MAX: Duration = Duration::from_secs(2);

/// The pauses in which killed processes become zombies, before the next scan of all processes.
const PAUSES_MS: [u64; 8] = [1, 1, 2, 2, 4, 5, 10, 25];

/// How long the survey before the first signal may take.
const SURVEY_TIME_MAX: Duration = Duration::from_millis(50);

/// How many passes of the inner loop one turn has: zombies are reaped between two turns.
const PASSES_MAX: u32 = 64;

/// How long one turn may take, regardless of how many members it finds.
const TURN_TIME_MAX: Duration = Duration::from_millis(250);

/// How many rounds a member gets that we may not signal (EPERM), such as a child that became root: nothing changes that.
const REFUSED_ROUNDS: u32 = 2;

/// A living member that cannot be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// It was killed, though `/proc` does not show it, as with `hidepid`: see proc(5).
    Killed,
    /// It was killed, and reads about it block: it sleeps in the kernel and dies when it wakes.
    Stuck,
    Refused,
    /// A child of ours that may belong to something else.
    Unknown,
}

impl Tree {
    /// SIGKILL to every member, repeated until a scan of all processes finds none, for at most ten seconds. `elapsed`
    /// returns the time since the start of the kill. All but the leader get SIGTERM before, and `grace` to end by it. Runs on
    /// another thread.
    pub async fn kill(
        self,
        grace: Duration,
        elapsed: impl Fn() -> Duration + Clone + Send + Sync + 'static,
    ) -> TreeEnd {
        kill(self, grace, elapsed).await
    }

    /// Finds processes that carry the marks of this tree but are not our descendants, and kills them. Must be called when
    /// no descendant is left; the leader may be reaped in the meantime.
    pub async fn sweep(
        mut self,
        grace: Duration,
        elapsed: impl Fn() -> Duration + Clone + Send + Sync + 'static,
    ) -> TreeEnd {
        if let Root::Child { pid, .. } = self.root {
            self.seen.remove(&pid);
        }
        // The next gateway does not wait for it.
        self.installers = Installers::RollBack;
        self.root = Root::Gone { pid: self.number() };
        self.leader = None;
        let tree = self.clone();
        match proc::run(move || tree.finds_any()).await.flatten() {
            Ok(false) => TreeEnd { elapsed: elapsed(), ..TreeEnd::default() },
            Ok(true) | Err(_) => self.kill(grace, elapsed).await,
        }
    }
}

/// See [`Tree::kill`].
async fn kill(tree: Tree, grace: Duration, elapsed: impl Fn() -> Duration + Clone + Send + Sync + 'static) -> TreeEnd {
    let (toll, copy, clock) = (Toll::default(), tree.clone(), elapsed.clone());
    let is_stuck = AtomicBool::new(false);
    let job = move || {
        let kill = TreeKill::new(copy.clone(), elapsed.clone(), toll.clone());
        // Strike first where a look got stuck, and look later.
        let is_first = !is_stuck.swap(true, Ordering::Relaxed);
        if is_first { kill.run(FirstSurvey::Done, grace) } else { kill.run(FirstSurvey::Skipped, Duration::ZERO) }
    };
    proc::run(job).await.unwrap_or_else(|error| {
        // No thread is available: kill at least what needs no read of `/proc`.
        tracing::warn!(%error, "cannot look for the processes of the gateway; killing its leader, its group and control group");
        tree.strike(true);
        TreeEnd { survivors: 1, elapsed: clock(), ..TreeEnd::default() }
    })
}

impl Tree {
    /// SIGKILL to what needs no look at `/proc`: the control group, the leader, and its process group. Returns the pid of
    /// the leader if it lived until then.
    fn strike(&self, with_group: bool) -> Option<i32> {
        if let Some(leaf) = &self.leaf
            && let Err(error) = leaf.kill()
        {
            tracing::debug!(%error, "cannot kill the control group at once");
        }
        let lives = |leader: &Arc<Handle>| matches!(leader.has_ended(), Ok(false));
        // Looked at before its group is killed: it may be a zombie right after it.
        let living = self.leader.as_ref().filter(|leader| lives(leader));
        let child = if let Root::Child { pid, .. } = self.root { Some(pid).filter(|_| with_group) } else { None };
        let struck = child.filter(|&pid| kill::is_living_child(pid));
        // Before the leader: it is a zombie then, but no handle of another process.
        let struck = child.filter(|&pid| kill::kill_group_led_by_child(pid).is_ok()).and(struck);
        living.filter(|leader| leader.kill().is_ok()).map(|leader| leader.pid()).or(struck)
    }
}

/// Whether the members are recorded before the first signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstSurvey {
    Done,
    Skipped,
}

/// The kill of one tree, by one worker.
struct TreeKill<E> {
    tree: Tree,
    elapsed: E,
    toll: Toll,
    /// Members that were killed and may not be zombies yet.
    dying: BTreeSet<Name>,
    /// Members that we may not signal.
    refused: BTreeSet<Name>,
    hidden: BTreeMap<i32, Hidden>,
    /// While it lasts, no child of ours is reaped.
    turn: Option<Turn>,
    /// Children of ours that were handled in this turn.
    settled: BTreeSet<i32>,
    /// Groups that were killed through a zombie in this turn.
    groups: BTreeSet<i32>,
    /// Processes that are left.
    strays: BTreeMap<i32, Stat>,
}

impl<E: Fn() -> Duration> TreeKill<E> {
    fn new(tree: Tree, elapsed: E, toll: Toll) -> Self {
        Self {
            tree,
            elapsed,
            toll,
            dying: BTreeSet::new(),
            refused: BTreeSet::new(),
            hidden: BTreeMap::new(),
            turn: None,
            settled: BTreeSet::new(),
            groups: BTreeSet::new(),
            strays: BTreeMap::new(),
        }
    }

    fn run(mut self, survey: FirstSurvey, grace: Duration) -> TreeEnd {
        let (mut empty_scans, mut rounds) = (0, 0);
        self.tree.learn();
        let is_first = survey == FirstSurvey::Done;
        if let Some(end) = is_first.then(|| end_gently(&mut self.tree, &self.toll, grace, &self.elapsed)).flatten() {
            return end;
        }
        self.begin_turn();
        if self.inherits() {
            if survey == FirstSurvey::Done {
                self.survey_family();
            }
            self.kill_members(&[]);
        }
        loop {
            self.begin_turn();
            self.hidden.retain(|&pid, _| is_there(pid));
            self.find_stuck();
            let begun = proc::tick();
            let members = self.scan();
            let left = members.as_deref().unwrap_or_default();
            if proc::is_left_behind() {
                return TreeEnd::default();
            }
            if members.as_ref().is_ok_and(Vec::is_empty) && self.hidden.is_empty() {
                empty_scans += 1;
                if empty_scans >= self.tree.empty_scans_min() {
                    return self.end(&[], 0);
                }
            } else {
                empty_scans = 0;
            }
            // Even if the time is up by now, every member was signalled once.
            if self.is_over(left, rounds) && (rounds > 0 || members.is_err()) {
                if let Err(error) = &members {
                    tracing::warn!(%error, "cannot see what is left of the gateway; raise the limit on open files");
                }
                // If nothing can be seen, something may be left.
                let survivors = members.as_ref().map_or(1, Vec::len);
                return self.end(left, survivors);
            }
            self.tree.note(left, begun);
            self.kill_members(left);
            rounds += 1;
            self.wait();
        }
    }

    fn scan(&mut self) -> io::Result<Vec<TreeMember>> {
        let (members, strays) = self.tree.scan_with_strays()?;
        self.strays = strays.into_iter().map(|stray| (stray.pid, stray)).collect();
        Ok(members)
    }

    /// Whether a signal to this group would reach a process that is left.
    fn has_stray(&self, group: i32) -> bool {
        self.strays.values().any(|stray| stray.group == group)
    }

    fn is_over(&self, left: &[TreeMember], rounds: u32) -> bool {
        let elapsed = (self.elapsed)();
        let is_refused = |member: &TreeMember| self.refused.contains(&name(&member.process));
        let sleeps = |member: &TreeMember| {
            member.process.state == ProcessState::Uninterruptible && self.toll.is_signalled(&member.process)
        };
        let is_any = !left.is_empty() || !self.hidden.is_empty();
        // Whether a hidden one sleeps cannot be seen, unless it is stuck.
        let none_can_die = left.iter().all(|member| is_refused(member) || sleeps(member));
        let may_die = |hidden: &Hidden| matches!(hidden, Hidden::Killed | Hidden::Stuck);
        let none_may_be_signalled = left.iter().all(is_refused) && !self.hidden.values().any(may_die);
        elapsed >= TIME_MAX
            || is_any && none_can_die && elapsed >= ASLEEP_TIME_MAX
            || is_any && none_may_be_signalled && rounds >= REFUSED_ROUNDS
    }

    /// Ends the turn before, so that zombies are reaped. What was known of our children may be true of others by now.
    fn begin_turn(&mut self) {
        self.settled.clear();
        self.groups.clear();
        self.turn = None;
        self.turn = Some(Turn::begin());
    }

    /// Records the members that the first signals will kill, before they do: many die with their group, unseen. Short,
    /// because a fork bomb uses the time.
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
                if shown.is_recorded_only() { self.tree.judge_all(&process, inherited) } else { shown.and(inherited) };
            if !leaf.contains(&pid) && !evidence.is_none() && self.tree.is_in_foreign_unit(pid) {
                self.strays.insert(pid, process);
                continue;
            }
            if evidence.is_none() || process.is_dead() || parents.insert(pid, evidence).is_some() {
                continue;
            }
            members.push(TreeMember { process, evidence });
            pids.extend(proc::children_of(pid).unwrap_or_default());
        }
        for member in &members {
            self.toll.note(member, self.tree.number());
        }
        self.tree.note(&members, begun);
    }

    /// SIGKILL to all of these, and to what they start in the meantime.
    fn kill_members(&mut self, members: &[TreeMember]) {
        for member in members {
            self.toll.note(member, self.tree.number());
        }
        // Whether `/proc` shows them or not.
        let with_group = self.tree.number().is_none_or(|group| !self.has_stray(group));
        if let Some(leader) = self.tree.strike(with_group) {
            self.toll.note_hidden(leader, false);
        }
        // Finds most members quickly, before the others fork more. The scan that follows reports an error.
        let _seen_by_the_scan = self.kill_family();
        let strays = members.iter().filter(|member| !self.toll.is_signalled(&member.process));
        let targets = strays.filter_map(|member| self.acquire(member)).collect();
        self.kill_all(targets);
    }

    /// Takes hold of a member that a scan has seen. A child of ours needs no handle.
    fn acquire(&self, member: &TreeMember) -> Option<KillTarget> {
        let pid = member.process.pid;
        if self.inherits() && member.process.parent == me() {
            return self.child(pid);
        }
        self.tree.hold(pid, |process| self.tree.parentage(process)).map(KillTarget::Other)
    }

    /// A living child of ours that is a member, judged by what is read now.
    fn child(&self, pid: i32) -> Option<KillTarget> {
        let process = proc::stat(pid).ok().filter(|process| !process.is_dead() && process.parent == me())?;
        self.judge_child(process).map(KillTarget::Child)
    }

    fn judge_child(&self, process: Stat) -> Option<TreeMember> {
        let evidence = self.tree.judge_all(&process, Evidence::default());
        (!evidence.is_none()).then_some(TreeMember { process, evidence })
    }

    /// Kills them and all that is found below them. Returns how many were new; `None` if the turn is over before the end:
    /// what is left is found again.
    fn kill_all(&mut self, mut targets: VecDeque<KillTarget>) -> Option<usize> {
        let (begun, mut new) = ((self.elapsed)(), 0);
        while let Some(target) = targets.pop_front() {
            let member = target.member();
            self.toll.note(&member, self.tree.number());
            new += usize::from(self.mark_signalled(&member.process));
            // Orphans that cannot be told from others have to be held before they are orphans.
            if self.tree.empty_scans_min() > 1 {
                self.add_children(&target, &mut targets);
            }
            if !self.has_stray(member.process.group) {
                target.kill_group();
            }
            match target.kill() {
                Sent::Delivered => self.add_children(&target, &mut targets),
                Sent::Missed => {}
                Sent::Refused => {
                    self.dying.remove(&name(&member.process));
                    self.refused.insert(name(&member.process));
                    self.add_children(&target, &mut targets);
                }
            }
            if (self.elapsed)().saturating_sub(begun) > TURN_TIME_MAX {
                return None;
            }
        }
        Some(new)
    }

    /// Adds the children of a target that were not killed before.
    fn add_children(&self, parent: &KillTarget, targets: &mut VecDeque<KillTarget>) {
        let TreeMember { process, evidence } = parent.member();
        for pid in proc::children_of(process.pid).unwrap_or_default() {
            let is_still_its_parent = |child: &Stat| child.parent == process.pid && parent.is_there();
            let parentage = |child: &Stat| {
                if is_still_its_parent(child) { evidence.inherited() } else { Evidence::default() }
            };
            let is_queued = |target: &KillTarget| target.member().process.pid == pid;
            if !targets.iter().any(is_queued)
                && let Some(held) = self.tree.hold(pid, parentage)
                && !self.toll.is_signalled(&held.member.process)
            {
                targets.push_back(KillTarget::Other(held));
            }
        }
    }

    /// The inner loop. Returns whether it completed.
    fn kill_family(&mut self) -> io::Result<bool> {
        if !self.inherits() {
            return Ok(true);
        }
        for _ in 0..PASSES_MAX {
            let mut targets = VecDeque::new();
            for pid in proc::children()? {
                if !self.settled.contains(&pid) {
                    targets.extend(self.inspect_child(pid)?);
                }
            }
            match self.kill_all(targets) {
                Some(0) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// A child of ours that was not handled in this turn.
    fn inspect_child(&mut self, pid: i32) -> io::Result<Option<KillTarget>> {
        let process = match proc::stat(pid) {
            Ok(process) => process,
            Err(error) if is_unseen(&error) => {
                self.kill_hidden(pid);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let member = self.judge_child(process);
        if process.is_dead() {
            self.settled.insert(pid);
            // It cannot leave its group any more, and is not reaped now: the number is that group's for certain.
            if member.is_some_and(|member| member.evidence.is_born())
                && !self.has_stray(process.group)
                && self.groups.insert(process.group)
            {
                let _one_by_one = kill::kill_group_of_child(pid);
            }
            return Ok(None);
        }
        // A stray is looked at once in a turn, too.
        if member.is_some() || self.strays.contains_key(&pid) {
            self.settled.insert(pid);
        }
        Ok(member.map(KillTarget::Child))
    }

    /// A child that cannot be inspected: it is killed if it can only belong to this tree.
    fn kill_hidden(&mut self, pid: i32) {
        if proc::is_left_behind() || !kill::is_living_child(pid) || self.tree.is_elsewhere(pid) {
            return;
        }
        self.settled.insert(pid);
        let Root::Child { pid: leader, orphans } = self.tree.root else { return };
        let is_proven = pid == leader
            || !self.tree.judge_orphan(pid, orphans).is_none()
            || self.tree.leaf.is_some() && self.tree.leaf_members().contains(&pid);
        if !is_proven {
            self.hidden.insert(pid, Hidden::Unknown);
            return;
        }
        let hidden = match sent(pid, kill::kill_child(pid)) {
            Sent::Refused => Hidden::Refused,
            Sent::Delivered | Sent::Missed if proc::is_stuck(pid) => Hidden::Stuck,
            Sent::Delivered | Sent::Missed => Hidden::Killed,
        };
        self.hidden.insert(pid, hidden);
        self.toll.note_hidden(pid, pid != leader);
    }

    /// Members of the control group with stuck reads: its kill has reached them, and no scan shows them.
    fn find_stuck(&mut self) {
        for pid in self.tree.leaf_members().into_iter().filter(|&pid| proc::is_stuck(pid)) {
            if self.hidden.insert(pid, Hidden::Stuck).is_none() {
                self.toll.note_hidden(pid, Some(pid) != self.tree.number());
            }
        }
    }

    /// Kills every new descendant until the killed ones are dead, or the next full scan is due.
    #[expect(clippy::disallowed_methods, reason = "it runs on a worker")]
    fn wait(&mut self) {
        for pause in PAUSES_MS {
            loop {
                self.begin_turn();
                match self.kill_family() {
                    Ok(true) => break,
                    Ok(false) if (self.elapsed)() < TIME_MAX && !proc::is_left_behind() => {}
                    // The scan of all processes will show it.
                    Ok(false) | Err(_) => return,
                }
            }
            self.dying.retain(|&(pid, start_time)| {
                proc::stat(pid).is_ok_and(|process| process.start_time == start_time && !process.is_dead())
            });
            self.hidden.retain(|&pid, _| is_there(pid));
            let may_die = |hidden: &Hidden| matches!(hidden, Hidden::Killed | Hidden::Stuck);
            if self.dying.is_empty() && !self.hidden.values().any(may_die) {
                return;
            }
            self.turn = None;
            thread::sleep(Duration::from_millis(pause));
        }
    }

    /// Whether the orphans of this tree come to us.
    fn inherits(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self.tree.root, Root::Child { .. })
    }

    /// Returns whether that is new.
    fn mark_signalled(&mut self, process: &Stat) -> bool {
        self.dying.insert(name(process));
        self.toll.mark_signalled(process)
    }

    fn end(&self, left: &[TreeMember], survivors: usize) -> TreeEnd {
        TreeEnd {
            survivors: count(survivors + self.hidden.len()),
            elapsed: (self.elapsed)(),
            left: self.describe(left).take(NAMED_MAX).collect(),
            strays: self.strays.keys().take(NAMED_MAX).map(|&pid| units::describe(pid)).collect(),
            ..self.toll.report(self.tree.number())
        }
    }

    /// The survivors, and why they survived: what the kernel says that they are doing.
    fn describe(&self, left: &[TreeMember]) -> impl Iterator<Item = String> {
        let seen = left.iter().map(|member| toll::survivor(member, self.refused.contains(&name(&member.process))));
        let hidden = self.hidden.iter().map(|(pid, hidden)| match hidden {
            Hidden::Killed | Hidden::Unknown => format!("{pid} (hidden)"),
            Hidden::Stuck => format!("{pid} (in an uninterruptible sleep; reads of /proc/{pid} block)"),
            Hidden::Refused => format!("{pid} (hidden, not permitted)"),
        });
        seen.chain(hidden)
    }
}

/// Whether a hidden process lives.
fn is_there(pid: i32) -> bool {
    kill::is_living_child(pid) || proc::is_stuck(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Layer;
    use std::cell::Cell;

    #[test]
    fn a_kill_that_finds_no_end_makes_room_for_the_reaper() {
        let calls = Cell::new(0);
        let elapsed = || {
            calls.set(calls.get() + 1);
            Duration::from_millis(calls.get())
        };
        let mut kill = TreeKill::new(Tree::orphaned(None, "A=1".to_owned(), &[]), elapsed, Toll::default());
        let gone = |number| {
            let pid = i32::MAX - number;
            let process = Stat { pid, state: ProcessState::Other, parent: 1, group: pid, session: pid, start_time: 1 };
            KillTarget::Child(TreeMember { process, evidence: Evidence::of(Layer::Instance) })
        };
        assert_eq!(kill.kill_all((0..10).map(gone).collect()), Some(10));
        assert_eq!(kill.kill_all((0..10_000).map(gone).collect()), None);
        assert!(calls.get() < 1000, "{}", calls.get());
    }
}
