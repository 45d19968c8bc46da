//! Where the gateway's settings say that it listens.

use crate::core::Endpoint;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the gateway is expected to listen, as its settings read at one moment.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub endpoint: Endpoint,
    /// Whether the port is only the default because the config cannot be read: the gateway may serve another one.
    pub is_guess: bool,
    /// One line each: what could not be read or is not known, and what was assumed for it.
    pub warnings: Vec<String>,
    /// The files that were read, or would have been read if they existed.
    pub files: Vec<PathBuf>,
    /// What these files set in the gateway's own environment and is given to it from the start, for what stands before it:
    /// launchers, hooks, and releases that read fewer files.
    pub exports: Vec<(&'static str, OsString)>,
    /// `NODE_OPTIONS` as the environment or these files have it.
    pub node_options: Option<OsString>,
}

/// Reads the settings of the gateway anew. They may change while it runs.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn() -> Resolved + Send + Sync>);

impl Resolver {
    #[must_use]
    pub fn new(resolve: impl Fn() -> Resolved + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    /// Blocks on the file system.
    #[must_use]
    pub fn resolve(&self) -> Resolved {
        (self.0)()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
