//! What the loop is told, on its one channel.

use crate::core::{Event, Generation};
use crate::gateway::adopt::Found;
use crate::gateway::process::Heir;
use crate::host::control::Query;
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
    /// Of a client of the control socket.
    Query(Query),
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
