//! One process, as the kernel lists it.

/// What identifies a process and places it in the tree of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// All of its threads have ended: it runs no code and needs no signal.
    pub is_dead: bool,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session; 0 where the kernel does not tell it of a zombie.
    pub session: i32,
    /// Start time: clock ticks since boot on Linux, microseconds since 1970 on macOS. With the pid it names a process.
    pub start_time: u64,
}
