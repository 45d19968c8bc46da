//! The members of a tree in lists of processes.

use super::members::{Root, me};
use super::membership::{self, Evidence, TreeMember};
use super::{Orphans, Tree};
use crate::core::Layer;
use crate::platform::proc::{ProcessState, Stat};
use crate::platform::process;
use std::collections::{BTreeMap, BTreeSet};

const LEADER: i32 = 100;

fn stat(pid: i32, parent: i32, group: i32, session: i32, start_time: u64) -> Stat {
    Stat { pid, state: ProcessState::Other, parent, group, session, start_time }
}

fn tree(orphans: Orphans) -> Tree {
    let root = Root::Child { pid: LEADER, orphans };
    Tree { seen: BTreeMap::from([(LEADER, 5)]), ..Tree::of(root, "X=1".to_owned(), 5) }
}

fn members(tree: &Tree, all: &[Stat]) -> Vec<Stat> {
    numbered(tree, all, Some(LEADER))
}

fn numbered(tree: &Tree, all: &[Stat], number: Option<i32>) -> Vec<Stat> {
    membership::processes(tree.divide(all.to_vec(), number, &BTreeSet::new(), |_| false).0)
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
fn a_group_member_without_parents_counts_and_a_foreign_process_does_not() {
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
    zombie.state = ProcessState::Dead;
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
    assert_eq!(pids(&numbered(&adopted, &all, Some(LEADER))), [LEADER, i32::MAX, i32::MAX - 1]);
    assert_eq!(pids(&numbered(&adopted, &all, None)), [LEADER]);
    let gone = Tree { root: Root::Gone { pid: Some(LEADER) }, seen: BTreeMap::new(), ..adopted };
    assert_eq!(numbered(&gone, &all, None), []);
}

#[test]
fn an_inherited_process_is_no_orphan_of_an_adopted_tree() {
    let adopted = Tree { root: Root::Adopted { pid: LEADER, start_time: 5 }, ..tree(Orphans::OursAlone) };
    assert_eq!(members(&adopted, &[stat(i32::MAX, me(), 3, 3, 9)]), []);
}

fn layers(tree: &Tree, all: &[Stat], pid: i32) -> Vec<Layer> {
    let bears_id = |process: &Stat| process.session == ALIEN;
    let members = tree.divide(all.to_vec(), tree.number(), &BTreeSet::from([600]), bears_id).0;
    let shown = members.iter().filter(|member| member.process.pid == pid).map(|member| member.evidence);
    membership::count(&shown.collect::<Vec<_>>()).into_iter().map(|(layer, _)| layer).collect()
}

/// A session in which processes carry the id, in these tests.
const ALIEN: i32 = 900;

#[test]
fn each_layer_alone_shows_a_member_and_all_that_see_one_are_named() {
    let mut tree = tree(Orphans::Mixed);
    tree.seen.insert(700, 8);
    let leader = stat(LEADER, me(), LEADER, LEADER, 5);
    for (process, expected) in [
        (stat(200, 1, 7, 7, 6), &[][..]),
        (stat(600, 1, 7, 7, 6), &[Layer::Cgroup]),
        (stat(200, 1, 7, LEADER, 6), &[Layer::Group]),
        (stat(200, LEADER, 7, 7, 6), &[Layer::Descent]),
        (stat(200, 1, 7, ALIEN, 6), &[Layer::Instance]),
        (stat(700, 1, 7, 7, 8), &[Layer::Record]),
        (stat(700, 1, 7, 7, 9), &[]),
        (stat(700, LEADER, LEADER, LEADER, 8), &[Layer::Group, Layer::Descent, Layer::Record]),
        // No other process is asked for its id.
        (stat(200, LEADER, 7, ALIEN, 6), &[Layer::Descent]),
        (stat(me(), LEADER, LEADER, LEADER, 6), &[]),
    ] {
        assert_eq!(layers(&tree, &[leader, process], process.pid), expected, "{process:?}");
    }
}

#[test]
fn what_descends_from_a_bearer_of_the_id_is_a_member_and_its_session_is_not_ours_to_strike() {
    let all = [stat(210, 200, 8, 8, 7), stat(200, 1, ALIEN, ALIEN, 6)];
    assert_eq!(layers(&tree(Orphans::Mixed), &all, 210), [Layer::Descent]);
    let members =
        tree(Orphans::Mixed).divide(all.to_vec(), Some(LEADER), &BTreeSet::new(), |process| process.pid == 200).0;
    assert!(members.len() == 2 && members.iter().all(|member| !member.evidence.is_born()));
    let all = [stat(LEADER, me(), LEADER, LEADER, 5), stat(200, LEADER, 9, 9, 6), stat(210, 200, 8, 8, 7)];
    let members = tree(Orphans::Mixed).divide(all.to_vec(), Some(LEADER), &BTreeSet::new(), |_| false).0;
    assert!(members.len() == 3 && members.iter().all(|member| member.evidence.is_born()));
}

#[test]
fn a_claimed_child_is_no_member_and_neither_is_what_it_starts() {
    let helper = i32::MAX - 7;
    let all = [stat(helper, me(), 3, 3, 9), stat(300, helper, 3, 3, 9)];
    assert_eq!(members(&tree(Orphans::OursAlone), &all).len(), 2);
    process::claim(helper);
    assert_eq!(members(&tree(Orphans::OursAlone), &all), []);
    process::unclaim(helper);
}

#[test]
fn only_who_is_older_than_the_tick_is_recorded() {
    let mut tree = tree(Orphans::Mixed);
    let member = |pid, start_time| TreeMember {
        process: stat(pid, 1, 7, 7, start_time),
        evidence: Evidence::of(Layer::Instance),
    };
    // Neither is there, so that the young one cannot be held.
    tree.note(&[member(i32::MAX - 1, 41), member(i32::MAX - 2, 42)], 42);
    assert_eq!(tree.seen, BTreeMap::from([(LEADER, 5), (i32::MAX - 1, 41)]));
    assert_eq!(tree.held.len(), 0);
}
