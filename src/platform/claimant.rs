//! The process that has claimed a port.

use super::proc;

/// The claim of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// Its pid; `None` if that is in another pid namespace, or cannot be told.
    pub by: Option<i32>,
    /// Its user; `None` if that cannot be told.
    pub uid: Option<u32>,
}

impl Claimant {
    /// Whether it is a process of this user or of root. Others are not taken for a supervisor: any user can take a claim.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
    }

    /// A warning about one that is no supervisor.
    #[must_use]
    pub fn warning(&self, port: u16) -> String {
        let user = self.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("uid {uid}"));
        let command = self.by.and_then(proc::command_of).map(|command| format!(", {command}")).unwrap_or_default();
        let process = self.by.map(|pid| format!(" (pid {pid}{command})")).unwrap_or_default();
        let why = if self.is_trusted() { "which does not listen" } else { "neither this user nor root" };
        format!(
            "port {port} is claimed by {user}{process}, {why}: it is not taken for a supervisor, and \
             what listens on the port decides; supervisors with another store directory will not notice this one"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_and_root_are_taken_for_supervisors() {
        let us = rustix::process::geteuid().as_raw();
        for (uid, expected) in [(Some(0), true), (Some(us), true), (Some(us + 1), false), (None, false)] {
            assert_eq!(Claimant { by: Some(1), uid }.is_trusted(), expected, "{uid:?}");
        }
    }

    #[test]
    fn a_warning_names_the_user_and_the_process_as_far_as_they_are_known() {
        let me = Claimant { by: Some(std::process::id().cast_signed()), uid: Some(7) }.warning(9);
        assert!(me.starts_with("port 9 is claimed by uid 7 (pid ") && me.contains(", "), "{me}");
        let unknown = Claimant { by: None, uid: None }.warning(9);
        assert!(unknown.starts_with("port 9 is claimed by an unknown user, neither"), "{unknown}");
    }
}
