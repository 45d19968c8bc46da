//! Pure functions from facts to findings, one file for each subject.

pub(super) mod container;
pub(super) mod directives;
pub(super) mod gateway;
pub(super) mod kernel;
pub(super) mod launchd;
pub(super) mod machine;
pub(super) mod openclaw;
pub(super) mod outage;
pub(super) mod process_manager;
pub(super) mod services;
pub(super) mod unit;
pub(super) mod unit_state;

use std::time::Duration;

/// The gateway's own limit on its drain.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(327);

/// What a stop takes beyond the drain: SIGKILL to the tree, the last records, our own exit.
const MARGIN: Duration = Duration::from_secs(5);

/// For a file system that does not answer: umount(8) waits for its server without `-l`.
pub(super) const MOUNT_FIX: &str = "cat /proc/mounts; bring its server back, or umount -l it";

#[cfg(test)]
mod tests {
    use crate::commands::doctor::finding::{Finding, Level};
    use crate::commands::terminal::Terminal;
    use std::fmt::Display;

    /// Each case with its findings, for a snapshot. Checks that a warning or failure has a reason and a fix.
    pub(super) fn listing(cases: impl IntoIterator<Item = (impl Display, Vec<Finding>)>) -> String {
        let of_case = |(case, findings): (_, Vec<Finding>)| {
            for finding in &findings {
                let is_complete = finding.why.is_some() && finding.fix.is_some();
                assert!(is_complete || finding.level == Level::Ok, "{finding:?}");
            }
            let terminal = Terminal::fixed(None, false, "UTC0", "2026-11-30T09:36:00Z");
            let plain = |finding: &Finding| Finding { since: None, until: None, ..finding.clone() }.to_text(&terminal);
            let lines: Vec<String> = findings.iter().map(plain).collect();
            format!("# {case}\n{}\n", lines.join("\n"))
        };
        cases.into_iter().map(of_case).collect()
    }
}
