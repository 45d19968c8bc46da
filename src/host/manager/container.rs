//! The container that we run in, if any.
//!
//! No single sign is enough: a small init may be process 1 in our place, pid namespaces may be shared, the marker file may be
//! missing, and a virtual machine made from an image has a marker file without being a container.

use super::unit::Unit;
use crate::platform::machine::Namespace;
use crate::platform::{descent, proc};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// From SIGTERM to SIGKILL where nothing else was set: `docker stop --timeout`, `podman stop --time`.
const GRACE: Duration = Duration::from_secs(10);

/// The default of `terminationGracePeriodSeconds` of a pod.
const GRACE_KUBERNETES: Duration = Duration::from_secs(30);

/// Inits of containers that start one program and exit with it. `docker run --init` calls tini docker-init, and
/// `podman run --init` calls catatonit podman-init. Other builds of tini are called tini-static, tini-amd64 and so on.
const SMALL_INITS: [&str; 6] = ["tini", "docker-init", "dumb-init", "catatonit", "podman-init", "init.lxc"];

/// Inits of machines besides systemd. A machine may have a pid namespace of its own (LXC, systemd-nspawn, WSL): what is
/// started there is stopped by that init, with its timeouts. An image may name its entry point so, too.
const MACHINE_INITS: [&str; 6] = ["init", "runit", "openrc-init", "dinit", "procd", "shepherd"];

/// Tools that give a program a pid namespace and send it no signal: Flatpak, Bazel, Firejail.
const SANDBOXES: [&str; 3] = ["bwrap", "linux-sandbox", "firejail"];

/// Values of the variable `container` that name a machine, see "The Container Interface" of systemd.
const MACHINE_KINDS: [&str; 4] = ["lxc", "lxc-libvirt", "systemd-nspawn", "wsl"];

/// Parts of the control groups that container runtimes make.
const RUNTIMES: [&str; 6] = [PODS, "docker", "libpod", "crio", "cri-containerd", "nerdctl"];

/// The group of all pods. Its name has a prefix where kubelet itself is in a container.
const PODS: &str = "kubepods";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What shows that this is one.
    pub sign: String,
    /// How long its runtime waits after SIGTERM by default. The actual time cannot be seen from inside.
    pub grace: Duration,
    /// Whether our exit ends it.
    pub ends_with_us: bool,
}

impl Container {
    /// The container of a process. `variable` looks into the environment of that process.
    pub fn of(pid: i32, variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        Signs::gather(pid, variable).container()
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is one sign")]
#[derive(Debug, Clone, Default)]
struct Signs {
    pid: i32,
    parent: i32,
    /// Whether its pid namespace is the first of the machine.
    has_first_pids: Option<bool>,
    /// Whether another one of its namespaces is known not to be the first.
    is_apart: bool,
    /// The name of process 1.
    init: Option<String>,
    /// Whether process 1 had no child before it.
    is_first_child: bool,
    /// Whether it was started from outside, and process 1 is in another control group: the containers share a pid namespace.
    is_entry: bool,
    marker: Option<&'static str>,
    /// The variable `container`.
    kind: Option<String>,
    has_kubernetes: bool,
    /// Whether systemd started it or one of its ancestors.
    has_invocation: bool,
    cgroup: Option<String>,
}

impl Signs {
    fn gather(pid: i32, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let parent = proc::stat(pid).map_or(0, |stat| stat.parent);
        let cgroup = proc::cgroup_of(pid);
        let others = [Namespace::Uts, Namespace::Ipc, Namespace::Cgroup];
        Self {
            pid,
            parent,
            has_first_pids: Namespace::Pid.is_first(pid),
            is_apart: others.iter().any(|other| other.is_first(pid) == Some(false)),
            init: proc::name_of(1),
            is_first_child: parent == 1 && is_first_child(pid),
            is_entry: parent == 0 && pid != 1 && cgroup.is_some() && proc::cgroup_of(1) != cgroup,
            marker: ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| Path::new(file).exists()),
            kind: variable("container").and_then(|kind| kind.into_string().ok()),
            has_kubernetes: variable("KUBERNETES_SERVICE_HOST").is_some(),
            has_invocation: variable("INVOCATION_ID").is_some(),
            cgroup,
        }
    }

    fn container(&self) -> Option<Container> {
        let sign = self.sign()?;
        let is_pod = self.has_kubernetes || self.runtime() == Some(PODS);
        let ends_with_it = |init: &str| self.parent == 1 && self.is_first_child && is_small(init);
        Some(Container {
            sign,
            grace: if is_pod { GRACE_KUBERNETES } else { GRACE },
            ends_with_us: self.pid == 1 || self.is_entry || self.init.as_deref().is_some_and(ends_with_it),
        })
    }

    fn sign(&self) -> Option<String> {
        let unit = self.cgroup.as_deref().filter(|_| self.has_invocation).and_then(Unit::of);
        if self.runtime().is_none() && unit.is_some_and(|unit| unit.is_service()) {
            return None;
        }
        let written = self.written_sign();
        if self.pid == 1 {
            return written.or_else(|| Some("this program is process 1".to_owned()));
        }
        let init = self.init.as_deref().unwrap_or("unknown");
        let process_1 = || format!("process 1 is {init}");
        if is_small(init) {
            return written.or_else(|| Some(process_1()));
        }
        match self.has_first_pids {
            // The init is that of the machine, which a container may share (`--pid=host`).
            Some(true) => written.filter(|_| self.is_apart || self.runtime().is_some()),
            // Also in a container: it stops its units itself.
            _ if init == "systemd" => None,
            None => written,
            Some(false) if MACHINE_INITS.contains(&init) || SANDBOXES.contains(&init) => written,
            Some(false) => written.or_else(|| Some(format!("a pid namespace of its own, {}", process_1()))),
        }
    }

    /// A sign that a container runtime left.
    fn written_sign(&self) -> Option<String> {
        let file = self.marker.map(str::to_owned);
        let kubernetes = || self.has_kubernetes.then(|| "KUBERNETES_SERVICE_HOST is set".to_owned());
        let kind = || self.kind.as_deref().filter(|kind| !kind.is_empty() && !MACHINE_KINDS.contains(kind));
        let group = || self.runtime().map(|runtime| format!("a control group of {runtime}"));
        file.or_else(kubernetes).or_else(|| kind().map(|kind| format!("container={kind}"))).or_else(group)
    }

    /// The runtime that the control group names: `/docker/ID`, `/system.slice/docker-ID.scope`, `/kubepods.slice/...`.
    fn runtime(&self) -> Option<&'static str> {
        let parts = || self.cgroup.iter().flat_map(|cgroup| cgroup.split('/'));
        let names = |part: &str, runtime: &str| {
            let rest = part.strip_prefix(runtime);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
                || runtime == PODS && part.contains(PODS)
        };
        // A daemon's own unit is no container: /system.slice/docker.service.
        RUNTIMES.into_iter().find(|runtime| parts().any(|part| !part.ends_with(".service") && names(part, runtime)))
    }
}

fn is_small(init: &str) -> bool {
    SMALL_INITS.contains(&init) || init.starts_with("tini-")
}

/// Whether process 1 has no older child: an init of one program exits with that one, and not with the orphans that it got.
fn is_first_child(pid: i32) -> bool {
    let children = descent::living(1).ok().flatten().and_then(|init| descent::children_of(&init).ok());
    let first = children.unwrap_or_default().into_iter().min_by_key(|child| (child.start_time, child.pid));
    first.is_none_or(|first| first.pid == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process in the middle of a container that docker runs with `--init`, but for the marker.
    fn inside(init: &str) -> Signs {
        Signs {
            pid: 7,
            parent: 1,
            has_first_pids: Some(false),
            is_apart: true,
            init: Some(init.to_owned()),
            is_first_child: true,
            cgroup: Some("/".to_owned()),
            ..Signs::default()
        }
    }

    /// A process of a machine that systemd runs.
    fn outside() -> Signs {
        Signs { has_first_pids: Some(true), is_apart: false, parent: 800, is_first_child: false, ..inside("systemd") }
    }

    fn at(cgroup: &str, facts: Signs) -> Signs {
        Signs { cgroup: Some(cgroup.to_owned()), ..facts }
    }

    fn kind(kind: &str, facts: Signs) -> Signs {
        Signs { kind: Some(kind.to_owned()), ..facts }
    }

    fn marked(facts: Signs) -> Signs {
        Signs { marker: Some("/.dockerenv"), ..facts }
    }

    #[test]
    fn a_container_is_seen_by_what_is_left_of_its_signs() {
        let none = None::<&str>;
        let unit = |cgroup| Signs { has_invocation: true, ..at(cgroup, outside()) };
        for (case, facts, expected) in [
            ("we are process 1", Signs { pid: 1, parent: 0, ..inside("x") }, Some("this program is process 1")),
            ("tini", inside("tini"), Some("process 1 is tini")),
            ("docker --init", marked(inside("docker-init")), Some("/.dockerenv")),
            ("catatonit", inside("catatonit"), Some("process 1 is catatonit")),
            ("another build of tini", inside("tini-static-amd"), Some("process 1 is tini-static-amd")),
            ("tini of a microVM", Signs { has_first_pids: Some(true), ..inside("tini") }, Some("process 1 is tini")),
            ("s6-overlay", inside("s6-svscan"), Some("a pid namespace of its own, process 1 is s6-svscan")),
            ("a shared pid namespace", inside("pause"), Some("a pid namespace of its own, process 1 is pause")),
            ("a shell", inside("sh"), Some("a pid namespace of its own, process 1 is sh")),
            ("podman without its file", kind("podman", inside("sh")), Some("container=podman")),
            ("an entry point named init", marked(inside("init")), Some("/.dockerenv")),
            ("--pid=host", marked(Signs { is_apart: true, ..outside() }), Some("/.dockerenv")),
            (
                "hostPID",
                at("/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope", outside()),
                Some("a control group of kubepods"),
            ),
            (
                "hostPID in a node that is a container",
                at("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice", outside()),
                Some("a control group of kubepods"),
            ),
            (
                "--pid=host --cgroupns=host",
                at("/system.slice/docker-0a.scope", outside()),
                Some("a control group of docker"),
            ),
            ("nerdctl", at("/system.slice/nerdctl-0a.scope", inside("sh")), Some("a control group of nerdctl")),
            (
                "podman in a unit",
                Signs { pid: 1, ..unit("/system.slice/a.service/libpod-payload-0a") },
                Some("a control group of libpod"),
            ),
            ("a machine", outside(), none),
            ("a virtual machine made from an image", marked(outside()), none),
            ("the same with another init", marked(Signs { init: Some("agent".to_owned()), ..outside() }), none),
            ("a machine of s6", Signs { init: Some("s6-svscan".to_owned()), ..outside() }, none),
            ("LXC", kind("lxc", Signs { parent: 800, ..inside("systemd") }), none),
            ("LXC without systemd", kind("lxc", inside("init")), none),
            ("systemd in docker", marked(inside("systemd")), none),
            ("a unit", unit("/system.slice/a.service"), none),
            (
                "a unit with PrivatePIDs",
                Signs { pid: 1, has_first_pids: Some(false), ..unit("/system.slice/a.service") },
                none,
            ),
            (
                "a unit with PrivateIPC on such a machine",
                marked(Signs { is_apart: true, ..unit("/system.slice/a.service") }),
                none,
            ),
            ("beside docker", at("/system.slice/docker.service", outside()), none),
            ("a sandbox of a build", inside("linux-sandbox"), none),
            ("the same in docker", marked(inside("linux-sandbox")), Some("/.dockerenv")),
            ("KUBERNETES_SERVICE_HOST in a developer's shell", Signs { has_kubernetes: true, ..outside() }, none),
            ("no /proc", Signs { pid: 7, ..Signs::default() }, none),
        ] {
            assert_eq!(facts.sign().as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn a_container_ends_with_process_1_and_with_the_first_child_of_a_small_init() {
        for (case, facts, expected) in [
            ("process 1", Signs { pid: 1, parent: 0, ..inside("x") }, true),
            ("the child of tini", inside("tini"), true),
            ("an orphan below tini", Signs { is_first_child: false, ..inside("tini") }, false),
            ("below a shell below tini", Signs { parent: 9, ..inside("tini") }, false),
            ("a service of s6", Signs { parent: 20, ..inside("s6-svscan") }, false),
            ("the child of a shell", inside("sh"), false),
            ("below a shell of a shared pid namespace", Signs { parent: 9, ..inside("pause") }, false),
            ("the program of a shared pid namespace", Signs { parent: 0, is_entry: true, ..inside("pause") }, true),
            ("what docker exec starts", Signs { parent: 0, ..inside("sh") }, false),
        ] {
            assert_eq!(facts.container().map(|container| container.ends_with_us), Some(expected), "{case}");
        }
    }

    #[test]
    fn a_pod_has_more_time_than_a_container_of_docker() {
        let seconds = |facts: Signs| facts.container().map(|container| container.grace.as_secs());
        assert_eq!(seconds(marked(inside("tini"))), Some(10));
        assert_eq!(seconds(Signs { has_kubernetes: true, ..inside("pause") }), Some(30));
        assert_eq!(seconds(at("/kubepods/besteffort/pod0a/0b", inside("tini"))), Some(30));
    }
}
