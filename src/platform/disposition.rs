//! The disposition of a signal that we inherited.

/// Whether our parent ignored this signal, as nohup(1) does with SIGHUP. To be called before a handler is installed.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null `act` changes nothing; `old` is plain data for which all zeroes are valid, it outlives the call, and
    // sigaction(2) writes to nothing else.
    let (result, old) = unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(signal, std::ptr::null(), &raw mut old), old)
    };
    result == 0 && old.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigpipe_is_ignored_by_the_standard_library_and_sigterm_is_not() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGTERM));
        assert!(!is_ignored(-1));
    }
}
