//! What the loop is told, on its one channel.

use super::shell::Prepared;
use crate::core::event::PauseRequest;
use crate::core::handoff::Support;
use crate::core::{Event, Generation, LeaseAnswer};
use crate::gateway::adopt::Found;
use crate::gateway::process::Heir;
use crate::host::control::{BoundSocket, Query};
use crate::store::News;
use std::io;

/// One message to the loop.
pub enum Input {
    /// For the core.
    Event(Event),
    /// Of the store.
    News(News),
    /// What was found of this earlier gateway.
    Found(Generation, io::Result<Found>),
    /// What leads the tree of this gateway now that the process that was started has exited.
    Heir(Generation, Option<Heir>),
    /// The file systems that a start needs were looked at, or hang.
    Prepared(u64, io::Result<Box<Prepared>>),
    /// All is looked at that a new lease needs.
    Entered(Box<Entrance>),
    /// A control socket was made, or why not.
    Bound(io::Result<BoundSocket>),
    /// Of a client of the control socket, or a signal.
    Query(Query),
}

/// What a lease begins with.
pub struct Entrance {
    pub ticket: u64,
    pub answer: LeaseAnswer,
    /// What is known of the handoff from an earlier supervisor.
    pub support: Option<Support>,
    pub socket: io::Result<BoundSocket>,
    /// The pause that an earlier supervisor was in, and who asked for it.
    pub pause: Option<(PauseRequest, String)>,
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<Query> for Input {
    fn from(query: Query) -> Self {
        Self::Query(query)
    }
}
