//! Which incidents were told, in a file of the store directory: the next supervisor neither repeats nor forgets them.

use crate::core::Moment;
use crate::core::alert::{AlertKind, AlertMemory, OpenAlert};
use crate::host::clock;
use crate::platform::folder::Folder;
use crate::platform::regular_file;
use crate::platform::thread::BlockingCall;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const NAME: &str = "notified.json";

/// The name of the file while it is written.
const UNFINISHED: &str = "notified.json.unfinished";

const LENGTH_MAX: u64 = 4096;

/// A disk that takes longer hangs.
const DISK_TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct AlertFile {
    store_dir: PathBuf,
    disk: BlockingCall,
    /// The number of the last message that was noted. Two lines may deliver theirs out of order.
    last: Arc<Mutex<u64>>,
}

/// The file. Times are of the wall clock, in ms since 1970.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Recorded {
    gateway: Option<RecordedAlert>,
    service: Option<RecordedAlert>,
    flaps: u32,
    last_end_ms: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordedAlert {
    kind: String,
    since_ms: i64,
    id: u64,
}

impl AlertFile {
    pub(super) fn of(store_dir: PathBuf) -> Self {
        Self { store_dir, disk: BlockingCall::default(), last: Arc::default() }
    }

    /// Nothing where the file is missing or cannot be read: then a message may come twice.
    pub(super) async fn read(&self) -> AlertMemory {
        let path = self.store_dir.join(NAME);
        let bytes = self.disk.run(DISK_TIME_MAX, move || regular_file::head(&path, LENGTH_MAX)).await.flatten();
        let recorded: Recorded = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let (now, now_ms) = (clock::now(), clock::wall_ms());
        // A time in the future is of a clock that was wrong.
        let moment = |ms: i64| now.saturating_sub(Duration::from_millis(u64::try_from(now_ms - ms).unwrap_or(0)));
        let open = |alert: RecordedAlert| {
            let kind = AlertKind::ALL.into_iter().find(|kind| kind.name() == alert.kind)?;
            Some(OpenAlert { kind, since: moment(alert.since_ms), id: alert.id })
        };
        AlertMemory {
            gateway: recorded.gateway.and_then(open),
            service: recorded.service.and_then(open),
            flaps: recorded.flaps,
            last_end: recorded.last_end_ms.map(moment),
        }
    }

    /// Replaces the file, unless a later message is noted there. A full disk is no news: the store reports it.
    pub(super) async fn write(&self, number: u64, memory: &AlertMemory) {
        let mut last = self.last.lock().await;
        if *last >= number {
            return;
        }
        *last = number;
        let (now, now_ms) = (clock::now(), clock::wall_ms());
        let wall = |at: Moment| clock::wall_of(at, now, now_ms);
        let record = |open: &OpenAlert| RecordedAlert {
            kind: open.kind.name().to_owned(),
            since_ms: wall(open.since),
            id: open.id,
        };
        let recorded = Recorded {
            gateway: memory.gateway.as_ref().map(record),
            service: memory.service.as_ref().map(record),
            flaps: memory.flaps,
            last_end_ms: memory.last_end.map(wall),
        };
        let (dir, text) = (self.store_dir.clone(), serde_json::to_vec(&recorded).unwrap_or_default());
        let write = move || -> io::Result<()> {
            let folder = Folder::open(&dir).map_err(io::Error::other)?;
            folder.replace(NAME, UNFINISHED, &text)
        };
        if let Err(error) = self.disk.run(DISK_TIME_MAX, write).await.flatten() {
            tracing::debug!("cannot write {NAME}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn what_is_written_is_read_and_what_is_damaged_is_nothing() {
        let dir = std::env::temp_dir().join(format!("ocs-notified-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let memory = AlertFile::of(dir.clone());
        assert_eq!(memory.read().await, AlertMemory::default());
        let since = clock::now().saturating_sub(Duration::from_secs(90));
        let open = OpenAlert { kind: AlertKind::GaveUp, since, id: u64::MAX };
        let told = AlertMemory { gateway: Some(open.clone()), service: None, flaps: 3, last_end: Some(since) };
        memory.write(2, &told).await;
        memory.write(1, &AlertMemory::default()).await;
        let read = memory.read().await;
        let found = read.gateway.unwrap();
        assert_eq!((found.kind, found.id, read.flaps), (open.kind, open.id, 3));
        assert!(found.since.abs_diff(since) < Duration::from_secs(2), "{:?}", found.since);
        for damaged in ["", "{", "[]", r#"{"gateway": {"kind": "x", "since_ms": 1, "id": 1}}"#] {
            fs::write(dir.join(NAME), damaged).unwrap();
            assert_eq!(memory.read().await, AlertMemory::default(), "{damaged}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
