//! `start-now` where no supervisor runs: its service is started.

use super::doctor::service::{self, Service};
use super::outcome::{NOT_RUNNING, RequestOutcome};
use super::progress;
use super::terminal::span;
use crate::platform::output::output;
use crate::platform::thread::BlockingCall;
use crate::settings::Subject;
use std::path::Path;
use std::time::Duration;

/// How long the search for services may take: their managers are asked.
pub(super) const SEARCH_TIME_MAX: Duration = Duration::from_secs(6);

/// In bytes: a manager prints a line or two.
const OUTPUT_MAX: usize = 16 * 1024;

/// Starts the service of the supervisor with this store, and waits until its manager says that it has started.
pub(super) async fn service_of(subject: &Subject, time: Duration) -> RequestOutcome {
    let store = subject.store_dir.clone();
    let found = match BlockingCall::default().run(time, move || service::of_store(&store)).await {
        Ok(found) => found,
        Err(error) => {
            return RequestOutcome::bad(format!(
                "cannot look for the service: {error}; try again, or start it by its manager"
            ));
        }
    };
    match &*found {
        [service] if service.may_start() => {
            let waiting = |spent| format!("starting {}: {}", service.name(), span(spent));
            progress::beside(&subject.store_dir, waiting, start(service, time, &subject.options)).await
        }
        found => {
            RequestOutcome { code: NOT_RUNNING, text: what_to_type(found, &subject.store_dir, "", &subject.options) }
        }
    }
}

/// The outcome of any other request, which starts nothing: how to start it. `trouble` may be empty.
pub(super) async fn not_running(subject: &Subject, trouble: &str) -> RequestOutcome {
    let store = subject.store_dir.clone();
    let found = BlockingCall::default().run(SEARCH_TIME_MAX, move || service::of_store(&store)).await;
    let trouble = if trouble.is_empty() { String::new() } else { format!(" ({trouble})") };
    let Subject { store_dir, options, .. } = subject;
    let text = match found {
        Ok(found) => what_to_type(&found, store_dir, &trouble, options),
        Err(error) => format!(
            "openclaw-supervise is not running for {}{trouble}, and its service cannot be looked for: {error}; start it by its \
             manager, or `openclaw-supervise{options}` in the foreground",
            store_dir.display()
        ),
    };
    RequestOutcome { code: NOT_RUNNING, text }
}

async fn start(service: &Service, time: Duration, options: &str) -> RequestOutcome {
    for (line, command) in service.start_commands() {
        match output(command, OUTPUT_MAX, time).await {
            Ok(ran) if ran.status.success() => {}
            // That of a unit that has not failed says so.
            Ok(_) if line.contains(" reset-failed ") => {}
            Ok(ran) => {
                let said = String::from_utf8_lossy(&ran.errors);
                return RequestOutcome::bad(format!(
                    "`{line}` failed: {}; see `openclaw-supervise status{options}`",
                    said.trim()
                ));
            }
            Err(error) => return RequestOutcome::bad(format!("`{line}` failed: {error}")),
        }
    }
    RequestOutcome::good(format!("started {}; see `openclaw-supervise status{options}`", service.name()))
}

/// Of more than one, and of one that this user may not start.
fn what_to_type(found: &[Service], store_dir: &Path, trouble: &str, options: &str) -> String {
    let dir = store_dir.display();
    let line = |service: &Service| {
        let sudo = if service.may_start() { "" } else { "sudo " };
        let lines = service.start_commands().into_iter().map(|(line, _)| format!("{sudo}{line}"));
        format!("`{}`", lines.collect::<Vec<_>>().join(" && "))
    };
    match found {
        [] => format!(
            "openclaw-supervise is not running for {dir}{trouble}, and no service for it is found here. Start it: \
             `openclaw-supervise{options}`, or `openclaw-supervise install{options}`; other state directory: --state-dir"
        ),
        found => format!(
            "openclaw-supervise is not running for {dir}{trouble}. Start it: {}",
            found.iter().map(line).collect::<Vec<_>>().join(", or ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::service::tests::unit;

    #[test]
    fn what_to_type_names_the_unit_and_its_manager() {
        let dir = Path::new("/home/bot/.openclaw/supervise");
        assert!(what_to_type(&[], dir, "", " --profile a").contains("`openclaw-supervise install --profile a`"));
        let both = [unit(true, "a.service"), unit(false, "b.service")];
        let text = what_to_type(&both, dir, "", "");
        assert!(text.contains("systemctl reset-failed a.service && "), "{text}");
        assert!(
            text.ends_with(", or `systemctl --user reset-failed b.service && systemctl --user start b.service`"),
            "{text}"
        );
    }
}
