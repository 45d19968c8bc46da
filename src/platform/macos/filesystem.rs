//! What kind of file system a file is on.

use std::io;
use std::path::Path;

/// The name of the file system, if a lock on it does not tell for certain whether its holder lives: without `MNT_LOCAL`
/// in statfs(2) it is on another machine.
///
/// # Errors
/// What statfs(2) said.
pub fn without_dependable_locks(path: &Path) -> io::Result<Option<&'static str>> {
    let flags = rustix::fs::statfs(path)?.f_flags;
    let local = u32::try_from(libc::MNT_LOCAL).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok((flags & local == 0).then_some("a network file system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_local_and_a_missing_folder_is_an_error() {
        assert_eq!(without_dependable_locks(Path::new("/")).unwrap(), None);
        assert!(without_dependable_locks(Path::new("/nonexistent")).is_err());
    }
}
