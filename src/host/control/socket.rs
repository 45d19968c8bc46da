//! The socket's file: its path, and an address for it of any length.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Its name in the store directory.
pub const NAME: &str = "control.sock";

/// The room that `sun_path` has, without the zero at its end, see unix(7) and unix(4).
const PATH_LENGTH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// A file that is removed with its owner.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// Device and inode: by the end the path may be the socket of a successor.
    identity: (u64, u64),
}

impl Drop for File {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // The folder may be gone by now.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Makes the socket, in place of one that a predecessor left.
pub(super) fn bind(store_dir: &Path) -> io::Result<(UnixListener, File)> {
    let path = store_dir.join(NAME);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(Address::of(store_dir)?.path())?;
    // Some volumes have no modes; the credentials of each client are checked anyway.
    let _no_modes = fs::set_permissions(&path, Permissions::from_mode(0o600));
    let file = File { identity: identity(&path)?, path };
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// A name of the socket that fits into an address. It means something for as long as this lives.
pub(super) struct Address {
    path: PathBuf,
    /// What a name through `/proc` goes by.
    _folder: Option<OwnedFd>,
}

impl Address {
    pub(super) fn of(store_dir: &Path) -> io::Result<Self> {
        let path = store_dir.join(NAME);
        if path.as_os_str().len() <= PATH_LENGTH_MAX { Ok(Self { path, _folder: None }) } else { Self::far(store_dir) }
    }

    /// The kernel follows the link of an open descriptor to its folder, however long the folder's own name is.
    #[cfg(target_os = "linux")]
    fn far(store_dir: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        use std::os::fd::AsRawFd;
        let folder = open(store_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }

    #[cfg(not(target_os = "linux"))]
    fn far(store_dir: &Path) -> io::Result<Self> {
        let length = store_dir.join(NAME).as_os_str().len();
        let why = format!(
            "its path has {length} bytes, and a socket's may have {PATH_LENGTH_MAX} here; name a shorter --store-dir"
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
