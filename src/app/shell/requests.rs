//! What is looked at beside the loop before a request reaches the core.

use super::super::input::Input;
use super::super::reporter::Reporter;
use super::Shell;
use crate::core::{Event, Report, Request, Requester};
use crate::host::control::{self, IsInside, Query};
use crate::host::manager;
use tokio::sync::mpsc::Sender;

impl Shell {
    /// A signal of an operator.
    pub(in crate::app) fn hear(
        &self,
        signal: &'static str,
        request: Request,
        by: Requester,
        is_inside: IsInside,
        reporter: &Reporter,
    ) {
        tokio::spawn(identify(signal, request, by, is_inside, reporter.clone(), self.inputs.clone()));
    }

    /// Grants a request, or says why not.
    pub(in crate::app) fn admit(&self, request: Request, by: Requester, reporter: &Reporter) -> Option<Event> {
        if request != Request::Detach {
            return Some(Event::Requested { request, by });
        }
        tokio::spawn(admit_detach(by, reporter.clone(), self.inputs.clone()));
        None
    }
}

/// The sender of a signal is named; then its request comes as that of a client does.
async fn identify(
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
async fn admit_detach(by: Requester, reporter: Reporter, inputs: Sender<Input>) {
    match manager::refuses_detach().await {
        Some(why) => reporter.report(&Report::DetachRefused { why }),
        None => {
            let _closed = inputs.send(Event::Requested { request: Request::Detach, by }.into()).await;
        }
    }
}
