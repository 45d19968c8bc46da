//! A pause of the supervision, in a file beside the database: a supervisor that is started meanwhile goes on with it.

use crate::core::event::PAUSE_MAX;
use crate::core::event::PauseRequest;
use crate::platform::clock;
use crate::platform::folder::Folder;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const FILE: &str = "pause.json";

/// A real file has some 300 bytes.
const LENGTH_MAX: u64 = 16 * 1024;

/// A pause on record, and who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPause {
    /// Since 1970.
    until_ms: i64,
    for_ms: u64,
    pub reason: String,
    pub by: String,
}

impl RecordedPause {
    fn new(period: Duration, reason: &str, by: &str) -> Self {
        let for_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms().saturating_add_unsigned(for_ms);
        Self { until_ms, for_ms, reason: reason.to_owned(), by: by.to_owned() }
    }

    /// What is left of it by the clock on the wall. A clock that was put back makes it no longer than it was asked to be.
    fn left(&self, now_ms: i64) -> Option<Duration> {
        let left = u64::try_from(self.until_ms.saturating_sub(now_ms)).ok().filter(|left| *left > 0)?;
        Some(Duration::from_millis(left.min(self.for_ms)).min(PAUSE_MAX))
    }

    /// `None` if none is on record, or its time is over. Blocks on the file system.
    #[must_use]
    pub fn read(store_dir: &Path) -> Option<(PauseRequest, String)> {
        let (folder, mut text) = (Folder::open(store_dir).ok()?, Vec::new());
        folder.open_file(FILE, OFlags::RDONLY).ok()?.take(LENGTH_MAX).read_to_end(&mut text).ok()?;
        let recorded: Self = serde_json::from_slice(&text).ok()?;
        let period = recorded.left(now_ms())?;
        Some((PauseRequest { period, reason: recorded.reason }, recorded.by))
    }

    /// Removes it where no supervisor runs. Says whether there was one.
    ///
    /// # Errors
    /// Those of unlinkat(2).
    pub fn remove(store_dir: &Path) -> io::Result<bool> {
        let folder = Folder::open(store_dir).map_err(io::Error::other)?;
        match folder.meta_of(FILE) {
            Ok(_) => folder.remove(FILE).map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes it, on threads of their own: a disk may take long. The last one that was asked for is what remains.
#[derive(Debug, Clone)]
pub struct PauseKeeper {
    folder: PathBuf,
    wanted: Arc<Mutex<Option<RecordedPause>>>,
}

impl PauseKeeper {
    #[must_use]
    pub fn in_folder(store_dir: &Path) -> Self {
        Self { folder: store_dir.to_owned(), wanted: Arc::default() }
    }

    pub fn keep(&self, period: Duration, reason: &str, by: &str) {
        self.want(Some(RecordedPause::new(period, reason, by)));
    }

    pub fn forget(&self) {
        self.want(None);
    }

    fn want(&self, wanted: Option<RecordedPause>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        let (folder, wanted) = (self.folder.clone(), Arc::clone(&self.wanted));
        let writing = move || {
            let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = write(&folder, wanted.as_ref()) {
                tracing::warn!("cannot record the pause ({error}): the next supervisor will not know of it");
            }
        };
        let _detached = thread::Builder::new().name("pause".to_owned()).spawn(writing);
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    i64::try_from(clock::wall().as_millis()).unwrap_or(i64::MAX)
}

/// Atomic.
fn write(folder: &Path, wanted: Option<&RecordedPause>) -> io::Result<()> {
    let Some(recorded) = wanted else { return RecordedPause::remove(folder).map(drop) };
    let text = serde_json::to_string(recorded).unwrap_or_default() + "\n";
    Folder::open(folder).map_err(io::Error::other)?.replace(FILE, &format!("{FILE}.new"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn a_pause_is_read_again_with_the_rest_of_its_time_until_that_is_over() {
        let scratch = Scratch::new();
        assert_eq!(RecordedPause::read(scratch.path()), None);
        let recorded = RecordedPause::new(Duration::from_mins(20), "gdb", "pid 7");
        write(scratch.path(), Some(&recorded)).unwrap();
        let (pause, by) = RecordedPause::read(scratch.path()).unwrap();
        assert!(pause.period <= Duration::from_mins(20) && pause.period > Duration::from_mins(19), "{pause:?}");
        assert_eq!((pause.reason.as_str(), by.as_str()), ("gdb", "pid 7"));
        assert_eq!(recorded.left(recorded.until_ms), None);
        assert_eq!(recorded.left(0), Some(Duration::from_mins(20)), "a clock that was put back");
        assert!(RecordedPause::remove(scratch.path()).unwrap());
        assert!(!RecordedPause::remove(scratch.path()).unwrap());
    }
}
