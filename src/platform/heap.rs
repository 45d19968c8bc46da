//! The C library's allocator.

/// Makes all threads share one arena. The GNU C library gives each thread its own to avoid contention; ours rarely run at the
/// same time, and sharing reuses freed memory. To be called before the second thread starts.
pub fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) sets a number in the allocator under its lock, and there are no other threads. It returns 0 for an
    // unknown parameter, which leaves several arenas.
    let _more_heaps = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
