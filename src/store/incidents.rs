//! Reports on hung gateways, in a directory beside the database.

use super::folder::{FOLDER_MODE, tighten};
use crate::platform::folder::Folder;
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: &str = "incidents";

/// The most files that are kept.
const KEPT_MAX: usize = 20;

/// The name of a file while it is written.
const UNFINISHED: &str = "unfinished";

/// The names are UTC timestamps, which sort by time.
const SUFFIX: &str = ".json";

/// Saves a private file named by its timestamp, and removes the oldest surplus ones. A file is complete even after a power
/// failure.
///
/// # Errors
/// The folder or the file cannot be written; a symbolic link is in the place of the folder.
pub fn save(store_dir: &Path, stamp: &str, content: &[u8]) -> io::Result<PathBuf> {
    let store = Folder::open(store_dir)?;
    let folder = store.sub(FOLDER)?;
    if let Some(warning) = tighten(&store, FOLDER, FOLDER_MODE) {
        tracing::warn!("{warning}");
    }
    let name = unused_in(&folder, stamp)?;
    // What a supervisor that was killed left under the first name is replaced: we own the store, so no other process writes it now.
    folder.replace(&name, UNFINISHED, content)?;
    folder.sync();
    prune(&folder, &name);
    Ok(store_dir.join(FOLDER).join(name))
}

/// An unused name for this timestamp: two within a millisecond do not overwrite each other.
fn unused_in(folder: &Folder, stamp: &str) -> io::Result<String> {
    let name = |number: usize| {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        format!("{}{more}{SUFFIX}", stamp.replace(':', "-"))
    };
    let is_unused = |name: &String| folder.meta_of(name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    (0..=KEPT_MAX).map(name).find(is_unused).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// Removes all but the last files, and never `newest`, which does not sort last after the clock was set back. Files with
/// other names are not ours. A file that cannot be removed is tried again next time.
fn prune(folder: &Folder, newest: &str) {
    let names = folder.names().unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_ours(name) && name != newest).collect();
    names.sort_unstable();
    for name in names.iter().rev().skip(KEPT_MAX - 1) {
        let _next_time = folder.remove(name);
    }
}

/// Whether a name is a timestamp, with or without a number.
fn is_ours(name: &str) -> bool {
    const LIKE: &str = "0000-00-00T00-00-00.000Z";
    let stamp = name.strip_suffix(SUFFIX).and_then(|name| name.split_at_checked(LIKE.len()));
    stamp.is_some_and(|(stamp, number)| {
        let fits = |(byte, like): (u8, u8)| byte == like || like == b'0' && byte.is_ascii_digit();
        stamp.bytes().zip(LIKE.bytes()).all(fits)
            && (number.is_empty() || number.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const STAMP: &str = "2026-11-24T03:00:00.000Z";

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn files_are_private_and_only_the_newest_are_kept() {
        let scratch = Scratch::new();
        for number in 0..25 {
            let stamp = format!("2026-11-24T03:00:{number:02}.000Z");
            let path = save(scratch.path(), &stamp, b"{}").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"{}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        let folder = scratch.path().join("incidents");
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let names = names(&folder);
        assert_eq!(names.len(), KEPT_MAX);
        assert_eq!(names[0], "2026-11-24T03-00-05.000Z.json");
    }

    #[test]
    fn two_of_one_moment_are_two_files_and_a_link_is_not_followed() {
        let scratch = Scratch::new();
        let [one, other] = ["a", "b"].map(|text| save(scratch.path(), STAMP, text.as_bytes()).unwrap());
        assert_eq!([fs::read(one).unwrap(), fs::read(&other).unwrap()], [b"a", b"b"]);
        let precious = scratch.path().join("precious");
        fs::remove_file(&other).unwrap();
        std::os::unix::fs::symlink(&precious, &other).unwrap();
        let third = save(scratch.path(), STAMP, b"c").unwrap();
        assert_ne!(third, other);
        assert!(!precious.exists() && fs::symlink_metadata(&other).unwrap().is_symlink());
    }

    #[test]
    fn after_the_clock_was_set_back_an_old_file_is_removed_and_not_the_new_one() {
        let scratch = Scratch::new();
        for number in 20..45 {
            save(scratch.path(), &format!("2026-11-24T03:00:{number}.000Z"), b"{}").unwrap();
        }
        let path = save(scratch.path(), STAMP, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(path.parent().unwrap()).len(), KEPT_MAX);
    }

    #[test]
    fn other_files_in_the_directory_are_kept() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("incidents");
        fs::create_dir(&folder).unwrap();
        let others = ["0-notes.json", "2026-11-24T02-00-00.000Z.txt", "2026-11-24T02-00-00.000Z-mine.json", "x.json"];
        for name in others {
            fs::write(folder.join(name), "").unwrap();
        }
        for number in 0..25 {
            save(scratch.path(), &format!("2026-11-24T03:00:{number:02}.000Z"), b"{}").unwrap();
        }
        assert!(others.iter().all(|name| folder.join(name).exists()));
        assert_eq!(names(&folder).len(), KEPT_MAX + others.len());
    }

    #[test]
    fn a_file_or_a_link_in_place_of_the_directory_is_refused() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("incidents"), "").unwrap();
        assert!(save(scratch.path(), STAMP, b"{}").is_err());
        let scratch = Scratch::new();
        std::os::unix::fs::symlink("/", scratch.path().join("incidents")).unwrap();
        assert!(save(scratch.path(), STAMP, b"{}").is_err());
    }

    #[test]
    fn an_unfinished_file_of_a_killed_supervisor_is_replaced() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("incidents")).unwrap();
        fs::write(scratch.path().join("incidents").join(UNFINISHED), "half").unwrap();
        let path = save(scratch.path(), STAMP, b"{}").unwrap();
        assert_eq!(names(path.parent().unwrap()), ["2026-11-24T03-00-00.000Z.json"]);
    }
}
