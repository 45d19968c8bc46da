//! Where a request goes. The path of a webhook's URL is its password.

use crate::platform::regular_file;
use reqwest::Url;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MASK: &str = "***";

/// More than any list of webhooks has.
const FILE_LENGTH_MAX: u64 = 64 * 1024;
const TARGETS_MAX: usize = 16;

/// Shorter parts of a URL are no secrets, and masking them would garble a message.
const SECRET_LENGTH_MIN: usize = 6;

/// Why there are no URLs. The text is never shown: it may be a secret that was put into the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("word {0} is not a URL that begins with https:// or http:// and a host (not shown, it may hold a secret)")]
    NotAUrl(usize),
    #[error("there is no URL in it")]
    Empty,
    #[error("there are more than {TARGETS_MAX} URLs in it")]
    TooMany,
    #[error("cannot read {0}: {1}")]
    Unreadable(String, String),
}

/// A URL that is shown without what is secret in it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    fn parse(word: &str) -> Option<Self> {
        let url = Url::parse(word).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(Self(url))
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// The whole URL, to tell two of them apart. Never shown.
    #[must_use]
    pub fn key(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// A text in which another program may have repeated parts of the URL.
    pub(super) fn mask(&self, text: &str) -> String {
        let query = self.0.query_pairs().map(|(_, value)| value.into_owned());
        let path = self.0.path_segments().into_iter().flatten().map(str::to_owned);
        let user = [self.0.username().to_owned(), self.0.password().unwrap_or_default().to_owned()];
        let secrets = [self.0.path().to_owned()].into_iter().chain(path).chain(query).chain(user);
        secrets
            .filter(|secret| secret.len() >= SECRET_LENGTH_MIN)
            .fold(text.to_owned(), |text, secret| text.replace(&secret, MASK))
    }

    /// The origin of a redirect: its path may repeat the secret.
    pub(super) fn masked_location(&self, location: &str) -> String {
        self.0.join(location).map_or_else(|_| "an invalid URL".to_owned(), |url| Self(url).to_string())
    }
}

impl fmt::Display for WebhookUrl {
    /// `https://hooks.slack.com/***`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.host())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        let is_bare = self.0.path() == "/" && self.0.query().is_none();
        f.write_str(if is_bare { "/" } else { "/***" })
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the URLs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSource {
    Given(Vec<WebhookUrl>),
    /// Read at each use, so that a new token needs no restart.
    File(PathBuf),
}

impl TargetSource {
    /// The value of an option: URLs, or `@` and a file.
    ///
    /// # Errors
    /// One of them is no URL.
    pub fn parse(value: &OsStr, resolve: impl Fn(&OsStr) -> PathBuf) -> Result<Self, SourceError> {
        match value.as_bytes().strip_prefix(b"@") {
            Some(path) => Ok(Self::File(resolve(OsStr::from_bytes(path)))),
            None => targets(&value.to_string_lossy()).map(Self::Given),
        }
    }

    /// The URLs. It blocks on the file.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn read(&self) -> Result<Vec<WebhookUrl>, SourceError> {
        match self {
            Self::Given(targets) => Ok(targets.clone()),
            Self::File(path) => {
                let text = head(path)
                    .map_err(|error| SourceError::Unreadable(path.display().to_string(), error.to_string()))?;
                let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
                targets(&lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

fn head(path: &Path) -> io::Result<String> {
    let bytes = regular_file::head(path, FILE_LENGTH_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn targets(text: &str) -> Result<Vec<WebhookUrl>, SourceError> {
    let targets = text.split_whitespace().enumerate();
    let targets = targets.map(|(index, word)| WebhookUrl::parse(word).ok_or(SourceError::NotAUrl(index + 1)));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    match targets.len() {
        0 => Err(SourceError::Empty),
        1..=TARGETS_MAX => Ok(targets),
        _ => Err(SourceError::TooMany),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn target(url: &str) -> WebhookUrl {
        WebhookUrl::parse(url).unwrap()
    }

    #[test]
    fn nothing_secret_of_a_url_is_shown() {
        for (url, shown) in [
            ("https://hooks.slack.com/services/T0/B0/abcdef", "https://hooks.slack.com/***"),
            ("http://user:secret@ntfy.example:8080/topic", "http://ntfy.example:8080/***"),
            ("https://hc-ping.com/?token=abcdef", "https://hc-ping.com/***"),
            ("https://alerts.example", "https://alerts.example/"),
            ("http://[::1]:80/x", "http://[::1]/***"),
        ] {
            assert_eq!((target(url).to_string(), format!("{:?}", target(url))), (shown.to_owned(), shown.to_owned()));
        }
        let echo = target("https://a.example/hooks/s3cr3t-path?key=s3cr3t-key");
        let text = "no such hook: /hooks/s3cr3t-path (s3cr3t-key)";
        assert_eq!(echo.mask(text), "no such hook: *** (***)");
    }

    #[test]
    fn a_value_is_urls_or_a_file_and_a_slip_is_not_shown() {
        let parse = |text: &str| TargetSource::parse(OsStr::new(text), |path| PathBuf::from(path));
        assert_eq!(parse("http://a/1 https://b/2").map(|source| source.read().unwrap().len()), Ok(2));
        assert_eq!(parse("@/etc/hooks"), Ok(TargetSource::File(PathBuf::from("/etc/hooks"))));
        for (text, error) in [
            ("", SourceError::Empty),
            ("hooks.slack.com/services/T0/B0/secret", SourceError::NotAUrl(1)),
            ("https://a/1 ftp://b/2", SourceError::NotAUrl(2)),
            ("https:///x y", SourceError::NotAUrl(2)),
            ("mailto:a@b", SourceError::NotAUrl(1)),
        ] {
            assert_eq!(parse(text), Err(error.clone()), "{text}");
            assert!(!error.to_string().contains("secret/") && !error.to_string().contains("T0"), "{error}");
        }
        assert_eq!(parse(&"http://a ".repeat(17)), Err(SourceError::TooMany));
    }

    #[test]
    fn a_file_holds_urls_and_comments() {
        let path = std::env::temp_dir().join(format!("ocs-targets-{}", std::process::id()));
        let source = TargetSource::File(path.clone());
        assert!(matches!(source.read(), Err(SourceError::Unreadable(..))));
        std::fs::write(&path, "# the team's\nhttps://a/1\n\n  https://b/2\n").unwrap();
        assert_eq!(source.read().unwrap().len(), 2);
        std::fs::write(&path, "# none\n").unwrap();
        assert_eq!(source.read(), Err(SourceError::Empty));
        std::fs::remove_file(path).unwrap();
    }
}
