//! What a later supervisor learns of earlier gateways.

use crate::kit::{NOW, Running, Scene, acquired, quick};
use openclaw_supervise::core::restart_policy::{Cause, Run};
use openclaw_supervise::core::{
    ExitStatus, Fact, LeaseRequest, LeftRecord, Moment, PastRun, Settled, TreeRecord, Unfinished,
};
use openclaw_supervise::store::Clocks;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Clocks that the test sets, in milliseconds.
#[derive(Default)]
struct Hands {
    wall: Arc<AtomicI64>,
    boot: Arc<AtomicI64>,
}

impl Hands {
    fn clocks(&self) -> Clocks {
        let (wall, boot) = (Arc::clone(&self.wall), Arc::clone(&self.boot));
        Clocks {
            wall: Arc::new(move || 1_800_000_000_000 + wall.load(Ordering::Relaxed)),
            boot: Arc::new(move || boot.load(Ordering::Relaxed)),
            ..Clocks::system()
        }
    }

    fn go(&self, seconds: i64) {
        self.wall.fetch_add(seconds * 1000, Ordering::Relaxed);
        self.boot.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn start(&self, scene: &Scene) -> Running {
        Running::start(scene.place.clone(), self.clocks(), quick())
    }
}

fn settled(started: Moment, ended: Moment) -> Fact {
    let run = Run { started: Some(started), healthy_until: ended, ended, clean: false };
    Fact::Settled(Settled::Ran(run, Cause::Failed))
}

#[test]
fn the_gateway_of_a_killed_supervisor_is_found_and_settled_ones_keep_their_age() {
    let (scene, hands) = (Scene::new(), Hands::default());
    let mut first = hands.start(&scene);
    first.acquire();
    first.intended(1);
    first.store().spawned(1, 400, 4000);
    first.store().remember(1, Fact::Started, NOW);
    hands.go(60);
    first.store().remember(1, Fact::Died(ExitStatus::Code(3)), NOW + s(60));
    first.store().remember(1, settled(NOW, NOW + s(60)), NOW + s(60));
    first.intended(2);
    first.store().spawned(2, 500, 5000);
    first.store().remember(2, Fact::Started, NOW + s(60));
    hands.go(120);
    first.store().remember(2, Fact::Stable, NOW + s(180));
    let tree = TreeRecord { members: vec![(500, 5000), (501, 5001)], uid: Some(502), ..TreeRecord::default() };
    first.store().tree(2, tree.clone());
    first.sync();
    first.crash();
    // The wall clock is set by years, in both directions.
    for step in [-100_000_000_000, 300_000_000_000] {
        hands.wall.fetch_add(step, Ordering::Relaxed);
        hands.go(10);
        let mut next = hands.start(&scene);
        let (answer, left) = next.ask(LeaseRequest::Take { unchanged: None }, s(50_000));
        let past = acquired(answer).past;
        let since = hands.boot.load(Ordering::Relaxed).cast_unsigned() / 1000;
        let at = |seconds: u64| s(50_000 - since + seconds);
        let run = Run { started: Some(at(0)), healthy_until: at(60), ended: at(60), clean: false };
        assert_eq!(
            past.runs,
            [PastRun { spawned: at(0), settled: Settled::Ran(run, Cause::Failed), death: ExitStatus::Code(3) }]
        );
        assert_eq!(past.generation, 2);
        let expected = Unfinished {
            generation: 2,
            spawned: at(60),
            started: Some(at(60)),
            healthy_until: Some(at(180)),
            died: None,
        };
        assert_eq!(past.left, Some(expected));
        let expected = LeftRecord {
            generation: 2,
            instance: "instance-2".to_owned(),
            pid: Some(500),
            start_time: Some(5000),
            has_our_pids: true,
            is_elsewhere: false,
            command: Some("openclaw gateway".to_owned()),
            tree: tree.clone(),
        };
        assert_eq!(left, Some(expected));
        next.crash();
    }
}

#[test]
fn a_late_planned_exit_changes_the_cause_and_keeps_the_rest_of_the_record() {
    let (scene, hands) = (Scene::new(), Hands::default());
    let mut first = hands.start(&scene);
    first.acquire();
    for generation in 1..=12 {
        first.intended(generation);
        first.store().spawned(generation, 400, 4000);
        first.store().remember(generation, Fact::Started, NOW);
        first.store().remember(generation, Fact::Died(ExitStatus::Code(0)), NOW);
        first.store().remember(generation, settled(NOW, NOW), NOW);
        first.sync();
    }
    first.intended(13);
    first.sync();
    // The first one has left the buffer, and must not be written again.
    for generation in [1, 6, 12] {
        first.store().remember(generation, Fact::Planned, NOW);
    }
    first.sync();
    first.crash();
    let mut next = hands.start(&scene);
    let past = next.acquire().past;
    assert_eq!((past.generation, past.left.map(|left| left.generation), past.runs.len()), (13, Some(13), 12));
    for (number, run) in (1..).zip(past.runs) {
        let is_planned = [6, 12].contains(&number);
        let Settled::Ran(run, cause) = run.settled else { panic!("{run:?}") };
        let expected = if is_planned { Cause::Asked } else { Cause::Failed };
        assert_eq!((cause, run.clean, run.started.is_some()), (expected, is_planned, true), "{number}");
    }
}

#[test]
fn an_adopted_gateway_continues_its_record() {
    let (scene, hands) = (Scene::new(), Hands::default());
    let mut first = hands.start(&scene);
    first.acquire();
    first.intended(1);
    first.crash();
    let mut second = hands.start(&scene);
    let (answer, left) = second.ask(LeaseRequest::Take { unchanged: None }, NOW);
    assert_eq!(acquired(answer).past.left.unwrap().started, None);
    assert_eq!(left.unwrap().pid, None, "killed between the intent and the record of the spawn");
    second.store().adopted(1, 600, 6000);
    second.store().remember(1, Fact::Started, NOW);
    hands.go(5);
    second.store().remember(1, settled(NOW, NOW + s(5)), NOW + s(5));
    second.sync();
    let record = scene.reader().youngest().unwrap().unwrap();
    assert_eq!((record.generation, &*record.instance, record.pid), (1, "instance-1", Some(600)));
    assert!(matches!(record.settled, Some((Settled::Ran(false, Cause::Failed), _))));
    drop(second.server.take());
    assert!(second.close(true));
    let past = hands.start(&scene).acquire().past;
    assert_eq!((past.left, past.runs.len(), past.generation), (None, 1, 1));
    assert_eq!(scene.reader().past(NOW).unwrap().runs.len(), 1);
}

#[test]
fn a_successor_is_on_record_with_the_id_of_its_predecessor_from_the_moment_at_which_that_one_is_settled() {
    let (scene, hands) = (Scene::new(), Hands::default());
    let mut first = hands.start(&scene);
    first.acquire();
    first.intended(1);
    first.store().spawned(1, 400, 4000);
    let members = vec![(400, 4000), (401, 4001)];
    first.store().tree(1, TreeRecord { members, uid: Some(5), ..TreeRecord::default() });
    first.store().remember(1, Fact::Started, NOW);
    hands.go(5);
    first.store().remember(1, Fact::Died(ExitStatus::Code(0)), NOW + s(5));
    let run = Run { started: Some(NOW), healthy_until: NOW + s(5), ended: NOW + s(5), clean: true };
    first.store().remember(1, Fact::Succeeded(run), NOW + s(5));
    first.sync();
    first.crash();
    let mut second = hands.start(&scene);
    let (answer, left) = second.ask(LeaseRequest::Take { unchanged: None }, NOW + s(6));
    let past = acquired(answer).past;
    assert!(matches!(past.runs[..], [PastRun { settled: Settled::Ran(_, Cause::Asked), .. }]), "{past:?}");
    assert_eq!(past.left.map(|left| (left.generation, left.started, left.died)), Some((2, None, None)));
    let left = left.expect("what leads to it");
    assert_eq!((&*left.instance, left.pid, left.tree.uid), ("instance-1", None, Some(5)));
    assert_eq!((left.has_our_pids, left.tree.members), (true, vec![(400, 4000), (401, 4001)]));
}

#[test]
fn a_gateway_that_never_started_is_settled() {
    let scene = Scene::new();
    let mut store = scene.owner();
    store.intended(1);
    store.store().remember(1, Fact::Settled(Settled::NeverStarted), NOW);
    store.sync();
    store.crash();
    let past = scene.start().acquire().past;
    assert_eq!((past.left, past.runs[0].settled), (None, Settled::NeverStarted));
}

#[test]
fn events_before_the_lease_are_kept_and_readable_while_the_owner_runs() {
    let scene = Scene::new();
    let mut store = scene.start();
    store.report("supervisor.started");
    store.acquire();
    store.report("lease.acquired");
    store.store().report(7, "gateway.spawned", Some(1), "{\"pid\":3}".to_owned());
    store.sync();
    let reader = scene.reader();
    let names =
        |rows: Vec<openclaw_supervise::store::EventRow>| -> Vec<_> { rows.into_iter().map(|row| row.name).collect() };
    assert_eq!(names(reader.events_last(9).unwrap()), ["supervisor.started", "lease.acquired", "gateway.spawned"]);
    let last = reader.events_last(1).unwrap().remove(0);
    assert_eq!((last.at_ms, last.generation, &*last.fields), (7, Some(1), "{\"pid\":3}"));
    store.report("gateway.started");
    store.sync();
    assert_eq!(names(reader.events_after(last.id, 9).unwrap()), ["gateway.started"]);
}

#[test]
fn old_events_are_pruned_at_the_next_start_and_during_a_flood() {
    let (scene, hands) = (Scene::new(), Hands::default());
    let mut store = hands.start(&scene);
    store.acquire();
    // One a day, the last of them a month ago.
    let old = |number: i64| hands.clocks().now().wall_ms - (340 - number) * 24 * 3_600_000;
    let count = || scene.reader().events_last(u32::MAX).unwrap().len();
    // One at a time, so that they are not in one transaction.
    let mut counts = Vec::new();
    for number in 0..300 {
        store.store().report(old(number), "a.b", None, "{}".to_owned());
        store.sync();
        counts.push(count());
    }
    assert_eq!(counts.iter().max(), Some(&256));
    assert!(counts[299] < 80, "{counts:?}");
    for number in 300..309 {
        store.store().report(old(number), "a.b", None, "{}".to_owned());
    }
    drop(store.server.take());
    assert!(store.close(true));
    assert!(count() > 50);
    let mut store = hands.start(&scene);
    store.acquire();
    store.report("c.d");
    store.sync();
    assert!(count() <= 31, "{}", count());
}

/// The clocks of a machine at its next boot.
#[test]
fn a_clock_that_is_or_was_wrong_makes_no_crash_count_for_ever() {
    let day = 24 * 3_600_000;
    for (name, at_the_crash, at_the_boot, counts) in [
        ("right at both", 0, 60_000, true),
        ("in 2036 at the crash", 9 * 365 * day, 60_000, false),
        ("in 1970 at the boot", 0, -1_799_999_990_000, false),
        ("at the last shutdown, which was before the crash", 0, -3_600_000, false),
        ("in 1970 at the crash", -1_799_999_990_000, 60_000, false),
    ] {
        let (scene, hands) = (Scene::new(), Hands::default());
        let boot = |id: &str| Clocks { boot_id: Some(id.to_owned()), ..hands.clocks() };
        hands.wall.store(at_the_crash, Ordering::Relaxed);
        let mut first = Running::start(scene.place.clone(), boot("first"), quick());
        first.acquire();
        first.intended(1);
        first.store().remember(1, settled(NOW, NOW + s(1)), NOW);
        first.intended(2);
        first.store().remember(2, Fact::Started, NOW);
        first.sync();
        first.crash();
        hands.wall.store(at_the_boot, Ordering::Relaxed);
        hands.boot.store(0, Ordering::Relaxed);
        // Each supervisor of this boot finds the same.
        for minute in 0..3 {
            let mut next = Running::start(scene.place.clone(), boot("second"), quick());
            let past = next.acquire().past;
            next.crash();
            assert_eq!((past.generation, past.runs.len()), (2, usize::from(counts)), "{name}");
            let age = NOW.checked_sub(past.left.unwrap().started.unwrap()).unwrap();
            let expected = s(60 * minute + 60);
            assert!(if counts { age == expected } else { age > s(7 * 24 * 3600) }, "{name}: {age:?}");
            hands.go(60);
        }
    }
}
