//! `metrics`: the numbers of the running supervisor.

use super::status::NOT_HEALTHY;
use crate::core::exit;
use crate::host::control::{Connection, ConnectionError};
use crate::host::metrics;
use crate::settings::MetricsSettings;
use std::io;

/// Prints them, or that no supervisor runs. Returns the exit code.
pub async fn run(settings: &MetricsSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let reply = match Connection::metrics(&settings.subject.store_dir).await {
        Ok(reply) => Some(reply),
        Err(ConnectionError::Absent) => None,
        // Stopped or frozen: what it does not answer it does not do either.
        Err(error @ ConnectionError::Silent { .. }) => {
            tracing::warn!("{error}");
            None
        }
        Err(error @ (ConnectionError::Forbidden | ConnectionError::Refused(_) | ConnectionError::Broken(_))) => {
            tracing::error!("{error}");
            return Ok(NOT_HEALTHY);
        }
    };
    out.write_all(metrics::text(reply.as_ref(), settings.exposition).as_bytes())?;
    Ok(exit::OK)
}
