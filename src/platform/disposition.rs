//! What a signal did before we came.

/// Whether whoever started us had this signal ignored, as `nohup` does with SIGHUP. To be asked before a handler for it
/// is installed.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null `act` changes nothing; `old` is plain data for which all zeroes are valid, outlives the call and
    // is all that sigaction(2) writes to.
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
    fn the_standard_library_ignores_sigpipe_and_nobody_ignores_sigterm() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGTERM));
        assert!(!is_ignored(-1));
    }
}
