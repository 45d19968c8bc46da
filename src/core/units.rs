//! Time and generations.

/// A reading of the monotonic clock, as the time since that clock's own zero. Only differences mean anything.
pub type Moment = core::time::Duration;

/// Counts the gateways of one store, from 1. Every event about a child and every effect on one
/// carries it, so that news of a past child can never touch the present one.
pub type Generation = u64;
