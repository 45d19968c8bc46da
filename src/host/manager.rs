//! Who runs us.

use std::io::IsTerminal;

/// The name of our outer manager, for the log.
#[must_use]
pub fn name() -> &'static str {
    let has = |name| std::env::var_os(name).is_some();
    if has("INVOCATION_ID") || has("NOTIFY_SOCKET") {
        "systemd"
    } else if has("XPC_SERVICE_NAME") && !std::io::stderr().is_terminal() {
        "launchd"
    } else if std::process::id() == 1 {
        "container"
    } else if std::io::stderr().is_terminal() {
        "terminal"
    } else {
        "unknown"
    }
}
