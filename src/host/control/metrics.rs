//! The reply to `metrics`, see docs/CONTROL.md. A key that another version leaves out counts as unknown.

use super::status::Facts;
use crate::core::tally::Total;
use crate::core::{Status, Tally};
use crate::host::clock;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsReply {
    pub version: String,
    pub manager: String,
    pub state: String,
    /// Wall-clock time, ms since 1970.
    pub started_at_ms: Option<i64>,
    /// Whether the supervision is paused.
    pub paused: bool,
    pub lease_held: bool,
    pub epoch: Option<u64>,
    pub generation: u64,
    pub gateway: Option<GatewayMetrics>,
    /// Restarts in the window that spent the budget.
    pub budget_spent: u32,
    pub budget: u32,
    pub window_ms: u64,
    /// By the `cause` of the `gateway.exited` before each.
    pub restarts: Vec<(String, u64)>,
    pub startups: TotalReply,
    pub detections: TotalReply,
    pub probes: TotalReply,
    /// Those within each bound of `core::tally::PROBE_BOUNDS`, each without the ones before.
    pub probes_within: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayMetrics {
    /// Wall-clock time, ms since 1970.
    pub started_at_ms: i64,
    pub healthy: bool,
    pub ready: Option<bool>,
    pub rss_kb: Option<u64>,
    pub tree_rss_kb: Option<u64>,
    pub tree_processes: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TotalReply {
    pub count: u64,
    pub sum_ms: u64,
}

impl From<Total> for TotalReply {
    fn from(total: Total) -> Self {
        Self { count: total.count, sum_ms: milliseconds(total.sum) }
    }
}

impl MetricsReply {
    /// `gateway_start`: in milliseconds since 1970.
    #[must_use]
    pub fn new(status: &Status, tally: &Tally, gateway_start: Option<i64>, facts: &Facts) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            manager: facts.manager.to_owned(),
            state: status.state.to_owned(),
            started_at_ms: clock::wall_ms_of(&facts.started_at),
            paused: status.paused.is_some(),
            lease_held: status.epoch.is_some(),
            epoch: status.epoch,
            generation: status.generation,
            gateway: status.gateway.as_ref().map(|gateway| {
                let sample = gateway.sample.clone().unwrap_or_default();
                GatewayMetrics {
                    started_at_ms: gateway_start.unwrap_or_default(),
                    healthy: gateway.healthy,
                    ready: gateway.readiness.as_ref().map(|readiness| readiness.ready),
                    rss_kb: sample.rss_kb,
                    tree_rss_kb: sample.tree_rss_kb,
                    tree_processes: sample.tree_processes,
                }
            }),
            budget_spent: status.restarts,
            budget: status.max_restarts,
            window_ms: milliseconds(status.restart_window),
            restarts: tally.restarts.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect(),
            startups: tally.startups.into(),
            detections: tally.detections.into(),
            probes: tally.probes.into(),
            probes_within: tally.probes_within.to_vec(),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
