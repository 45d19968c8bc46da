//! Tables and random texts for the redaction.

use super::*;
use proptest::prelude::*;

fn shown(arguments: &[&str]) -> String {
    of_arguments(arguments.iter().map(|argument| argument.as_bytes())).unwrap_or_default()
}

#[test]
fn a_long_command_is_cut_and_kept_on_one_line() {
    assert_eq!(of_arguments([&b"a\nb"[..], b"", b"c"]).unwrap(), "a?b c");
    assert_eq!(of_arguments(["x".repeat(1000).as_bytes()]).unwrap().len(), LENGTH_MAX + 3);
    assert_eq!(of_arguments([&b"a"[..]; 1000]).unwrap().len(), LENGTH_MAX + 3);
    assert_eq!(of_name(b"a\x1b"), "[a?]");
}

#[test]
fn blank_arguments_are_no_command() {
    assert_eq!(of_arguments([&b""[..], b"  ", b""]), None);
}

#[test]
fn anything_but_a_secret_is_shown_unchanged() {
    for arguments in [
        &["openclaw-gateway"][..],
        &["node", "/opt/openclaw.mjs", "gateway", "run", "--port", "18789", "--bind", "lan", "--auth", "none"],
        &["openclaw", "gateway", "--auth=token", "--auth", "password", "--auth", "Trusted-Proxy"],
        &["x", "--keyboard", "us", "--monkey=1", "--author", "alice", "--turkey", "2", "--tokenizer", "bpe"],
        &["x", "--max-tokens", "100", "--token-file", "/run/x", "--key-type=rsa", "--no-password", "y"],
        &["docker", "run", "--user", "1000:1000", "-u", "root", "image"],
        &["env", "npm_config_cache=/x", "PWD=/home", "OLDPWD=/", "PATH=/bin", "LANG=C"],
        &["ssh://git@host/repository", "https://host:8443/@scope/package", "http://[::1]:80/@x", "ws://127.0.0.1:1"],
        &["sk-learn", "xoxo", "eyJ", "the-key", "secret", "password", "git", "commit", "-m", "rotate the token"],
        &["--token", "--port", "1", "--secret", "-v", "--password"],
        &["git", "set", "origin", "bot12:x", "a::b", "key-value-store"],
        &["\u{fc}ber", "na\u{ef}ve=\u{2713}", "'quoted", "\\"],
    ] {
        assert_eq!(shown(arguments), arguments.join(" "));
    }
}

#[test]
fn secrets_and_nothing_else_are_redacted() {
    for (arguments, expected) in [
        (&["x", "--token", "abc", "run"][..], "x --token *** run"),
        (&["x", "--token=abc", "run"], "x --token=*** run"),
        (&["x", "--token", "a b c", "run"], "x --token *** run"),
        (&["x", "--token=a b c", "run"], "x --token=*** run"),
        (&["x", "--gateway-password", "-Abc1", "run"], "x --gateway-password *** run"),
        (&["x", "-token", "abc", "-Dpassword=abc"], "x -token *** -Dpassword=***"),
        (&["x", "--botToken", "abc", "--apiKey=abc", "--APIKey", "abc"], "x --botToken *** --apiKey=*** --APIKey ***"),
        (&["x", "--passwd", "a", "--client-secret", "b"], "x --passwd *** --client-secret ***"),
        (
            &["x", "--ssh_key", "a", "--credentials=b", "--auth", "user:abc"],
            "x --ssh_key *** --credentials=*** --auth ***",
        ),
        (
            &["env", "FOO_TOKEN=a&b;c", "PGPASSWORD=x y", "MYSQL_PWD=z", "x"],
            "env FOO_TOKEN=*** PGPASSWORD=*** MYSQL_PWD=*** x",
        ),
        (
            &["openclaw", "config", "set", "gateway.auth.token", "abc", "--json"],
            "openclaw config set gateway.auth.token *** --json",
        ),
        (&["x", "--set", "gateway.auth.token=abc"], "x --set gateway.auth.token=***"),
        (&["curl", "-H", "Authorization: Bearer abc", "x"], "curl -H Authorization: *** x"),
        (&["curl", "-HAuthorization: Basic abc", "x"], "curl -HAuthorization: *** x"),
        (&["curl", "-H", "X-Api-Key:abc", "-u", "me:abc", "x"], "curl -H X-Api-Key:*** -u *** x"),
        (&["x", "Bearer", "abc", "y"], "x Bearer *** y"),
        (&["x", "Authorization:", "Bearer", "y"], "x Authorization: *** y"),
        (&["git", "clone", "https://me:a@b:c@host:1/p?q"], "git clone https://***@host:1/p?q"),
        (
            &["psql", "postgres://me:a/b@host/db", "https://abc@host/x"],
            "psql postgres://***@host/db https://***@host/x",
        ),
        (&["x", "wss://host/?a=1&token=abc&b=2#c"], "x wss://host/?a=1&token=***&b=2#c"),
        (&["x", "https://host/#access_token=abc&b=2"], "x https://host/#access_token=***"),
        (&["sh", "-c", "exec x --token abc --port 1"], "sh -c exec x --token *** --port 1"),
        (&["sh", "-c", "exec x --token 'a b' --port 1"], "sh -c exec x --token *** --port 1"),
        (&["sh", "-c", "cd /; A_TOKEN=abc x --port 1"], "sh -c cd /; A_TOKEN=*** x --port 1"),
        (&["sh", "-c", "true&&A_TOKEN=\"a b\" x"], "sh -c true&&A_TOKEN=*** x"),
        (&["sh", "-c", "curl -H \"Authorization: Bearer abc\" x"], "sh -c curl -H \"Authorization: ***\" x"),
        (&["sh", "-c", "curl -H Authorization: Bearer abc x"], "sh -c curl -H Authorization: *** x"),
        (&["x", "{\"port\": 1, \"token\": \"a \\\" b\", \"z\": 2}"], "x {\"port\": 1, \"token\": ***, \"z\": 2}"),
        (&["x", "{\\\"token\\\":\\\"a b\\\",\\\"z\\\":2}"], "x {\\\"token\\\":***,\\\"z\\\":2}"),
        (&["x", "[\"--token\",\"abc\", \"y\"]"], "x [\"--token\",*** \"y\"]"),
        (&["x", "['--token', 'a b', 'y']"], "x ['--token', *** 'y']"),
        (&["x", "https://me:a'b@host/x"], "x https://***@host/x"),
        (&["node --token=abc gateway --port 1"], "node --token=*** gateway --port 1"),
        (&["x", "sk-ant-api03-abcdefgh", "(ghp_0123456789abcdef)"], "x *** (***)"),
        (&["x", "xoxb-1234567-abc", "eyJhbGciOiJIUzI1NiJ9.e30.abc"], "x *** ***"),
        (
            &["curl", "https://a/bot123456789:AAaaBBbbCCccDDddEEeeFFffGGggHHhhIIi/getMe"],
            "curl https://a/bot123456789:***/getMe",
        ),
    ] {
        assert_eq!(shown(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn a_line_of_output_keeps_its_words_and_loses_its_secrets() {
    for (line, expected) in [
        ("Config invalid: unknown key gateway.tokne", "Config invalid: unknown key gateway.tokne"),
        ("Error: invalid OPENAI_API_KEY=sk-abcdefgh1234 in .env", "Error: invalid OPENAI_API_KEY=*** in .env"),
        ("token: abc was refused", "token: *** was refused"),
        ("sent Authorization: Bearer abcdefgh, got 401", "sent Authorization: *** got 401"),
        (r#"{"level":"error","token":"abc","msg":"bad"}"#, r#"{"level":"error","token":***,"msg":"bad"}"#),
        ("no answer from wss://me:abc@host/", "no answer from wss://***@host/"),
        ("", ""),
    ] {
        assert_eq!(redacted(line), expected);
    }
}

#[test]
fn a_secret_is_redacted_before_the_text_is_cut() {
    let long = "abc".repeat(LENGTH_MAX);
    assert_eq!(shown(&["x", "--token", &long, "y"]), "x --token *** y");
    assert_eq!(shown(&["x", &format!("https://me:{long}@host/"), "y"]), "x https://***@host/ y");
}

/// Part of every secret below, more than once.
const MARK: &str = "QzX7";

/// Options, variables and headers.
const NAMES: [&str; 12] = [
    "token",
    "auth-token",
    "GATEWAY_TOKEN",
    "password",
    "db-passwd",
    "secret",
    "clientSecret",
    "api-key",
    "apikey",
    "KEY",
    "aws_credentials",
    "authorization",
];

fn secret(letters: &'static str) -> impl Strategy<Value = String> {
    (letters, letters).prop_map(|(one, other)| format!("{one}{MARK}{other}{MARK}"))
}

proptest! {
    #[test]
    fn no_secret_survives_as_its_own_argument_or_after_its_name(
        name in prop::sample::select(&NAMES[..]),
        secret in secret("\\PC{0,30}"),
        dashes in "-{1,2}",
    ) {
        let (option, header) = (format!("{dashes}{name}"), format!("{name}: {secret}"));
        let assigned = [format!("{dashes}{name}={secret}"), format!("{name}={secret}"), header];
        let separate = shown(&["x", &option, &secret, "end"]);
        prop_assert!(!separate.contains(MARK) && separate.ends_with(" end"), "{}", separate);
        for argument in &assigned {
            let text = shown(&["x", argument, "end"]);
            prop_assert!(!text.contains(MARK) && text.ends_with(" end"), "{}", text);
        }
    }

    #[test]
    fn no_secret_survives_in_a_text_or_an_address(
        name in prop::sample::select(&NAMES[..]),
        secret in secret("[a-zA-Z0-9_.~+:;,!$*(){}<>=|-]{0,20}"),
    ) {
        let bearer = format!("curl -H 'Authorization: Bearer {secret}' x");
        let json = format!("{{\"a\": 1, \"{name}\": \"{secret}\"}}");
        let words = format!("sh --{name} {secret} --port 1");
        let assigned = format!("cd /x; {name}={secret} y");
        let quoted = format!("x --{name}=\"{secret} {secret}\" y");
        let query = format!("https://host/path?a=1&{name}={secret}&b=2");
        let user = format!("https://user:{secret}@host/");
        for text in [bearer, json, words, assigned, quoted, query, user] {
            for arguments in [&[text.as_str()][..], &["sh", "-c", &text]] {
                let shown = shown(arguments);
                prop_assert!(!shown.contains(MARK), "{} in {}", shown, text);
            }
        }
    }

    #[test]
    fn no_bytes_panic(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        of_arguments(arguments.iter().map(Vec::as_slice));
    }

    #[test]
    fn no_text_panics(text in "[a-zA-Z:/@?&='\"`\\\\ .\u{fc}-]{0,60}", name in prop::sample::select(&NAMES[..])) {
        of_arguments([text.as_bytes(), format!("--{name}={text}").as_bytes(), format!("{text}{name}{text}").as_bytes()]);
    }
}
