//! A gateway that does not answer because it sits in a write to its output, or because it gets no processor.

use crate::world::{STARTED, Script, World, s};
use openclaw_supervise_core::stall::{RETOLD, STARVED_MAX, Stall};
use openclaw_supervise_core::{Depth, Effect, Phase, Report, Verdict};
use std::time::Duration;

const FROZEN: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };
const NEVER_UP: Script = Script { boots_in: Duration::from_secs(1_000_000), ..FROZEN };

fn ended(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Examine { .. } | Effect::Terminate { .. }))
}

/// Whether each reported block names the reader.
fn blocks(world: &World) -> Vec<bool> {
    let told = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::LivenessBlocked { blocked, .. }) => Some(blocked.reader.is_some()),
        _ => None,
    });
    told.collect()
}

/// How many windows are left, as each extension says.
fn left(world: &World) -> Vec<u32> {
    let told = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::LivenessExtended { stall: Stall::Starved { left, .. }, .. }) => Some(*left),
        _ => None,
    });
    told.collect()
}

/// A gateway that serves for 30 s and is silent from then on.
fn silent(change: impl FnOnce(&mut World)) -> (World, Duration) {
    let mut world = World::started(FROZEN);
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    change(&mut world);
    let since = world.now;
    (world, since)
}

#[test]
fn a_blocked_write_is_told_with_its_reader_and_again_each_hour_and_never_ended() {
    let (mut world, since) = silent(|world| world.blocked = true);
    world.run_for(s(64));
    assert_eq!(blocks(&world), [true]);
    let first = world.told("liveness.blocked")[0];
    assert!((since + s(55)..=since + s(65)).contains(&first), "at the end of the window: {first:?}");
    let status = world.core.status(world.now);
    let condition =
        "is alive but blocked: it waits in a write to its stdout (pipe:[7]), which pid 55 (less) does not read";
    assert_eq!(status.sentence(), format!("gateway 1 (pid 101) {condition}"));
    assert_eq!(status.next.why, format!("it {condition}"));
    world.run_for(s(24 * 3600));
    assert_eq!(ended(&world), []);
    let told = world.told("liveness.blocked");
    assert!((23..=26).contains(&told.len()) && told[1] >= told[0] + RETOLD, "{told:?}");
    assert!(blocks(&world).into_iter().all(|named| named));
    (world.blocked, world.port) = (false, None);
    world.run_for(s(20));
    assert_eq!(world.told("liveness.recovered").len(), 1);
    assert_eq!(world.core.status(world.now).sentence(), "gateway 1 (pid 101) is healthy");
}

#[test]
fn the_window_begins_when_the_block_ends() {
    let (mut world, _) = silent(|world| world.blocked = true);
    world.run_for(s(3000));
    world.blocked = false;
    let since = world.now;
    world.run_for(s(59));
    assert_eq!(ended(&world), []);
    world.run_for(s(20));
    let end = ended(&world)[0];
    assert!((since + s(59)..=since + s(76)).contains(&end), "{end:?} {since:?}");
}

#[test]
fn one_that_writes_on_and_never_answers_is_told_once_and_ended_after_so_many_windows() {
    let (mut world, since) = silent(|world| (world.blocked, world.write) = (true, Some(s(1) / 2)));
    world.run_for(s(3600));
    assert_eq!(blocks(&world)[..1], [true]);
    let hung = world.told("gateway.hung")[0];
    let most = since + s(65 + u64::from(STARVED_MAX) * 76);
    assert!(hung > since + s(60 * u64::from(STARVED_MAX + 1) - 10) && hung <= most, "{hung:?}");
}

#[test]
fn one_that_boots_and_writes_on_is_ended_after_so_many_windows() {
    let mut world = World::started(NEVER_UP);
    (world.blocked, world.write) = (true, Some(s(1) / 2));
    world.run_for(s(300 * u64::from(STARVED_MAX)));
    assert_eq!((ended(&world), blocks(&world)), (vec![], vec![true]));
    world.run_for(s(500));
    assert_eq!(world.told("startup.timed_out").len(), 1);
}

#[test]
fn a_signal_now_and_then_does_not_end_the_write_and_an_answer_gives_all_windows_back() {
    let (mut world, _) = silent(|world| (world.blocked, world.write) = (true, Some(s(10))));
    world.run_for(s(24 * 3600));
    assert_eq!(ended(&world), []);
    world.write = Some(s(1) / 2);
    for _ in 0..30 {
        world.run_for(s(300));
        world.port = Some(STARTED);
        world.run_for(s(10));
        world.port = Some(Verdict::Silent);
    }
    assert_eq!(ended(&world), []);
}

#[test]
fn a_block_that_is_seen_beside_good_answers_is_nothing() {
    let (mut world, _) = silent(|world| (world.blocked, world.port) = (true, None));
    world.run_for(s(3600));
    assert_eq!((ended(&world), blocks(&world)), (vec![], vec![]));
}

#[test]
fn a_boot_that_is_blocked_is_told_and_not_ended_and_has_its_time_afterwards() {
    let mut world = World::started(NEVER_UP);
    world.blocked = true;
    world.run_for(s(3600));
    assert_eq!((ended(&world), blocks(&world)), (vec![], vec![true]));
    assert_eq!(world.told("startup.timed_out"), []);
    world.blocked = false;
    let since = world.now;
    world.run_for(s(298));
    assert_eq!(ended(&world), []);
    world.run_for(s(5));
    assert!(world.told("startup.timed_out")[0] >= since + s(298));
}

#[test]
fn a_starved_gateway_has_so_many_windows_and_then_the_ordinary_rule() {
    let (mut world, since) = silent(|world| world.waits = Some(98));
    world.run_for(s(3600));
    assert_eq!(left(&world), (0..STARVED_MAX).rev().collect::<Vec<_>>());
    let hung = world.told("gateway.hung")[0];
    let most = since + s(65 + u64::from(STARVED_MAX) * 76);
    assert!(hung > since + s(60 * u64::from(STARVED_MAX + 1) - 10) && hung <= most, "{hung:?}");
    let evidence = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Examine { case, .. } => case.samples.last().map(|(_, sample)| sample.waited > Some(s(600))),
        _ => None,
    });
    assert_eq!(evidence, Some(true), "what was found goes into the evidence");
}

#[test]
fn a_starved_gateway_that_answers_has_all_its_windows_again() {
    let (mut world, _) = silent(|world| world.waits = Some(98));
    for _ in 0..30 {
        world.port = Some(Verdict::Silent);
        world.run_for(s(300));
        world.port = Some(STARTED);
        world.run_for(s(10));
    }
    assert_eq!(ended(&world), []);
    assert!(left(&world).into_iter().all(|left| left > 3));
}

#[test]
fn half_of_the_time_is_starving_and_less_is_not() {
    for (waits, expected) in [(Some(0), 0), (Some(45), 0), (Some(55), 1), (None, 0)] {
        let (mut world, _) = silent(|world| world.waits = waits);
        world.run_for(s(70));
        assert_eq!((left(&world).len(), ended(&world).is_empty()), (expected, expected == 1), "{waits:?}");
    }
}

#[test]
fn work_counts_before_want_of_a_processor() {
    // A tenth of a processor is enough to answer: what runs in circles on a crowded machine is found as ever.
    for (work, starved, ends) in [(8, 1, 0), (20, 0, 1)] {
        let (mut world, _) = silent(|world| (world.waits, world.work) = (Some(100 - work), Some(work)));
        world.run_for(s(140));
        assert_eq!(world.told("liveness.extended").len() - left(&world).len(), 1, "once for its work");
        assert_eq!((left(&world).len(), world.told("gateway.hung").len()), (starved, ends), "{work}");
    }
}

#[test]
fn a_boot_that_gets_no_processor_has_its_time_again() {
    let mut world = World::started(NEVER_UP);
    world.waits = Some(98);
    world.run_for(s(900));
    assert_eq!((ended(&world), left(&world).len()), (vec![], 2));
    world.port = Some(Verdict::Gateway(Phase::Starting));
    world.run_for(s(310));
    assert_eq!(world.told("startup.timed_out").len(), 1, "one that answers has the limit that the operator set");
}

#[test]
fn a_real_hang_is_found_as_fast_as_before() {
    for verdict in [Verdict::Silent, Verdict::Free, Verdict::Malformed] {
        let (mut world, since) = silent(|world| world.port = Some(verdict));
        world.run_for(s(66));
        let hung = ended(&world)[0];
        assert!((since + s(55)..=since + s(65)).contains(&hung), "{verdict}: {hung:?}");
    }
}

#[test]
fn while_all_is_well_hardly_a_sample_is_taken_and_none_looks_deep() {
    let mut world = World::serving();
    let before = world.effects.len();
    world.run_for(s(3600));
    let depths: Vec<_> = world.effects[before..].iter().filter_map(|(_, effect)| depth_of(effect)).collect();
    assert!((50..=70).contains(&depths.len()), "about one a minute: {}", depths.len());
    assert!(depths.iter().all(|depth| *depth == Depth::Usual));
    world.port = Some(Verdict::Silent);
    let before = world.effects.len();
    world.run_for(s(50));
    assert!(
        world.effects[before..].iter().filter_map(|(_, effect)| depth_of(effect)).any(|depth| depth == Depth::Reader)
    );
}

fn depth_of(effect: &Effect) -> Option<Depth> {
    match effect {
        Effect::Measure { depth, .. } => Some(*depth),
        _ => None,
    }
}

#[test]
fn the_process_that_listens_is_looked_at() {
    let (mut world, _) = silent(|_| {});
    world.run_for(s(30));
    let listeners = world.effects.iter().rev().find_map(|(_, effect)| match effect {
        Effect::Measure { listener, .. } => Some(*listener),
        _ => None,
    });
    assert_eq!(listeners, Some(Some(101)));
}
