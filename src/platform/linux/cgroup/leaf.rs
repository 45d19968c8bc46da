//! The control group of one gateway or hook.

use super::files::{is_for_threads, is_gone, numbers, open_group, read, write};
use super::place;
use rustix::fs::{AtFlags, Dir, FileType, Mode, mkdirat, unlinkat};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The depth to which groups below a leaf are read. The kernel allows any depth.
const DEPTH_MAX: usize = 16;

/// The control group of one gateway.
#[derive(Debug)]
pub struct Leaf {
    parent: OwnedFd,
    name: String,
    /// Of this very group, though another one may have its name by now.
    directory: Arc<OwnedFd>,
}

impl Leaf {
    /// Creates a leaf of this name below our own control group.
    ///
    /// # Errors
    /// No second version of control groups here (`Unsupported`), or not ours to write (EACCES, EROFS), or a parent in
    /// which no processes can be put, or one that is there already.
    pub fn create(name: &str) -> io::Result<Self> {
        let parent = place::open(&place::own()?)?;
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        let opened = parent.try_clone().and_then(|parent| Self::open(parent, name));
        let made = opened.and_then(|leaf| {
            // Below a threaded group it would be "domain invalid", and not to be entered.
            if read(&*leaf.directory, "cgroup.type")?.trim_ascii() == b"domain" {
                Ok(leaf)
            } else {
                Err(Errno::OPNOTSUPP.into())
            }
        });
        if made.is_err() {
            let _removed = unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
        made
    }

    /// The leaf of this name that a process is in, be it further down, or that is below our own control group.
    #[must_use]
    pub fn find(name: &str, member: Option<i32>) -> Option<Self> {
        let of_member = member.and_then(|pid| place::of(pid).ok()).and_then(|place| {
            let leaf = place.ancestors().find(|group| group.file_name().is_some_and(|last| last == name))?;
            Self::open(place::open(leaf.parent()?).ok()?, name).ok()
        });
        of_member.or_else(|| Self::open(place::open(&place::own().ok()?).ok()?, name).ok())
    }

    fn open(parent: OwnedFd, name: &str) -> io::Result<Self> {
        let directory = Arc::new(open_group(parent.as_fd(), name)?);
        Ok(Self { parent, name: name.to_owned(), directory })
    }

    pub(in crate::platform) fn directory(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.directory)
    }

    /// Every process in it and below it. A zombie is not listed.
    ///
    /// # Errors
    /// EMFILE; ENODEV once it was removed.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        let mut all = Vec::new();
        for (depth, group) in descend(&self.directory)?.into_iter().enumerate() {
            match read(&*group, "cgroup.procs") {
                // A process in an invisible pid namespace is listed as 0.
                Ok(list) => all.extend(numbers(&list).filter(|&pid| pid > 0)),
                // Removed in the meantime, or threaded: the group above lists its processes.
                Err(error) if depth > 0 && (is_gone(&error) || is_for_threads(&error)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// SIGKILL to every process in it and below it, those that are being forked included. They take a moment to end.
    ///
    /// # Errors
    /// `Unsupported` on a kernel before 5.14: then they are frozen, so that they can be killed one by one without forking
    /// meanwhile; SIGKILL ends a frozen process, and [`Leaf::remove`] thaws what is left.
    /// ENODEV once it was removed.
    pub fn kill(&self) -> io::Result<()> {
        match write(&*self.directory, "cgroup.kill", "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&*self.directory, "cgroup.freeze", "1")?;
                Err(io::ErrorKind::Unsupported.into())
            }
            result => result,
        }
    }

    /// Removes it with all empty groups below it. It stays if it is not empty.
    pub fn remove(&self) {
        let _is_done = self.try_remove();
    }

    /// The same. Returns whether a retry is useless: it is gone, or not ours to remove.
    #[must_use]
    pub fn try_remove(&self) -> bool {
        remove_empty_below(&self.directory);
        let is_busy = unlinkat(&self.parent, self.name.as_str(), AtFlags::REMOVEDIR) == Err(Errno::BUSY);
        if is_busy {
            let _thawed = write(&*self.directory, "cgroup.freeze", "0");
        }
        !is_busy
    }
}

/// Removes the empty leaves below our own control group with this name prefix: those of supervisors that were
/// killed. The kernel keeps a group that is not empty. A leaf that another supervisor has made and not used yet may go as
/// well: its gateway is then created outside, see [`Spawned`](crate::platform::process::Spawned).
pub fn remove_empty(prefix: &str) {
    let Ok(parent) = place::own().and_then(|own| place::open(&own)) else { return };
    let Ok(names) = groups_in(&parent) else { return };
    for name in names.into_iter().filter(|name| name.starts_with(prefix)) {
        let Ok(leaf) = open_group(parent.as_fd(), &name) else { continue };
        remove_empty_below(&Arc::new(leaf));
        let _removed = unlinkat(&parent, name.as_str(), AtFlags::REMOVEDIR);
    }
}

/// The leaves below our own control group with this name prefix that are not empty.
#[must_use]
pub fn populated(prefix: &str) -> Vec<String> {
    let own = || place::open(&place::own()?);
    let names = own().and_then(|parent| groups_in(&parent)).unwrap_or_default().into_iter();
    let is_populated = |name: &String| {
        let leaf = own().and_then(|parent| Leaf::open(parent, name));
        leaf.and_then(|leaf| leaf.members()).is_ok_and(|members| !members.is_empty())
    };
    names.filter(|name| name.starts_with(prefix)).filter(is_populated).collect()
}

fn remove_empty_below(group: &Arc<OwnedFd>) {
    let Ok(groups) = descend(group) else { return };
    for group in groups.iter().rev() {
        for name in groups_in(group).unwrap_or_default() {
            let _removed = unlinkat(&**group, name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}

/// A group and all below it, each after the one that it is in.
fn descend(group: &Arc<OwnedFd>) -> io::Result<Vec<Arc<OwnedFd>>> {
    let mut all = vec![Arc::clone(group)];
    let mut level = all.clone();
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for group in &level {
            let names = match groups_in(group) {
                Err(error) if is_gone(&error) => continue,
                names => names?,
            };
            for name in names {
                match open_group(group.as_fd(), &name) {
                    Ok(below) => next.push(Arc::new(below)),
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if next.is_empty() {
            break;
        }
        all.extend(next.iter().cloned());
        level = next;
    }
    Ok(all)
}

fn groups_in(group: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(group)? {
        let entry = entry?;
        if entry.file_type() == FileType::Directory
            && let Ok(name) = entry.file_name().to_str()
            && ![".", ".."].contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, OFlags, openat};
    use std::fs;

    #[test]
    fn without_cgroup_kill_all_are_frozen_and_what_is_left_is_thawed() {
        let root = std::env::temp_dir().join(format!("leaf-before-5.14-{}", std::process::id()));
        fs::create_dir_all(root.join("leaf")).unwrap();
        let freeze = root.join("leaf/cgroup.freeze");
        fs::write(&freeze, "").unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(CWD, &root, flags, Mode::empty()).unwrap();
        let leaf = Leaf::open(parent, "leaf").unwrap();
        assert_eq!(leaf.kill().unwrap_err().kind(), io::ErrorKind::Unsupported);
        assert_eq!(fs::read_to_string(&freeze).unwrap(), "1");
        fs::remove_dir_all(root).unwrap();
        assert!(is_gone(&leaf.kill().unwrap_err()), "a group that is gone is not one of an old kernel");
    }
}
