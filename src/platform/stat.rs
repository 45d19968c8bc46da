//! One process, as the kernel lists it.

/// What a process is doing, as far as it matters for killing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// All of its threads have ended (zombie): it needs no signal.
    Dead,
    /// Stopped by job control: only SIGCONT and SIGKILL have an effect.
    Stopped,
    /// Asleep in the kernel where not even SIGKILL wakes it.
    Uninterruptible,
    /// Anything else.
    Other,
}

/// What identifies a process and places it in the tree of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    pub state: ProcessState,
    pub parent: i32,
    pub group: i32,
    /// Session; 0 if the kernel does not tell it of a zombie.
    pub session: i32,
    /// Start time: clock ticks since boot on Linux, microseconds since 1970 on macOS. With the pid it names a process.
    pub start_time: u64,
}

/// Processes, each with what was made of its environment: `None` if it was not asked for, or could not be read.
pub type Surveyed<T> = Vec<(Stat, Option<T>)>;

impl Stat {
    /// Whether it has ended, all of its threads included.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == ProcessState::Dead
    }
}
