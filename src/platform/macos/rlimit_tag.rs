//! The tag that a process inherits through its resource limits on Linux. Here a process cannot read the limits of another.

/// There is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RlimitTag {}

impl RlimitTag {
    /// `None`.
    #[must_use]
    pub fn new(_seed: u64) -> Option<Self> {
        None
    }

    /// Whether a process has it.
    #[must_use]
    pub fn is_on(self, _pid: i32) -> bool {
        match self {}
    }
}
