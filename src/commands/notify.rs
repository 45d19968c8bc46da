//! `notify --test`: whether a message arrives.

use crate::app::alerter::{Channels, Delivered};
use crate::core::exit;
use crate::gateway::hooks::{Commands, Hooks};
use crate::host::clock;
use crate::host::webhook::{Notification, Origin};
use crate::platform::machine;
use crate::settings::NotifySettings;
use std::io;

/// Sends one message to each channel and says what came back. Returns the exit code.
pub async fn run(settings: &NotifySettings, out: &mut impl io::Write) -> io::Result<u8> {
    let NotifySettings { subject, alerts, exports } = settings;
    if !alerts.has_channel() && alerts.heartbeat.is_none() {
        tracing::error!(
            "no notification channel is set here, so nothing was sent; give --notify, --on-event or --heartbeat-url, or set \
             their variables as the service does"
        );
        return Ok(exit::USAGE);
    }
    let origin = Origin {
        host: machine::host_name().unwrap_or_default(),
        config: subject.config_path.to_string_lossy().into_owned(),
        store_dir: subject.store_dir.to_string_lossy().into_owned(),
        manager: "terminal",
        output: String::new(),
        start: None,
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
    let mut all = channels.try_all(&Notification::test(&origin, clock::wall_ms())).await;
    if let Some((source, _)) = &alerts.heartbeat {
        all.extend(channels.try_heartbeat(source).await);
    }
    for Delivered { channel, result } in &all {
        match result {
            Ok(answer) => writeln!(out, "ok    {channel}: {answer}")?,
            Err(error) => writeln!(out, "FAIL  {channel}: {error}")?,
        }
    }
    Ok(if all.iter().all(|one| one.result.is_ok()) { exit::OK } else { exit::FAILURE })
}
