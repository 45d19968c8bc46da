//! What kind of file system a file is on.

use std::io;
use std::path::Path;

/// File systems on which a lock may be unknown to other machines or to the other side of a virtual machine, or outlive
/// its holder: the magic numbers of statfs(2) and `linux/magic.h`, and those that drivers outside the kernel chose.
const LOCKS_NOT_DEPENDABLE: [(u32, &str); 19] = [
    (0x0000_6969, "nfs"),
    (0x0000_517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse or virtiofs"),
    (0x786f_4256, "vboxsf"),
    (0x7c7c_6673, "prl_fs"),
    (0xbacb_acbc, "vmhgfs"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x7375_7245, "coda"),
    (0x0000_564c, "ncp"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x7461_636f, "ocfs2"),
    (0x0116_1970, "gfs2"),
];

/// The name of the file system, if a lock on it does not tell for certain whether its holder lives.
///
/// # Errors
/// What statfs(2) said.
pub fn without_dependable_locks(path: &Path) -> io::Result<Option<&'static str>> {
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(name_of(kind))
}

/// A magic number has 32 bits; where `f_type` is no wider, the large ones come as negative numbers.
fn name_of(kind: impl Into<i64>) -> Option<&'static str> {
    let magic = u32::try_from(kind.into() & 0xffff_ffff).ok()?;
    LOCKS_NOT_DEPENDABLE.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers_and_local_ones_are_not() {
        for (kind, name) in [(0x6969, "nfs"), (0x6573_5546, "fuse or virtiofs"), (0x0102_1997, "9p")] {
            assert_eq!(name_of(kind), Some(name));
        }
        assert_eq!(name_of(i64::from(0xff53_4d42_u32.cast_signed())), Some("cifs"), "sign-extended");
        for local in [0xef53_i64, 0x0102_1994, 0x9123_683e, 0x5846_5342, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(name_of(local), None, "{local:#x}");
        }
    }

    #[test]
    fn a_folder_of_ours_is_asked_and_a_missing_one_is_an_error() {
        assert_eq!(without_dependable_locks(Path::new("/proc")).unwrap(), None);
        assert!(without_dependable_locks(Path::new("/nonexistent")).is_err());
    }
}
