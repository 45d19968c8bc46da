//! The gateway's `.env` files, read with the expression that npm's dotenv 17 reads them with.

use super::source_file::Findings;
use regex_lite::Regex;
use std::path::Path;

/// The gateway skips a longer one.
const LONGEST: u64 = 1 << 20;

/// The variables of a file; of several with the same name the last one counts.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Vec<(String, String)> {
    let bytes = findings.read(path, LONGEST);
    bytes.map(|bytes| parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn parse(text: &str) -> Vec<(String, String)> {
    // JavaScript's \s has these beyond the ASCII ones.
    const SPACE: &str = r"[\s\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}]";
    let line = format!(
        r#"(?m)^{SPACE}*(?:export{SPACE}+)?([\w.-]+)(?:{SPACE}*={SPACE}*?|:{SPACE}+?)({SPACE}*'(?:\\'|[^'])*'|{SPACE}*"(?:\\"|[^"])*"|{SPACE}*`(?:\\`|[^`])*`|[^#\r\n]+)?{SPACE}*(?:#.*)?$"#
    );
    let Ok(line) = Regex::new(&line) else { return Vec::new() };
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut variables: Vec<(String, String)> = Vec::new();
    for found in line.captures_iter(&text) {
        let name = &found[1];
        let is_portable = !name.contains(['.', '-']) && !name.starts_with(|first: char| first.is_ascii_digit());
        let value = unquote(found.get(2).map_or("", |value| value.as_str()));
        if !is_portable {
            continue;
        }
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, earlier)) => *earlier = value,
            None => variables.push((name.to_owned(), value)),
        }
    }
    variables
}

fn unquote(value: &str) -> String {
    let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value);
    if quote == Some('"') { inner.replace("\\n", "\n").replace("\\r", "\r") } else { inner.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_means_what_it_means_to_dotenv() {
        for (text, expected) in [
            ("A=1\nB = 2\n", &[("A", "1"), ("B", "2")][..]),
            ("\u{feff}# c\r\nexport A=\"1\" # c\r\n", &[("A", "1")]),
            ("A=1\nA=2#x\n", &[("A", "2")]),
            ("A: 1\nB:2", &[("A", "1")]),
            ("A='x #y'\nB=x #y\nC=`z`", &[("A", "x #y"), ("B", "x"), ("C", "z")]),
            ("A=\nB", &[("A", "")]),
            (
                "KEY=\"-----\nOPENCLAW_GATEWAY_PORT=1\n-----\"\nA=1",
                &[("KEY", "-----\nOPENCLAW_GATEWAY_PORT=1\n-----"), ("A", "1")],
            ),
            ("A=\"a\\nb\"\nB='a\\nb'", &[("A", "a\nb"), ("B", "a\\nb")]),
            ("a.b=1\n1A=2\nA-B=3\n_A=4", &[("_A", "4")]),
            ("A=$B\nB=${A}", &[("A", "$B"), ("B", "${A}")]),
            ("A=\nB=1", &[("A", ""), ("B", "1")]),
            ("A='\nB=\"x\nC=2", &[("A", "'"), ("B", "\"x"), ("C", "2")]),
            ("# A=1\nnothing\n\n=1", &[("nothing", "1")]),
            ("\u{fffd}=1", &[]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }
}
