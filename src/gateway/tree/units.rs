//! The systemd unit that a process is in, by its control group.

use crate::platform::proc;
use std::sync::OnceLock;

/// The unit that we run in. We do not leave it.
pub(super) fn ours() -> Option<String> {
    static OURS: OnceLock<Option<String>> = OnceLock::new();
    OURS.get_or_init(|| unit_of(i32::try_from(std::process::id()).unwrap_or(0))).clone()
}

/// The control group of the service or scope that a process is in.
pub(super) fn unit_of(pid: i32) -> Option<String> {
    innermost_unit(&proc::cgroup_of(pid)?).map(str::to_owned)
}

/// `pid command (unit)`.
pub(super) fn describe(pid: i32) -> String {
    let command = proc::command_of(pid).unwrap_or_default();
    match unit_of(pid).as_deref().and_then(|unit| unit.rsplit('/').next()) {
        Some(unit) => format!("{pid} {command} ({unit})"),
        None => format!("{pid} {command}"),
    }
}

/// The control group of the innermost unit of a path. A user manager is itself a service, with its units below it.
fn innermost_unit(cgroup: &str) -> Option<&str> {
    let ends = cgroup.match_indices('/').map(|(at, _)| at).chain([cgroup.len()]);
    let is_unit = |path: &&str| matches!(path.rsplit_once('.'), Some((_, "service" | "scope")));
    ends.map(|end| &cgroup[..end]).rfind(is_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_a_control_group_is_its_innermost_service_or_scope() {
        for (cgroup, expected) in [
            ("/system.slice/a.service", Some("/system.slice/a.service")),
            ("/system.slice/a.service/openclaw-gateway-0-1", Some("/system.slice/a.service")),
            (
                "/user.slice/user@7.service/app.slice/run-u3.scope",
                Some("/user.slice/user@7.service/app.slice/run-u3.scope"),
            ),
            ("/user.slice/user@7.service/init.scope", Some("/user.slice/user@7.service/init.scope")),
            ("/user.slice", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(innermost_unit(cgroup), expected, "{cgroup}");
        }
    }
}
