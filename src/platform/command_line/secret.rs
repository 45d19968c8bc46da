//! Secrets among the arguments of a process: they are struck out before anybody sees them.
//!
//! What is a secret is told by its name (`--token`, `DB_PASSWORD=`, `"apiKey":`, `Authorization:`), by its place
//! (`https://user:password@host`) or by a beginning that only keys have. Where the extent of one is not clear, more is
//! struck out rather than less.

/// What is shown instead.
const MASK: &str = "***";

/// Words that make a name that of a secret.
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

/// The same as the end of a word that is written together with another one.
const ENDS: [&str; 9] =
    ["accesskey", "apikey", "credential", "passphrase", "passwd", "password", "privatekey", "secret", "token"];

/// The last word of a name for something about a secret that is none.
const HARMLESS_ENDS: [&str; 5] = ["dir", "file", "path", "type", "ttl"];

/// Words that make `tokens` those that a model counts.
const COUNTS: [&str; 5] = ["budget", "count", "limit", "max", "min"];

/// Values of `--auth` that name a way to prove who one is.
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

/// What stands between `Authorization:` and the secret.
const SCHEMES: [&str; 6] = ["apikey", "basic", "bearer", "bot", "digest", "token"];

/// What keys begin with, and nothing else that is as long.
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

/// How many characters follow such a beginning at least.
const KEY_LENGTH_MIN: usize = 8;

/// The same behind the colon of a Telegram bot's token, which has its number before it.
const BOT_KEY_LENGTH_MIN: usize = 30;

/// Longer arguments are cut: so much of one is not shown.
const LENGTH_MAX: usize = 8 * 1024;

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Harmless,
    Secret,
    /// A secret, unless it is one of [`MODES`].
    Auth,
    /// A secret if there is a password behind a colon: `user:password`.
    User,
}

/// Strikes the secrets out of one argument after the other.
#[derive(Debug)]
pub(super) struct Censor {
    /// What the last argument said of the next one.
    next: Name,
    /// The last word.
    last: String,
}

impl Censor {
    pub(super) fn new() -> Self {
        Self { next: Name::Harmless, last: String::new() }
    }

    /// The argument without its secrets.
    pub(super) fn pass(&mut self, argument: &[u8]) -> String {
        let text = String::from_utf8_lossy(&argument[..argument.len().min(LENGTH_MAX)]);
        let name = std::mem::replace(&mut self.next, Name::Harmless);
        if is_masked(name, &text) { MASK.to_owned() } else { self.scan(&text) }
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
                self.judge(text, at, end)
            };
            out.push_str(&shown);
            at = next;
        }
        out
    }

    /// What is shown of the word at `at..end` and of its value, if it has one, and where that ends.
    fn judge(&mut self, text: &str, at: usize, end: usize) -> (String, usize) {
        let word = &text[at..end];
        let last = std::mem::replace(&mut self.last, word.to_owned());
        if is_key(word) {
            return (MASK.to_owned(), end);
        }
        if let Some(key) = end_of_bot_key(text, at, end) {
            return (format!("{word}:{MASK}"), key);
        }
        let name = Name::of(word);
        let value = if name == Name::Harmless && !word.eq_ignore_ascii_case("bearer") {
            None
        } else if let Some(assigned) = assigned(text, at, end) {
            Some(assigned)
        } else {
            // A setting of `config set PATH VALUE`, or an option; others are words like any.
            let takes_next = word.starts_with('-') || last == "set" || name == Name::Harmless;
            takes_next.then(|| following(text, end)).flatten()
        };
        let name = if name == Name::Harmless { Name::Secret } else { name };
        let Some((from, to)) = value else { return (word.to_owned(), end) };
        if from == text.len() {
            // It is in the next argument, unless it is empty: `--token=`.
            let is_empty = text[end..].contains('=');
            self.next = if is_empty { Name::Harmless } else { name };
        } else if is_masked(name, &text[from..to]) {
            let is_scheme = SCHEMES.iter().any(|scheme| text[from..to].eq_ignore_ascii_case(scheme));
            let rest = if is_scheme { following(text, to) } else { None };
            if rest.is_some_and(|(from, _)| from == text.len()) {
                self.next = Name::Secret;
            }
            return (format!("{}{MASK}", &text[at..from]), rest.map_or(to, |(_, to)| to));
        }
        (word.to_owned(), end)
    }
}

impl Name {
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
        } else if has(&["auth"]) {
            Self::Auth
        } else if matches!(name, "-u" | "--user" | "--proxy-user") {
            Self::User
        } else {
            Self::Harmless
        }
    }
}

/// The words of a name in lower case: they are parted by `-`, `_`, `.`, or by the way that they are written.
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

/// Whether a value of that name is struck out.
fn is_masked(name: Name, value: &str) -> bool {
    let bare = value.trim_matches(|c: char| c.is_whitespace() || is_quote(c));
    match name {
        Name::Harmless => false,
        Name::Secret => !is_option(value),
        Name::Auth => !is_option(value) && !MODES.contains(&bare.to_ascii_lowercase().as_str()),
        // `docker run --user 1000:1000`
        Name::User => bare.split_once(':').is_some_and(|(_, password)| !password.chars().all(|c| c.is_ascii_digit())),
    }
}

/// Whether it is an option, for it looks like one and not like a secret that begins with a hyphen.
fn is_option(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match text.strip_prefix("--").map(|name| name.split('=').next().unwrap_or_default()) {
        Some(name) => name.chars().all(is_plain) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        None => text.len() == 2 && text.starts_with('-'),
    }
}

fn is_key(word: &str) -> bool {
    // `npm_config_cache` is a variable.
    let is_random = |rest: &str| rest.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let is_rest =
        |prefix: &str, rest: &str| rest.len() >= KEY_LENGTH_MIN && (!prefix.ends_with('_') || is_random(rest));
    PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| is_rest(prefix, rest)))
}

/// `123456789:` and a key, also behind `bot` in an address.
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

/// What belongs to a name, an option, a number or a key.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

fn end_of(text: &str, from: usize, is_part: impl Fn(char) -> bool) -> usize {
    text[from..].find(|c| !is_part(c)).map_or(text.len(), |length| from + length)
}

/// `://user:password@`, and `https://user@`, for that user is a key more often than not.
fn end_of_user(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix("://")?;
    let address = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
    let authority = &address[..address.find(['/', '?', '#']).unwrap_or(address.len())];
    let is_port = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let length = match (authority.rfind('@'), authority.rsplit_once(':')) {
        (Some(length), _) if authority[..length].contains(':') || text[..at].ends_with("http") => length,
        (Some(length), _) if text[..at].ends_with("https") => length,
        // A password with a slash in it, where no port can be meant.
        (None, Some((_, port))) if !is_port(port) && !authority.ends_with(']') => address.rfind('@')?,
        _ => return None,
    };
    Some(at + "://".len() + length + 1)
}

/// The value of `name=value`, `name: value` or `"name": "value"`, where it begins and ends.
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
        // The argument is the name and its value.
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

/// Where a word ends as a shell sees it.
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

/// Where a string ends that begins with a quote, or with an escaped one.
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
