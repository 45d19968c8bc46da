//! What `doctor` learns: from systemd, launchd, the store, the kernel and the files of the gateway. Nothing here judges.

pub(super) mod command_line;
pub(super) mod container;
pub(super) mod launchd;
pub(super) mod machine;
pub(super) mod openclaw;
pub(super) mod program;
pub(super) mod service_manager;
pub(super) mod settings;
pub(super) mod store;
pub(super) mod systemd;
pub(super) mod unit_files;
