//! The systemd units, generated from those that this repository ships.

use super::error::Error;
use super::managed_file::{ManagedFile, sign};
use crate::settings::{Scope, ServiceSettings};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

const OF_USER: &str = include_str!("../../../contrib/systemd/openclaw-supervise.service");
const OF_MACHINE: &str = include_str!("../../../contrib/systemd/openclaw-supervise@.service");

pub(super) const MACHINE_FOLDER: &str = "/etc/systemd/system";

/// The line of the shipped units to be replaced.
const SHIPPED_START: &str = "ExecStart=openclaw-supervise run\n";

/// The unit that is enabled.
pub(super) fn name(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    match &settings.scope {
        Scope::User => format!("openclaw-supervise{profile}.service"),
        Scope::Machine { user } => format!("openclaw-supervise{profile}@{user}.service"),
    }
}

/// The names of OpenClaw's own unit for the same gateway: today's, that of its early releases, which had no profiles, and
/// the one in this shell's `OPENCLAW_SYSTEMD_UNIT`.
pub(super) fn openclaw_names(settings: &ServiceSettings) -> Vec<String> {
    let mut names = vec![openclaw_name(settings)];
    if settings.profile.is_none() {
        names.push("clawdbot-gateway.service".to_owned());
    }
    names.extend(settings.openclaws_unit.clone().filter(|name| *name != names[0]));
    names
}

fn openclaw_name(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!("-{profile}")).unwrap_or_default();
    format!("openclaw-gateway{profile}.service")
}

pub(super) fn folder(settings: &ServiceSettings) -> PathBuf {
    match settings.scope {
        Scope::User => settings.config_home.join("systemd/user"),
        Scope::Machine { .. } => PathBuf::from(MACHINE_FOLDER),
    }
}

/// The folder that exists without us; empty ones below it are removed.
pub(super) fn top(settings: &ServiceSettings) -> PathBuf {
    match settings.scope {
        // Even `.config` may have been created by us.
        Scope::User => settings.config_home.parent().unwrap_or(&settings.config_home).to_owned(),
        Scope::Machine { .. } => PathBuf::from(MACHINE_FOLDER),
    }
}

/// Our files: the unit, then the drop-in of an instance.
pub(super) fn paths(settings: &ServiceSettings) -> Vec<PathBuf> {
    let (folder, name) = (folder(settings), name(settings));
    match &settings.scope {
        Scope::User => vec![folder.join(name)],
        Scope::Machine { user } => {
            let template = name.replace(&format!("@{user}."), "@.");
            vec![folder.join(template), folder.join(format!("{name}.d/install.conf"))]
        }
    }
}

/// The lines of the shipped unit that make OpenClaw's own and ours exclude each other, with their comment.
fn conflict_of(shipped: &str) -> Option<&str> {
    let start = shipped.find("# OpenClaw's own service for the same gateway.")?;
    let last = "\nAfter=openclaw-gateway.service\n";
    let end = start + shipped[start..].find(last)? + last.len();
    shipped.get(start..end)
}

/// `program` is our own path, `search_path` leads to OpenClaw and its Node. `without_conflict`: OpenClaw's own service is for
/// another port and may run beside ours.
pub(super) fn plan(
    settings: &ServiceSettings,
    program: &Path,
    search_path: &OsStr,
    without_conflict: bool,
) -> Result<Vec<ManagedFile>, Error> {
    if program.as_os_str().as_encoded_bytes().contains(&b'$') {
        return Err(Error::DollarInPath(program.to_owned()));
    }
    let words = [program.as_os_str().to_owned()].into_iter().chain(settings.words.iter().cloned());
    let command: Vec<String> = words.map(|word| quote(&word)).collect::<Result<_, _>>()?;
    let mut variable = OsString::from("PATH=");
    variable.push(search_path);
    let start = format!("ExecStart={}\nEnvironment={}\n", command.join(" "), quote_value(&variable)?);
    let texts = match &settings.scope {
        Scope::User => {
            let shipped = body_of(OF_USER);
            let conflict = conflict_of(shipped).filter(|_| without_conflict).unwrap_or_default();
            let text = shipped.replacen(conflict, "", 1).replace("openclaw-gateway.service", &openclaw_name(settings));
            vec![text.replacen(SHIPPED_START, &start, 1)]
        }
        // The template is shared by all instances, so what differs goes into a drop-in.
        Scope::Machine { .. } => vec![body_of(OF_MACHINE).to_owned(), format!("[Service]\nExecStart=\n{start}")],
    };
    let files = paths(settings).into_iter().zip(texts);
    Ok(files.map(|(path, text)| ManagedFile { path, text: signed(&text) }).collect())
}

/// A unit that an earlier version wrote, as this one would write it: with the command and the PATH that it has. `None` if it is
/// up to date, or none of ours.
pub(super) fn renewed(path: &Path, there: &str) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".service")?;
    let body = if stem.strip_prefix("openclaw-supervise").is_some_and(|rest| rest.ends_with('@')) {
        body_of(OF_MACHINE).to_owned()
    } else {
        let profile = stem.strip_prefix("openclaw-supervise")?;
        let line = |start: &str| there.lines().rfind(|line| line.starts_with(start) && line.len() > start.len());
        let search_path = line("Environment=PATH=").or_else(|| line("Environment=\"PATH="))?;
        let start = format!("{}\n{search_path}\n", line("ExecStart=")?);
        let (shipped, openclaws) = (body_of(OF_USER), format!("openclaw-gateway{profile}.service"));
        let conflict = conflict_of(shipped).filter(|_| !there.contains("\nConflicts=")).unwrap_or_default();
        let text = shipped.replacen(conflict, "", 1).replace("openclaw-gateway.service", &openclaws);
        text.replacen(SHIPPED_START, &start, 1)
    };
    Some(signed(&body)).filter(|text| text != there)
}

pub(super) fn signed(body: &str) -> String {
    sign("# ", "; settings go into a drop-in: systemctl edit", body)
}

/// Removes the comment on how to copy the shipped unit.
fn body_of(shipped: &str) -> &str {
    shipped.find("\n[Unit]\n").map_or(shipped, |start| &shipped[start + 1..])
}

/// An argument of `ExecStart=` with its specifiers, variables and quotes escaped, see systemd.service(5).
fn quote(word: &OsStr) -> Result<String, Error> {
    Ok(quote_value(word)?.replace('$', "$$"))
}

/// A value of `Environment=`, where `$` has no meaning.
fn quote_value(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    let Some(text) = text else { return Err(Error::Unquotable(word.to_string_lossy().into_owned())) };
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
    fn systemd_reads_each_argument_as_the_shell_passed_it() {
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
    fn a_unit_of_an_earlier_version_keeps_its_command_and_its_path() {
        let start = "ExecStart=/opt/openclaw-supervise run --port 1\nEnvironment=PATH=/opt/bin\n";
        let now = body_of(OF_USER).replacen(SHIPPED_START, start, 1);
        let path = Path::new("/u/openclaw-supervise.service");
        assert_eq!(renewed(path, &signed(&now)), None, "up to date");
        let earlier = now.replacen("Delegate=yes\n", "", 1);
        assert_eq!(renewed(path, &signed(&earlier)), Some(signed(&now)));
        // One beside OpenClaw's own service on another port, and one of a profile.
        let without = now.replacen(conflict_of(&now).unwrap(), "", 1);
        assert_eq!(renewed(path, &signed(&without)), None);
        let of_work = renewed(Path::new("/u/openclaw-supervise-work.service"), &signed(&earlier)).unwrap();
        assert!(of_work.contains("\nConflicts=openclaw-gateway-work.service\n"), "{of_work}");
        let template = renewed(Path::new("/u/openclaw-supervise@.service"), "[Unit]\n").unwrap();
        assert_eq!(template, signed(body_of(OF_MACHINE)));
        assert_eq!(renewed(Path::new("/u/other.service"), &signed(&earlier)), None);
    }

    #[test]
    fn both_shipped_units_have_the_line_to_be_replaced() {
        for shipped in [OF_USER, OF_MACHINE] {
            assert!(body_of(shipped).starts_with("[Unit]\n") && shipped.matches(SHIPPED_START).count() == 1);
        }
        assert!(conflict_of(OF_USER).is_some_and(|lines| lines.contains("\nConflicts=openclaw-gateway.service\n")));
    }
}
