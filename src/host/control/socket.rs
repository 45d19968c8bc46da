//! The sockets' files: their names and paths, and addresses for paths of any length.

use crate::platform::folder::Folder;
use crate::platform::hash::fnv1a;
use crate::platform::{filesystem, machine};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Uid;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The name of the owner's socket in the store directory.
pub const NAME: &str = "control.sock";

/// What the names of the sockets of supervisors in standby begin and end with.
const STANDBY: (&str, &str) = ("standby-", ".sock");

/// The room that `sun_path` has, without the zero at its end, see unix(7) and unix(4).
const PATH_LENGTH_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// How long the removal of a socket's file is waited for.
const REMOVAL_TIME_MAX: Duration = Duration::from_millis(500);

/// A socket's file, removed at the latest when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    store_dir: PathBuf,
    name: String,
    /// Device and inode: by the end the path may be the socket of a successor.
    identity: (u64, u64),
    is_removed: AtomicBool,
}

impl SocketFile {
    /// Removes it now, so that its inode number may be used again.
    pub fn remove(&self) {
        if self.is_removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (store_dir, name, bound) = (self.store_dir.clone(), self.name.clone(), self.identity);
        let (done, removed) = mpsc::channel();
        let removal = move || {
            // The directory may be gone by now.
            if let Ok(folder) = Folder::open(&store_dir)
                && identity(&folder, &name).is_ok_and(|identity| identity == bound)
            {
                let _gone = folder.remove(&name);
            }
            let _late = done.send(());
        };
        // A file system that hangs keeps us neither from serving nor from an exit.
        if thread::Builder::new().name("socket".to_owned()).spawn(removal).is_ok() {
            let _late = removed.recv_timeout(REMOVAL_TIME_MAX);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A socket that listens and is not served yet.
#[derive(Debug)]
pub struct BoundSocket(pub(super) UnixListener, pub(super) SocketFile);

impl BoundSocket {
    /// Makes the socket of the owner, in place of one that a predecessor left: needs the lease. Where the file system has no
    /// sockets (FAT, SMB) it gets a name without a file, and a warning says so. It blocks on the file system.
    ///
    /// # Errors
    /// Those of bind(2); the path is too long for a socket address.
    pub fn of_owner(store_dir: &Path) -> io::Result<Self> {
        bind_file(store_dir).or_else(|error| {
            let Ok(listener) = bind_without_file(store_dir) else { return Err(error) };
            let dir = store_dir.display();
            tracing::warn!(
                "cannot make the control socket in {dir}: {error}; listening on one without a file: 'status', 'restart', \
                 'stop' and 'retry-now' find it in the same container"
            );
            let (store_dir, name, is_removed) = (PathBuf::new(), String::new(), AtomicBool::new(true));
            Ok(Self(listener, SocketFile { store_dir, name, identity: (0, 0), is_removed }))
        })
    }

    /// Makes the socket of a supervisor in standby, which has no lease, and removes those of dead ones. It blocks on the file
    /// system.
    ///
    /// # Errors
    /// As [`BoundSocket::of_owner`].
    pub fn of_standby(store_dir: &Path) -> io::Result<Self> {
        let (folder, place) = (Folder::open(store_dir)?, place());
        // A socket of another machine is dead to us as well.
        let has_one_machine = matches!(filesystem::without_dependable_locks(store_dir), Ok(None));
        for name in standbys(store_dir) {
            if (has_one_machine || name.ends_with(&format!("-{place}{}", STANDBY.1))) && is_dead(store_dir, &name) {
                let _stays = folder.remove(name);
            }
        }
        bind(&folder, &standby_name())
    }
}

/// An abstract socket, see unix(7).
#[cfg(target_os = "linux")]
fn bind_without_file(store_dir: &Path) -> io::Result<UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name_without_file(store_dir)?)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(not(target_os = "linux"))]
fn bind_without_file(_store_dir: &Path) -> io::Result<UnixListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Of this directory in this pid namespace: containers with one network may have the same paths.
fn name_without_file(store_dir: &Path) -> io::Result<String> {
    let path = fs::canonicalize(store_dir)?;
    let key = fnv1a(path.as_os_str().as_encoded_bytes().iter().copied());
    Ok(format!("openclaw-supervise/control/{key:016x}-{}", place()))
}

fn bind_file(store_dir: &Path) -> io::Result<BoundSocket> {
    let folder = Folder::open(store_dir)?;
    match folder.meta_of(NAME) {
        Ok(found) if found.file_type().is_socket() => folder.remove(NAME)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    bind(&folder, NAME)
}

/// The name of our socket in standby.
#[must_use]
pub fn standby_name() -> String {
    format!("{}{}-{}{}", STANDBY.0, std::process::id(), place(), STANDBY.1)
}

/// The names of the sockets of all supervisors in standby.
pub(super) fn standbys(store_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(store_dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(STANDBY.0) && name.ends_with(STANDBY.1)).collect();
    names.sort();
    names
}

/// The users that may signal us.
pub(super) fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

/// Where a pid is unique: this boot and pid namespace, as eight hexadecimal digits.
fn place() -> String {
    let place = format!("{:?} {:?}", machine::boot_id(), machine::pid_namespace());
    format!("{:08x}", fnv1a(place.bytes()) >> 32)
}

/// Whether nothing listens on it. A full queue is a sign of life: without `O_NONBLOCK` it would be waited for.
fn is_dead(store_dir: &Path, name: &str) -> bool {
    let connected = || {
        let address = Address::of(store_dir, name).ok()?;
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).ok()?;
        for setting in [FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)] {
            fcntl(&socket, setting).ok()?;
        }
        Some(connect(socket.as_raw_fd(), &UnixAddr::new(address.path()).ok()?))
    };
    connected() == Some(Err(nix::Error::ECONNREFUSED))
}

fn bind(folder: &Folder, name: &str) -> io::Result<BoundSocket> {
    let listener = UnixListener::bind(Address::to_bind(folder, name)?.path())?;
    // Some volumes have no modes; the credentials of each client are checked anyway.
    let _no_modes = folder.chmod(name, 0o600);
    let (store_dir, identity) = (folder.path().to_owned(), identity(folder, name)?);
    let file = SocketFile { store_dir, name: name.to_owned(), identity, is_removed: AtomicBool::new(false) };
    listener.set_nonblocking(true)?;
    Ok(BoundSocket(listener, file))
}

fn identity(folder: &Folder, name: &str) -> io::Result<(u64, u64)> {
    folder.meta_of(name).map(|found| (found.dev(), found.ino()))
}

fn through(folder: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// A name of the socket that fits into an address. It means something for as long as this lives.
pub(super) struct Address {
    path: PathBuf,
    /// What a name through `/proc` goes by.
    _folder: Option<OwnedFd>,
}

impl Address {
    pub(super) fn of(store_dir: &Path, name: &str) -> io::Result<Self> {
        let path = store_dir.join(name);
        if path.as_os_str().len() <= PATH_LENGTH_MAX {
            Ok(Self { path, _folder: None })
        } else {
            Self::far(store_dir, name)
        }
    }

    /// Where another user may change the path, the socket is made by way of the descriptor.
    fn to_bind(folder: &Folder, name: &str) -> io::Result<Self> {
        if !folder.is_exposed() || cfg!(not(target_os = "linux")) {
            return Self::of(folder.path(), name);
        }
        let folder = folder.as_fd().try_clone_to_owned()?;
        Ok(Self { path: through(&folder, name), _folder: Some(folder) })
    }

    /// The kernel follows the link of an open descriptor to its folder, however long the folder's own name is.
    #[cfg(target_os = "linux")]
    fn far(store_dir: &Path, name: &str) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        let folder = open(store_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: through(&folder, name), _folder: Some(folder) })
    }

    #[cfg(not(target_os = "linux"))]
    fn far(store_dir: &Path, name: &str) -> io::Result<Self> {
        let length = store_dir.join(name).as_os_str().len();
        let why = format!(
            "its path has {length} bytes, and a socket's may have {PATH_LENGTH_MAX} here; name a shorter --store-dir"
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// That of the owner where the file system has no sockets. Any user may take this name.
    pub(super) fn without_file(store_dir: &Path) -> io::Result<Self> {
        let path = PathBuf::from(format!("\0{}", name_without_file(store_dir)?));
        Ok(Self { path, _folder: None })
    }

    /// One that begins with a zero is abstract.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
