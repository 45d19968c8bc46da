//! No system call that we make is younger than the oldest macOS that we run on.

/// What is missing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    pub found: String,
    pub why: String,
    pub fix: &'static str,
}

/// Does nothing.
pub fn prepare() {}

/// Nothing is missing.
#[must_use]
pub fn shortfall() -> Option<Shortfall> {
    None
}
