//! Keeps the file for the textfile collector of `node_exporter`.

use super::super::input::Input;
use crate::host::control::{Facts, MetricsReply, Query};
use crate::host::metrics::{self, Exposition};
use crate::platform::thread::BlockingCall;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// As often as Prometheus usually scrapes.
const EVERY: Duration = Duration::from_secs(15);

/// Several events in a row are one write.
const AFTER_CHANGE: Duration = Duration::from_millis(500);

/// How long the loop, and the disk, may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Prometheus runs as another user.
const MODE: u32 = 0o644;

pub(super) struct MetricsFile {
    path: PathBuf,
    facts: Facts,
    inputs: mpsc::Sender<Input>,
    disk: BlockingCall,
    trouble: Option<String>,
}

impl MetricsFile {
    pub(super) fn new(path: PathBuf, facts: Facts, inputs: mpsc::Sender<Input>) -> Self {
        Self { path, facts, inputs, disk: BlockingCall::default(), trouble: None }
    }

    /// Runs until `changes` is closed, which hears of each report. The last text says that no supervisor runs.
    pub(super) async fn run(mut self, mut changes: mpsc::Receiver<()>) {
        let mut due = Instant::now() + AFTER_CHANGE;
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(()) => due = due.min(Instant::now() + AFTER_CHANGE),
                    None => break,
                },
                () = sleep_until(due) => {
                    due = Instant::now() + EVERY;
                    // The file of a loop that does not answer grows old, which its collector shows.
                    if let Some(reply) = self.ask().await {
                        self.write(Some(&reply)).await;
                    }
                }
            }
        }
        self.write(None).await;
    }

    async fn ask(&self) -> Option<MetricsReply> {
        let (sender, answer) = oneshot::channel();
        let ask = async {
            self.inputs.send(Query::Metrics(sender).into()).await.ok()?;
            answer.await.ok()
        };
        let (status, tally, start) = timeout(ANSWER_TIME_MAX, ask).await.ok().flatten()?;
        Some(MetricsReply::new(&status, &tally, start, &self.facts))
    }

    /// Tells the first failure in a row, and its end.
    async fn write(&mut self, reply: Option<&MetricsReply>) {
        let (path, text) = (self.path.clone(), metrics::text(reply, Exposition::Prometheus));
        let written = self.disk.run(ANSWER_TIME_MAX, move || replace(&path, &text)).await.flatten();
        let shown = self.path.display();
        match (written, self.trouble.take()) {
            (Ok(()), Some(_)) => tracing::info!("the metrics are written to {shown} again"),
            (Ok(()), None) => {}
            (Err(error), before) => {
                let error = error.to_string();
                if before.is_none() {
                    tracing::warn!("cannot write the metrics to {shown}: {error}; it is tried again");
                }
                self.trouble = Some(error);
            }
        }
    }
}

/// A reader sees the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    // The collector reads *.prom alone.
    name.push(".unfinished");
    let unfinished = path.with_file_name(name);
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(MODE);
        let mut file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(MODE))?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| {
        // On a full disk it would take the room of others.
        let _missing = fs::remove_file(&unfinished);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_readable_by_all() {
        let dir = std::env::temp_dir().join(format!("ocs-metrics-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("openclaw.prom");
        for text in ["a 1\n", "a 2\n"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
        assert!(replace(&dir.join("missing/x.prom"), "").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
