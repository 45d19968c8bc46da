//! A damaged database is put aside, for whoever wants to look into it, and another one begun.

use super::error::StoreError;
use super::folder::database_of;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How many of them are kept.
const KEPT_MAX: usize = 3;

/// What belongs to a database beside its own file.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

/// Moves the database of a folder aside, with its log, so that the two still fit together. Only who holds the lock may
/// do this, and nobody in this process may have it open. Returns the new name.
pub(super) fn move_aside(dir: &Path, wall_ms: i64) -> Result<PathBuf, StoreError> {
    let database = database_of(dir);
    let to = free_name(dir, wall_ms);
    for companion in COMPANIONS {
        let (from, to) = (with_suffix(&database, companion), with_suffix(&to, companion));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::file("move the damaged", &from, "move it away by hand")(error));
            }
            _ => {}
        }
    }
    remove_oldest(dir);
    Ok(to)
}

fn free_name(dir: &Path, wall_ms: i64) -> PathBuf {
    let stamp = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default();
    let stamp = stamp.strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = |number: u32| match number {
        0 => dir.join(format!("supervise.sqlite.damaged-{stamp}")),
        more => dir.join(format!("supervise.sqlite.damaged-{stamp}.{more}")),
    };
    (0..u32::MAX).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(u32::MAX))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The names sort by time. What cannot be removed stays.
fn remove_oldest(dir: &Path) {
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut damaged: Vec<_> = names
        .filter(|name| {
            name.starts_with("supervise.sqlite.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect();
    damaged.sort();
    let surplus = damaged.len().saturating_sub(KEPT_MAX);
    for name in &damaged[..surplus] {
        for companion in COMPANIONS {
            let _stays = fs::remove_file(with_suffix(&dir.join(name), companion));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_database_goes_with_its_log_and_three_of_them_stay() {
        let scratch = Scratch::new();
        for second in 0..5 {
            for companion in COMPANIONS {
                fs::write(with_suffix(&database_of(scratch.path()), companion), [second]).unwrap();
            }
            let to = move_aside(scratch.path(), i64::from(second) * 1000).unwrap();
            assert_eq!(fs::read(to).unwrap(), [second]);
        }
        let stay = names(scratch.path());
        assert_eq!(stay.len(), 9);
        assert_eq!(stay[0], "supervise.sqlite.damaged-19700101T000002Z");
        assert_eq!(stay[8], "supervise.sqlite.damaged-19700101T000004Z-wal");
    }

    #[test]
    fn two_within_a_second_do_not_overwrite_each_other() {
        let scratch = Scratch::new();
        for content in [1, 2] {
            fs::write(database_of(scratch.path()), [content]).unwrap();
            move_aside(scratch.path(), 0).unwrap();
        }
        assert_eq!(names(scratch.path()).len(), 2);
    }
}
