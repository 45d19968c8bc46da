//! On a file system with unreliable locks only the row distinguishes owners.

use crate::kit::{NOW, Running, Scene, acquired, me, quick};
use openclaw_supervise::core::lease::{CONFIRMED_FOR, DOUBTED_FOR};
use openclaw_supervise::core::{Contested, LeaseAnswer, LeaseRequest};
use openclaw_supervise::store::{Clocks, Limits, News};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Writes an owner on another host into the row.
const REMOTE_OWNER: &str = "UPDATE state_leases SET owner = 'stranger', pid = 4321, boot_id = 'elsewhere', host = 'far', \
                        beat = 7, released_at = NULL";

fn scene_with_remote_owner() -> Scene {
    let scene = Scene::with_heartbeat();
    assert!(scene.owner().close(true));
    scene.sql().execute_batch(REMOTE_OWNER).unwrap();
    scene
}

fn take(store: &mut Running, unchanged: u64) -> LeaseAnswer {
    store.ask(LeaseRequest::Take { unchanged: Some(unchanged) }, NOW).0
}

#[test]
fn a_remote_owner_is_dead_after_its_counter_has_been_still() {
    let scene = scene_with_remote_owner();
    let mut store = scene.start();
    for answer in [store.take(), take(&mut store, 6)] {
        let LeaseAnswer::Unclear { beat: 7, owner: Some(owner) } = answer else { panic!("{answer:?}") };
        assert_eq!((owner.pid, &*owner.command), (4321, "a supervisor on host far"));
    }
    let answer = acquired(take(&mut store, 7));
    let recovered = answer.recovered.unwrap();
    assert_eq!((answer.epoch, recovered.pid), (2, Some(4321)));
    assert!(recovered.why.contains("heartbeat"), "{recovered:?}");
}

#[test]
fn an_unreadable_owner_is_dead_after_that_time_too() {
    let scene = scene_with_remote_owner();
    scene.sql().execute_batch("UPDATE state_leases SET owner = NULL, pid = 'x', beat = 'y', host = NULL").unwrap();
    let mut store = scene.start();
    assert_eq!(store.take(), LeaseAnswer::Unclear { beat: 0, owner: None });
    assert_eq!(acquired(take(&mut store, 0)).recovered.unwrap().pid, None);
}

#[test]
fn a_recycled_pid_is_recognised_by_its_start_time() {
    let scene = Scene::with_heartbeat();
    scene.owner().crash();
    scene.sql().execute_batch("UPDATE state_leases SET owner = 'before', start_time = start_time - 1").unwrap();
    let recovered = scene.start().acquire().recovered.unwrap();
    assert_eq!((recovered.pid, &*recovered.why), (Some(me()), "its pid belongs to another process now"));
}

#[test]
fn a_live_owner_on_this_machine_is_seen_without_its_lock() {
    let scene = Scene::with_heartbeat();
    let owner = scene.owner();
    std::fs::remove_file(scene.file("lease.lock")).unwrap();
    let mut place = scene.place.clone();
    place.port = 1;
    let answer = Running::start(place, Clocks::system(), quick()).take();
    assert!(
        matches!(answer, LeaseAnswer::Contended { owner: Some(holder), what: Contested::Lease } if holder.pid == me())
    );
    drop(owner);
}

#[test]
fn a_look_at_a_remote_owner_yields_its_counter() {
    let scene = scene_with_remote_owner();
    let mut store = scene.start();
    for beat in [7, 7, 8] {
        scene.sql().execute("UPDATE state_leases SET beat = ?1", [beat]).unwrap();
        let answer = store.ask(LeaseRequest::Peek, NOW).0;
        assert!(
            matches!(answer, LeaseAnswer::Unclear { beat: seen, .. } if i64::try_from(seen) == Ok(beat)),
            "{answer:?}"
        );
    }
}

#[test]
fn an_owner_increments_its_counter_and_notices_a_takeover() {
    let scene = Scene::with_heartbeat();
    let limits = Limits { beat: Duration::from_millis(20), wait: Duration::from_secs(5), ..quick() };
    let mut store = Running::start(scene.place.clone(), Clocks::system(), limits);
    store.acquire();
    let sql = scene.sql();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    let beat = || sql.query_row("SELECT beat FROM state_leases", [], |row| row.get::<_, i64>(0)).unwrap();
    let seen = (0..100_000).find(|_| beat() >= 3);
    assert!(seen.is_some(), "it goes on by itself");
    sql.execute_batch(REMOTE_OWNER).unwrap();
    let (owner, why) = store.lost();
    assert_eq!(owner.unwrap().pid, 4321);
    assert_eq!(why, "the lease record names another owner");
    store.intend(1);
    // The next answer is that of the confirmation: an intent gets none after the loss.
    assert!(matches!(store.peek(), LeaseAnswer::Contended { .. }));
    assert!(!store.close(true), "what is lost cannot be given back");
    let row = scene.reader().lease().unwrap().unwrap().row;
    assert_eq!((row.identity.owner.as_deref(), row.released, row.beat), (Some("stranger"), false, 7));
}

#[test]
fn a_lost_lease_is_noticed_before_a_spawn_and_on_confirmation() {
    for ask in [|store: &Running| store.intend(1), |store: &Running| store.store().confirm(5)] {
        let scene = Scene::with_heartbeat();
        let mut store = scene.owner();
        store.store().confirm(4);
        assert!(matches!(store.next(), News::Confirmed { ticket: 4 }));
        scene.sql().execute_batch(REMOTE_OWNER).unwrap();
        ask(&store);
        assert_eq!(store.lost().0.unwrap().command, "a supervisor on host far");
        assert_eq!(scene.reader().youngest().unwrap(), None, "nothing was written");
    }
}

#[test]
fn without_a_usable_record_there_is_no_lease() {
    let scene = Scene::with_heartbeat();
    assert!(scene.owner().close(true));
    let other = scene.sql();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut store = scene.start();
    let LeaseAnswer::Failed(why) = store.take() else { panic!("a refusal") };
    assert!(why.starts_with("locks are unreliable") && why.contains("locked"), "{why}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.acquire().epoch, 2);
}

#[test]
fn the_gateway_of_an_owner_that_was_remote_may_go_on_where_it_cannot_be_seen() {
    for (owner, boot, is_elsewhere) in [("stranger", "elsewhere", true), ("us", "as it was", false)] {
        let scene = Scene::with_heartbeat();
        let mut store = scene.owner();
        store.intended(1);
        store.store().spawned(1, 90, 900);
        store.sync();
        drop(store.server.take());
        store.crash();
        if owner == "stranger" {
            let gateway = format!("UPDATE generations SET owner = '{owner}', boot_id = '{boot}'");
            scene.sql().execute_batch(&format!("{REMOTE_OWNER}; {gateway}")).unwrap();
        } else {
            scene.sql().execute_batch("UPDATE state_leases SET start_time = start_time - 1").unwrap();
        }
        let mut next = scene.start();
        let (answer, left) = next.ask(LeaseRequest::Take { unchanged: Some(7) }, NOW);
        acquired(answer);
        assert_eq!(left.map(|left| (left.pid, left.is_elsewhere)), Some((Some(90), is_elsewhere)), "{owner}");
    }
}

#[test]
fn an_owner_that_was_away_answers_and_releases_nothing_before_it_has_looked_at_its_row_again() {
    for releases in [true, false] {
        let scene = Scene::with_heartbeat();
        let boot = Arc::new(AtomicI64::new(1_000_000));
        let read = Arc::clone(&boot);
        let clocks = Clocks { boot: Arc::new(move || read.load(Ordering::Relaxed)), ..Clocks::system() };
        let later = |by: Duration| boot.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
        let mut store = Running::start(scene.place.clone(), clocks, quick());
        store.acquire();
        let taken = store.store().confirmed();
        assert_eq!(taken, Some(Duration::from_secs(1000)));
        later(CONFIRMED_FOR);
        store.store().confirm(1);
        // It comes in between.
        assert!(matches!(store.peek(), LeaseAnswer::Contended { .. }));
        assert_eq!(store.store().confirmed(), taken, "its row may be that of another");
        // The look for our files is due as well, and comes after the write.
        if store.moves == 0 {
            store.wait_moved();
        }
        if releases {
            assert!(!store.close(true));
            assert!(!scene.reader().lease().unwrap().unwrap().row.released);
            continue;
        }
        // The answer comes after that look, so the doubt has begun.
        store.peek();
        later(DOUBTED_FOR);
        store.report("a.b");
        assert!(matches!(store.next(), News::Confirmed { ticket: 1 }));
        assert_eq!(store.store().confirmed(), Some(Duration::from_secs(1000) + CONFIRMED_FOR + DOUBTED_FOR));
        assert!(store.close(true));
    }
}

/// Where locks do not reach other machines, a write that had hung may overwrite the row of the next owner.
#[test]
fn the_late_write_of_an_earlier_owner_does_not_depose_the_next_one() {
    let scene = Scene::with_heartbeat();
    assert!(scene.owner().close(true));
    let mut store = scene.owner();
    let row = || scene.reader().lease().unwrap().unwrap().row;
    let ours = row();
    scene.sql().execute_batch(&format!("{REMOTE_OWNER}, epoch = epoch - 1")).unwrap();
    store.sync();
    let now = row();
    assert_eq!((now.identity.owner, now.epoch, now.released), (ours.identity.owner, 2, false));
    assert!(now.beat > 7, "its observers see the counter go on");
}
