//! Just enough of Rust's grammar to see which paths a file names and how long its functions are.

/// An identifier or one character of punctuation (`::` is one token). Comments, strings and lifetimes are left out.
#[derive(Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    line: usize,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let letters: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < letters.len() {
        let end = after_token(&letters, at);
        let text: String = letters[at..end].iter().collect();
        let first = letters[at];
        let ident = (first.is_alphabetic() || first == '_') && !text.contains(['"', '\'']);
        if ident || text == "::" || (end == at + 1 && first.is_ascii_punctuation()) {
            found.push(Token { text: text.clone(), line });
        }
        line += text.matches('\n').count();
        at = end;
    }
    found
}

/// Where the token ends that begins here.
fn after_token(letters: &[char], at: usize) -> usize {
    let rest = &letters[at..];
    let starts = |text: &str| rest.len() >= text.len() && text.chars().eq(rest[..text.len()].iter().copied());
    let until = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        let found = rest.get(from..).and_then(|rest| rest.windows(end.len()).position(|window| window == end));
        at + found.map_or(rest.len(), |found| from + found + end.len())
    };
    match rest[0] {
        '/' if starts("//") => until(2, "\n") - 1,
        '/' if starts("/*") => until(2, "*/"),
        '"' => at + quoted(rest),
        '\'' if rest.get(1) == Some(&'\\') => until(3, "'"),
        '\'' if rest.get(2) == Some(&'\'') => at + 3,
        '\'' => at + 1 + rest[1..].iter().take_while(|letter| letter.is_alphanumeric() || **letter == '_').count(),
        ':' if starts("::") => at + 2,
        'r' | 'b' if raw_hashes(rest).is_some() => {
            let (prefix, hashes) = raw_hashes(rest).unwrap_or_default();
            until(prefix, &format!("\"{}", "#".repeat(hashes)))
        }
        'b' if starts("b\"") => at + 1 + quoted(&rest[1..]),
        letter if letter.is_alphanumeric() || letter == '_' => {
            at + rest.iter().take_while(|letter| letter.is_alphanumeric() || **letter == '_').count()
        }
        _ => at + 1,
    }
}

/// The length of a string literal with its quotes.
fn quoted(rest: &[char]) -> usize {
    let mut length = 1;
    while let Some(letter) = rest.get(length) {
        match letter {
            '\\' => length += 2,
            '"' => return length + 1,
            _ => length += 1,
        }
    }
    rest.len()
}

/// For `r"`, `r#"`, `br#"`: how long the opening is, and how many hashes it has.
fn raw_hashes(rest: &[char]) -> Option<(usize, usize)> {
    let r = rest.iter().take(2).position(|letter| *letter == 'r')?;
    if r == 1 && rest[0] != 'b' {
        return None;
    }
    let hashes = rest[r + 1..].iter().take_while(|letter| **letter == '#').count();
    (rest.get(r + 1 + hashes) == Some(&'"')).then_some((r + 2 + hashes, hashes))
}

/// The module that a file is: `src/core/supervisor/probing.rs` is `core::supervisor::probing`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
}

/// Every path of more than one segment or in a `use`, groups opened, `self` and `super` resolved to `crate::...`.
pub(crate) fn named_paths(tokens: &[Token], module: &[String]) -> Vec<Vec<String>> {
    let mut here = module.to_vec();
    let (mut braces, mut found, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let next = tokens.get(at + 1).map(|token| token.text.as_str());
        let keyword = at.checked_sub(1).map(|before| tokens[before].text.as_str());
        match text {
            "{" => {
                let inline = at >= 2 && tokens[at - 2].text == "mod";
                if inline {
                    here.push(tokens[at - 1].text.clone());
                }
                braces.push(inline);
            }
            "}" if braces.pop() == Some(true) => {
                here.pop();
            }
            _ if is_ident(text) && (next == Some("::") || keyword == Some("use")) => {
                let mut paths = Vec::new();
                at = open(tokens, at, &mut Vec::new(), &mut paths);
                found.extend(paths.into_iter().map(|path| resolve(path, &here)));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_ident(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
}

/// Follows one path from here, into its groups, and says where it ends.
fn open(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    at = if tokens[at].text == "," { at + 1 } else { open(tokens, at, prefix, paths) };
                }
                prefix.truncate(depth);
                return at + 1;
            }
            "::" => at += 1,
            text if text == "*" || is_ident(text) => {
                prefix.push(text.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|next| next.text != "::") {
                    break;
                }
                // A turbofish ends the path as far as we care.
                if tokens.get(at + 1).is_some_and(|next| next.text == "<") {
                    break;
                }
            }
            _ => break,
        }
    }
    paths.push(prefix.clone());
    prefix.truncate(depth);
    if tokens.get(at).is_some_and(|token| token.text == "as") { at + 2 } else { at.max(1) }
}

fn resolve(path: Vec<String>, here: &[String]) -> Vec<String> {
    let up = path.iter().take_while(|part| *part == "super").count();
    let own = usize::from(path[0] == "self");
    if up + own == 0 {
        return path;
    }
    let base = here.iter().take(here.len().saturating_sub(up));
    std::iter::once("crate")
        .chain(base.map(String::as_str))
        .map(str::to_owned)
        .chain(path[up + own..].to_vec())
        .collect()
}

/// The name of every function with a body, and how many lines it takes.
pub(crate) fn functions(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(at + 1).filter(|name| token.text == "fn" && is_ident(&name.text)) else { continue };
        if let Some(end) = end_of_body(&tokens[at..]) {
            found.push((name.text.clone(), end - token.line + 1));
        }
    }
    found
}

/// The line on which the body ends; none where a semicolon comes first.
fn end_of_body(tokens: &[Token]) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for token in tokens {
        match token.text.as_str() {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets -= 1,
            ";" if brackets == 0 && braces == 0 => return None,
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if braces == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}
