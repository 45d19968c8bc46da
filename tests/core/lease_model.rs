//! Every order in which two supervisors can take the steps of the lease, with kills, pauses, broken stores and replaced
//! folders between any two of them: `core::lease::rule` decides, the rest of the protocol is `lease_model/protocol.rs`.
//!
//! A pause is time that passes while a supervisor takes no step, so every step may come late by any amount. What is
//! checked in each reachable state: one owner where a lock can be trusted; elsewhere no spawn by one who lost the lease;
//! epochs that increase; no recovery of a released lease; one gateway. And from each of them, once
//! nothing interferes any more, a waiting supervisor gets the lease or sees another one get it.
//!
//! `STORIES=1 cargo test --test lease_model` tells the shortest way to each planted mistake.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../lease_model/gateways.rs"]
mod gateways;
#[path = "../lease_model/plant.rs"]
mod plant;
#[path = "../lease_model/protocol.rs"]
mod protocol;
#[path = "../lease_model/search.rs"]
mod search;
#[path = "../lease_model/world.rs"]
mod world;

use gateways::{Heartbeat, Mistake, OUTLIVES};
use openclaw_supervise_core::lease::Basis;
use plant::{EPOCH, GIVEN_BACK, ITSELF, Plant, REFUSED, STALE, TWO_GATEWAYS, TWO_OWNERS};
use protocol::Protocol;
use search::{STARVED, Violation, explore, settle};
use std::env;
use std::io::{self, Write};
use world::Setting;

const ONE_PLACE: Setting = Setting {
    name: "a trusted lock, one place",
    basis: Basis::Lock,
    other_basis: None,
    one_lock: true,
    one_pid_namespace: true,
    one_net: true,
    gateway_survives: true,
    folder_replaced: true,
    starts: 2,
};

const TWO_CONTAINERS: Setting = Setting {
    name: "a trusted lock, two containers whose PID 1 is the supervisor",
    one_pid_namespace: false,
    one_net: false,
    gateway_survives: false,
    ..ONE_PLACE
};

const TWO_NAMESPACES: Setting = Setting {
    name: "a trusted lock, two containers in which a gateway survives its supervisor",
    gateway_survives: true,
    starts: 2,
    ..TWO_CONTAINERS
};

const TWO_HOSTS: Setting = Setting {
    name: "no trusted lock, two hosts",
    basis: Basis::Heartbeat,
    one_lock: false,
    folder_replaced: false,
    ..TWO_NAMESPACES
};

const ONE_HOST: Setting =
    Setting { name: "no trusted lock, two containers of one host", one_lock: true, starts: 3, ..TWO_HOSTS };

const NO_LOCK: Setting = Setting {
    name: "a lock without effect, one place",
    one_pid_namespace: true,
    one_net: true,
    starts: 3,
    ..TWO_HOSTS
};

const ONE_POD: Setting =
    Setting { name: "a lock without effect, one pid namespace, two networks", one_net: false, ..NO_LOCK };

/// Their locks do not reach each other, nor do they see each other's processes.
const HOST_AND_GUEST: Setting = Setting {
    name: "one folder, a lock on its host and a heartbeat in a virtual machine",
    basis: Basis::Lock,
    other_basis: Some(Basis::Heartbeat),
    ..TWO_HOSTS
};

/// Steps that must have happened somewhere, or the model says nothing about them.
const EVERYWHERE: [&str; 10] = [
    "is killed",
    "takes the lease and does not hear of it",
    "finds its own row",
    "recovers the lease",
    "writes down that it will spawn",
    "records its pid",
    "reaps the gateway",
    "ends the gateway",
    "gives the lease back",
    "drops the lock and exits",
];

const REPLACED: [&str; 3] =
    ["runs a hook that replaces the folder", "takes the lock of the new folder", "finds its lock file replaced"];

fn found(setting: Setting, plant: Plant) -> Option<Violation> {
    let protocol = Protocol { setting, plant: Some(plant) };
    explore(&protocol).and_then(|space| settle(&protocol, &space)).err()
}

/// Writes past the output capture of the test harness.
fn tell(text: &str) {
    if env::var_os("STORIES").is_some() {
        let _closed = writeln!(io::stderr(), "{text}\n");
    }
}

/// The promises hold; `seen` happened, and so much is reachable.
fn holds(setting: Setting, seen: &[&str], states: usize) {
    let protocol = Protocol { setting, plant: None };
    let space = explore(&protocol).unwrap_or_else(|broken| panic!("{}: {}", setting.name, broken.story()));
    let steps = settle(&protocol, &space).unwrap_or_else(|broken| panic!("{}: {}", setting.name, broken.story()));
    tell(&format!("{}: {} states, an owner within {steps} steps", setting.name, space.states.len()));
    for step in seen {
        assert!(space.steps.contains(step), "{}: no supervisor ever {step}", setting.name);
    }
    assert!(space.states.len() > states, "{}: {} states", setting.name, space.states.len());
    assert!((5..=30).contains(&steps), "{}: an owner after {steps} steps", setting.name);
}

#[test]
fn a_trusted_lock_has_one_owner_and_one_gateway_in_one_place() {
    let broken = ["takes the lease without a row: the store is broken", "writes its row late", "is to detach"];
    let seen = [&EVERYWHERE[..], &REPLACED, &broken, &["adopts the gateway", "exits with 78"]].concat();
    holds(ONE_PLACE, &seen, 100_000);
}

#[test]
fn a_trusted_lock_keeps_its_promises_between_containers() {
    let seen = [&EVERYWHERE[..], &REPLACED, &["finds another in the new folder", "exits with 78"]].concat();
    holds(TWO_CONTAINERS, &seen, 50_000);
    holds(TWO_NAMESPACES, &[&seen[..], &["adopts the gateway", "is to detach"]].concat(), 250_000);
}

#[test]
fn without_a_trusted_lock_no_owner_acts_on_a_lease_that_another_host_has_taken() {
    let moved = "sees the counter move and exits with 78";
    let old = ["finds another in the row", "finds its confirmation old", "adopts the gateway"];
    holds(TWO_HOSTS, &[&EVERYWHERE[..], &old, &["notes the counter", "beats", moved]].concat(), 150_000);
}

#[test]
fn without_a_trusted_lock_no_owner_acts_on_a_lease_that_the_same_host_has_taken() {
    let seen = [&EVERYWHERE[..], &["beats", "adopts the gateway", "exits with 78"]].concat();
    holds(ONE_HOST, &[&seen[..], &["notes the counter", "finds the lock held"]].concat(), 100_000);
    holds(NO_LOCK, &[&seen[..], &["finds the port claimed"]].concat(), 90_000);
    holds(ONE_POD, &[&seen[..], &["finds a living owner"]].concat(), 90_000);
}

#[test]
fn supervisors_that_see_the_file_system_differently_never_act_on_a_lease_that_the_other_has_taken() {
    let answers = ["answers", "cannot judge the owner and exits with 78", "sees the counter move and exits with 78"];
    let seen = [&EVERYWHERE[..], &answers, &["beats", "finds another in the row", "adopts the gateway"]].concat();
    holds(HOST_AND_GUEST, &seen, 100_000);
}

#[test]
fn every_planted_mistake_is_found() {
    let mistakes = [
        (Plant::SkipsLock, TWO_CONTAINERS, TWO_OWNERS),
        (Plant::SkipsReread, TWO_HOSTS, EPOCH),
        (Plant::ResetsCounter, TWO_HOSTS, STALE),
        (Plant::BeatsBlindly, TWO_HOSTS, STARVED),
        (Plant::ReleasesBlindly, TWO_HOSTS, STALE),
        (Plant::IntendsBlindly, TWO_HOSTS, STALE),
        (Plant::ConfirmsQuietly, TWO_HOSTS, STALE),
        (Plant::IgnoresClock, TWO_HOSTS, STALE),
        (Plant::SpawnsUnrecorded, TWO_HOSTS, STALE),
        (Plant::ForgetsItself, ONE_PLACE, ITSELF),
        (Plant::ForgetsItself, NO_LOCK, STARVED),
        (Plant::ForgetsRelease, ONE_PLACE, GIVEN_BACK),
        (Plant::WantsPid, ONE_PLACE, TWO_GATEWAYS),
        (Plant::LooksForYoungest, TWO_NAMESPACES, TWO_GATEWAYS),
        (Plant::PeeksByLocking, ONE_PLACE, REFUSED),
        (Plant::TrustsFolder, TWO_CONTAINERS, TWO_OWNERS),
        (Plant::LockJudgesAll, HOST_AND_GUEST, STALE),
        (Plant::SilenceJudgesAll, HOST_AND_GUEST, TWO_OWNERS),
    ];
    for (plant, setting, what) in mistakes {
        let setting = Setting { starts: 2, ..setting };
        let broken = found(setting, plant).unwrap_or_else(|| panic!("{plant:?} is not found: {}", setting.name));
        tell(&format!("{plant:?}, {}: {}", setting.name, broken.story()));
        assert_eq!(broken.what, what, "{plant:?}, {}:\n{}", setting.name, broken.story());
    }
}

/// Nothing can make a look at the row and a spawn one step. What is left is a supervisor that is held up for 20 s or
/// more exactly between its look at the clock and the act. That no less is enough, the sound protocol shows: it excuses
/// no other case.
#[test]
fn an_owner_acts_late_only_if_it_is_held_up_for_twenty_seconds_before_the_very_act() {
    let broken = found(TWO_HOSTS, Plant::PromisesTooMuch).unwrap();
    tell(&format!("the window: {}", broken.story()));
    assert_eq!(broken.what, STALE);
    let looked = broken.path.iter().rposition(|step| step.starts_with("A1 finds its confirmation fresh")).unwrap();
    let waited = broken.path[looked..].iter().filter(|step| step.starts_with("10 s pass")).count();
    assert!(waited >= usize::from(world::WINDOW_BEATS), "{}", broken.story());
    assert!(broken.path.last().unwrap().starts_with("A1 "), "{}", broken.story());
}

/// A lock tells that a supervisor is gone, not that its gateway is: where one container's gateway outlives its supervisor,
/// another container cannot see it.
#[test]
fn a_gateway_that_outlives_its_supervisor_in_another_container_is_doubled() {
    let broken = found(TWO_NAMESPACES, Plant::PromisesTooMuch).unwrap();
    tell(&format!("an unseen gateway: {}", broken.story()));
    assert_eq!(broken.what, TWO_GATEWAYS);
    assert!(found(Setting { starts: 2, ..TWO_CONTAINERS }, Plant::PromisesTooMuch).is_none(), "PID 1 takes it along");
}

/// A suspended or stopped owner kills its gateway when it wakes up, before anything else. In a paused virtual machine no
/// clock tells of the pause: there the store, or 28 s of its own clock, end the second gateway. Nothing but these two can
/// make two of them.
#[test]
fn no_two_gateways_live_unless_the_owner_stood_still_and_then_for_a_bounded_time() {
    let model = Heartbeat { mistake: None };
    let space = explore(&model).unwrap_or_else(|broken| panic!("{}", broken.story()));
    tell(&format!("one gateway: {} states", space.states.len()));
    let seen = [
        "tells its gateway to end: the lease is unconfirmed",
        "kills its gateway",
        "starts a gateway",
        "has its write rejected",
        "hears of the new owner",
        "takes the lease and starts a gateway",
        "wakes up",
        "goes on",
    ];
    for step in seen {
        assert!(space.steps.contains(&step), "nothing ever {step}");
    }
    assert!(space.states.len() > 100_000, "{} states", space.states.len());
}

#[test]
fn every_mistake_about_the_gateway_of_a_heartbeat_is_found() {
    let mistakes = [
        (Mistake::CountsFromReturn, TWO_GATEWAYS),
        (Mistake::AsksStoreThread, OUTLIVES),
        (Mistake::DrainsInFull, OUTLIVES),
        (Mistake::SleepsOver, TWO_GATEWAYS),
        (Mistake::WaitsAfterSleep, OUTLIVES),
        (Mistake::ObservesBriefly, TWO_GATEWAYS),
        (Mistake::StartsUnconfirmed, OUTLIVES),
        (Mistake::KeepsOnLoss, OUTLIVES),
    ];
    for (mistake, what) in mistakes {
        let model = Heartbeat { mistake: Some(mistake) };
        let broken = explore(&model).err().unwrap_or_else(|| panic!("{mistake:?} is not found"));
        tell(&format!("{mistake:?}: {}", broken.story()));
        assert_eq!(broken.what, what, "{mistake:?}:\n{}", broken.story());
    }
}
