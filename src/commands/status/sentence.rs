//! The sentence that `status` begins with: what runs, since when, why, on which request, what comes next and what to do.

use super::past::{LastExit, LastStop, WallTime};
use super::shown::{Health, Shown, Urgency, View};
use crate::cli::shell_word;
use crate::commands::terminal::{Terminal, span};
use crate::core::exit;
use crate::core::report::human;
use crate::host::control::PausedReply;
use jiff::Timestamp;
use std::fmt::Display;
use std::time::Duration;

/// The sentence, and how bad it is.
pub(super) fn sentence(shown: &Shown, terminal: &Terminal) -> (Urgency, String) {
    let line = Wording { shown, terminal };
    let (urgency, said) = if shown.answered_by == "supervisor" { line.answered() } else { line.unanswered() };
    match &shown.paused {
        // Nothing is done about what else there is to say.
        Some(paused) => (if urgency == Urgency::Info { Urgency::Warning } else { urgency }, line.paused(paused, &said)),
        None => (urgency, said),
    }
}

/// What the reason for a wait that keeps clear of OpenClaw's breaker says, see `core::restart_policy`.
const BREAKER: [&str; 2] = ["would switch its channels off", "see --boot-limit"];

struct Wording<'a> {
    shown: &'a Shown,
    terminal: &'a Terminal,
}

/// `before`, the value and `after`, or nothing.
fn around<T: Display>(before: &str, value: Option<T>, after: &str) -> String {
    value.map(|value| format!("{before}{value}{after}")).unwrap_or_default()
}

/// A sentence that another program wrote, without the advice at its end where ours is better.
pub(super) fn first_part(text: &str) -> &str {
    text.split("; see the gateway's output").next().unwrap_or(text)
}

/// A line of a gateway within a sentence.
fn end_of_line(line: &str) -> &str {
    line.trim_end_matches(['.', ';', ' '])
}

impl Wording<'_> {
    fn answered(&self) -> (Urgency, String) {
        let shown = self.shown;
        match shown.supervisor.state.as_str() {
            "running" => self.running(),
            "starting" => (Urgency::Warning, self.starting()),
            "examining" => (
                Urgency::Error,
                format!(
                    "down{}: gateway {} does not answer; saving evidence, then it is replaced{}",
                    self.troubled(),
                    self.generation(),
                    self.within()
                ),
            ),
            "stopping" => (Urgency::Warning, self.stopping()),
            "backing_off" => (Urgency::Error, self.backing_off()),
            "awaiting_word" => (Urgency::Error, self.awaiting()),
            "standby" => self.standby(),
            "exited" => (Urgency::Warning, "the supervisor is exiting".to_owned()),
            state => (Urgency::Warning, self.between(state)),
        }
    }

    fn paused(&self, paused: &PausedReply, said: &str) -> String {
        let until = paused.until.as_deref().and_then(|at| Some(at.parse::<Timestamp>().ok()?.as_millisecond()));
        let until = until.map(|at| format!(" until {}, {}", self.terminal.minute(at), self.terminal.relative(at)));
        let reason = if paused.reason.is_empty() { String::new() } else { format!(" ({})", paused.reason) };
        format!(
            "supervision is paused{}{reason}; {said}; {} ends the pause",
            until.unwrap_or_default(),
            self.shown.command("resume")
        )
    }

    /// `down since 10:24, 12 min ago: `
    fn down(&self) -> String {
        match self.shown.last.past.down_since {
            Some(since) => format!("down since {}: ", self.since(since)),
            None => "down: ".to_owned(),
        }
    }

    /// Since when the gateway that is there has not been healthy: ` since 10:35, 20 s ago`.
    fn troubled(&self) -> String {
        around(" since ", self.shown.last.past.unhealthy_since.map(|at| self.since(at)), "")
    }

    fn since(&self, WallTime(at): WallTime) -> String {
        format!("{}, {}", self.terminal.minute(at), self.terminal.relative(at))
    }

    fn generation(&self) -> u64 {
        let shown = self.shown;
        shown.gateway.as_ref().map(|gateway| gateway.generation).or(shown.generation).unwrap_or(0)
    }

    /// When the next step is due: `, at 02:15 (in 3 min)`.
    fn due(&self) -> Option<String> {
        let at = self.shown.next.at.as_ref()?.parse::<Timestamp>().ok()?.as_millisecond();
        // A probe may have taken longer than what was left.
        let still = at.max(self.terminal.now_ms());
        Some(format!("at {} ({})", self.terminal.time(at), self.terminal.relative(still)))
    }

    fn within(&self) -> String {
        around(" within ", self.shown.next.in_ms.map(|ms| human(Duration::from_millis(ms))), "")
    }

    fn why(&self) -> &str {
        self.shown.next.why.as_deref().unwrap_or_default()
    }

    /// Why and on which request the present gateway followed another one: `; restarted at 02:14 after 60 s without an answer`.
    fn restarted(&self) -> String {
        let generation = self.generation();
        let restart = self.shown.last.past.restart.as_ref().filter(|restart| restart.generation == generation);
        restart.map_or_else(String::new, |restart| {
            let by = restart.requester();
            format!("; restarted at {} {}{by}", self.terminal.minute(restart.at.0), restart.cause)
        })
    }

    fn failing(&self) -> String {
        let check = |name: &str, is_channel| {
            if is_channel { format!("channel {name} is not connected") } else { format!("not ready: {name}") }
        };
        let failing: Vec<_> =
            self.shown.failing.iter().map(|failing| check(&failing.name, failing.is_channel)).collect();
        if failing.is_empty() { String::new() } else { format!("; but {}", failing.join(", ")) }
    }

    fn running(&self) -> (Urgency, String) {
        let shown = self.shown;
        let gateway = shown.gateway.as_ref();
        let up = gateway.and_then(|gateway| gateway.up_ms).map(|ms| span(Duration::from_millis(ms)));
        let up = up.map_or_else(|| "up".to_owned(), |up| format!("up for {up}"));
        let restarted = self.restarted();
        if let Some(condition) = gateway.and_then(|gateway| gateway.condition.as_deref()) {
            let text = format!(
                "{up}, but{} gateway {} {condition}; it is not replaced for that{restarted}",
                self.troubled(),
                self.generation()
            );
            return (Urgency::Warning, text);
        }
        if gateway.is_some_and(|gateway| gateway.healthy == Some(false)) {
            let due = self.due().unwrap_or_else(|| "after more failed probes and --hang-after,".to_owned());
            let detail = shown.probe.as_ref().map(|probe| probe.detail.as_str());
            let text = format!(
                "{up}, but{} gateway {} does not answer{}; it is replaced {due} unless it answers{restarted}",
                self.troubled(),
                self.generation(),
                around(" (", detail, ")")
            );
            return (Urgency::Error, text);
        }
        if shown.health != Health::Healthy {
            let detail = shown.probe.as_ref().map(|probe| probe.detail.as_str()).unwrap_or_default();
            return (Urgency::Warning, format!("{up} for its supervisor, but not for this probe: {detail}{restarted}"));
        }
        let planned = (shown.next.action.as_deref() == Some("restart the gateway")).then(|| {
            let now = shown.command("restart --force");
            format!("; a requested restart comes {}: {}; now: {now}", self.due().unwrap_or_default(), self.why())
        });
        let severity = if shown.failing.is_empty() { Urgency::Info } else { Urgency::Warning };
        (severity, format!("{up}{}{restarted}{}", self.failing(), planned.unwrap_or_default()))
    }

    fn starting(&self) -> String {
        let age = self.shown.gateway.as_ref().and_then(|gateway| gateway.age_ms);
        let age = around(" for ", age.map(|ms| span(Duration::from_millis(ms))), "");
        let condition = self.shown.gateway.as_ref().and_then(|gateway| gateway.condition.as_deref());
        let limit = match condition {
            Some(condition) => format!("; it {condition}"),
            None => around("; it is replaced ", self.due(), " if it has not come up by then"),
        };
        format!("starting{age}: gateway {}{}{limit}", self.generation(), self.restarted())
    }

    /// `draining gateway 1: 5 s of at most 5m28s, then gateway 2; a restart was requested by pid 7 (bash)`
    fn stopping(&self) -> String {
        let shown = self.shown;
        let generation = self.generation();
        let by = around(", by ", shown.last.past.requester(), "");
        let (Some(of), Some(left)) = (shown.next.of_ms, shown.next.in_ms) else {
            return format!("stopping: killing what is left of gateway {generation}{by}");
        };
        let spent = span(Duration::from_millis(of.saturating_sub(left)));
        let of = human(Duration::from_millis(of));
        let why = self.why().strip_prefix("it drains: ").unwrap_or(self.why());
        format!(
            "draining gateway {generation}: {spent} of at most {of}{}; {why}{by}",
            around(", then ", shown.next.then.as_ref(), "")
        )
    }

    fn ended(&self) -> String {
        let Some(exit) = &self.shown.last.past.exit else { return "no gateway runs".to_owned() };
        let said = around(", and said: ", exit.output.as_deref().map(end_of_line), "");
        format!("{}{said}", exit.sentence())
    }

    /// Of a supervisor that is gone: `start-now` can start a service alone.
    fn start(&self) -> String {
        self.shown.command(if self.shown.lacks_service { "run" } else { "start-now" })
    }

    fn backing_off(&self) -> String {
        let next = around("; the next start is ", self.due(), "");
        if self.why().starts_with("an update of OpenClaw") {
            let start = self.shown.command("start-now");
            return format!("{}{}{next}; {}; is it complete? {start}", self.down(), self.why(), self.ended());
        }
        let why = around(": ", Some(self.why()).filter(|why| !why.is_empty()), "");
        let crash_loop = if self.shown.last.past.is_crash_loop { "crash loop: " } else { "" };
        let said = format!("{}{crash_loop}{}{next}{why}", self.down(), self.ended());
        if self.shown.paused.is_some() {
            // What starts one is named at the end.
            return said;
        }
        // Without --force a request keeps the wait that OpenClaw's breaker asks for.
        let is_gated = BREAKER.iter().any(|reason| self.why().contains(reason));
        let start = self.shown.command(if is_gated { "start-now --force" } else { "start-now" });
        format!("{said}; fixed it? {start}")
    }

    fn awaiting(&self) -> String {
        let max = around("", self.shown.restarts.max, " restarts are spent; ");
        format!(
            "{}{}; {max}it is started again only if OpenClaw had planned that exit, else the supervisor gives up{}; to start it \
             all the same: {}",
            self.down(),
            self.ended(),
            self.within(),
            self.shown.command("start-now")
        )
    }

    /// Before a start: the lease, an earlier gateway, the port, a hook.
    fn between(&self, state: &str) -> String {
        let past = &self.shown.last.past;
        if state == "probing"
            && let Some(conflict) = &past.conflict
        {
            let port = self.shown.supervisor.port;
            let holder = match (&conflict.command, conflict.pid) {
                (Some(command), Some(pid)) => format!("pid {pid} ({command})"),
                _ => "a process that cannot be seen from here".to_owned(),
            };
            return format!(
                "{}port {port} is held by {holder}{}, which is not this gateway; waiting for it to be free{}; stop that \
                 process, or find it: `sudo ss -ltnp 'sport = :{port}'`",
                self.down(),
                around(", user ", conflict.user.as_ref(), ""),
                around(", and probing again ", self.due(), "")
            );
        }
        let action = self.shown.next.action.as_deref().unwrap_or("start a gateway");
        let ended = past.exit.as_ref().filter(|_| past.down_since.is_some()).map(LastExit::sentence);
        format!("{}{}about to {action}: {}", self.down(), around("", ended, "; "), self.why())
    }

    fn standby(&self) -> (Urgency, String) {
        let since = self.shown.supervisor.since.as_ref().and_then(|since| since.parse::<Timestamp>().ok());
        let since = around(" since ", since.map(|at| self.since(WallTime(at.as_millisecond()))), "");
        let healthy = self.shown.health == Health::Healthy;
        let serves = if healthy { "the gateway is up" } else { "no gateway serves on the port" };
        let severity = if healthy { Urgency::Info } else { Urgency::Warning };
        (
            severity,
            format!("standing by{since}: {}; {serves}; it takes over by itself once the owner is gone", self.why()),
        )
    }

    fn unanswered(&self) -> (Urgency, String) {
        let shown = self.shown;
        let trouble = shown.trouble.as_deref().unwrap_or("no supervisor answers");
        match shown.supervisor.state.as_str() {
            "none" => self.none(),
            "silent" => (Urgency::Error, self.silent()),
            "elsewhere" => {
                let healthy = shown.health == Health::Healthy;
                let serves = if healthy { "the gateway is up" } else { "the gateway cannot be seen from here" };
                let severity = if healthy { Urgency::Info } else { Urgency::Warning };
                let pid = around(" (pid ", shown.supervisor.pid, ")");
                let text = format!("{serves}; its supervisor runs{}{pid}: {trouble}; ask there", shown.place());
                (severity, text)
            }
            _ if shown.view == View::Forbidden => {
                let user = around(" of user ", shown.store_user.as_ref(), "");
                let serves =
                    if shown.health == Health::Healthy { "a gateway is up; the rest is unknown" } else { "unknown" };
                (
                    Urgency::Warning,
                    format!(
                        "{serves}, because this account may not ask the supervisor{user}: {trouble}{}",
                        self.sudo()
                    ),
                )
            }
            _ => (Urgency::Error, format!("unknown, because the supervisor cannot be asked: {trouble}")),
        }
    }

    fn sudo(&self) -> String {
        let dir = &self.shown.supervisor.store_dir;
        let option = if dir.is_empty() { String::new() } else { format!(" --store-dir {}", shell_word(dir.as_ref())) };
        format!("; try `sudo openclaw-supervise status{option}`")
    }

    fn silent(&self) -> String {
        let shown = self.shown;
        let pid = shown.supervisor.pid;
        let gateway = match (&shown.gateway, shown.health) {
            (Some(gateway), Health::Healthy) => format!("gateway {} is up and not supervised", gateway.generation),
            (Some(gateway), _) => format!("gateway {} runs and does not serve", gateway.generation),
            (None, Health::Healthy) => "a gateway is up and not supervised".to_owned(),
            (None, _) => "no gateway serves".to_owned(),
        };
        let supervisor = format!("the supervisor{} does not answer", around(" (pid ", pid, ")"));
        match pid {
            Some(pid) if shown.is_stopped => {
                format!("{supervisor}: it was stopped by a signal; {gateway}; let it go on: `kill -CONT {pid}`")
            }
            Some(pid) => {
                format!(
                    "{supervisor}: it hangs or is starved; {gateway}; look at its log, or replace it: `kill -KILL {pid}`, then {}; the next supervisor adopts the gateway",
                    shown.command("start-now")
                )
            }
            None => format!("{supervisor}; {gateway}; look at its log"),
        }
    }

    fn none(&self) -> (Urgency, String) {
        let shown = self.shown;
        let start = self.start();
        if let Some(trouble) = &shown.trouble {
            let up = if shown.health == Health::Healthy {
                "a gateway is up without a supervisor of this store"
            } else {
                "not running"
            };
            let is_forbidden = shown.view == View::Forbidden;
            let advice = if is_forbidden { self.sudo() } else { String::new() };
            let up = if is_forbidden && shown.health != Health::Healthy { "unknown" } else { up };
            return (Urgency::Warning, format!("{up}: {trouble}{advice}"));
        }
        let killed = shown.last.supervisor.as_ref().filter(|_| shown.last.past.stop.is_none());
        let killed = killed.map(|last| {
            let end = last.end.as_deref().unwrap_or("how it ended is not known");
            format!("its supervisor{} is gone without a stop: {end}", around(" (pid ", last.pid, ")"))
        });
        if let Some(gateway) = &shown.gateway {
            let why = around("; ", killed, "");
            let up = if shown.health == Health::Healthy { "up" } else { "running and not serving" };
            let text =
                format!("not supervised: gateway {} is {up}{why}; have it supervised: {start}", gateway.generation);
            return (Urgency::Error, text);
        }
        if shown.health == Health::Healthy {
            let pid = shown.probe.as_ref().and_then(|probe| probe.pid);
            let text = format!(
                "a gateway that this program did not start answers{}; no supervisor runs for this store; to have one \
                 supervised, stop that one first, then {start}",
                around(" (pid ", pid, ")")
            );
            return (Urgency::Warning, text);
        }
        if let Some(stop) = &shown.last.past.stop {
            return self.stopped(stop);
        }
        match killed {
            Some(killed) => (Urgency::Error, format!("{}{killed}; {}; start it: {start}", self.down(), self.ended())),
            None => (
                Urgency::Warning,
                format!("not running: nothing is on record in {}; start it: {start}", shown.supervisor.store_dir),
            ),
        }
    }

    fn stopped(&self, LastStop { at, exit_code, reason, by }: &LastStop) -> (Urgency, String) {
        let past = &self.shown.last.past;
        let start = self.start();
        let since = self.since(past.down_since.unwrap_or(*at));
        let code = u8::try_from(*exit_code).unwrap_or(exit::FAILURE);
        match code {
            exit::OK => {
                let asked = around(" by ", by.as_ref(), "");
                let text =
                    if by.is_some() { format!("stopped on request{asked}") } else { first_part(reason).to_owned() };
                (Urgency::Info, format!("stopped since {since}: {text}; start it: {start}"))
            }
            exit::EX_CONFIG
                if past.exit.as_ref().is_some_and(|exit| exit.code == Some(78)) && past.conflict.is_none() =>
            {
                let said = past.exit.as_ref().and_then(|exit| exit.output.as_deref());
                let text = format!(
                    "the configuration was refused (exit 78): {}; fix it, then {start}",
                    said.map_or(first_part(reason), end_of_line)
                );
                (Urgency::Error, format!("down since {since}: {text}"))
            }
            exit::GAVE_UP => {
                let reason = first_part(reason);
                let why = reason.strip_prefix("gave up").map_or_else(|| format!(": {reason}"), str::to_owned);
                // What is known of the last one says more than this.
                let why = why.split(": the last gateway").next().unwrap_or_default();
                let ended = self.ended();
                (
                    Urgency::Error,
                    format!("down since {since}: gave up (exit 69){why}; last: {ended}; fix it, then {start}"),
                )
            }
            code => {
                let reason = first_part(reason);
                // A reason with an advice says what to do.
                let fix = if reason.contains("; ") { "" } else { "fix it, " };
                (Urgency::Error, format!("down since {since}: {reason} (exit {code}); {fix}then {start}"))
            }
        }
    }
}
