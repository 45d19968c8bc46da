//! A row of the kernel's table of sockets.

use std::net::SocketAddr;

/// A TCP socket, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::platform::linux) struct Socket {
    /// What it is bound to.
    pub(in crate::platform::linux) address: SocketAddr,
    /// One of the kernel's `tcp_states.h`.
    pub(in crate::platform::linux) state: u8,
    /// Of a listener the connections that are not accepted yet, of a connection the bytes that are not read yet.
    pub(in crate::platform::linux) queued: u32,
    /// The backlog of a listener; `None` if the kernel does not report it.
    pub(in crate::platform::linux) limit: Option<u32>,
    /// The user who created it.
    pub(super) uid: u32,
    pub(super) inode: u64,
}

impl Socket {
    /// `TCP_LISTEN`.
    pub(in crate::platform::linux) const LISTEN: u8 = 10;
}
