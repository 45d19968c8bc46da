//! What a service manager has to know of us, in the terms of `sd_notify(3)`.

/// One turn of our life that a manager acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A gateway serves, ours or that of the supervisor we stand by for. Sent once for each gateway. Sent too where the next start
    /// waits for [`crate::supervisor::TOLD_WAIT_MIN`] or longer: the status says so.
    Ready,
    /// A gateway that served is being replaced on purpose.
    Reloading,
    /// We are about to end.
    Stopping,
}
