//! Control groups are Linux's: there are no leaves here, and no count of kills for lack of memory.

use std::io;

/// The control group of one gateway. There is none.
#[derive(Debug)]
pub enum Leaf {}

impl Leaf {
    /// Not here.
    ///
    /// # Errors
    /// Always.
    pub fn create(_name: &str) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing.
    #[must_use]
    pub fn find(_name: &str, _member: Option<i32>) -> Option<Self> {
        None
    }

    /// Every process in it and below it.
    ///
    /// # Errors
    /// None: there is no leaf to ask.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        match *self {}
    }

    /// SIGKILL to every process in it and below it.
    ///
    /// # Errors
    /// None: there is no leaf to ask.
    pub fn kill(&self) -> io::Result<()> {
        match *self {}
    }

    /// Removes it.
    pub fn remove(&self) {
        match *self {}
    }

    /// The same. Returns whether a retry is useless.
    #[must_use]
    pub fn try_remove(&self) -> bool {
        match *self {}
    }
}

/// Does nothing: there are no leaves.
pub fn remove_empty(_prefix: &str) {}

/// None.
#[must_use]
pub fn populated(_prefix: &str) -> Vec<String> {
    Vec::new()
}

/// There is no count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomCount;

impl OomCount {
    /// As it is now.
    #[must_use]
    pub fn read(_leaf: Option<&Leaf>) -> Self {
        Self
    }

    /// Never known.
    #[must_use]
    pub fn is_above(self, _before: Self) -> bool {
        false
    }
}
