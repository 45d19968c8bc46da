//! What OpenClaw's command line says, as it prints it and ends.

use crate::core::handoff::{HandoffVerdict, Support};
use crate::platform::output::Output;
use serde_json::{Deserializer, Value};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The version that we speak.
const PROTOCOL: &str = "openclaw.gateway.restart-handoff";
const VERSION: u64 = 1;

/// What a shell ends with where it could not start a program, or where that one died of a signal. A release ends with 1.
const SHELLS_OWN: i32 = 126;

/// The object that is the answer, if there is one: the first of our protocol and version, else the first. Words of others
/// may stand around it.
fn read_object(text: &[u8]) -> Option<Value> {
    let (mut first, mut rest) = (None, text);
    while let Some(begin) = rest.iter().position(|&byte| byte == b'{') {
        rest = &rest[begin..];
        let mut values = Deserializer::from_slice(rest).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else {
            rest = &rest[1..];
            continue;
        };
        if is_ours(&value) {
            return Some(value);
        }
        rest = &rest[values.byte_offset()..];
        first = first.or(Some(value));
    }
    first
}

fn is_ours(object: &Value) -> bool {
    object["protocol"] == PROTOCOL && object["protocolVersion"] == VERSION
}

/// Older releases exit with 1 and print nothing here. A release that knows handoffs may fail to say so, with an object that
/// tells why, by a signal, or not at all: that is no lack of it.
pub(super) fn read_capabilities(answer: &Output) -> Support {
    let command = format!("'restart-handoff capabilities' ended with {}", ending(answer.status));
    let Some(code) = answer.status.code().filter(|&code| code < SHELLS_OWN) else {
        return Support::TimedOut(command);
    };
    let Some(object) = read_object(&answer.text) else {
        return Support::Unsupported(format!("{command} and without an answer of version {VERSION}"));
    };
    let has =
        |operation: &str| object["operations"].as_array().is_some_and(|all| all.iter().any(|one| one == operation));
    match (code, object["ok"] == true) {
        (0, true) if !is_ours(&object) => {
            Support::Unsupported(format!("{command} and without an answer of version {VERSION}"))
        }
        (0, true) if has("consume") => Support::Supported,
        (0, true) => Support::Unsupported("its command line offers no 'consume'".to_owned()),
        (_, _) => Support::TimedOut(format!("{command}: {}", complaint(&object))),
    }
}

pub(super) fn read_word(answer: &Output) -> HandoffVerdict {
    let Some(object) = read_object(&answer.text) else {
        return HandoffVerdict::TimedOut(format!(
            "'restart-handoff consume' ended with {} and no answer",
            ending(answer.status)
        ));
    };
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("unnamed").to_owned();
    match object["status"].as_str().filter(|_| is_ours(&object)) {
        Some("accepted") => HandoffVerdict::Accepted(text(&object["handoff"], "reason")),
        Some("none") => HandoffVerdict::Missing,
        Some("rejected") => HandoffVerdict::Rejected(text(&object, "reason")),
        _ => HandoffVerdict::TimedOut(format!("'restart-handoff consume' failed: {}", complaint(&object))),
    }
}

/// What an answer that is none says, on one line.
fn complaint(object: &Value) -> String {
    let said = [&object["error"]["message"], &object["error"], &object["reason"]].into_iter().find_map(Value::as_str);
    said.unwrap_or("it says no reason").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    }
}

/// Any output with any exit code.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_any(code: u8, text: &[u8]) {
    let status = ExitStatus::from_raw(i32::from(code) << 8);
    let answer = Output { status, text: text.to_vec(), errors: Vec::new() };
    let _meaning = (read_capabilities(&answer), read_word(&answer));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, text: &str) -> Output {
        Output { status: ExitStatus::from_raw(code << 8), text: text.as_bytes().to_vec(), errors: Vec::new() }
    }

    fn object(rest: &str) -> String {
        format!(r#"{{"protocol":"{PROTOCOL}","protocolVersion":1,{rest}}}"#)
    }

    /// As 2026.9.6 prints it while its configuration is refused.
    const REFUSED: &str = "{\n  \"ok\": false,\n  \"error\": {\n    \"type\": \"cli_error\",\n    \
        \"message\": \"OpenClaw config is invalid: ~/openclaw.json\"\n  },\n  \"issues\": []\n}\n";

    #[test]
    fn only_an_answer_of_our_version_that_offers_consume_is_support() {
        let good = object(r#""ok":true,"operations":["consume"]"#);
        for text in
            [good.clone(), format!("a warning\n{good}\n"), format!("(node:7) {{odd}} {{\"ok\":false}} {good} and more")]
        {
            assert_eq!(read_capabilities(&answer(0, &text)), Support::Supported, "{text}");
        }
    }

    #[test]
    fn a_release_lacks_handoffs_only_where_its_command_line_ends_by_itself_and_says_nothing_else() {
        let good = object(r#""ok":true,"operations":["consume"]"#);
        for (code, text) in [
            (1, String::new()),
            (2, "unknown command".to_owned()),
            (0, "<html>".to_owned()),
            (0, r#"{"ok":true}"#.to_owned()),
            (0, object(r#""ok":true,"operations":[]"#)),
            (0, good.replace(r#"Version":1"#, r#"Version":2"#)),
        ] {
            assert!(matches!(read_capabilities(&answer(code, &text)), Support::Unsupported(_)), "{code} {text}");
        }
        for (code, text, reason) in [
            (1, REFUSED.to_owned(), "exit code 1: OpenClaw config is invalid: ~/openclaw.json"),
            (0, object(r#""ok":false,"error":"no  room\n""#), "exit code 0: no room"),
            (1, good.clone(), "exit code 1"),
            (1, object(r#""status":"error","reason":"store-unavailable""#), "store-unavailable"),
            (127, String::new(), "exit code 127"),
            (137, good.clone(), "exit code 137"),
        ] {
            let support = read_capabilities(&answer(code, &text));
            assert!(matches!(&support, Support::TimedOut(why) if why.contains(reason)), "{code} {text}: {support:?}");
        }
        let killed = Output { status: ExitStatus::from_raw(9), text: good.into_bytes(), errors: Vec::new() };
        let support = read_capabilities(&killed);
        assert!(matches!(&support, Support::TimedOut(why) if why.contains("signal 9")), "{support:?}");
    }

    #[test]
    fn each_word_of_the_contract_is_understood() {
        for (code, rest, expected) in [
            (
                0,
                r#""ok":true,"status":"accepted","handoff":{"reason":"SIGUSR2"}"#,
                HandoffVerdict::Accepted("SIGUSR2".into()),
            ),
            (0, r#""ok":true,"status":"accepted","handoff":{}"#, HandoffVerdict::Accepted("unnamed".into())),
            (0, r#""ok":true,"status":"none","reason":"missing""#, HandoffVerdict::Missing),
            (0, r#""ok":true,"status":"rejected","reason":"expired""#, HandoffVerdict::Rejected("expired".into())),
        ] {
            assert_eq!(read_word(&answer(code, &object(rest))), expected);
        }
        let failed = read_word(&answer(1, &object(r#""ok":false,"status":"error","reason":"store-unavailable""#)));
        assert!(matches!(&failed, HandoffVerdict::TimedOut(why) if why.contains("store-unavailable")), "{failed:?}");
        let refused = read_word(&answer(1, REFUSED));
        assert!(matches!(&refused, HandoffVerdict::TimedOut(why) if why.contains("config is invalid")), "{refused:?}");
        assert!(matches!(read_word(&answer(0, "")), HandoffVerdict::TimedOut(_)));
        assert!(
            matches!(read_word(&answer(0, r#"{"status":"none"}"#)), HandoffVerdict::TimedOut(_)),
            "another protocol"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "([{}\\[\\]\":,a-z0-9\\n ]|\\{\"ok\":){0,60}", code: u8, bytes: Vec<u8>) {
            read_any(code, text.as_bytes());
            read_any(code, &bytes);
        }
    }
}
