//! Namespaces and file systems of one command's own, made by unshare(1).

use super::process::Process;
use super::root::needs_root;
use super::{PATIENCE, Scene, fake_gateway, wait_for};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fs, str};

/// Where a command will run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jail {
    flags: Vec<&'static str>,
    /// What a shell does first.
    setup: Vec<String>,
}

impl Jail {
    /// A mount namespace of its own, in which the shell runs this first.
    pub(crate) fn with_mounts(setup: &str) -> Self {
        Self { flags: vec!["--mount"], setup: vec![setup.to_owned()] }
    }

    /// The machine as it is, but for what is added.
    pub(crate) fn open() -> Self {
        Self::default()
    }

    /// A pid namespace of its own, in which the command is number 1, and `/proc` as it is seen there.
    pub(crate) fn with_pids() -> Self {
        Self { flags: vec!["--pid", "--mount-proc", "--fork", "--kill-child"], setup: vec![] }
    }

    /// A time namespace of its own, whose boot was later: see `time_namespaces(7)`.
    pub(crate) fn with_time() -> Self {
        Self { flags: vec!["--time", "--boottime", "5000", "--fork", "--kill-child"], setup: vec![] }
    }

    /// The same with the `/proc` of the namespace around it.
    pub(crate) fn with_pids_of_others() -> Self {
        Self { flags: vec!["--pid", "--fork", "--kill-child"], setup: vec![] }
    }

    /// And no control groups of the second version to be seen, as in most containers: none identifies a process.
    pub(crate) fn and_no_groups(mut self) -> Self {
        self.flags.push("--mount");
        self.and("umount --all --lazy --types cgroup2").and("! grep -q ' - cgroup2 ' /proc/self/mountinfo")
    }

    /// Whether gateways have control groups there. These tests are run by root, who may make them.
    pub(crate) fn has_groups(&self) -> bool {
        !self.setup.iter().any(|step| step.contains("cgroup2"))
    }

    /// And the shell runs this, too.
    pub(crate) fn and(mut self, step: &str) -> Self {
        self.setup.push(step.to_owned());
        self
    }

    /// And a network namespace of its own, with a loopback.
    pub(crate) fn and_network(mut self) -> Self {
        self.flags.push("--net");
        self.setup.push("ip link set lo up".to_owned());
        self
    }

    /// The same command, inside.
    pub(crate) fn around(&self, inner: &Command) -> Command {
        self.demand();
        let mut outer = Command::new("unshare");
        outer.env_clear().args(&self.flags).args(["sh", "-c", &self.shell_text("exec \"$@\""), "sh"]);
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = inner.get_current_dir() {
            outer.current_dir(dir);
        }
        outer.stdin(Stdio::null()).stdout(Stdio::null());
        outer
    }

    fn shell_text(&self, end: &str) -> String {
        let steps: Vec<_> = self.setup.iter().map(String::as_str).chain([end]).collect();
        steps.join(" && ")
    }

    /// Says what is missing, where the namespaces cannot be made.
    fn demand(&self) {
        needs_root("namespaces");
        let tried = Command::new("unshare").args(&self.flags).arg("true").output();
        let said = tried.as_ref().map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
        let works = tried.as_ref().is_ok_and(|output| output.status.success());
        assert!(
            works,
            "this test needs unshare(1) of util-linux and the right to make namespaces (in a container: --cap-add \
             SYS_ADMIN): unshare {}: {said:?}",
            self.flags.join(" ")
        );
    }
}

/// The process with the number 1 in the pid namespace that this `unshare` made.
pub(crate) fn first_process(unshare: i32) -> Process {
    let child = || {
        let text = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
        Process::find(text.split_whitespace().next()?.parse().ok()?)
    };
    wait_for("the first process of a pid namespace", PATIENCE, String::new, child)
}

/// The living gateways of a scene, by their numbers out here, in whatever namespace they live.
pub(crate) fn gateways(scene: &Scene) -> Vec<Process> {
    let is_gateway = |process: &Process| {
        let dir = PathBuf::from(format!("/proc/{}", process.pid));
        let command = fs::read(dir.join("cmdline")).unwrap_or_default();
        let second = command.split(|&byte| byte == 0).nth(1).map(str::from_utf8);
        fs::read_link(dir.join("exe")).is_ok_and(|exe| exe == fake_gateway()) && second == Some(Ok("gateway"))
    };
    scene.processes().into_iter().filter(is_gateway).collect()
}
