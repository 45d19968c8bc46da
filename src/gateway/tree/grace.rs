//! SIGTERM to the members of a tree, before it is killed.

use super::members::Tree;
use super::spare::Spared;
use super::toll::{Name, Toll, name};
use crate::core::Installers;
use crate::platform::proc::{self, ProcessState};
use std::thread;
use std::time::Duration;

/// More are a storm of forks, which uses the time.
const ASKED_MAX: usize = 256;

/// How many more there may be meanwhile: a member may start others to clean up.
const STARTED_MAX: usize = 16;

/// A SIGTERM that is blocked for so long has no reader: signalfd(2) and sigwait(3) take it at once.
const TAKEN_WITHIN: Duration = Duration::from_millis(50);

/// The pauses before another look at the members, the last one again and again.
const PAUSES_MS: [u64; 5] = [1, 2, 5, 10, 20];

/// How many times the grace of the others an installer gets in a patient kill: npm rolls back on SIGTERM, but unpacks first
/// what it has begun to. All of it is within the time of a kill, `TIME_MAX`.
const INSTALLER_FACTOR: u32 = 7;

/// Sends SIGTERM to all members, but SIGKILL to a leader that still lives: it would start others. Waits until those that do
/// not ignore it have ended, until `elapsed` is `grace` at most, or [`INSTALLER_FACTOR`] times that for an installer. Returns
/// what is left to finish and was sent nothing.
#[expect(clippy::disallowed_methods, reason = "it runs on a worker")]
pub(super) fn ask_to_end(tree: &mut Tree, toll: &Toll, grace: Duration, elapsed: &impl Fn() -> Duration) -> Spared {
    let begun = proc::tick();
    // If nothing can be seen, the kill says so.
    let members = tree.scan().unwrap_or_default();
    if members.len() > ASKED_MAX || proc::is_left_behind() {
        return Spared::default();
    }
    for member in &members {
        toll.note(member, tree.number());
    }
    if let Some(leader) = &tree.leader {
        let _gone = leader.kill();
    }
    tree.note(&members, begun);
    let leader = tree.number();
    let spared = Spared::among(&members, tree, toll);
    toll.forget(spared.names());
    let others = || members.iter().filter(|member| Some(member.process.pid) != leader && !spared.has(member));
    toll.seek_installer(others());
    let mut heard: Vec<Name> = Vec::new();
    for member in others() {
        let Some(held) = tree.hold(member.process.pid, |process| tree.parentage(process)) else { continue };
        let heeds = !proc::ignores_sigterm(member.process.pid);
        if held.handle.terminate().is_ok() && heeds {
            heard.push(name(&held.member.process));
        }
        if held.member.process.state == ProcessState::Stopped {
            let _gone = held.handle.resume();
        }
    }
    let asked = elapsed();
    let longest = match tree.installers {
        Installers::Finish | Installers::RollBack => grace.saturating_mul(INSTALLER_FACTOR),
        Installers::AsOthers => grace,
    };
    let mut pauses = PAUSES_MS.into_iter();
    let mut pause = Duration::ZERO;
    loop {
        let now = elapsed();
        let is_due = now >= asked.saturating_add(TAKEN_WITHIN);
        if now >= grace {
            heard.retain(|&member| toll.is_installer(member));
        }
        heard.retain(|&(pid, start_time)| {
            proc::stat(pid).is_ok_and(|process| process.start_time == start_time && !process.is_dead())
                && !(is_due && proc::has_pending(pid, libc::SIGTERM))
        });
        let is_over = heard.is_empty() || now >= longest || proc::is_left_behind();
        if is_over || tree.descend().is_ok_and(|now| now.len() > members.len() + STARTED_MAX) {
            return spared;
        }
        pause = pauses.next().map_or(pause, Duration::from_millis);
        thread::sleep(pause);
    }
}
