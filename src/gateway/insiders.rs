//! Tells which clients are part of what they ask us to end: a client that waits for the end of its own tree keeps that
//! tree from ending, because a gateway drains until its agents' work is done.

use super::launch::{HOOK, INSTANCE};
use super::spawn::ProcessKind;
use super::tree::Orphans;
use crate::platform::proc::{self, Stat};
use crate::platform::process;

/// No process is nested deeper. A walk that does not end met a reused pid.
const DEPTH_MAX: usize = 256;

/// What shows that a process belongs to a gateway or a hook of ours.
#[derive(Debug, Clone)]
pub struct Insiders {
    /// The variable and the control group of a gateway, then those of a hook, each with the key that its ids begin with.
    marks: [(&'static str, ProcessKind, String); 2],
    orphans: Orphans,
}

impl Insiders {
    /// `key` is that of the gateways, `hooks_key` that of the hooks.
    #[must_use]
    pub fn new(key: &str, hooks_key: &str, orphans: Orphans) -> Self {
        let mark = |name, kind, key: &str| (name, kind, format!("{key}-"));
        Self { marks: [mark(INSTANCE, ProcessKind::Gateway, key), mark(HOOK, ProcessKind::Hook, hooks_key)], orphans }
    }

    /// Whether this process, or one that it descends from, is a gateway or a hook of ours or carries the mark of one. Reads
    /// other processes, so it has to run on a worker.
    #[must_use]
    pub fn contain(&self, pid: i32) -> bool {
        let me = std::process::id().cast_signed();
        let stat = |pid: i32| proc::stat(pid).ok().filter(|process| process.pid > 0 && process.pid != me);
        let lineage = std::iter::successors(stat(pid), |process| stat(process.parent)).take(DEPTH_MAX);
        lineage.into_iter().any(|process| self.shows(&process, me))
    }

    fn shows(&self, process: &Stat, me: i32) -> bool {
        process::is_claimed(process.pid)
            || process.parent == me && self.orphans == Orphans::OursAlone
            || self.is_marked(process.pid)
    }

    fn is_marked(&self, pid: i32) -> bool {
        let (environment, cgroup) = (proc::environment_of(pid), proc::cgroup_of(pid).unwrap_or_default());
        self.marks.iter().any(|(name, kind, key)| {
            let id = environment.as_ref().and_then(|environment| environment.get(name));
            let leaf = kind.leaf_name(key);
            id.is_some_and(|id| id.starts_with(key.as_bytes())) || cgroup.split('/').any(|name| name.starts_with(&leaf))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn insiders(orphans: Orphans) -> Insiders {
        Insiders::new("gatewaykey", "hookkey", orphans)
    }

    fn sleeper(variables: &[(&str, &str)]) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60").env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
        command.stdin(Stdio::null()).spawn().unwrap()
    }

    fn is_inside(insiders: &Insiders, mut child: Child) -> bool {
        let is_inside = insiders.contain(child.id().cast_signed());
        child.kill().unwrap();
        child.wait().unwrap();
        is_inside
    }

    #[test]
    fn the_id_of_a_gateway_or_a_hook_of_ours_shows_an_insider_and_no_other_id_does() {
        let mixed = insiders(Orphans::Mixed);
        for (variables, expected) in [
            (vec![], false),
            (vec![(INSTANCE, "gatewaykey-0123")], true),
            (vec![(HOOK, "hookkey-0123")], true),
            (vec![(INSTANCE, "gatewaykey2-0123")], false),
            (vec![(INSTANCE, "hookkey-0123")], false),
            (vec![(INSTANCE, "other-0123"), (HOOK, "other-0123")], false),
        ] {
            assert_eq!(is_inside(&mixed, sleeper(&variables)), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_child_of_ours_counts_where_none_comes_from_elsewhere_and_we_ourselves_never_do() {
        assert!(is_inside(&insiders(Orphans::OursAlone), sleeper(&[])));
        assert!(!is_inside(&insiders(Orphans::Mixed), sleeper(&[])));
        let insiders = insiders(Orphans::OursAlone);
        assert!(!insiders.contain(std::process::id().cast_signed()));
        assert!(!insiders.contain(1) && !insiders.contain(i32::MAX));
    }

    #[test]
    fn what_a_claimed_child_starts_is_inside() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
        let (leader, below) = (shell.id().cast_signed(), line.trim().parse().unwrap());
        let mixed = insiders(Orphans::Mixed);
        assert!(!mixed.contain(below));
        process::claim(leader);
        assert!(mixed.contain(below) && mixed.contain(leader));
        process::unclaim(leader);
        rustix::process::kill_process(rustix::process::Pid::from_raw(below).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
}
