//! Metrics as text: `OpenMetrics`, and the older text format of Prometheus that the textfile collector of `node_exporter` reads.
//!
//! The two differ in the names of counters and of the info metric, and in the end of the text:
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>, <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use super::control::{MetricsReply, TotalReply};
use crate::core::tally::PROBE_BOUNDS;
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    OpenMetrics,
    Prometheus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MetricType {
    Gauge,
    Counter,
    Summary,
    Histogram,
    Info,
}

struct Writer {
    exposition: Exposition,
    text: String,
}

/// The metrics of a supervisor; `None` if none runs.
#[must_use]
pub fn text(reply: Option<&MetricsReply>, exposition: Exposition) -> String {
    let mut out = Writer { exposition, text: String::new() };
    out.gauge("openclaw_supervise_up", "Whether a supervisor runs and answers.", Some(flag(reply.is_some())));
    if let Some(reply) = reply {
        out.supervisor(reply);
        out.gateway(reply);
        out.counts(reply);
    }
    if exposition == Exposition::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

fn flag(is_set: bool) -> f64 {
    f64::from(u8::from(is_set))
}

/// A count as a float, which is what a sample is. Those here stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "see the doc")]
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}

fn bytes(kb: Option<u64>) -> Option<f64> {
    kb.map(|kb| number(kb.saturating_mul(1024)))
}

fn unix(ms: i64) -> f64 {
    seconds(u64::try_from(ms).unwrap_or(0))
}

impl Writer {
    fn supervisor(&mut self, reply: &MetricsReply) {
        self.head("openclaw_supervise", MetricType::Info, "The supervisor.");
        let labels = [("version", reply.version.as_str()), ("manager", &reply.manager)];
        self.sample("openclaw_supervise_info", &labels, 1.0);
        self.head("openclaw_supervise_state", MetricType::Gauge, "What the supervisor is doing, as the label state.");
        self.sample("openclaw_supervise_state", &[("state", &reply.state)], 1.0);
        let start = reply.started_at_ms.map(unix);
        self.gauge("openclaw_supervise_start_time_seconds", "When the supervisor began, in Unix time.", start);
        let is_paused = flag(reply.paused);
        self.gauge("openclaw_supervise_paused", "Whether the supervision is paused.", Some(is_paused));
        let is_held = flag(reply.lease_held);
        self.gauge("openclaw_supervise_lease_held", "Whether this supervisor holds the lease.", Some(is_held));
        let epoch = reply.epoch.map(number);
        self.gauge("openclaw_supervise_lease_epoch", "How often the lease has changed hands.", epoch);
        let budget = f64::from(reply.budget);
        self.gauge("openclaw_supervise_restart_budget", "How many restarts the budget has.", Some(budget));
        let left = f64::from(reply.budget.saturating_sub(reply.budget_spent));
        let help = "How many restarts are left before the supervisor gives up.";
        self.gauge("openclaw_supervise_restart_budget_remaining", help, Some(left));
        let window = seconds(reply.window_ms);
        let help = "The time over which restarts count against the budget.";
        self.gauge("openclaw_supervise_restart_window_seconds", help, Some(window));
    }

    fn gateway(&mut self, reply: &MetricsReply) {
        let gateway = reply.gateway.as_ref();
        let up = flag(gateway.is_some_and(|gateway| gateway.healthy));
        self.gauge("openclaw_gateway_up", "Whether the gateway runs and its last probe succeeded.", Some(up));
        let ready = gateway.and_then(|gateway| gateway.ready).map(flag);
        let help = "Whether the gateway says that it is ready, channels included.";
        self.gauge("openclaw_gateway_ready", help, ready);
        let generation = number(reply.generation);
        self.gauge("openclaw_gateway_generation", "The number of the youngest gateway.", Some(generation));
        let start = gateway.map(|gateway| unix(gateway.started_at_ms));
        self.gauge("openclaw_gateway_start_time_seconds", "When the gateway was started, in Unix time.", start);
        let help = "Resident memory of the gateway's process.";
        self.gauge("openclaw_gateway_resident_memory_bytes", help, gateway.and_then(|gateway| bytes(gateway.rss_kb)));
        let help = "Resident memory of the gateway and all that it has started.";
        let tree = gateway.and_then(|gateway| bytes(gateway.tree_rss_kb));
        self.gauge("openclaw_gateway_tree_resident_memory_bytes", help, tree);
        let processes = gateway.and_then(|gateway| gateway.tree_processes).map(f64::from);
        self.gauge("openclaw_gateway_tree_processes", "How many processes that are.", processes);
    }

    fn counts(&mut self, reply: &MetricsReply) {
        let help = "Gateways that replaced another one, by the cause of its end.";
        self.head("openclaw_gateway_restarts", MetricType::Counter, help);
        for (cause, count) in &reply.restarts {
            self.sample("openclaw_gateway_restarts_total", &[("cause", cause)], number(*count));
        }
        let help = "How long gateways took to come up.";
        self.summary("openclaw_gateway_startup_duration_seconds", help, reply.startups);
        let help = "How long a gateway had not answered when it counted as hung.";
        self.summary("openclaw_gateway_hang_detection_duration_seconds", help, reply.detections);
        let (name, help) = ("openclaw_gateway_probe_duration_seconds", "How long probes took that were answered.");
        self.head(name, MetricType::Histogram, help);
        let mut within = 0;
        for (bound, count) in PROBE_BOUNDS.iter().zip(&reply.probes_within) {
            within += count;
            let bound = format!("{:?}", bound.as_secs_f64());
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], number(within));
        }
        self.sample(&format!("{name}_bucket"), &[("le", "+Inf")], number(reply.probes.count));
        self.total(name, reply.probes);
    }

    /// A value that is not known is left out, with its head.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        self.head(name, MetricType::Gauge, help);
        self.sample(name, &[], value);
    }

    fn summary(&mut self, name: &str, help: &str, total: TotalReply) {
        self.head(name, MetricType::Summary, help);
        self.total(name, total);
    }

    fn total(&mut self, name: &str, total: TotalReply) {
        self.sample(&format!("{name}_sum"), &[], seconds(total.sum_ms));
        self.sample(&format!("{name}_count"), &[], number(total.count));
    }

    fn head(&mut self, family: &str, kind: MetricType, help: &str) {
        let is_old = self.exposition == Exposition::Prometheus;
        let (suffix, word) = match kind {
            MetricType::Gauge => ("", "gauge"),
            MetricType::Summary => ("", "summary"),
            MetricType::Histogram => ("", "histogram"),
            MetricType::Counter => (if is_old { "_total" } else { "" }, "counter"),
            MetricType::Info if is_old => ("_info", "gauge"),
            MetricType::Info => ("", "info"),
        };
        self.line(&format!("# HELP {family}{suffix} {help}"));
        self.line(&format!("# TYPE {family}{suffix} {word}"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| family.ends_with(&format!("_{unit}")));
        if let Some(unit) = unit.filter(|_| !is_old) {
            self.line(&format!("# UNIT {family} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escape(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.line(&format!("{name}{labels} {value}"));
    }

    fn line(&mut self, line: &str) {
        // Writing to a String does not fail.
        let _infallible = writeln!(self.text, "{line}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::control::GatewayMetrics;
    use super::*;

    fn reply() -> MetricsReply {
        MetricsReply {
            version: "0.1.0".to_owned(),
            manager: "sys\"te\\md".to_owned(),
            state: "running".to_owned(),
            started_at_ms: Some(1_800_000_000_500),
            paused: false,
            lease_held: true,
            epoch: Some(3),
            generation: 4,
            gateway: Some(GatewayMetrics {
                started_at_ms: 1_800_000_060_000,
                healthy: true,
                ready: Some(false),
                rss_kb: Some(300_000),
                tree_rss_kb: Some(400_000),
                tree_processes: Some(7),
            }),
            budget_spent: 2,
            budget: 6,
            window_ms: 3_600_000,
            restarts: vec![("crashed".to_owned(), 2), ("hung".to_owned(), 1)],
            startups: TotalReply { count: 4, sum_ms: 12_500 },
            detections: TotalReply { count: 1, sum_ms: 60_100 },
            probes: TotalReply { count: 12, sum_ms: 96 },
            probes_within: vec![10, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// A reader of our own: every sample belongs to the family announced last, and is named by the rules of its type.
    fn check(text: &str, exposition: Exposition) {
        let is_old = exposition == Exposition::Prometheus;
        let (mut family, mut kind, mut seen, mut has_help) = (String::new(), String::new(), Vec::new(), String::new());
        let mut buckets: Vec<f64> = Vec::new();
        let lines: Vec<_> = text.lines().collect();
        assert!(text.ends_with('\n') && is_old != (lines.last() == Some(&"# EOF")), "{text}");
        for line in lines.iter().filter(|line| **line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (what, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                match what {
                    "HELP" => has_help = name.to_owned(),
                    "TYPE" => {
                        assert!(!seen.contains(&name.to_owned()), "{name} comes twice");
                        seen.push(name.to_owned());
                        (family, kind) = (name.to_owned(), value.to_owned());
                        assert_eq!(has_help, name);
                    }
                    "UNIT" => assert!(!is_old && name == family && name.ends_with(&format!("_{value}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let suffixes: &[&str] = match (kind.as_str(), is_old) {
                ("gauge", _) => &[""],
                ("counter", true) => {
                    assert!(family.ends_with("_total"), "{line}");
                    &[""]
                }
                ("counter", false) => &["_total"],
                ("summary", _) => &["_sum", "_count"],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                ("info", false) => &["_info"],
                _ => panic!("{kind}: {line}"),
            };
            assert!(suffixes.iter().any(|suffix| format!("{family}{suffix}") == name), "{line} of {family} ({kind})");
            assert!(labels.is_empty() || labels.ends_with("\"}"), "{line}");
            if name.ends_with("_bucket") {
                assert!(buckets.last().is_none_or(|last| *last <= value), "buckets add up: {line}");
                buckets.push(value);
            } else if let Some(most) = buckets.last().filter(|_| kind == "histogram" && name.ends_with("_count")) {
                assert!(value.total_cmp(most).is_eq(), "the last bucket has all of them: {line}");
            }
        }
        assert!(!seen.is_empty());
    }

    #[test]
    fn both_forms_follow_their_rules() {
        for exposition in [Exposition::OpenMetrics, Exposition::Prometheus] {
            let nothing = MetricsReply::default();
            for reply in [Some(&reply()), Some(&nothing), None] {
                check(&text(reply, exposition), exposition);
            }
        }
        insta::assert_snapshot!("openmetrics", text(Some(&reply()), Exposition::OpenMetrics));
        insta::assert_snapshot!("prometheus", text(Some(&reply()), Exposition::Prometheus));
        assert_eq!(
            text(None, Exposition::OpenMetrics),
            "# HELP openclaw_supervise_up Whether a supervisor runs and answers.\n# TYPE openclaw_supervise_up gauge\n\
             openclaw_supervise_up 0\n# EOF\n"
        );
    }
}
