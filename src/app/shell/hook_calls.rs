//! The hooks' side: what is called, and what a predecessor left of its own.

use super::super::crash_point;
use super::super::input::Input;
use crate::core::{Call, Event, HookEnd};
use crate::gateway::hooks::{Hooks, RunningHook};
use crate::gateway::openclaw::Openclaw;
use crate::gateway::process::Streams;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::Sender;

pub(super) struct HookCalls {
    hooks: Arc<Hooks>,
    /// The hook that was started last.
    running: Option<RunningHook>,
    inputs: Sender<Input>,
    /// That the search for a predecessor's hooks fails is told. It is repeated each second.
    has_told: Arc<AtomicBool>,
}

impl HookCalls {
    pub(super) fn new(hooks: Hooks, inputs: Sender<Input>) -> Self {
        Self { hooks: Arc::new(hooks), running: None, inputs, has_told: Arc::default() }
    }

    /// The program of the repair is another one now.
    pub(super) fn set_openclaw(&mut self, openclaw: Option<Openclaw>) {
        Arc::make_mut(&mut self.hooks).openclaw = openclaw;
    }

    /// See [`Hooks::clear_leaves`].
    pub(super) fn leaves(&self) -> impl FnOnce() + Send + use<> {
        let hooks = Arc::clone(&self.hooks);
        move || hooks.clear_leaves()
    }

    /// Ends the hooks that a predecessor left.
    pub(super) fn clear(&self, heir: bool) {
        let (hooks, inputs, has_told) = (Arc::clone(&self.hooks), self.inputs.clone(), Arc::clone(&self.has_told));
        tokio::spawn(async move {
            let trouble = hooks.clear(heir).await.err().map(|error| error.to_string());
            if let Some(error) = &trouble
                && !has_told.swap(true, Ordering::Relaxed)
            {
                tracing::warn!(error, "cannot look for hooks of an earlier supervisor; raise the limit on open files");
            }
            let _closed = inputs.send(Event::HooksCleared { trouble }.into()).await;
        });
    }

    /// `exports`: the variables of the gateway.
    ///
    /// # Errors
    /// Why it could not be called.
    pub(super) fn call(
        &mut self,
        ticket: u64,
        call: &Call,
        streams: &Streams,
        exports: Vec<(&'static str, OsString)>,
    ) -> Result<(), HookEnd> {
        crash_point::pass();
        Arc::make_mut(&mut self.hooks).exports = exports;
        let called = self.hooks.call(ticket, call, streams, &self.inputs);
        crash_point::pass();
        self.running = Some(called?);
        Ok(())
    }

    pub(super) fn end(&self, ticket: u64) {
        self.signal(ticket, RunningHook::terminate);
    }

    pub(super) fn kill(&self, ticket: u64) {
        self.signal(ticket, RunningHook::kill);
    }

    fn signal(&self, ticket: u64, signal: impl FnOnce(&RunningHook) -> io::Result<()>) {
        let running = self.running.as_ref().filter(|running| running.ticket() == ticket);
        if let Some(Err(error)) = running.map(signal) {
            // The core's deadline for its end goes on all the same.
            tracing::warn!(%error, "cannot send a signal to a hook");
        }
    }
}
