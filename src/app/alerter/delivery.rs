//! Takes messages to webhooks and to the operator's command, with retries.

use super::memory::AlertFile;
use crate::core::alert::AlertMemory;
use crate::gateway::hooks::Hooks;
use crate::host::webhook::{Delivered, Notification, TargetSource, Template, WebhookError, WebhookUrl, Webhooks};
use crate::platform::random;
use crate::platform::thread::BlockingCall;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// The first pause before another try, doubled up to the last.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A message that could not be delivered for so long is given up: later ones say more.
const DELIVERY_TIME_MAX: Duration = Duration::from_mins(15);

/// The most messages that wait for all lines together.
const WAITING_MAX: usize = 64;

/// How long the file with the URLs may take to be read.
const FILE_TIME_MAX: Duration = Duration::from_secs(2);

/// Where messages go.
#[derive(Clone)]
pub struct Channels {
    webhooks: Webhooks,
    source: Option<TargetSource>,
    template: Template,
    command: Option<(OsString, Duration)>,
    hooks: Arc<Hooks>,
}

impl Channels {
    #[must_use]
    pub fn new(
        source: Option<TargetSource>,
        template: Template,
        command: Option<(OsString, Duration)>,
        hooks: Hooks,
    ) -> Self {
        Self { webhooks: Webhooks::default(), source, template, command, hooks: Arc::new(hooks) }
    }

    pub(super) fn webhooks(&self) -> Webhooks {
        self.webhooks.clone()
    }

    /// Sends a message once to each channel, and a heartbeat to the URLs of `heartbeat`; says what came back.
    pub async fn try_all(&self, message: &Notification, heartbeat: Option<&TargetSource>) -> Vec<Delivered> {
        let mut all = Vec::new();
        if let Some(source) = &self.source {
            match targets(source).await {
                Ok(targets) => {
                    for target in targets {
                        let template = self.template.of(&target).name();
                        let posted = self.webhooks.post(&target, self.template, message).await;
                        let result = posted.map(|status| status.to_string()).map_err(|error| error.to_string());
                        all.push(Delivered { channel: format!("{target} ({template})"), result });
                    }
                }
                Err(error) => all.push(Delivered { channel: "--notify".to_owned(), result: Err(error) }),
            }
        }
        if let Some((line, limit)) = &self.command {
            let input = format!("{}\n", message.json());
            let ran = self.hooks.run_event_command(line, input.as_bytes(), *limit).await;
            let result = ran.map(|()| "exit code 0".to_owned()).map_err(|error| format!("it {error}"));
            all.push(Delivered { channel: "--on-event".to_owned(), result });
        }
        if let Some(source) = heartbeat {
            all.extend(self.try_heartbeat(source).await);
        }
        all
    }

    /// Sends a heartbeat once to each URL.
    async fn try_heartbeat(&self, source: &TargetSource) -> Vec<Delivered> {
        match targets(source).await {
            Ok(targets) => {
                let mut all = Vec::new();
                for target in targets {
                    let pinged = self.webhooks.ping(&target).await;
                    let result = pinged.map(|status| status.to_string()).map_err(|error| error.to_string());
                    all.push(Delivered { channel: format!("{target} (heartbeat)"), result });
                }
                all
            }
            Err(error) => vec![Delivered { channel: "--heartbeat-url".to_owned(), result: Err(error) }],
        }
    }
}

/// The URLs of a source, beside the event loop.
pub(super) async fn targets(source: &TargetSource) -> Result<Vec<WebhookUrl>, String> {
    let source = source.clone();
    match BlockingCall::default().run(FILE_TIME_MAX, move || source.read()).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot read the file with the URLs: {error}")),
    }
}

/// One line of waiting messages for each URL and one for the command.
pub(super) struct DeliveryQueues {
    channels: Channels,
    memory: AlertFile,
    /// Fair: the first message to wait goes first.
    turns: BTreeMap<String, Arc<Mutex<()>>>,
    /// The channels of which a failure was told.
    failing: Arc<Lock<BTreeSet<String>>>,
    under_way: JoinSet<()>,
    /// Counts the messages.
    number: u64,
}

impl DeliveryQueues {
    pub(super) fn new(channels: Channels, memory: AlertFile) -> Self {
        let (turns, failing) = (BTreeMap::new(), Arc::default());
        Self { channels, memory, turns, failing, under_way: JoinSet::new(), number: 0 }
    }

    /// Queues a message. `known` is what is to be remembered once it was taken anywhere.
    pub(super) async fn deliver(&mut self, message: Notification, known: AlertMemory) {
        while self.under_way.try_join_next().is_some() {}
        if self.under_way.len() >= WAITING_MAX {
            tracing::warn!("\"{}\" is not told: too many notifications wait", message.title());
            return;
        }
        let message = Arc::new(message);
        self.number += 1;
        if let Some(source) = &self.channels.source {
            match targets(source).await {
                Ok(targets) => {
                    for target in targets {
                        self.post(target, Arc::clone(&message), known.clone());
                    }
                }
                Err(error) => tracing::warn!("\"{}\" is not posted: --notify: {error}", message.title()),
            }
        }
        if let Some((line, limit)) = self.channels.command.clone() {
            self.run(line, limit, &message, known);
        }
    }

    /// Waits for all that is under way. To be given up by the caller.
    pub(super) async fn finish(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }

    fn turn(&mut self, channel: &str) -> Arc<Mutex<()>> {
        Arc::clone(self.turns.entry(channel.to_owned()).or_default())
    }

    fn post(&mut self, target: WebhookUrl, message: Arc<Notification>, known: AlertMemory) {
        let turn = self.turn(target.key());
        let (webhooks, template) = (self.channels.webhooks.clone(), self.channels.template);
        let (memory, failing, number) = (self.memory.clone(), Arc::clone(&self.failing), self.number);
        self.under_way.spawn(async move {
            let until = Instant::now() + DELIVERY_TIME_MAX;
            let _turn = turn.lock().await;
            let mut pause = PAUSE_MIN;
            loop {
                let Err(error) = webhooks.post(&target, template, &message).await else {
                    if changes(&failing, &target, false) {
                        tracing::info!("{target} takes notifications again");
                    }
                    return memory.write(number, &known).await;
                };
                let wait = error.retry_after().unwrap_or_else(|| spread(pause));
                pause = (pause * 2).min(PAUSE_MAX);
                if !error.may_pass() || Instant::now() + wait >= until {
                    changes(&failing, &target, true);
                    return give_up(&target, &message, &error);
                }
                if changes(&failing, &target, true) {
                    let minutes = DELIVERY_TIME_MAX.as_secs() / 60;
                    tracing::warn!("cannot notify {target}: {error}; trying again for up to {minutes} min");
                }
                sleep(wait).await;
            }
        });
    }

    fn run(&mut self, line: OsString, limit: Duration, message: &Notification, known: AlertMemory) {
        let turn = self.turn("");
        let (hooks, memory, number) = (Arc::clone(&self.channels.hooks), self.memory.clone(), self.number);
        let (input, title) = (format!("{}\n", message.json()), message.title().to_owned());
        self.under_way.spawn(async move {
            let _turn = turn.lock().await;
            match hooks.run_event_command(&line, input.as_bytes(), limit).await {
                Ok(()) => memory.write(number, &known).await,
                Err(error) => tracing::warn!("the --on-event command for \"{title}\" {error}"),
            }
        });
    }
}

fn give_up(target: &WebhookUrl, message: &Notification, error: &WebhookError) {
    tracing::warn!("cannot notify {target}: {error}; \"{}\" is given up", message.title());
}

/// Notes whether a channel fails. Says whether that is news.
fn changes(failing: &Lock<BTreeSet<String>>, target: &WebhookUrl, fails: bool) -> bool {
    let mut failing = failing.lock().unwrap_or_else(PoisonError::into_inner);
    if fails { failing.insert(target.key().to_owned()) } else { failing.remove(target.key()) }
}

/// Between half of a pause and all of it.
fn spread(pause: Duration) -> Duration {
    let part = u32::try_from(random::bits() % 500).unwrap_or(0);
    pause * (500 + part) / 1000
}
