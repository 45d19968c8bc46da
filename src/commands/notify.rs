//! `notify`: whether a message arrives, and the failure of a unit.

use super::status::NOT_HEALTHY;
use crate::app::alerter::{Channels, has_told_its_end};
use crate::core::exit;
use crate::gateway::hooks::{Commands, Hooks};
use crate::host::clock;
use crate::host::control::{Connection, ConnectionError};
use crate::host::webhook::{Delivered, Notification, Origin};
use crate::platform::machine;
use crate::settings::NotifySettings;
use serde_json::Value;
use std::io;
use std::path::Path;

const NONE_HERE: &str =
    "no notification channel is set here; give --notify, --on-event or --heartbeat-url, or set their variables";

/// Sends one message to each channel and says what came back. Without channels of its own it asks the running supervisor for a
/// test of those that it has. Returns the exit code.
pub async fn run(settings: &NotifySettings, out: &mut impl io::Write) -> io::Result<u8> {
    let NotifySettings { subject, alerts, exports, failed_unit } = settings;
    let has_channels = alerts.has_channel() || alerts.heartbeat.is_some();
    let origin = Origin {
        host: machine::host_name().unwrap_or_default(),
        config: subject.config_path.to_string_lossy().into_owned(),
        store_dir: subject.store_dir.to_string_lossy().into_owned(),
        manager: if failed_unit.is_some() { "systemd" } else { "terminal" },
        output: String::new(),
        start: None,
    };
    let message = match failed_unit {
        Some(unit) if has_told_its_end(subject.store_dir.clone()).await => {
            writeln!(out, "the supervisor of {unit} has told its end itself; nothing was sent")?;
            return Ok(exit::OK);
        }
        Some(unit) if has_channels => {
            let result = std::env::var("MONITOR_SERVICE_RESULT").ok();
            Notification::failed_unit(unit, result.as_deref(), &origin, clock::wall_ms())
        }
        None if has_channels => Notification::test(&origin, clock::wall_ms()),
        None => return ask(&subject.store_dir, out).await,
        Some(_) => {
            tracing::error!("{NONE_HERE}");
            return Ok(exit::FAILURE);
        }
    };
    let hooks = Hooks {
        // No supervisor looks for it.
        key: "notify-test".to_owned(),
        commands: Commands::default(),
        openclaw: None,
        exports: exports.clone(),
        clock: clock::now,
    };
    let channels = Channels::new(alerts.notify.clone(), alerts.template, alerts.on_event.clone(), hooks);
    let heartbeat = alerts.heartbeat.as_ref().map(|(source, _)| source).filter(|_| failed_unit.is_none());
    show(&channels.try_all(&message, heartbeat).await, out)
}

/// Has the running supervisor send it.
async fn ask(store_dir: &Path, out: &mut impl io::Write) -> io::Result<u8> {
    let asked = async {
        let (mut connection, _) = Connection::ask(store_dir, "notify-test").await?;
        connection.next().await
    };
    match asked.await {
        Ok(answer) => {
            let channels = answer.as_ref().and_then(|answer| answer.get("channels")).cloned().unwrap_or(Value::Null);
            let all: Vec<Delivered> = serde_json::from_value(channels).unwrap_or_default();
            if all.is_empty() {
                tracing::error!(
                    "the running supervisor has no notification channel; {NONE_HERE} of its service and restart it"
                );
                return Ok(exit::FAILURE);
            }
            show(&all, out)
        }
        Err(ConnectionError::Absent) => {
            tracing::error!("{NONE_HERE}; and no supervisor runs that could be asked for its own");
            Ok(exit::FAILURE)
        }
        Err(error) => {
            tracing::error!("{NONE_HERE}; and the supervisor was not asked for its own: {error}");
            Ok(NOT_HEALTHY)
        }
    }
}

fn show(all: &[Delivered], out: &mut impl io::Write) -> io::Result<u8> {
    for Delivered { channel, result } in all {
        match result {
            Ok(answer) => writeln!(out, "ok    {channel}: {answer}")?,
            Err(error) => writeln!(out, "FAIL  {channel}: {error}")?,
        }
    }
    Ok(if all.iter().all(|one| one.result.is_ok()) { exit::OK } else { exit::FAILURE })
}
