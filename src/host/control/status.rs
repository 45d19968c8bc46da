//! The reply to `status`, see docs/CONTROL.md.
//!
//! Every key is written, with null where a value is not known. A key that another version leaves out counts as unknown.

use crate::core::status::{GatewayStatus, Status};
use crate::host::clock;
use crate::platform::machine;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a supervisor knows of itself and the core does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The service manager.
    pub manager: &'static str,
    /// RFC 3339.
    pub started_at: String,
    /// The gateway's config file.
    pub config: PathBuf,
    pub store_dir: PathBuf,
    /// The limit of the JavaScript heap of the gateways that we start, and where it comes from.
    pub heap_mib: Option<u64>,
    pub heap_source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReply {
    pub supervisor: SupervisorReply,
    pub gateway: Option<GatewayReply>,
    pub lease: LeaseReply,
    pub probe: ProbeReply,
    pub generation: Option<u64>,
    pub restarts: RestartsReply,
    pub next: NextReply,
    /// `null` unless the supervision is paused.
    pub paused: Option<PausedReply>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PausedReply {
    pub until: Option<String>,
    pub in_ms: Option<u64>,
    pub reason: String,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SupervisorReply {
    pub pid: Option<i32>,
    /// The machine or container in which the pids are valid.
    pub host: Option<String>,
    pub version: Option<String>,
    pub state: String,
    pub since: Option<String>,
    pub manager: Option<String>,
    pub config: String,
    pub store_dir: String,
    pub url: String,
    pub port: u16,
    pub heap_mib: Option<u64>,
    pub heap_source: Option<String>,
    pub stop_timeout_ms: Option<u64>,
    pub ends_within_ms: Option<u64>,
    pub output: Option<String>,
    /// Processes that bear an earlier gateway's id and were left.
    pub strays: Vec<String>,
    /// Installations that the end of its last gateway has cut short.
    pub cut_short: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayReply {
    pub pid: Option<i32>,
    pub generation: u64,
    pub age_ms: Option<u64>,
    pub up_ms: Option<u64>,
    pub healthy: Option<bool>,
    pub adopted: Option<bool>,
    /// What is wrong with one that lives and is not replaced for it.
    pub condition: Option<String>,
    pub rss_kb: Option<u64>,
    pub tree_rss_kb: Option<u64>,
    pub loop_cpu_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseReply {
    pub held: Option<bool>,
    pub epoch: Option<u64>,
    pub owner_pid: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeReply {
    pub verdict: Option<String>,
    pub detail: Option<String>,
    pub ready: Option<bool>,
    pub ready_detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartsReply {
    pub in_window: Option<u32>,
    pub max: Option<u32>,
    pub window_ms: Option<u64>,
    /// In how long one more is free.
    pub free_in_ms: Option<u64>,
    pub for_memory: Option<u32>,
    /// In how long a requested restart comes that waits.
    pub waiting_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NextReply {
    pub action: Option<String>,
    pub at: Option<String>,
    pub in_ms: Option<u64>,
    /// How long the present phase may take in all.
    pub of_ms: Option<u64>,
    pub then: Option<String>,
    pub why: Option<String>,
}

impl StatusReply {
    pub(super) fn new(status: Status, facts: &Facts) -> Self {
        let (verdict, detail) = status.probe.map(|(verdict, detail)| (verdict.name().to_owned(), detail)).unzip();
        let readiness = status.gateway.as_ref().and_then(|gateway| gateway.readiness.clone());
        let (ready, ready_detail) = readiness.map(|readiness| (readiness.ready, readiness.detail)).unzip();
        let pid = Some(std::process::id().cast_signed());
        Self {
            supervisor: SupervisorReply {
                pid,
                host: machine::host_name(),
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                state: status.state.to_owned(),
                since: Some(facts.started_at.clone()),
                manager: Some(facts.manager.to_owned()),
                config: facts.config.to_string_lossy().into_owned(),
                store_dir: facts.store_dir.to_string_lossy().into_owned(),
                url: status.endpoint.to_string(),
                port: status.endpoint.port,
                heap_mib: facts.heap_mib,
                heap_source: Some(facts.heap_source.clone()),
                stop_timeout_ms: Some(milliseconds(status.stop_timeout)),
                ends_within_ms: status.ends_within.map(milliseconds),
                output: status.output,
                strays: status.strays,
                cut_short: status.cut_short,
            },
            gateway: status.gateway.map(|gateway| GatewayReply::new(&gateway, status.generation)),
            lease: LeaseReply {
                held: Some(status.epoch.is_some()),
                epoch: status.epoch,
                owner_pid: if status.epoch.is_some() { pid } else { status.owner },
            },
            probe: ProbeReply { verdict, detail, ready, ready_detail },
            generation: Some(status.generation),
            restarts: RestartsReply {
                in_window: Some(status.restarts),
                max: Some(status.max_restarts),
                window_ms: Some(milliseconds(status.restart_window)),
                free_in_ms: status.restart_free.map(milliseconds),
                for_memory: Some(status.memory_restarts),
                waiting_ms: status.restart_waits.map(milliseconds),
            },
            paused: status.paused.map(|(within, reason, by)| PausedReply {
                until: stamp_in(within),
                in_ms: Some(milliseconds(within)),
                reason,
                by,
            }),
            next: NextReply {
                action: Some(status.next.action.to_owned()),
                at: status.next.within.and_then(stamp_in),
                in_ms: status.next.within.map(milliseconds),
                of_ms: status.next.of.map(milliseconds),
                then: status.next.then,
                why: Some(status.next.why),
            },
        }
    }
}

impl GatewayReply {
    fn new(gateway: &GatewayStatus, generation: u64) -> Self {
        let sample = gateway.sample.clone().unwrap_or_default();
        Self {
            pid: Some(gateway.pid),
            generation,
            age_ms: Some(milliseconds(gateway.age)),
            up_ms: gateway.up.map(milliseconds),
            healthy: Some(gateway.healthy),
            adopted: Some(gateway.adopted),
            condition: gateway.condition.clone(),
            rss_kb: sample.rss_kb,
            tree_rss_kb: sample.tree_rss_kb,
            loop_cpu_ms: sample.cpu.map(milliseconds),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock then, as RFC 3339. `None` beyond the end of the calendar.
fn stamp_in(within: Duration) -> Option<String> {
    let now: Timestamp = clock::stamp().parse().ok()?;
    let then = now.checked_add(SignedDuration::try_from(within).ok()?).ok()?;
    Some(format!("{then:.3}"))
}
