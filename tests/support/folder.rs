//! The files of a real folder for [`super::shared`]: what is written through the mount is written there.

use super::shared::{ROOT, SET_MODE, SET_SIZE, Serve, WRITE_MAX, long, longs, name, number, words};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `FUSE_AUTO_INVAL_DATA`: pages are cached, and dropped when the times of the file have changed. So a file can be mapped.
const AUTO_INVALIDATE: u32 = 1 << 12;

/// One file, which is kept open: a process that has it open as well goes on with it after it is replaced.
struct Node {
    path: PathBuf,
    file: File,
}

pub(super) struct Folder {
    /// By inode number.
    nodes: HashMap<u64, Node>,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        let file = File::open(path).expect("it is there");
        Self { nodes: HashMap::from([(ROOT, Node { path: path.to_owned(), file })]) }
    }

    fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::STALE)
    }

    fn child(&self, folder: u64, name: Vec<u8>) -> Result<PathBuf, Errno> {
        Ok(self.node(folder)?.path.join(OsString::from_vec(name)))
    }

    fn attributes(file: &File) -> Result<Vec<u8>, Errno> {
        let meta = file.metadata().map_err(errno)?;
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let nanoseconds = |time: i64| u32::try_from(time).unwrap_or(0);
        let times = [seconds(meta.atime()), seconds(meta.mtime()), seconds(meta.ctime())];
        let parts = [nanoseconds(meta.atime_nsec()), nanoseconds(meta.mtime_nsec()), nanoseconds(meta.ctime_nsec())];
        let links = u32::try_from(meta.nlink()).unwrap_or(1);
        Ok([
            longs(&[meta.ino(), meta.len(), meta.blocks()]),
            longs(&times),
            words(&parts),
            words(&[meta.mode(), links, meta.uid(), meta.gid(), 0, 4096, 0]),
        ]
        .concat())
    }

    fn entry(&mut self, path: PathBuf) -> Result<Vec<u8>, Errno> {
        let meta = fs::symlink_metadata(&path).map_err(errno)?;
        let kind = meta.mode() & 0o170_000;
        if !meta.is_dir() && !meta.is_file() {
            // A socket: it can be seen, and no more.
            let attributes = [
                longs(&[meta.ino(), 0, 0, 0, 0, 0]),
                words(&[0, 0, 0]),
                words(&[kind | 0o600, 1, meta.uid(), meta.gid(), 0, 4096, 0]),
            ];
            return Ok([longs(&[meta.ino(), 0, 0, 0]), words(&[0, 0]), attributes.concat()].concat());
        }
        let file = OpenOptions::new().read(true).write(meta.is_file()).open(&path).map_err(errno)?;
        let inode = file.metadata().map_err(errno)?.ino();
        let attributes = Self::attributes(&file)?;
        let file = self.nodes.remove(&inode).map_or(file, |known| known.file);
        self.nodes.insert(inode, Node { path, file });
        Ok([longs(&[inode, 0, 0, 0]), words(&[0, 0]), attributes].concat())
    }

    fn make(&mut self, path: PathBuf, mode: u32) -> Result<Vec<u8>, Errno> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(mode & 0o7777).open(&path);
        options.map_err(errno)?;
        self.entry(path)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Serve for Folder {
    fn perform(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        match opcode {
            // LOOKUP
            1 => self.entry(self.child(node, name(body))?),
            // GETATTR
            3 => Ok([longs(&[0, 0]), Self::attributes(&self.node(node)?.file)?].concat()),
            // SETATTR
            4 => {
                let (valid, size, mode) = (number(body, 0), long(body, 16), number(body, 68));
                let file = &self.node(node)?.file;
                if valid & SET_SIZE != 0 {
                    file.set_len(size).map_err(errno)?;
                }
                if valid & SET_MODE != 0 {
                    file.set_permissions(Permissions::from_mode(mode & 0o7777)).map_err(errno)?;
                }
                Ok([longs(&[0, 0]), Self::attributes(file)?].concat())
            }
            // MKNOD
            8 => self.make(self.child(node, name(&body[16..]))?, number(body, 0)),
            // MKDIR
            9 => {
                let path = self.child(node, name(&body[8..]))?;
                DirBuilder::new().mode(number(body, 0) & 0o7777).create(&path).map_err(errno)?;
                self.entry(path)
            }
            // UNLINK, RMDIR
            10 | 11 => {
                let path = self.child(node, name(body))?;
                let removed = if opcode == 10 { fs::remove_file(path) } else { fs::remove_dir(path) };
                removed.map(|()| Vec::new()).map_err(errno)
            }
            // RENAME, RENAME2
            12 | 45 => {
                let (to, names) = (long(body, 0), &body[if opcode == 12 { 8 } else { 16 }..]);
                let old = name(names);
                let new = self.child(to, name(&names[old.len() + 1..]))?;
                fs::rename(self.child(node, old)?, new).map(|()| Vec::new()).map_err(errno)
            }
            // OPEN, OPENDIR
            14 | 27 => Ok(longs(&[0, 0])),
            // READ
            15 => {
                let mut content = vec![0; number(body, 16) as usize];
                let length = self.node(node)?.file.read_at(&mut content, long(body, 8)).map_err(errno)?;
                content.truncate(length);
                Ok(content)
            }
            // WRITE
            16 => {
                let (at, size) = (long(body, 8), number(body, 16));
                self.node(node)?.file.write_all_at(&body[40..40 + size as usize], at).map_err(errno)?;
                Ok(words(&[size, 0]))
            }
            // STATFS
            17 => Ok([longs(&[1 << 20; 5]), words(&[4096, 255, 4096]), words(&[0; 7])].concat()),
            // RELEASE, FSYNC, FLUSH, READDIR (nothing is ever listed), RELEASEDIR, FSYNCDIR
            18 | 20 | 25 | 28 | 29 | 30 => Ok(Vec::new()),
            // INIT
            26 => Ok(words(&[7, 31, 0, AUTO_INVALIDATE, 0, WRITE_MAX, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
            // CREATE
            35 => {
                let path = self.child(node, name(&body[16..]))?;
                let made = match self.make(path.clone(), number(body, 4)) {
                    Err(Errno::EXIST) => self.entry(path),
                    made => made,
                };
                Ok([made?, longs(&[0, 0])].concat())
            }
            _ => Err(Errno::NOSYS),
        }
    }
}
