//! Redacts secrets in the arguments of a process.
//!
//! A secret is recognised by its name (`--token`, `DB_PASSWORD=`, `"apiKey":`, `Authorization:`), by its position
//! (`https://user:password@host`) or by a prefix that only keys have. If its extent is not clear, more is redacted rather
//! than less.

const MASK: &str = "***";

/// A name with one of these words is that of a secret.
const WORDS: [&str; 16] = [
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "keys",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "secrets",
    "token",
    "tokens",
];

/// The same as suffixes of a compound word.
const ENDS: [&str; 9] =
    ["accesskey", "apikey", "credential", "passphrase", "passwd", "password", "privatekey", "secret", "token"];

/// The last word of a name for a property of a secret.
const HARMLESS_ENDS: [&str; 5] = ["dir", "file", "path", "type", "ttl"];

/// Words that make `tokens` a number of language model tokens.
const COUNTS: [&str; 5] = ["budget", "count", "limit", "max", "min"];

/// Values of `--auth` that name an authentication method.
const MODES: [&str; 13] = [
    "basic",
    "bearer",
    "device",
    "false",
    "none",
    "oauth",
    "off",
    "on",
    "password",
    "tailscale",
    "token",
    "true",
    "trusted-proxy",
];

/// Schemes between `Authorization:` and the secret.
const SCHEMES: [&str; 6] = ["apikey", "basic", "bearer", "bot", "digest", "token"];

/// Prefixes of keys, and of nothing else of that length.
const PREFIXES: [&str; 22] = [
    "AIza",
    "AKIA",
    "ASIA",
    "SG.",
    "eyJ",
    "ghp_",
    "gho_",
    "ghr_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "hf_",
    "npm_",
    "pk_live_",
    "rk_live_",
    "sk-",
    "sk_live_",
    "tskey-",
    "whsec_",
    "xapp-",
    "xox",
];

/// The least number of characters after such a prefix.
const KEY_LENGTH_MIN: usize = 8;

/// The same after the colon of a Telegram bot's token, `NUMBER:KEY`.
const BOT_KEY_LENGTH_MIN: usize = 30;

/// Longer arguments are cut before the scan; far less is shown.
const LENGTH_MAX: usize = 8 * 1024;

/// The kind of value that a name announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Harmless,
    Secret,
    /// A secret, unless it is one of [`MODES`].
    Auth,
    /// A secret if it is `user:password`.
    User,
}

/// Redacts one argument after the other.
#[derive(Debug)]
pub(super) struct Redactor {
    /// The kind of the next argument, as the last one announced it.
    next: ValueKind,
    last_word: String,
}

impl Redactor {
    pub(super) fn new() -> Self {
        Self { next: ValueKind::Harmless, last_word: String::new() }
    }

    pub(super) fn redact(&mut self, argument: &[u8]) -> String {
        let text = String::from_utf8_lossy(&argument[..argument.len().min(LENGTH_MAX)]);
        let kind = std::mem::replace(&mut self.next, ValueKind::Harmless);
        if is_masked(kind, &text) { MASK.to_owned() } else { self.scan(&text) }
    }

    fn scan(&mut self, text: &str) -> String {
        let (mut out, mut at) = (String::with_capacity(text.len()), 0);
        while let Some(first) = text[at..].chars().next() {
            let end = end_of(text, at, is_of_word);
            let (shown, next) = if let Some(user) = end_of_user(text, at) {
                (format!("://{MASK}@"), user)
            } else if end == at {
                (first.to_string(), at + first.len_utf8())
            } else {
                self.redact_word(text, at, end)
            };
            out.push_str(&shown);
            at = next;
        }
        out
    }

    /// The redacted text of the word at `at..end` and of its value, if any, and the end of both.
    fn redact_word(&mut self, text: &str, at: usize, end: usize) -> (String, usize) {
        let word = &text[at..end];
        let last = std::mem::replace(&mut self.last_word, word.to_owned());
        if is_key(word) {
            return (MASK.to_owned(), end);
        }
        if let Some(key) = end_of_bot_key(text, at, end) {
            return (format!("{word}:{MASK}"), key);
        }
        let kind = ValueKind::of(word);
        let value = if kind == ValueKind::Harmless && !word.eq_ignore_ascii_case("bearer") {
            None
        } else if let Some(assigned) = assigned(text, at, end) {
            Some(assigned)
        } else {
            // `config set PATH VALUE`, an option, or `Bearer`: other words have no value.
            let takes_next = word.starts_with('-') || last == "set" || kind == ValueKind::Harmless;
            takes_next.then(|| following(text, end)).flatten()
        };
        let kind = if kind == ValueKind::Harmless { ValueKind::Secret } else { kind };
        let Some((from, to)) = value else { return (word.to_owned(), end) };
        if from == text.len() {
            // The value is the next argument, unless it is empty as in `--token=`.
            let is_empty = text[end..].contains('=');
            self.next = if is_empty { ValueKind::Harmless } else { kind };
        } else if is_masked(kind, &text[from..to]) {
            let is_scheme = SCHEMES.iter().any(|scheme| text[from..to].eq_ignore_ascii_case(scheme));
            let rest = if is_scheme { following(text, to) } else { None };
            if rest.is_some_and(|(from, _)| from == text.len()) {
                self.next = ValueKind::Secret;
            }
            return (format!("{}{MASK}", &text[at..from]), rest.map_or(to, |(_, to)| to));
        }
        (word.to_owned(), end)
    }
}

impl ValueKind {
    fn of(name: &str) -> Self {
        let words = words(name);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        let ends = |word: &String| ENDS.iter().any(|end| word.ends_with(end));
        let last = words.last().map_or("", String::as_str);
        let counts = matches!(last, "token" | "tokens" | "count" | "limit" | "budget") && has(&COUNTS);
        if counts || words.first().is_some_and(|word| word == "no") || HARMLESS_ENDS.contains(&last) {
            Self::Harmless
        } else if has(&WORDS) || words.iter().any(ends) || words.len() > 1 && last == "pwd" {
            Self::Secret
        } else if matches!(name, "--notify" | "--heartbeat-url") {
            // The path of a webhook's URL is its password.
            Self::Secret
        } else if has(&["auth"]) {
            Self::Auth
        } else if matches!(name, "-u" | "--user" | "--proxy-user") {
            Self::User
        } else {
            Self::Harmless
        }
    }
}

/// Splits a name at `-`, `_`, `.` and in camel case, into lower-case words.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let letters = name.as_bytes();
    for (index, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            words.push(String::new());
            continue;
        }
        let before = index.checked_sub(1).map_or(b'-', |before| letters[before]);
        let after = letters.get(index + 1).copied().unwrap_or(b'-');
        let begins = letter.is_ascii_uppercase()
            && (before.is_ascii_lowercase() || before.is_ascii_uppercase() && after.is_ascii_lowercase());
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(char::from(letter.to_ascii_lowercase()));
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_masked(kind: ValueKind, value: &str) -> bool {
    let bare = value.trim_matches(|c: char| c.is_whitespace() || is_quote(c));
    match kind {
        ValueKind::Harmless => false,
        ValueKind::Secret => !is_option(value),
        ValueKind::Auth => !is_option(value) && !MODES.contains(&bare.to_ascii_lowercase().as_str()),
        // `docker run --user 1000:1000`
        ValueKind::User => {
            bare.split_once(':').is_some_and(|(_, password)| !password.chars().all(|c| c.is_ascii_digit()))
        }
    }
}

/// Whether it looks like an option rather than a secret that starts with a hyphen.
fn is_option(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text.strip_prefix("--").map(|name| name.split('=').next().unwrap_or_default()) {
        Some(name) => name.chars().all(is_plain) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        None => text.len() == 2 && text.starts_with('-'),
    }
}

fn is_key(word: &str) -> bool {
    // `npm_config_cache` is a variable, not a key.
    let is_random = |rest: &str| rest.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let is_rest =
        |prefix: &str, rest: &str| rest.len() >= KEY_LENGTH_MIN && (!prefix.ends_with('_') || is_random(rest));
    PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| is_rest(prefix, rest)))
}

/// `123456789:KEY`, also after `bot` in a URL.
fn end_of_bot_key(text: &str, at: usize, end: usize) -> Option<usize> {
    let number = &text[at..end];
    let number = number.strip_prefix("bot").unwrap_or(number);
    let is_number = number.len() >= 6 && number.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number || !text[end..].starts_with(':') {
        return None;
    }
    let key = end_of(text, end + 1, is_of_word);
    (key - end > BOT_KEY_LENGTH_MIN).then_some(key)
}

/// Characters of a name, an option, a number or a key.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

fn end_of(text: &str, from: usize, is_part: impl Fn(char) -> bool) -> usize {
    text[from..].find(|c| !is_part(c)).map_or(text.len(), |length| from + length)
}

/// `://user:password@`, and `https://user@` since that user is usually a key.
fn end_of_user(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix("://")?;
    let address = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
    let authority = &address[..address.find(['/', '?', '#']).unwrap_or(address.len())];
    let is_port = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let length = match (authority.rfind('@'), authority.rsplit_once(':')) {
        (Some(length), _) if authority[..length].contains(':') || text[..at].ends_with("http") => length,
        (Some(length), _) if text[..at].ends_with("https") => length,
        // A password with a slash: what follows the colon is no port.
        (None, Some((_, port))) if !is_port(port) && !authority.ends_with(']') => address.rfind('@')?,
        _ => return None,
    };
    Some(at + "://".len() + length + 1)
}

/// The range of the value in `name=value`, `name: value` or `"name": "value"`.
fn assigned(text: &str, at: usize, end: usize) -> Option<(usize, usize)> {
    let before = text[..at].chars().next_back();
    let quote = end_of(text, end, |c| c == '\\' || is_quote(c));
    let blank = end_of(text, quote, char::is_whitespace);
    let sign = end_of(text, blank, |c| matches!(c, '=' | ':' | '>'));
    if sign == blank || text[blank..].starts_with("://") || text[blank..].starts_with('>') {
        return None;
    }
    let from = end_of(text, sign, char::is_whitespace);
    let value = &text[from..];
    let is_quoted = value.starts_with(|c| c == '\\' || is_quote(c));
    let until = |is_end: &dyn Fn(char) -> bool| value.find(is_end).map_or(text.len(), |length| from + length);
    let to = match before {
        // The whole argument is `name=value`.
        None => text.len(),
        Some('?' | '&') if !is_quoted => until(&|c| c.is_whitespace() || is_quote(c) || matches!(c, '&' | '#')),
        Some(open) if is_quote(open) && quote == end => until(&|c| c == open),
        Some(_) if quote > end && is_quoted => end_of_quoted(text, from),
        Some(_) => end_of_shell_word(text, from),
    };
    Some((from, to))
}

/// The next word of the same text, or of the same list: `["--token","abc"]`.
fn following(text: &str, end: usize) -> Option<(usize, usize)> {
    let closed = end_of(text, end, |c| c == '\\' || is_quote(c));
    let from = end_of(text, closed, |c| c == ',' || c.is_whitespace());
    (from > closed || from == text.len()).then(|| (from, end_of_shell_word(text, from)))
}

/// The end of a word by the quoting rules of a shell.
fn end_of_shell_word(text: &str, from: usize) -> usize {
    let (mut quote, mut is_escaped) = (None, false);
    for (index, c) in text[from..].char_indices() {
        match quote {
            _ if is_escaped => is_escaped = false,
            None if c.is_whitespace() => return from + index,
            None if is_quote(c) => quote = Some(c),
            Some(open) if c == open => quote = None,
            Some('\'') => {}
            _ => is_escaped = c == '\\',
        }
    }
    text.len()
}

/// The end of a string that starts with a quote or an escaped quote.
fn end_of_quoted(text: &str, from: usize) -> usize {
    let open = end_of(text, from, |c| c == '\\');
    let Some(quote) = text[open..].chars().next().filter(|&c| is_quote(c)) else {
        return end_of_shell_word(text, from);
    };
    let mut escapes = 0;
    for (index, c) in text[open + 1..].char_indices() {
        if c == quote && escapes <= open - from {
            return open + 1 + index + 1;
        }
        escapes = if c == '\\' { escapes + 1 } else { 0 };
    }
    text.len()
}
