//! One bounded GET.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, Knock};
use super::verdict::Glimpse;
use crate::core::Verdict;

/// A gateway's answers have a few hundred bytes.
const BODY_LENGTH_MAX: usize = 16 * 1024;

/// The longest content type that is shown.
const KIND_LENGTH_MAX: usize = 60;

/// The way to one address.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    origin: String,
    client: Client,
}

/// What becomes of the connection after the answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Connection {
    /// Another request follows.
    Keep,
    /// This was the last one.
    Close,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The media type without its parameters.
    pub(super) kind: String,
    pub(super) body: Body,
}

/// The body, as far as it matters.
#[derive(Debug)]
pub(super) enum Body {
    /// JSON.
    Json(Value),
    /// Anything else.
    Other,
    /// More than a gateway ever sends.
    TooLong,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// None in time.
    TimedOut,
    /// The connection was refused.
    Refused,
    /// There is no such address here.
    Absent(String),
    /// The connection ended or was reset before the answer was complete.
    Broken(String),
    /// What came was not HTTP, or not TLS that can be trusted.
    Garbled(String),
    /// The probe could not run.
    Local(String),
}

impl Door {
    /// The way to `address`, which has the name `name` if its certificate is to be held against one.
    pub(super) fn new(address: SocketAddr, scheme: &str, name: Option<&str>, client: Client) -> Self {
        let origin = match (name, address) {
            (Some(name), _) => format!("{scheme}://{name}:{}", address.port()),
            (None, SocketAddr::V4(v4)) => format!("{scheme}://{v4}"),
            // A URL has no place for the scope that SocketAddrV6 would print.
            (None, SocketAddr::V6(v6)) => format!("{scheme}://[{}]:{}", v6.ip(), v6.port()),
        };
        Self { address, origin, client }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for `path`.
    pub(super) async fn get(&self, path: &str, after: Connection, deadline: Instant) -> Result<Answer, Failure> {
        let mut request = self.client.get(format!("{}{path}", self.origin));
        if let Connection::Close = after {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let exchange = async {
            let response = request.send().await?;
            read(response).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::of(self.address, &error)),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

async fn read(mut response: Response) -> Result<Answer, reqwest::Error> {
    let status = response.status().as_u16();
    let kind = media_type(response.headers().get(CONTENT_TYPE));
    // No other status has a body that means anything here, and a stranger's may be long.
    if !matches!(status, 200 | 503) {
        return Ok(Answer { status, kind, body: Body::Other });
    }
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if text.len() + chunk.len() > BODY_LENGTH_MAX {
            return Ok(Answer { status, kind, body: Body::TooLong });
        }
        text.extend_from_slice(&chunk);
    }
    Ok(Answer { status, kind, body: Body::parse(&text) })
}

fn media_type(header: Option<&HeaderValue>) -> String {
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().chars().take(KIND_LENGTH_MAX).collect()
}

impl Body {
    pub(super) fn parse(text: &[u8]) -> Self {
        serde_json::from_slice(text).map_or(Self::Other, Self::Json)
    }
}

impl Answer {
    /// `200 text/html`.
    pub(super) fn describe(&self) -> String {
        if self.kind.is_empty() { self.status.to_string() } else { format!("{} {}", self.status, self.kind) }
    }
}

impl Failure {
    /// reqwest wraps what happened: the one error that tells is somewhere in the chain.
    fn of(address: SocketAddr, error: &reqwest::Error) -> Self {
        let mut link: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = link {
            if let Some(found) = Self::of_cause(address, cause) {
                return found;
            }
            // io::Error's source() steps over the error that it wraps.
            link = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        Self::Broken("the connection broke".to_owned())
    }

    fn of_cause(address: SocketAddr, cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::Garbled(format!("no TLS that can be trusted: {error}")));
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return Some(Self::Garbled("the answer is not HTTP".to_owned()));
            }
            return error.is_incomplete_message().then(|| Self::Broken("closed without an answer".to_owned()));
        }
        let error = cause.downcast_ref::<io::Error>()?;
        if let Some(code) = error.raw_os_error() {
            return Some(match connect::classify(address, io::Error::from_raw_os_error(code)) {
                Knock::Refused => Self::Refused,
                Knock::TimedOut => Self::TimedOut,
                Knock::Accepts | Knock::Reset => Self::Broken("connection reset".to_owned()),
                knock @ Knock::Absent(_) => Self::Absent(knock.detail(Duration::ZERO)),
                knock @ Knock::Failed(_) => Self::Local(knock.detail(Duration::ZERO)),
            });
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Some(Self::Broken("closed in the middle of an answer".to_owned())),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if error.get_ref().is_none_or(is_plain) => {
                Some(Self::Garbled("the answer is not HTTP".to_owned()))
            }
            _ => None,
        }
    }

    /// It as a phrase about the request for `path`, `budget` being the time of the whole look.
    pub(super) fn detail(&self, path: &str, budget: Duration) -> String {
        match self {
            Self::TimedOut => format!("GET {path}: no answer within {}", humantime::format_duration(budget)),
            Self::Refused => "connection refused".to_owned(),
            Self::Absent(why) | Self::Local(why) => why.clone(),
            Self::Broken(why) | Self::Garbled(why) => format!("GET {path}: {why}"),
        }
    }

    /// What it says about the port.
    pub(super) fn glimpse(&self, path: &str, budget: Duration) -> Glimpse {
        let verdict = match self {
            Self::Absent(why) => return Glimpse::Absent(why.clone()),
            Self::TimedOut | Self::Broken(_) => Verdict::Silent,
            Self::Refused => Verdict::Free,
            Self::Garbled(_) => Verdict::Foreign,
            Self::Local(_) => Verdict::Inconclusive,
        };
        Glimpse::Seen(verdict, self.detail(path, budget))
    }
}

/// An error that tells no more than its text: there is nothing below it to look for.
fn is_plain(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    !error.is::<rustls::Error>() && !error.is::<io::Error>()
}
