//! One process, as the kernel lists it.

/// What a process is doing, as far as it matters to who wants to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of its threads have ended: it runs no code and needs no signal.
    Dead,
    /// Stopped by job control: it acts on no signal but SIGCONT and SIGKILL.
    Stopped,
    /// Asleep in the kernel where not even SIGKILL wakes it.
    Uninterruptible,
    /// Anything else.
    Other,
}

/// What identifies a process and places it in the tree of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: i32,
    /// What it is doing.
    pub state: State,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session; 0 where the kernel does not tell it of a zombie.
    pub session: i32,
    /// Start time: clock ticks since boot on Linux, microseconds since 1970 on macOS. With the pid it names a process.
    pub start_time: u64,
}

/// Processes, each with what was made of its environment: nothing for who was not asked, or has none that can be read.
pub type Seen<T> = Vec<(Stat, Option<T>)>;

impl Stat {
    /// Whether it has ended, all of its threads included.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Dead
    }
}
