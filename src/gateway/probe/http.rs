//! One bounded GET.

use super::connect::{self, Connect};
use super::outcome::AddressOutcome;
use crate::core::Verdict;
use reqwest::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response};
use serde_json::Value;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A gateway's replies have a few hundred bytes.
const BODY_LENGTH_MAX: usize = 16 * 1024;

/// A longer content type is cut in messages.
const MEDIA_TYPE_LENGTH_MAX: usize = 60;

#[derive(Debug)]
pub(super) struct ProbeClient {
    address: SocketAddr,
    origin: String,
    client: Client,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum AfterReply {
    KeepAlive,
    Close,
}

/// A complete reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Without parameters.
    pub(super) media_type: String,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Json(Value),
    Other,
    /// Over [`BODY_LENGTH_MAX`].
    TooLong,
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum RequestError {
    TimedOut,
    Refused,
    /// This machine has no such address.
    Absent(String),
    /// The connection was closed or reset before the reply was complete.
    Broken(String),
    /// Not HTTP, or TLS that cannot be trusted.
    Malformed(String),
    /// The probe itself could not run.
    Local(String),
}

impl ProbeClient {
    /// `name` is the host name to check the certificate against.
    pub(super) fn new(address: SocketAddr, scheme: &str, name: Option<&str>, client: Client) -> Self {
        let origin = match (name, address) {
            (Some(name), _) => format!("{scheme}://{name}:{}", address.port()),
            (None, SocketAddr::V4(v4)) => format!("{scheme}://{v4}"),
            // SocketAddrV6 would print a scope id, which a URL cannot hold.
            (None, SocketAddr::V6(v6)) => format!("{scheme}://[{}]:{}", v6.ip(), v6.port()),
        };
        Self { address, origin, client }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn get(&self, path: &str, after: AfterReply, deadline: Instant) -> Result<Reply, RequestError> {
        let mut request = self.client.get(format!("{}{path}", self.origin));
        if let AfterReply::Close = after {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let exchange = async {
            let response = request.send().await?;
            read(response).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(RequestError::of(self.address, &error)),
            Err(_) => Err(RequestError::TimedOut),
        }
    }
}

async fn read(mut response: Response) -> Result<Reply, reqwest::Error> {
    let status = response.status().as_u16();
    let media_type = media_type(response.headers().get(CONTENT_TYPE));
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if text.len() + chunk.len() > BODY_LENGTH_MAX {
            return Ok(Reply { status, media_type, body: Body::TooLong });
        }
        text.extend_from_slice(&chunk);
    }
    // The body of any other status has no meaning here: it was read because an answer that is cut short is none.
    let body = if matches!(status, 200 | 503) { Body::parse(&text) } else { Body::Other };
    Ok(Reply { status, media_type, body })
}

fn media_type(header: Option<&HeaderValue>) -> String {
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().chars().take(MEDIA_TYPE_LENGTH_MAX).collect()
}

impl Body {
    pub(super) fn parse(text: &[u8]) -> Self {
        serde_json::from_slice(text).map_or(Self::Other, Self::Json)
    }
}

impl Reply {
    /// `200 text/html`.
    pub(super) fn describe(&self) -> String {
        if self.media_type.is_empty() {
            self.status.to_string()
        } else {
            format!("{} {}", self.status, self.media_type)
        }
    }
}

impl RequestError {
    /// reqwest wraps the cause: the error that tells it is somewhere in the chain.
    fn of(address: SocketAddr, error: &reqwest::Error) -> Self {
        let mut link: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = link {
            if let Some(found) = Self::of_cause(address, cause) {
                return found;
            }
            // io::Error::source() skips the error that it wraps.
            link = match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        Self::Broken("connection failed".to_owned())
    }

    fn of_cause(address: SocketAddr, cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::Malformed(format!("TLS failed: {error}")));
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return Some(Self::Malformed("the reply is not HTTP".to_owned()));
            }
            return error.is_incomplete_message().then(|| Self::Broken("connection closed without a reply".to_owned()));
        }
        let error = cause.downcast_ref::<io::Error>()?;
        if let Some(code) = error.raw_os_error() {
            return Some(match connect::classify(address, io::Error::from_raw_os_error(code)) {
                Connect::Refused => Self::Refused,
                Connect::TimedOut => Self::TimedOut,
                Connect::Accepted | Connect::Reset => Self::Broken("connection reset".to_owned()),
                other @ Connect::Absent(_) => Self::Absent(other.detail(Duration::ZERO)),
                other @ Connect::Failed(_) => Self::Local(other.detail(Duration::ZERO)),
            });
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Some(Self::Broken("connection closed before the reply was complete".to_owned()))
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput if error.get_ref().is_none_or(is_plain) => {
                Some(Self::Malformed("the reply is not HTTP".to_owned()))
            }
            _ => None,
        }
    }

    /// `budget` is the timeout of the whole probe.
    pub(super) fn detail(&self, path: &str, budget: Duration) -> String {
        match self {
            Self::TimedOut => format!("GET {path}: no answer within {}", humantime::format_duration(budget)),
            Self::Refused => "connection refused".to_owned(),
            Self::Absent(why) | Self::Local(why) => why.clone(),
            Self::Broken(why) | Self::Malformed(why) => format!("GET {path}: {why}"),
        }
    }

    pub(super) fn outcome(&self, path: &str, budget: Duration) -> AddressOutcome {
        let verdict = match self {
            Self::Absent(why) => return AddressOutcome::Absent(why.clone()),
            Self::TimedOut | Self::Broken(_) => Verdict::Silent,
            Self::Refused => Verdict::Free,
            Self::Malformed(_) => Verdict::Malformed,
            Self::Local(_) => Verdict::Inconclusive,
        };
        AddressOutcome::Seen(verdict, self.detail(path, budget))
    }
}

/// Whether the error is the cause itself, rather than a wrapper of it.
fn is_plain(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    !error.is::<rustls::Error>() && !error.is::<io::Error>()
}
