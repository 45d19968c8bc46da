//! `logs`, which many type: no verb of ours, for the output goes to what runs the supervisor. It says where that is here.

use crate::host::control::{Connection, SupervisorReply};
use crate::host::manager;
use crate::settings::LogsSettings;
use std::path::Path;

/// What to type instead, in one line.
pub async fn advice(settings: &LogsSettings) -> String {
    let answered = Connection::status(&settings.subject.store_dir).await.ok().map(|(_, reply)| reply.supervisor);
    let unit = answered.as_ref().filter(|it| it.manager.as_deref() == Some("systemd")).and_then(|it| it.pid);
    let journal = unit.and_then(manager::journal_command);
    let place = answered.as_ref().and_then(|it| of_running(it, journal)).or_else(|| {
        let file = settings.units.iter().find(|(file, _)| Path::new(file).exists());
        file.map(|(_, command)| format!("`{command} -f`"))
    });
    let place = place.unwrap_or_else(|| {
        if settings.is_container {
            IN_CONTAINER.to_owned()
        } else {
            "the terminal or the service manager that runs it".to_owned()
        }
    });
    format!(
        "logs is no verb; `openclaw-supervise{} events --follow` shows what happened, and {place} what supervisor and gateway print",
        settings.subject.options
    )
}

const IN_CONTAINER: &str = "outside of this container `docker logs -f NAME` or `kubectl logs -f POD`";

/// Where a supervisor that answers prints to.
fn of_running(supervisor: &SupervisorReply, journal: Option<String>) -> Option<String> {
    if let Some(file) = &supervisor.output {
        return Some(format!("`tail -F {file}`"));
    }
    match supervisor.manager.as_deref()? {
        "systemd" => journal.map(|command| format!("`{command} -f`")),
        "container" => Some(IN_CONTAINER.to_owned()),
        "pm2" => Some("`pm2 logs`".to_owned()),
        "supervisord" => Some("`supervisorctl tail -f NAME stderr`".to_owned()),
        "launchd" => Some("the file of StandardErrorPath in its plist".to_owned()),
        "terminal" => supervisor.pid.map(|pid| format!("the terminal in which pid {pid} runs")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_manager_has_its_own_place() {
        let place = |manager: &str, output: Option<&str>| {
            let reply = SupervisorReply {
                pid: Some(7),
                manager: Some(manager.to_owned()),
                output: output.map(str::to_owned),
                ..SupervisorReply::default()
            };
            of_running(&reply, Some("journalctl --user -u x.service".to_owned()))
        };
        for (manager, output, expected) in [
            ("systemd", None, Some("`journalctl --user -u x.service -f`")),
            ("systemd", Some("/s/output.log"), Some("`tail -F /s/output.log`")),
            ("container", None, Some(IN_CONTAINER)),
            ("pm2", None, Some("`pm2 logs`")),
            ("terminal", None, Some("the terminal in which pid 7 runs")),
            ("unknown", None, None),
        ] {
            assert_eq!(place(manager, output).as_deref(), expected, "{manager}");
        }
    }
}
