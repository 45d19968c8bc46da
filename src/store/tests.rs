//! Helpers for the tests of the store.

use super::clock::Clocks;
use crate::platform::sqlite;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A directory that is removed at the end of the test.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sqlite::keep_small();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("supervise-store-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// Clocks that the test advances.
pub(super) struct TestClocks {
    wall: Arc<AtomicI64>,
    boot: Arc<AtomicI64>,
    gone: AtomicI64,
    boot_id: Mutex<String>,
}

impl TestClocks {
    pub(super) fn new() -> Self {
        Self {
            wall: Arc::new(AtomicI64::new(1_800_000_000_000)),
            boot: Arc::new(AtomicI64::new(5_000_000)),
            gone: AtomicI64::new(0),
            boot_id: Mutex::new("first".to_owned()),
        }
    }

    pub(super) fn clocks(&self) -> Clocks {
        let (wall, boot) = (Arc::clone(&self.wall), Arc::clone(&self.boot));
        Clocks {
            wall: Arc::new(move || wall.load(Ordering::Relaxed)),
            boot: Arc::new(move || boot.load(Ordering::Relaxed)),
            boot_id: Some(self.boot_id.lock().unwrap().clone()),
        }
    }

    pub(super) fn go(&self, time: Duration) {
        let ms = i64::try_from(time.as_millis()).unwrap();
        for clock in [&*self.wall, &*self.boot, &self.gone] {
            clock.fetch_add(ms, Ordering::Relaxed);
        }
    }

    pub(super) fn step_wall(&self, ms: i64) {
        self.wall.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn reboot(&self) {
        self.boot.store(0, Ordering::Relaxed);
        "second".clone_into(&mut self.boot_id.lock().unwrap());
    }

    /// How far the clocks have advanced beyond `time`.
    pub(super) fn after(&self, time: Duration) -> Duration {
        Duration::from_millis(self.gone.load(Ordering::Relaxed).try_into().unwrap()).checked_sub(time).unwrap()
    }
}
