//! What a service manager has to know of us, in the terms of `sd_notify(3)`.

/// One turn of our life that a manager acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A gateway serves, or somebody else's does and we stand by. Said once of each gateway.
    Ready,
    /// A gateway that served is being replaced on purpose.
    Reloading,
    /// We are about to end.
    Stopping,
}
