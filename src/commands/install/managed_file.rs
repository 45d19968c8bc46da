//! The files that `install` writes. A line at the top of each holds a digest of the rest, which tells them from files of other
//! origin and from edited ones.

use crate::platform::hash::fnv1a;
use crate::platform::regular_file;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Starts the digest line.
const SIGN: &str = "written by 'openclaw-supervise install', digest ";

/// Many times what a unit has. A longer file is of other origin.
pub(super) const SIZE_MAX: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedFile {
    pub path: PathBuf,
    pub text: String,
}

/// What is at the path of a managed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    Missing,
    /// Already as it would be written.
    UpToDate,
    /// Written by us, with other content.
    Ours,
    /// Of other origin, or edited.
    Foreign,
}

/// `body` below its digest line, which `open` and `close` make a comment.
pub(super) fn sign(open: &str, close: &str, body: &str) -> String {
    format!("{open}{SIGN}{:016x}{close}\n{body}", fnv1a(body.bytes()))
}

/// Whether a text has a digest line and was not edited since.
pub(super) fn is_ours(text: &str) -> bool {
    let mut lines = text.splitn(2, '\n');
    let (Some(first), Some(body)) = (lines.next(), lines.next()) else { return false };
    let Some((_, rest)) = first.split_once(SIGN) else { return false };
    rest.get(..16).is_some_and(|found| found == format!("{:016x}", fnv1a(body.bytes())))
}

/// A file with its text; `None` if it is missing, or no regular file.
pub(super) fn read(path: &Path) -> Option<String> {
    regular_file::head(path, SIZE_MAX).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// `text` is what would be written to `path`.
pub(super) fn inspect(path: &Path, text: Option<&str>) -> io::Result<FileState> {
    // A masked unit is a link to /dev/null; a FIFO would be waited for.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        return Ok(FileState::Foreign);
    }
    let there = match regular_file::head(path, SIZE_MAX) {
        Ok(there) => String::from_utf8_lossy(&there).into_owned(),
        // A dangling symlink is foreign, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(if path.is_symlink() { FileState::Foreign } else { FileState::Missing });
        }
        Err(error) => return Err(error),
    };
    Ok(match text {
        Some(text) if text == there => FileState::UpToDate,
        _ if is_ours(&there) => FileState::Ours,
        _ => FileState::Foreign,
    })
}

impl ManagedFile {
    /// Atomic.
    pub fn write(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&draft, &self.text).and_then(|()| fs::rename(&draft, &self.path));
        if written.is_err() {
            // The error is reported; the rest of the draft is of no use.
            let _gone = fs::remove_file(&draft);
        }
        written
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The links in the `.wants` and `.requires` folders of `folder` that enable the unit `name`.
pub(super) fn enabling_links(folder: &Path, name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let targets = entries.filter(|path| path.extension().is_some_and(|kind| kind == "wants" || kind == "requires"));
    let links: Vec<_> = targets.map(|target| target.join(name)).filter(|link| link.is_symlink()).collect();
    links.into_iter()
}

/// The files in the drop-in folder of a unit.
pub(super) fn drop_ins(folder: &Path, unit: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(format!("{unit}.d"))).into_iter().flatten().flatten();
    let mut left: Vec<_> = entries.map(|entry| entry.path()).collect();
    left.sort_unstable();
    left
}

/// Removes a file and the folders above it, up to `top`, that are empty then. Returns whether the file existed.
pub(super) fn remove(path: &Path, top: &Path) -> io::Result<bool> {
    let was_there = match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(top) && *folder != top) {
        // Not empty: in use by others.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(was_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_text_is_ours_until_it_is_edited() {
        let signed = sign("# ", "", "[Unit]\nA=b\n");
        assert!(is_ours(&signed), "{signed}");
        for edited in [signed.replace("A=b", "A=c"), format!("{signed}#"), "[Unit]\nA=b\n".to_owned(), String::new()] {
            assert!(!is_ours(&edited), "{edited}");
        }
        let xml = sign("<!-- ", " -->", "<plist/>\n");
        assert!(xml.starts_with("<!-- written") && is_ours(&xml));
    }
}
