//! Command lines and variables as systemd writes them, see "Command lines" in systemd.service(5). `systemctl show` prints
//! the words of a command without their quotes, so they are read from the unit files.

use std::iter::Peekable;
use std::str::Chars;

/// What a character means where it stands.
enum Meaning {
    Itself,
    Text(String),
    /// The line cannot be understood.
    Unknown,
}

/// The words between unquoted white space; `None` if `meaning` knows no answer.
struct Split {
    words: Vec<String>,
    ends_in_quotes: bool,
}

/// `meaning` is asked about each character, with the quote that it stands in.
fn split(line: &str, meaning: impl Fn(char, Option<char>, &mut Peekable<Chars<'_>>) -> Meaning) -> Option<Split> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (meaning(c, quote, &mut chars), quote) {
            (Meaning::Unknown, _) => return None,
            (Meaning::Text(text), _) => word.get_or_insert_default().push_str(&text),
            (Meaning::Itself, None) if matches!(c, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Meaning::Itself, Some(end)) if c == end => quote = None,
            (Meaning::Itself, None) if c.is_whitespace() => words.extend(word.take()),
            (Meaning::Itself, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(Split { words, ends_in_quotes: quote.is_some() })
}

/// The words of a list of variables, quoted as a shell would.
pub(in super::super) fn shell_words(line: &str) -> Vec<String> {
    let split = split(line, |c, quote, rest| match (c, quote) {
        ('\\', None | Some('"')) => Meaning::Text(rest.next().map(String::from).unwrap_or_default()),
        ('$', None) if rest.peek() == Some(&'\'') => Meaning::Text(String::new()),
        _ => Meaning::Itself,
    });
    split.map(|split| split.words).unwrap_or_default()
}

/// The arguments of an `ExecStart=` as the kernel gets them, variables aside. `specifier` gives the value of `%i` and the
/// like. `None` if a specifier has no value, or the line uses what is not supported here.
pub(in super::super) fn exec_words(line: &str, specifier: &dyn Fn(char) -> Option<String>) -> Option<Vec<String>> {
    let line = line.trim_start_matches(['-', '+', '!']);
    if line.starts_with(['@', ':', '|']) {
        return None;
    }
    let known = |text: Option<String>| text.map_or(Meaning::Unknown, Meaning::Text);
    let split = split(line, |c, _, rest| match c {
        '\\' => known(rest.next().and_then(escaped).map(String::from)),
        '%' => match rest.next() {
            Some('%') => Meaning::Text("%".to_owned()),
            other => known(other.and_then(specifier)),
        },
        _ => Meaning::Itself,
    })?;
    // A lone semicolon separates two commands.
    (!split.ends_in_quotes && !split.words.iter().any(|word| word == ";")).then_some(split.words)
}

fn escaped(c: char) -> Option<char> {
    match c {
        '\\' | '"' | '\'' | ';' => Some(c),
        's' => Some(' '),
        'n' => Some('\n'),
        't' => Some('\t'),
        _ => None,
    }
}

/// The first command of `ExecStart=` that applies. `texts` are the files of a unit in the order in which systemd reads
/// them; an empty assignment resets the list.
pub(in super::super) fn exec_start(texts: &[String]) -> Option<String> {
    let mut found = None;
    for text in texts {
        let mut section = String::new();
        for line in joined_lines(text) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((name, value)) = line.split_once('=').filter(|_| section == "[Service]")
                && name.trim() == "ExecStart"
            {
                match value.trim() {
                    "" => found = None,
                    value => found = found.or_else(|| Some(value.to_owned())),
                }
            }
        }
    }
    found
}

/// Lines without comments; one that ends with a backslash continues on the next.
fn joined_lines(text: &str) -> Vec<String> {
    let (mut lines, mut open) = (Vec::new(), None::<String>);
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        let begun = open.take().unwrap_or_default();
        match line.strip_suffix('\\') {
            Some(part) => open = Some(begun + part + " "),
            None => lines.push((begun + line).trim().to_owned()),
        }
    }
    lines.extend(open);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_a_command_are_those_that_systemd_passes() {
        let split = |line| exec_words(line, &|c| (c == 'i').then(|| "alice".to_owned()));
        for (line, expected) in [
            ("x run --port 1", &["x", "run", "--port", "1"][..]),
            (r#"x "a b" 'c d' e"f g""#, &["x", "a b", "c d", "ef g"]),
            (r#"-x "say \"hi\" \\ now" 50%% $$HOME"#, &["x", r#"say "hi" \ now"#, "50%", "$$HOME"]),
            (r#"x "it's" "" %i"#, &["x", "it's", "", "alice"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        for unknown in ["x %h", "x %", "x \"a", "x ; y", r"x \x41", "@x y", ":x $A"] {
            assert_eq!(split(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn variables_are_split_as_a_shell_splits_them() {
        for (line, words) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b" 'c d' e"f"#, &["a b", "c d", "ef"]),
            (r#"A="x y" B=$'z w'"#, &["A=x y", "B=z w"]),
            (r"a\ b", &["a b"]),
            (r"'a\b'", &[r"a\b"]),
            (r#""""#, &[""]),
            ("", &[]),
        ] {
            assert_eq!(shell_words(line), words, "{line}");
        }
    }

    #[test]
    fn the_command_is_the_first_one_after_the_last_reset() {
        let texts = ["[Unit]\nExecStart=no\n[Service]\nExecStart=a \\\n# not this\n  b\nExecStart=c\n".to_owned()];
        assert_eq!(exec_start(&texts).unwrap().split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        let [first] = texts;
        let reset = [first, "[Service]\nExecStart=\nExecStart = d e\n".to_owned()];
        assert_eq!(exec_start(&reset).as_deref(), Some("d e"));
        assert_eq!(exec_start(&["[Install]\n".to_owned()]), None);
    }
}
