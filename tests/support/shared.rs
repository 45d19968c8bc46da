//! One file system on two machines: two mounts of one server (FUSE, see fuse(4)) that keeps its files in memory, or in a real
//! folder that others use directly, as a host does that lends it to a virtual machine. A lock of flock(2) or fcntl(2) is local
//! to each mount, as it is to a machine, and each of them can hang or fail on its own.
//!
//! The mounts are in a mount namespace of the test's thread: no other process comes across one that hangs.

use super::folder::Folder;
use super::root::needs_root;
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks whether a mount is to answer again.
const TICK: Duration = Duration::from_millis(10);

/// The longest request: a header and a write of [`WRITE_MAX`] bytes.
const REQUEST_MAX: usize = 64 * 1024;
pub(super) const WRITE_MAX: u32 = 4096;

pub(super) const ROOT: u64 = 1;
pub(super) const DIRECTORY: u32 = 0o040_000;

/// `FOPEN_DIRECT_IO`: no page is cached, so that each machine sees at once what the other has written.
const DIRECT_IO: u32 = 1;

/// Bits of `fuse_setattr_in.valid`.
pub(super) const SET_MODE: u32 = 1;
pub(super) const SET_SIZE: u32 = 8;

#[derive(Debug, Default)]
struct Node {
    mode: u32,
    content: Vec<u8>,
    names: BTreeMap<Vec<u8>, u64>,
}

#[derive(Debug)]
struct Files {
    nodes: HashMap<u64, Node>,
    youngest: u64,
}

/// What has the files.
pub(super) trait Serve: Send {
    /// The opcodes and structures of `linux/fuse.h`, version 7.31.
    fn perform(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno>;
}

type Server = Arc<Mutex<dyn Serve>>;

/// What a mount does with requests.
const ANSWERS: i32 = 0;
const HANGS: i32 = -1;

/// The file system as one machine has it.
pub(crate) struct Mount {
    path: PathBuf,
    manner: Arc<AtomicI32>,
    stops: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// Mounts it at each of these directories, which it makes. From here on the thread has a mount namespace of its own.
pub(crate) fn mount_at<const N: usize>(paths: [PathBuf; N]) -> [Mount; N] {
    let root = Node { mode: DIRECTORY | 0o700, ..Node::default() };
    mount(paths, &(Arc::new(Mutex::new(Files { nodes: HashMap::from([(ROOT, root)]), youngest: ROOT })) as Server))
}

/// The same with the files of a real folder.
pub(crate) fn mount_of<const N: usize>(folder: &Path, paths: [PathBuf; N]) -> [Mount; N] {
    fs::create_dir_all(folder).expect("a folder can be made");
    mount(paths, &(Arc::new(Mutex::new(Folder::new(folder))) as Server))
}

fn mount<const N: usize>(paths: [PathBuf; N], files: &Server) -> [Mount; N] {
    needs_root("a FUSE file system");
    unshare(CloneFlags::CLONE_NEWNS).expect("root may have a mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("it is ours");
    paths.map(|path| Mount::new(path, files))
}

impl Mount {
    fn new(path: PathBuf, files: &Server) -> Self {
        fs::create_dir_all(&path).expect("a folder can be made");
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.expect("this test needs FUSE: /dev/fuse");
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).expect("a file system can be made");
        let fd = device.as_raw_fd().to_string();
        for (key, value) in [("fd", fd.as_str()), ("rootmode", "40700"), ("user_id", "0"), ("group_id", "0")] {
            fsconfig_set_string(context.as_fd(), key, value).expect("FUSE knows these");
        }
        fsconfig_create(context.as_fd()).expect("it is complete");
        let mount =
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("we are root");
        let whole = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(mount.as_fd(), "", rustix::fs::CWD, path.as_path(), whole).expect("the folder is there");
        let (manner, stops) = (Arc::new(AtomicI32::new(ANSWERS)), Arc::new(AtomicBool::new(false)));
        let (files, how, stop) = (Arc::clone(files), Arc::clone(&manner), Arc::clone(&stops));
        let server = thread::spawn(move || serve(&device, &files, &how, &stop));
        Self { path, manner, stops, server: Some(server) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on no call returns, until it answers again.
    pub(crate) fn hang(&self) {
        self.manner.store(HANGS, Ordering::Relaxed);
    }

    /// From now on every call fails.
    pub(crate) fn fail(&self, error: Errno) {
        self.manner.store(error.raw_os_error(), Ordering::Relaxed);
    }

    pub(crate) fn answer(&self) {
        self.manner.store(ANSWERS, Ordering::Relaxed);
    }

    /// Its server dies: every call fails with ENOTCONN, for ever.
    pub(crate) fn disconnect(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            server.join().expect("it only answers");
        }
    }
}

impl Drop for Mount {
    /// Ends every wait for it.
    fn drop(&mut self) {
        self.disconnect();
        unmount(self.path.as_path(), UnmountFlags::DETACH).ok();
    }
}

fn serve(mut device: &File, files: &Mutex<dyn Serve>, manner: &AtomicI32, stops: &AtomicBool) {
    let (mut request, mut kept) = (vec![0; REQUEST_MAX], Vec::<Vec<u8>>::new());
    while !stops.load(Ordering::Relaxed) {
        let manner = manner.load(Ordering::Relaxed);
        if manner != HANGS {
            for request in kept.drain(..) {
                answer(device, files, &request, manner);
            }
        }
        let mut ready = [PollFd::new(&device, PollFlags::IN)];
        poll(&mut ready, Some(&TICK.try_into().unwrap())).expect("it can be polled");
        if ready[0].revents().is_empty() {
            continue;
        }
        // One that was interrupted is not there any more.
        let Ok(length) = device.read(&mut request) else { continue };
        if manner == HANGS {
            kept.push(request[..length].to_vec());
        } else {
            answer(device, files, &request[..length], manner);
        }
    }
}

pub(super) fn number(from: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(from[at..at + 4].try_into().unwrap())
}

pub(super) fn long(from: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(from[at..at + 8].try_into().unwrap())
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(super) fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// The text up to a zero.
pub(super) fn name(from: &[u8]) -> Vec<u8> {
    from.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Answers one request. The file system dies with its mount, so that an answer may find no reader.
fn answer(mut device: &File, files: &Mutex<dyn Serve>, request: &[u8], manner: i32) {
    const FORGET: u32 = 2;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    let (opcode, node) = (number(request, 4), long(request, 16));
    if [FORGET, INTERRUPT, BATCH_FORGET].contains(&opcode) {
        return;
    }
    let done = match manner {
        ANSWERS => files.lock().unwrap().perform(opcode, node, &request[40..]),
        error => Err(Errno::from_raw_os_error(error)),
    };
    let error = done.as_ref().err().map_or(0, |error| -error.raw_os_error());
    let body = done.unwrap_or_default();
    let mut reply = words(&[u32::try_from(16 + body.len()).unwrap(), error.cast_unsigned()]);
    reply.extend(&request[8..16]);
    reply.extend(body);
    device.write_all(&reply).ok();
}

impl Serve for Files {
    fn perform(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, Errno> {
        match opcode {
            // LOOKUP
            1 => self.entry(self.find(node, &name(body))?),
            // GETATTR
            3 => Ok([longs(&[0, 0]), self.attributes(node)?].concat()),
            // SETATTR
            4 => {
                let (valid, size, mode) = (number(body, 0), long(body, 16), number(body, 68));
                let changed = self.node(node)?;
                if valid & SET_SIZE != 0 {
                    changed.content.resize(usize::try_from(size).unwrap(), 0);
                }
                if valid & SET_MODE != 0 {
                    changed.mode = mode;
                }
                Ok([longs(&[0, 0]), self.attributes(node)?].concat())
            }
            // MKNOD: the mode has the type
            8 => self.make(node, name(&body[16..]), number(body, 0)),
            // MKDIR
            9 => self.make(node, name(&body[8..]), DIRECTORY | number(body, 0)),
            // UNLINK, RMDIR: a process that has it open keeps it
            10 | 11 => {
                self.node(node)?.names.remove(&name(body)).ok_or(Errno::NOENT)?;
                Ok(Vec::new())
            }
            // RENAME, RENAME2
            12 | 45 => {
                let (to, names) = (long(body, 0), &body[if opcode == 12 { 8 } else { 16 }..]);
                let from = name(names);
                let moved = self.node(node)?.names.remove(&from).ok_or(Errno::NOENT)?;
                self.node(to)?.names.insert(name(&names[from.len() + 1..]), moved);
                Ok(Vec::new())
            }
            // OPEN, OPENDIR
            14 | 27 => Ok([longs(&[0]), words(&[DIRECT_IO * u32::from(opcode == 14), 0])].concat()),
            // READ
            15 => {
                let (from, size) = (long(body, 8), number(body, 16));
                let content = &self.node(node)?.content;
                let from = usize::try_from(from).unwrap().min(content.len());
                let to = content.len().min(from + size as usize);
                Ok(content[from..to].to_vec())
            }
            // WRITE
            16 => {
                let (at, size) = (usize::try_from(long(body, 8)).unwrap(), number(body, 16));
                let (content, data) = (&mut self.node(node)?.content, &body[40..40 + size as usize]);
                content.resize(content.len().max(at + data.len()), 0);
                content[at..at + data.len()].copy_from_slice(data);
                Ok(words(&[size, 0]))
            }
            // STATFS: blocks, free, available, files, free files, block size, longest name, fragment size
            17 => {
                Ok([longs(&[1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20]), words(&[4096, 255, 4096]), words(&[0; 7])]
                    .concat())
            }
            // RELEASE, FSYNC, FLUSH, READDIR (nothing is ever listed), RELEASEDIR, FSYNCDIR
            18 | 20 | 25 | 28 | 29 | 30 => Ok(Vec::new()),
            // INIT, without any feature
            26 => Ok(words(&[7, 31, 0, 0, 0, WRITE_MAX, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
            // CREATE
            35 => {
                let name = name(&body[16..]);
                let made = match self.find(node, &name) {
                    Ok(there) => self.entry(there)?,
                    Err(_) => self.make(node, name, number(body, 4))?,
                };
                Ok([made, longs(&[0]), words(&[DIRECT_IO, 0])].concat())
            }
            _ => Err(Errno::NOSYS),
        }
    }
}

impl Files {
    fn node(&mut self, node: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::STALE)
    }

    fn find(&self, folder: u64, name: &[u8]) -> Result<u64, Errno> {
        let folder = self.nodes.get(&folder).ok_or(Errno::STALE)?;
        folder.names.get(name).copied().ok_or(Errno::NOENT)
    }

    fn make(&mut self, folder: u64, name: Vec<u8>, mode: u32) -> Result<Vec<u8>, Errno> {
        if self.find(folder, &name).is_ok() {
            return Err(Errno::EXIST);
        }
        self.youngest += 1;
        let child = self.youngest;
        self.nodes.insert(child, Node { mode, ..Node::default() });
        self.node(folder)?.names.insert(name, child);
        self.entry(child)
    }

    /// `fuse_entry_out`: nothing of it may be cached.
    fn entry(&self, node: u64) -> Result<Vec<u8>, Errno> {
        Ok([longs(&[node, 0, 0, 0]), words(&[0, 0]), self.attributes(node)?].concat())
    }

    /// `fuse_attr`: of root, with one link.
    fn attributes(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let Node { mode, content, .. } = self.nodes.get(&node).ok_or(Errno::STALE)?;
        let size = content.len() as u64;
        let times = [words(&[0, 0, 0]), words(&[*mode, 1, 0, 0, 0, 4096, 0])].concat();
        Ok([longs(&[node, size, size.div_ceil(512), 0, 0, 0]), times].concat())
    }
}
