//! The outer manager: whether it has us loaded, and the state of our service there.

use super::shown::UnitShown;
use crate::host::control::SupervisorReply;
use crate::host::manager::{self, ServiceProperties};

/// The service that a supervisor runs in. `None` where no manager is known.
pub(super) async fn look(supervisor: &SupervisorReply) -> Option<UnitShown> {
    let pid = supervisor.pid.filter(|_| supervisor.manager.as_deref() == Some("systemd"))?;
    let ServiceProperties { name, manager, properties } = manager::service_state(pid).await?;
    let get = |name: &str| properties.get(name).filter(|value| !value.is_empty()).cloned();
    let (load, active, sub) = (get("LoadState"), get("ActiveState"), get("SubState"));
    Some(UnitShown { name, manager, load, active, sub, result: get("Result"), file: get("UnitFileState") })
}
