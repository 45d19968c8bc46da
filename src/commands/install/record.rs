//! Files that are ours: each says in its first lines that `install` wrote it, with a digest of the rest, so that one of
//! somebody else and one that was edited are known.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What begins the line of the digest.
const SIGN: &str = "written by 'openclaw-supervise install', digest ";

/// A file that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// The same, to the byte.
    Same,
    /// Another one that we wrote.
    Ours,
    /// One that somebody else wrote, or edited.
    Foreign,
}

/// `body` below its signed line; `open` and `close` make a comment of that.
pub(super) fn sign(open: &str, close: &str, body: &str) -> String {
    format!("{open}{SIGN}{:016x}{close}\n{body}", digest(body))
}

/// Whether a text was signed and not changed since.
fn is_ours(text: &str) -> bool {
    let mut lines = text.splitn(2, '\n');
    let (Some(first), Some(body)) = (lines.next(), lines.next()) else { return false };
    let Some((_, rest)) = first.split_once(SIGN) else { return false };
    rest.get(..16).is_some_and(|found| found == format!("{:016x}", digest(body)))
}

/// FNV-1a, which is no seal: it only has to notice an edit.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Looks at a place. `text` is what would be written there.
pub(super) fn look(path: &Path, text: Option<&str>) -> io::Result<Found> {
    let there = match fs::read(path) {
        Ok(there) => String::from_utf8_lossy(&there).into_owned(),
        // A link into nowhere is somebody's, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(if path.is_symlink() { Found::Foreign } else { Found::Nothing });
        }
        Err(error) => return Err(error),
    };
    Ok(match text {
        Some(text) if text == there => Found::Same,
        _ if is_ours(&there) => Found::Ours,
        _ => Found::Foreign,
    })
}

impl Planned {
    /// Writes it whole or not at all.
    pub(super) fn write(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.join(format!(".{name}.{}", std::process::id()));
        let written = write_new(&draft, &self.text).and_then(|()| fs::rename(&draft, &self.path));
        if written.is_err() {
            // What is left of it says nothing to anybody.
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

/// The links in the `.wants` and `.requires` folders of `folder` by which a target starts the unit `name`.
pub(super) fn links(folder: &Path, name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let targets = entries.filter(|path| path.extension().is_some_and(|kind| kind == "wants" || kind == "requires"));
    let links: Vec<_> = targets.map(|target| target.join(name)).filter(|link| link.is_symlink()).collect();
    links.into_iter()
}

/// What is left in the drop-in folder of a unit.
pub(super) fn drop_ins(folder: &Path, unit: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.join(format!("{unit}.d"))).into_iter().flatten().flatten();
    let mut left: Vec<_> = entries.map(|entry| entry.path()).collect();
    left.sort_unstable();
    left
}

/// Removes a file, if it is there, and the folders above it up to `top` that are empty then.
pub(super) fn remove(path: &Path, top: &Path) -> io::Result<bool> {
    let was_there = match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(top) && *folder != top) {
        // One that is not empty is not ours alone.
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
    fn a_signed_text_is_ours_until_somebody_edits_it() {
        let signed = sign("# ", "", "[Unit]\nA=b\n");
        assert!(is_ours(&signed), "{signed}");
        for edited in [signed.replace("A=b", "A=c"), format!("{signed}#"), "[Unit]\nA=b\n".to_owned(), String::new()] {
            assert!(!is_ours(&edited), "{edited}");
        }
        let xml = sign("<!-- ", " -->", "<plist/>\n");
        assert!(xml.starts_with("<!-- written") && is_ours(&xml));
    }

    #[test]
    fn the_digest_is_the_published_one() {
        // The test vectors of FNV-1a, 64 bits.
        assert_eq!(digest(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest("foobar"), 0x8594_4171_f739_67e8);
    }
}
