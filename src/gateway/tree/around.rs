//! The kill of a tree around an installer that replaces OpenClaw's package, which is left to finish.
//!
//! A group or control group may have the installer in it, so the others are killed one by one.

use super::grace::ask_to_end;
use super::members::Tree;
use super::spare::Spared;
use super::toll::{Toll, name};
use crate::core::{Installers, TreeEnd};
use crate::platform::proc;
use std::thread;
use std::time::Duration;

/// How long the others may take to end by SIGKILL. If they fork faster than they can be killed one by one, nothing is left to
/// finish.
const TIME_MAX: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(5);

/// SIGTERM to the members, and `grace` to end by it. If an installer is left to finish, SIGKILL to the others: this is the end of
/// the tree for now.
pub(super) fn end_gently(
    tree: &mut Tree,
    toll: &Toll,
    grace: Duration,
    elapsed: &impl Fn() -> Duration,
) -> Option<TreeEnd> {
    if grace.is_zero() && tree.installers != Installers::Finish {
        return None;
    }
    let spared = ask_to_end(tree, toll, grace, elapsed);
    if spared.installers.is_empty() { None } else { kill_around(tree, toll, spared, elapsed) }
}

/// SIGKILL to all members but these. `None` if nothing is to finish any more, or if that takes too long: the whole tree is to
/// be killed then.
#[expect(clippy::disallowed_methods, reason = "it runs on a worker")]
fn kill_around(tree: &mut Tree, toll: &Toll, mut spared: Spared, elapsed: &impl Fn() -> Duration) -> Option<TreeEnd> {
    let begun = elapsed();
    loop {
        let seen_at = proc::tick();
        let members = tree.scan().ok()?;
        if proc::is_left_behind() {
            return Some(TreeEnd::default());
        }
        spared.add_children(&members);
        let left: Vec<_> = members.iter().filter(|member| spared.installers.contains(&name(&member.process))).collect();
        if left.is_empty() {
            return None;
        }
        let others: Vec<_> = members.iter().copied().filter(|member| !spared.has(member)).collect();
        if others.is_empty() {
            let named = left.iter().map(|member| {
                let pid = member.process.pid;
                format!("{pid} {}", proc::command_of(pid).unwrap_or_default())
            });
            let installing = named.collect();
            return Some(TreeEnd { installing, elapsed: elapsed(), ..toll.report(tree.number()) });
        }
        if elapsed().saturating_sub(begun) > TIME_MAX {
            return None;
        }
        tree.note(&others, seen_at);
        for member in others {
            toll.note(&member, tree.number());
            let held = tree.hold(member.process.pid, |process| tree.parentage(process));
            if held.is_some_and(|held| held.handle.kill().is_ok()) {
                toll.mark_signalled(&member.process);
            }
        }
        thread::sleep(PAUSE);
    }
}
