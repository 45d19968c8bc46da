//! What is looked at beside the loop before a request reaches the core.

use super::super::input::Input;
use super::super::reporter::Reporter;
use crate::core::{Event, Report, Request, Requester};
use crate::host::control::{self, IsInside, Query};
use crate::host::manager;
use tokio::sync::mpsc::Sender;

/// The sender of a signal is named; then its request comes as that of a client does.
pub(super) async fn hear(
    signal: &'static str,
    request: Request,
    by: Requester,
    is_inside: IsInside,
    reporter: Reporter,
    inputs: Sender<Input>,
) {
    let (command, inside) = control::identify(by.pid, &is_inside).await;
    let by = Requester { command, inside, ..by };
    reporter.report(&Report::SignalReceived { signal, by: by.clone() });
    // A closed channel means that the loop has ended.
    let _closed = inputs.send(Query::Request { request, by }.into()).await;
}

/// A gateway that would not survive our exit is not detached from.
pub(super) async fn admit_detach(by: Requester, reporter: Reporter, inputs: Sender<Input>) {
    match manager::refuses_detach().await {
        Some(why) => reporter.report(&Report::DetachRefused { why }),
        None => {
            let _closed = inputs.send(Event::Requested { request: Request::Detach, by }.into()).await;
        }
    }
}
