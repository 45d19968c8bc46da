//! The words of a unit's command, from its files: `systemctl show` tells them without their quotes, so that nobody knows
//! where one ends. See "Command lines" in systemd.service(5).

/// The first command of `ExecStart=` that counts in the files of a unit, given in the order in which systemd reads them.
pub(super) fn line(texts: &[String]) -> Option<String> {
    let mut found = None;
    for text in texts {
        let mut section = String::new();
        for line in whole_lines(text) {
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

/// Lines without comments; one that ends with a backslash goes on in the next.
fn whole_lines(text: &str) -> Vec<String> {
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

/// Its words as the kernel gets them, but for variables. `specifier` gives the value of `%i` and the like; nothing where
/// one has none, or the line holds what this does not know.
pub(super) fn words(line: &str, specifier: &dyn Fn(char) -> Option<String>) -> Option<Vec<String>> {
    let line = line.trim_start_matches(['-', '+', '!']);
    if line.starts_with(['@', ':', '|']) {
        return None;
    }
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().push(escaped(chars.next()?)?),
            ('%', _) => word.get_or_insert_default().push_str(&match chars.next()? {
                '%' => "%".to_owned(),
                other => specifier(other)?,
            }),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(end)) if c == end => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    // A second command, or a quote without an end.
    (quote.is_none() && !words.iter().any(|word| word == ";")).then_some(words)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<Vec<String>> {
        words(line, &|c| (c == 'i').then(|| "alice".to_owned()))
    }

    #[test]
    fn words_are_what_systemd_makes_of_them() {
        for (line, expected) in [
            ("x run --port 1", &["x", "run", "--port", "1"][..]),
            (r#"x "a b" 'c d' e"f g""#, &["x", "a b", "c d", "ef g"]),
            (r#"-x "say \"hi\" \\ now" 50%% $$HOME"#, &["x", r#"say "hi" \ now"#, "50%", "$$HOME"]),
            (r#"x "it's" "" %i"#, &["x", "it's", "", "alice"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
        for unknown in ["x %h", "x \"a", "x ; y", r"x \x41", "@x y", ":x $A"] {
            assert_eq!(split(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_command_is_the_first_after_the_last_that_was_taken_back() {
        let texts = ["[Unit]\nExecStart=no\n[Service]\nExecStart=a \\\n# not this\n  b\nExecStart=c\n".to_owned()];
        assert_eq!(line(&texts).unwrap().split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        let [first] = texts;
        let taken_back = [first, "[Service]\nExecStart=\nExecStart = d e\n".to_owned()];
        assert_eq!(line(&taken_back).as_deref(), Some("d e"));
        assert_eq!(line(&["[Install]\n".to_owned()]), None);
    }
}
