//! The memory that all threads take theirs from.

/// Lets all threads share one heap. The GNU C library gives each a heap of its own, so that none waits for another: ours
/// hardly ever run at once, and what one has freed is of use to the next. To be called before there is a second thread.
pub fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) changes a number in the allocator; its lock may be taken at any time, and there are no threads.
    // It says 0 to a value that it does not know, and then there are several heaps.
    let _more_heaps = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
