//! The systemd units, made of those that this repository ships.

use super::Error;
use super::record::{Planned, sign};
use crate::settings::{Scope, ServiceSettings};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

const OF_USER: &str = include_str!("../../../contrib/systemd/openclaw-supervise.service");
const OF_MACHINE: &str = include_str!("../../../contrib/systemd/openclaw-supervise@.service");

/// Where the units of the machine are.
pub(super) const MACHINE_FOLDER: &str = "/etc/systemd/system";

/// The line of the shipped units that is replaced.
const SHIPPED_START: &str = "ExecStart=openclaw-supervise run\n";

/// The name of the unit that is started.
pub(super) fn name(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    match &settings.scope {
        Scope::User => format!("openclaw-supervise{profile}.service"),
        Scope::Machine { user } => format!("openclaw-supervise{profile}@{user}.service"),
    }
}

/// The names of OpenClaw's own unit for the same gateway: today's, that of its early releases, which had no profiles, and
/// the one that this shell gives it.
pub(super) fn rivals(settings: &ServiceSettings) -> Vec<String> {
    let mut names = vec![rival(settings)];
    if settings.profile.is_none() {
        names.push("clawdbot-gateway.service".to_owned());
    }
    names.extend(settings.openclaws_unit.clone().filter(|name| *name != names[0]));
    names
}

/// OpenClaw's own unit for the same gateway.
fn rival(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    format!("openclaw-gateway{profile}.service")
}

/// Where the units of this scope are.
pub(super) fn folder(settings: &ServiceSettings) -> PathBuf {
    match settings.scope {
        Scope::User => settings.config_home.join("systemd/user"),
        Scope::Machine { .. } => PathBuf::from(MACHINE_FOLDER),
    }
}

/// The folder that is there without us.
pub(super) fn top(settings: &ServiceSettings) -> PathBuf {
    match settings.scope {
        // Even `.config` may have been made for us.
        Scope::User => settings.config_home.parent().unwrap_or(&settings.config_home).to_owned(),
        Scope::Machine { .. } => PathBuf::from(MACHINE_FOLDER),
    }
}

/// The places of our files: the unit first, then the drop-in of an instance.
pub(super) fn places(settings: &ServiceSettings) -> Vec<PathBuf> {
    let (folder, name) = (folder(settings), name(settings));
    match &settings.scope {
        Scope::User => vec![folder.join(name)],
        Scope::Machine { user } => {
            let template = name.replace(&format!("@{user}."), "@.");
            vec![folder.join(template), folder.join(format!("{name}.d/install.conf"))]
        }
    }
}

/// The lines of the shipped unit by which OpenClaw's own and ours end one another, with the reason.
fn conflict_of(shipped: &str) -> Option<&str> {
    let start = shipped.find("# OpenClaw's own service for the same gateway.")?;
    let last = "\nAfter=openclaw-gateway.service\n";
    let end = start + shipped[start..].find(last)? + last.len();
    shipped.get(start..end)
}

/// The files, each at its place. `program` is ours, `path` leads to OpenClaw and its Node. `is_beside`: OpenClaw's own
/// service is for another port, and runs on.
pub(super) fn plan(
    settings: &ServiceSettings,
    program: &Path,
    path: &OsStr,
    is_beside: bool,
) -> Result<Vec<Planned>, Error> {
    if program.as_os_str().as_encoded_bytes().contains(&b'$') {
        return Err(Error::Dollar(program.to_owned()));
    }
    let words = [program.as_os_str().to_owned()].into_iter().chain(settings.words.iter().cloned());
    let command: Vec<String> = words.map(|word| quote(&word)).collect::<Result<_, _>>()?;
    let mut variable = OsString::from("PATH=");
    variable.push(path);
    let start = format!("ExecStart={}\nEnvironment={}\n", command.join(" "), quote_value(&variable)?);
    let texts = match &settings.scope {
        Scope::User => {
            let shipped = body_of(OF_USER);
            let conflict = conflict_of(shipped).filter(|_| is_beside).unwrap_or_default();
            let text = shipped.replacen(conflict, "", 1).replace("openclaw-gateway.service", &rival(settings));
            vec![text.replacen(SHIPPED_START, &start, 1)]
        }
        // What is of one instance goes into its drop-in: the template is for all.
        Scope::Machine { .. } => vec![body_of(OF_MACHINE).to_owned(), format!("[Service]\nExecStart=\n{start}")],
    };
    let files = places(settings).into_iter().zip(texts);
    Ok(files
        .map(|(path, text)| Planned { path, text: sign("# ", "; settings go into a drop-in: systemctl edit", &text) })
        .collect())
}

/// A shipped unit without the words on how to copy it.
fn body_of(shipped: &str) -> &str {
    shipped.find("\n[Unit]\n").map_or(shipped, |start| &shipped[start + 1..])
}

/// A word of `ExecStart=`, see systemd.service(5): specifiers, variables and quotes are taken as they stand.
fn quote(word: &OsStr) -> Result<String, Error> {
    Ok(quote_value(word)?.replace('$', "$$"))
}

/// A word of `Environment=`, where a dollar sign means nothing.
fn quote_value(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    let Some(text) = text else { return Err(Error::Word(word.to_string_lossy().into_owned())) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%$".contains(c);
    let text = text.replace('%', "%%");
    if !text.is_empty() && text.chars().all(is_plain) {
        return Ok(text);
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_to_systemd_what_it_meant_to_the_shell() {
        for (word, expected) in [
            ("run", "run"),
            ("/opt/a b/x", "\"/opt/a b/x\""),
            ("50%", "50%%"),
            ("$HOME", "$$HOME"),
            ("say \"hi\" \\ now", "\"say \\\"hi\\\" \\\\ now\""),
            ("", "\"\""),
            ("a;b", "\"a;b\""),
            ("it's", "\"it's\""),
        ] {
            assert_eq!(quote(OsStr::new(word)).unwrap(), expected);
        }
        assert!(quote(OsStr::new("a\nExecStart=evil")).is_err());
    }

    #[test]
    fn both_shipped_units_have_the_line_that_is_replaced() {
        for shipped in [OF_USER, OF_MACHINE] {
            assert!(body_of(shipped).starts_with("[Unit]\n") && shipped.matches(SHIPPED_START).count() == 1);
        }
        assert!(conflict_of(OF_USER).is_some_and(|lines| lines.contains("\nConflicts=openclaw-gateway.service\n")));
    }
}
