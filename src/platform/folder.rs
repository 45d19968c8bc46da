//! A directory that is held by its descriptor, so that no other user can make us act elsewhere by changing its path.
//!
//! Root may supervise in a directory of another user, who can swap any name in there for a link. The path is walked once, one
//! name after another, and a link is followed only where no other user can have made it. What is done inside goes by the
//! descriptor and follows no link, see openat(2).

use super::random;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, mkdirat, openat, readlinkat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// `MAXSYMLINKS` of the kernel.
const LINKS_MAX: usize = 40;

const FOLDER_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens a directory without the right to read it. With `O_DIRECTORY` an automount is triggered.
#[cfg(target_os = "linux")]
const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const WALK: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// open(2) of a FIFO would wait for its other end.
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// What the kernel said of one name on the path.
    #[error("{error}")]
    Kernel { error: io::Error },
    #[error("it leads through the symbolic link {}, which user {owner} could aim anywhere", link.display())]
    Link {
        link: PathBuf,
        /// The user who can change the link.
        owner: u32,
        /// Where the path would have led.
        to: PathBuf,
    },
}

impl From<Errno> for FolderError {
    fn from(error: Errno) -> Self {
        Self::Kernel { error: error.into() }
    }
}

impl From<io::Error> for FolderError {
    fn from(error: io::Error) -> Self {
        Self::Kernel { error }
    }
}

impl From<FolderError> for io::Error {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Kernel { error } => error,
            link @ FolderError::Link { .. } => Self::new(io::ErrorKind::PermissionDenied, link),
        }
    }
}

#[derive(Debug)]
pub struct Folder {
    dir: File,
    path: PathBuf,
    is_exposed: bool,
}

/// Root, this user, and the owner of `/`: inside a user namespace root of the machine has another number.
fn is_trusted(uid: u32) -> bool {
    let of_root = || std::fs::metadata("/").is_ok_and(|root| root.uid() == uid);
    uid == 0 || uid == rustix::process::geteuid().as_raw() || of_root()
}

impl Folder {
    /// Opens the directory at an absolute path.
    ///
    /// # Errors
    /// [`FolderError::Link`], and those of open(2).
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Ok(Self::walk(path, false)?.0)
    }

    /// The same, after every directory that is missing was created for this user alone, but none that a link leads to. Returns
    /// whether the last one was.
    ///
    /// # Errors
    /// As [`Folder::open`], and those of mkdir(2).
    pub fn make(path: &Path) -> Result<(Self, bool), FolderError> {
        Self::walk(path, true)
    }

    fn walk(path: &Path, makes: bool) -> Result<(Self, bool), FolderError> {
        let root = || -> Result<Self, FolderError> {
            let dir = File::from(openat(CWD, "/", WALK, Mode::empty())?);
            Ok(Self { dir, path: PathBuf::from("/"), is_exposed: false })
        };
        let (mut at, mut made, mut links) = (root()?, false, 0);
        // What is longer than this is of a link: below a dangling one nothing is made, a volume may be missing there.
        let (mut rest, mut after_link) = (parts(path), usize::MAX);
        while let Some(name) = rest.pop() {
            let opened = match openat(&at.dir, &name, WALK, Mode::empty()) {
                Err(Errno::NOENT) if makes && rest.len() < after_link => {
                    match mkdirat(&at.dir, &name, FOLDER_MODE) {
                        Ok(()) => made = true,
                        // Another process was faster.
                        Err(Errno::EXIST) => made = false,
                        Err(error) => return Err(error.into()),
                    }
                    openat(&at.dir, &name, WALK, Mode::empty())
                }
                opened => {
                    made = false;
                    opened
                }
            };
            match opened {
                Ok(dir) => at = at.step(&name, File::from(dir))?,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    // EINVAL: it is no link either.
                    let target = readlinkat(&at.dir, &name, Vec::new()).map_err(|error| match error {
                        Errno::INVAL => Errno::NOTDIR,
                        error => error,
                    })?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    at.check_link(&name, &target, &rest)?;
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    if target.is_absolute() {
                        at = Self { is_exposed: at.is_exposed, ..root()? };
                    }
                    after_link = after_link.min(rest.len());
                    rest.extend(parts(&target));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((Self { path: path.to_owned(), ..at }, made))
    }

    fn step(self, name: &OsStr, dir: File) -> io::Result<Self> {
        let above = self.dir.metadata()?;
        // In a sticky one, names can be changed by their owners alone.
        let is_shared = above.mode() & 0o022 != 0 && above.mode() & 0o1000 == 0;
        let is_exposed = self.is_exposed || is_shared || !is_trusted(above.uid());
        Ok(Self { dir, path: self.path.join(name), is_exposed })
    }

    /// Refuses a link in here that another user can have made.
    fn check_link(&self, name: &OsStr, target: &Path, rest: &[OsString]) -> Result<(), FolderError> {
        let here = self.dir.metadata()?;
        let owner = if !is_trusted(here.uid()) {
            // Where a volume keeps no owners, one user seems to own everything.
            if self.new_file()?.uid() == here.uid() {
                return Ok(());
            }
            here.uid()
        } else if here.mode() & 0o002 != 0 {
            // As the kernel does with fs.protected_symlinks, see proc(5).
            self.meta_of(name)?.uid()
        } else {
            return Ok(());
        };
        if is_trusted(owner) {
            return Ok(());
        }
        let to = rest.iter().rev().fold(self.path.join(target), |path, part| path.join(part));
        Err(FolderError::Link { link: self.path.join(name), owner, to })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another user may change what the path leads to.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    /// Those of the directory itself.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn meta(&self) -> io::Result<Metadata> {
        self.dir.metadata()
    }

    /// The path without links, for callers that take no descriptor.
    ///
    /// # Errors
    /// It does not lead to this directory any more.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        let (real, own) = (std::fs::canonicalize(&self.path)?, self.meta()?);
        let found = std::fs::symlink_metadata(&real)?;
        if (found.dev(), found.ino()) == (own.dev(), own.ino()) {
            Ok(real)
        } else {
            Err(io::Error::other("another directory has taken its place"))
        }
    }

    /// # Errors
    /// It may not be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.readable()?)? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Of a file in here, or of the link itself. It is not opened for that.
    ///
    /// # Errors
    /// Those of open(2).
    #[cfg(target_os = "linux")]
    pub fn meta_of(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        File::from(openat(&self.dir, name.as_ref(), flags, Mode::empty())?).metadata()
    }

    /// The same by its path: there is no descriptor of a socket or of a link.
    ///
    /// # Errors
    /// Those of lstat(2).
    #[cfg(not(target_os = "linux"))]
    pub fn meta_of(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        std::fs::symlink_metadata(self.path.join(name.as_ref()))
    }

    /// Opens a plain file in here. `flags` say for what, and whether it is created for this user alone.
    ///
    /// # Errors
    /// Those of open(2); it is no plain file.
    pub fn open_file(&self, name: impl AsRef<OsStr>, flags: OFlags) -> io::Result<File> {
        let file = File::from(openat(&self.dir, name.as_ref(), flags | PLAIN, FILE_MODE)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    }

    /// Creates a file that is not there yet.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn create_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// Puts a file with this content in the place of `name`, by way of `aside`. It is complete even after a power failure.
    ///
    /// # Errors
    /// Those of the calls.
    pub fn replace(&self, name: impl AsRef<OsStr>, aside: &str, content: &[u8]) -> io::Result<()> {
        self.remove(aside)?;
        let mut file = self.create_file(aside)?;
        let replaced = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| self.rename(aside, name));
        if replaced.is_err() {
            let _stays = self.remove(aside);
        }
        replaced
    }

    /// # Errors
    /// Those of rename(2).
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(renameat(&self.dir, from.as_ref(), &self.dir, to.as_ref())?)
    }

    /// Removes a name, if it is there.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match unlinkat(&self.dir, name.as_ref(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A directory in here, created for this user alone if it is missing.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2); there is a link or a file of that name.
    pub fn sub(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.dir, name, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let dir = File::from(openat(&self.dir, name, WALK, Mode::empty())?);
        Ok(Self { dir, path: self.path.join(name), is_exposed: self.is_exposed })
    }

    /// Sets the mode of a file in here, `.` being the directory itself. It is not opened for that.
    ///
    /// # Errors
    /// Those of chmod(2).
    #[cfg(target_os = "linux")]
    pub fn chmod(&self, name: &str, mode: u32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::PermissionsExt;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty())?;
        // fchmodat(2) cannot keep from following a link before Linux 6.6.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// See above.
    ///
    /// # Errors
    /// Those of chmod(2).
    #[cfg(not(target_os = "linux"))]
    pub fn chmod(&self, name: &str, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode.try_into().unwrap_or_default());
        Ok(rustix::fs::chmodat(&self.dir, name, mode, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Writes the names to the disk. Some file systems refuse that.
    pub fn sync(&self) {
        let _unsynced = self.readable().and_then(rustix::fs::fsync);
    }

    fn readable(&self) -> rustix::io::Result<OwnedFd> {
        openat(&self.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// What a new private file in here gets: some volumes keep no owners, others no modes.
    ///
    /// # Errors
    /// None can be made.
    pub fn new_file(&self) -> io::Result<Metadata> {
        let name = format!("owner-{}", random::id());
        let file = self.create_file(&name)?;
        // By its name: some servers tell the owner only then, and the kernel shows its own guess until it asks again.
        let meta = self.meta_of(&name);
        drop(file);
        let _stays = self.remove(&name);
        meta
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The names on a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    /// No user of this machine has to have it.
    const OTHER: u32 = 65_533;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("ocs-folder-{}", random::id()));
            fs::create_dir(&path).unwrap();
            Self(fs::canonicalize(path).unwrap())
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_of_our_own_are_followed_and_missing_directories_are_private() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.0.join("far/below")).unwrap();
        symlink("far/../far/below", scratch.0.join("relative")).unwrap();
        symlink(scratch.0.join("relative"), scratch.0.join("absolute")).unwrap();
        symlink("loop", scratch.0.join("loop")).unwrap();
        symlink("nowhere", scratch.0.join("dangling")).unwrap();
        symlink("dangling", scratch.0.join("indirect")).unwrap();
        for (is_made, path, real) in [(true, "absolute/new", "far/below/new"), (false, "relative/new", "far/below/new")]
        {
            let (folder, made) = Folder::make(&scratch.0.join(path)).unwrap();
            assert_eq!((made, folder.real_path().unwrap()), (is_made, scratch.0.join(real)), "{path}");
            assert_eq!(folder.meta().unwrap().mode() & 0o777, 0o700, "{path}");
        }
        fs::write(scratch.0.join("file"), "").unwrap();
        for (path, code) in
            [("loop", libc::ELOOP), ("file", libc::ENOTDIR), ("file/x", libc::ENOTDIR), ("no/x", libc::ENOENT)]
        {
            let error = io::Error::from(Folder::open(&scratch.0.join(path)).unwrap_err());
            assert_eq!(error.raw_os_error(), Some(code), "{path}");
        }
        for path in ["dangling", "dangling/below", "indirect"] {
            let error = io::Error::from(Folder::make(&scratch.0.join(path)).unwrap_err());
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
        assert!(!scratch.0.join("nowhere").exists());
    }

    #[test]
    fn what_is_done_in_a_directory_follows_no_link_and_opens_no_fifo() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.0.join("here")).unwrap();
        let (here, precious) = (scratch.0.join("here"), scratch.0.join("precious"));
        fs::write(&precious, "precious").unwrap();
        fs::set_permissions(&precious, Permissions::from_mode(0o644)).unwrap();
        symlink(&precious, here.join("link")).unwrap();
        symlink(&scratch.0, here.join("folder")).unwrap();
        nix::unistd::mkfifo(&here.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let folder = Folder::open(&here).unwrap();
        for flags in [OFlags::RDONLY, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, OFlags::RDWR | OFlags::CREATE] {
            assert!(folder.open_file("link", flags).is_err() && folder.open_file("fifo", flags).is_err());
        }
        assert!(folder.create_file("link").is_err() && folder.sub("folder").is_err());
        let _refused = folder.chmod("link", 0o600);
        assert!(folder.meta_of("link").unwrap().is_symlink());
        folder.replace("file", "link", b"new").unwrap();
        assert_eq!(fs::read(here.join("file")).unwrap(), b"new");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn links_that_another_user_can_have_made_are_refused() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: another user; run `sudo -E cargo test`");
        let scratch = Scratch::new();
        fs::create_dir(scratch.0.join("target")).unwrap();
        for (name, owner, mode, owner_of_link, is_refused) in [
            ("ours", 0, 0o755, 0, false),
            ("a link that was given away", 0, 0o755, OTHER, false),
            ("theirs", OTHER, 0o755, 0, true),
            ("theirs entirely", OTHER, 0o700, OTHER, true),
            ("shared", 0, 0o1777, 0, false),
            ("shared and theirs", 0, 0o1777, OTHER, true),
        ] {
            let folder = scratch.0.join(name);
            fs::create_dir(&folder).unwrap();
            symlink(scratch.0.join("target"), folder.join("link")).unwrap();
            lchown(folder.join("link"), Some(owner_of_link), None).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            chown(&folder, Some(owner), None).unwrap();
            let opened = Folder::open(&folder.join("link"));
            let refused =
                matches!(&opened, Err(FolderError::Link { owner: OTHER, to, .. }) if *to == scratch.0.join("target"));
            assert_eq!((opened.is_err(), refused), (is_refused, is_refused), "{name}: {opened:?}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{name}");
        }
    }

    #[test]
    fn a_path_through_a_directory_that_others_may_change_is_exposed() {
        let scratch = Scratch::new();
        for (mode, is_exposed) in [(0o755, false), (0o1777, false), (0o775, true), (0o777, true)] {
            let above = scratch.0.join(format!("{mode:o}"));
            fs::create_dir_all(above.join("below")).unwrap();
            fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
            assert_eq!(Folder::open(&above.join("below")).unwrap().is_exposed(), is_exposed, "{mode:o}");
        }
    }

    #[test]
    fn a_directory_that_was_replaced_has_no_path_any_more() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("dir");
        let (folder, _) = Folder::make(&dir).unwrap();
        fs::rename(&dir, scratch.0.join("old")).unwrap();
        assert!(folder.real_path().is_err());
        fs::create_dir(&dir).unwrap();
        assert!(folder.real_path().is_err());
        folder.create_file("x").unwrap();
        assert!(scratch.0.join("old/x").exists() && !dir.join("x").exists());
    }
}
