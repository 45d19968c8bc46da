//! Sends every report to the log, the store and the clients of the control socket.

use super::alerter::Alerter;
use crate::core::Report;
use crate::host::clock;
use crate::host::control::Broadcast;
use crate::host::telemetry::Record;
use crate::host::webhook::Delivered;
use crate::store::Store;
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

#[derive(Debug, Clone)]
pub struct Reporter {
    store: Store,
    /// There is a control socket only while the lease is ours.
    watchers: Arc<OnceLock<Broadcast>>,
    /// Only where notifications are asked for.
    alerter: Option<Alerter>,
}

impl Reporter {
    /// A reporter that has no watchers yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, watchers: Arc::default(), alerter: None }
    }

    /// The same, which also tells this one of every report.
    #[must_use]
    pub fn with_alerter(self, alerter: Option<Alerter>) -> Self {
        Self { alerter, ..self }
    }

    /// From here on watchers hear of everything.
    pub fn open(&self, watchers: Broadcast) {
        // There is one socket in the life of a supervisor; a second one would be as good as the first.
        let _second = self.watchers.set(watchers);
    }

    /// Tells one report.
    pub fn report(&self, report: &Report) {
        let record = Record::new(report, clock::wall_ms());
        self.tell(&record);
        self.alert(report);
        self.store_it(report, &record);
    }

    /// Writes to the store what is true once the store has written it. To be told then.
    #[must_use]
    pub fn record<'a>(&self, report: &'a Report) -> Record<'a> {
        let record = Record::new(report, clock::wall_ms());
        self.alert(report);
        self.store_it(report, &record);
        record
    }

    /// Sends a test message on each channel; nothing comes back where there is none.
    pub(super) fn test_channels(&self, answer: oneshot::Sender<Vec<Delivered>>) {
        match &self.alerter {
            Some(alerter) => alerter.test(answer),
            // The client may have gone.
            None => drop(answer.send(Vec::new())),
        }
    }

    fn alert(&self, report: &Report) {
        if let Some(alerter) = &self.alerter {
            alerter.see(report);
        }
    }

    /// With its level and its sentence, which `events` and `explain` show: another version of this program may read it.
    fn store_it(&self, report: &Report, record: &Record<'_>) {
        let (level, message) = (report.severity().name(), Value::from(record.message.as_str()));
        let members = record.members.strip_prefix('{').unwrap_or("}");
        let comma = if members == "}" { "" } else { "," };
        let fields = format!(r#"{{"level":"{level}","message":{message}{comma}{members}"#);
        self.store.report(record.wall_ms, report.name(), report.generation(), fields);
    }

    /// Tells the log and the watchers.
    pub fn tell(&self, record: &Record<'_>) {
        record.emit();
        if let Some(watchers) = self.watchers.get() {
            watchers.tell(&record.line);
        }
    }

    /// Lets every watcher have its last line. To be called after the last report.
    pub async fn finish(&self) {
        if let Some(watchers) = self.watchers.get() {
            watchers.finish().await;
        }
    }
}
