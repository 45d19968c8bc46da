//! HTTP requests to webhooks: bounded in time and in bytes, without redirects, and without the secrets of their URLs in any
//! message.

mod message;
mod target;

pub use message::{Notification, Origin, Template};
pub use target::{SourceError, TargetSource, WebhookUrl};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::crypto::{CryptoProvider, ring};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

/// How long a whole exchange may take, and the connection of it.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// What is read of an answer. Services explain a refusal in a line.
const BODY_LENGTH_MAX: usize = 1024;

/// What is shown of it, in characters.
const EXCERPT_LENGTH_MAX: usize = 160;

/// A longer wait that a server asks for is cut.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// What came of one message on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub channel: String,
    /// What came back, or why it was not taken.
    pub result: Result<String, String>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("no answer within {}s", EXCHANGE_TIME_MAX.as_secs())]
    TimedOut,
    /// No connection, or one that broke.
    #[error("{0}")]
    Unreachable(String),
    /// A POST would become a GET, or go to a host that the operator has not named.
    #[error("answered {status}, a redirect to {to}, which is not followed; give the final URL")]
    Redirected { status: u16, to: String },
    #[error("answered {status}{excerpt}")]
    Status {
        status: u16,
        /// `: ` and the beginning of the answer, if it has one.
        excerpt: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
}

impl WebhookError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TimedOut | Self::Unreachable(_) => true,
            Self::Redirected { .. } => false,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
        }
    }

    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::TimedOut | Self::Unreachable(_) | Self::Redirected { .. } => None,
        }
    }
}

/// A client that is built on first use: the roots of the system's certificates take milliseconds and megabytes.
#[derive(Debug, Clone, Default)]
pub struct Webhooks(std::sync::Arc<std::sync::OnceLock<Client>>);

impl Webhooks {
    /// Posts a message. Returns the status.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn post(
        &self,
        target: &WebhookUrl,
        template: Template,
        message: &Notification,
    ) -> Result<u16, WebhookError> {
        let mut headers = HeaderMap::new();
        let body = match template.of(target) {
            Template::Ntfy => {
                headers = message.ntfy_headers();
                message.text()
            }
            Template::Slack => message.slack().to_string(),
            Template::Discord => message.discord().to_string(),
            Template::Auto | Template::Json => message.json().to_string(),
        };
        if !matches!(template.of(target), Template::Ntfy) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        send(self.client()?.post(target.url().clone()).headers(headers).body(body), target).await
    }

    /// A GET. Returns the status.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn ping(&self, target: &WebhookUrl) -> Result<u16, WebhookError> {
        send(self.client()?.get(target.url().clone()), target).await
    }

    fn client(&self) -> Result<&Client, WebhookError> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        if CryptoProvider::get_default().is_none() {
            // Fails only if another thread has just installed one.
            drop(ring::default_provider().install_default());
        }
        // Proxies are those of the environment (HTTPS_PROXY, NO_PROXY). Messages are rare: no connection is kept.
        let client = Client::builder()
            .redirect(Policy::none())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(EXCHANGE_TIME_MAX)
            .user_agent(concat!("openclaw-supervise/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| WebhookError::Unreachable(reason(error)))?;
        Ok(self.0.get_or_init(|| client))
    }
}

async fn send(request: RequestBuilder, target: &WebhookUrl) -> Result<u16, WebhookError> {
    let answer = request.send().await.map_err(|error| {
        if error.is_timeout() { WebhookError::TimedOut } else { WebhookError::Unreachable(target.mask(&reason(error))) }
    })?;
    let status = answer.status();
    if status.is_success() {
        // The body is not wanted, however long it is.
        return Ok(status.as_u16());
    }
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.map_or_else(|| "nowhere".to_owned(), |to| target.masked_location(to));
        return Err(WebhookError::Redirected { status: status.as_u16(), to });
    }
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
    let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let excerpt = target.mask(&excerpt(answer).await);
    let excerpt = if excerpt.is_empty() { excerpt } else { format!(": {excerpt}") };
    Err(WebhookError::Status { status: status.as_u16(), excerpt, retry_after })
}

/// The beginning of the answer on one line. One that breaks off counts as far as it came.
async fn excerpt(mut answer: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= BODY_LENGTH_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(BODY_LENGTH_MAX)]).trim().to_owned();
    text.chars().take(EXCERPT_LENGTH_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The innermost causes of an error, without its URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes = vec![error.to_string()];
    let mut link: Option<&dyn Error> = error.source();
    while let Some(cause) = link {
        causes.push(cause.to_string());
        link = cause.source();
    }
    // The outer ones only say that something failed below.
    let inner = causes.split_off(causes.len().saturating_sub(2));
    let mut text = inner.first().cloned().unwrap_or_default();
    for cause in inner.iter().skip(1).filter(|cause| !inner[0].contains(cause.as_str())) {
        // Writing to a String does not fail.
        let _infallible = write!(text, ": {cause}");
    }
    text
}
