//! Errors of files and folders that stay until an operator changes something.

use std::io;

/// Whether the same call will fail again: permissions, a read-only file system, something else in the place of a folder.
/// Not those of a full disk, a server that does not answer, or a shortage.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    let lasting = [
        libc::EACCES,
        libc::EPERM,
        libc::EROFS,
        libc::ENOENT,
        libc::ENOTDIR,
        libc::EISDIR,
        libc::EEXIST,
        libc::ELOOP,
        libc::ENAMETOOLONG,
    ];
    error.raw_os_error().is_some_and(|code| lasting.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_no_refusal() {
        let of = io::Error::from_raw_os_error;
        assert!([libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOTDIR].iter().all(|&code| is_refusal(&of(code))));
        for code in [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::ESTALE, libc::ENOTCONN, libc::EMFILE, libc::EINTR] {
            assert!(!is_refusal(&of(code)), "{code}");
        }
        assert!(!is_refusal(&io::Error::other("no number")));
    }
}
