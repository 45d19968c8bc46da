//! COMMAND: the program to be found, and those of its options that say where its gateway will listen.

use super::config::{BIND_WORDS, Bind};
use super::value::Given;
use super::{Mistake, World, paths, port};
use crate::gateway::openclaw::is_openclaw;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What COMMAND's own options say. The last one of a kind counts, as in the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) port: Option<u16>,
    pub(super) bind: Option<Bind>,
    pub(super) profile: Option<String>,
    pub(super) mistakes: Vec<Mistake>,
}

/// Reads COMMAND, program included. `--port` counts behind any program; `--bind` and `--profile` are too common
/// elsewhere and count behind a word that is OpenClaw's own program.
pub(super) fn read(command: &[OsString]) -> Said {
    let openclaw = command.iter().position(|word| is_openclaw(word));
    let mut said = Said::default();
    let mut words = command.iter().skip(openclaw.map_or(1, |at| at + 1));
    let mut in_gateway = false;
    while let Some(word) = words.next() {
        if word == "--" && openclaw.is_some() {
            break;
        }
        let text = word.to_str().unwrap_or_default();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsStr::new(value))),
            None => (text, None),
        };
        match (name, openclaw.is_some()) {
            ("--port", _) => said.take_port(inline.or_else(|| words.next().map(OsString::as_os_str))),
            ("--bind", true) => said.take_bind(inline.or_else(|| words.next().map(OsString::as_os_str))),
            ("--profile", true) => said.take_profile(inline.or_else(|| words.next().map(OsString::as_os_str))),
            // Behind `gateway` it is an option of the gateway's own, and selects no profile.
            ("--dev", true) if !in_gateway && inline.is_none() => said.profile = Some("dev".to_owned()),
            _ => in_gateway |= text == "gateway",
        }
    }
    said
}

impl Said {
    fn take_port(&mut self, value: Option<&OsStr>) {
        let given = Given::flag("COMMAND's --port", value.unwrap_or_default());
        match given.text().and_then(port::parse) {
            Some(port) => self.port = Some(port),
            None => self.mistakes.push(given.mistake("is not a port from 1 to 65535")),
        }
    }

    fn take_bind(&mut self, value: Option<&OsStr>) {
        let given = Given::flag("COMMAND's --bind", value.unwrap_or_default());
        match given.text().and_then(Bind::parse) {
            Some(bind) => self.bind = Some(bind),
            None => self.mistakes.push(given.mistake(format!("is none of {BIND_WORDS}"))),
        }
    }

    fn take_profile(&mut self, value: Option<&OsStr>) {
        let given = Given::flag("COMMAND's --profile", value.unwrap_or_default());
        match given.text().filter(|name| paths::is_profile(name)) {
            Some(name) => self.profile = Some(name.to_owned()),
            None => self.mistakes.push(given.mistake("is not a profile: letters, digits, _ and - only")),
        }
    }
}

/// The absolute path of the program.
pub(super) fn find(program: &OsStr, world: &World) -> Result<PathBuf, Mistake> {
    let path = world.variable("PATH");
    // A relative folder on PATH gives a relative path, which must not depend on where the child is started.
    which::which_in(program, path.as_ref(), &world.cwd)
        .map(|found| world.cwd.join(found))
        .map_err(|_| missing(program, path.as_deref(), world))
}

fn missing(program: &OsStr, path: Option<&OsStr>, world: &World) -> Mistake {
    let shown = program.to_string_lossy();
    let advice = "install it, or name another: openclaw-supervise run -- COMMAND";
    Mistake::Command(if shown.is_empty() {
        "COMMAND is an empty word: name the program to run".to_owned()
    } else if Path::new(program).components().count() > 1 {
        let tried = world.cwd.join(program);
        let tried_shown = tried.display();
        if tried.is_file() {
            format!("{tried_shown} is not executable: chmod +x it, or start its interpreter: run -- node {tried_shown}")
        } else if tried.exists() {
            format!("{tried_shown} is not a program but a directory or the like: {advice}")
        } else {
            format!("{tried_shown} does not exist: {advice}")
        }
    } else {
        match path {
            None => format!("cannot look for {shown}: PATH is not set; set it, or give the program's whole path"),
            Some(path) => {
                match std::env::split_paths(path).map(|folder| folder.join(program)).find(|at| at.is_file()) {
                    Some(found) => format!("{} is not executable: chmod +x it", found.display()),
                    None => format!("cannot find {shown} in PATH ({}): {advice}", path.to_string_lossy()),
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Said {
        read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_port_of_command_counts() {
        for (line, port) in [
            ("openclaw gateway run --port 19000", Some(19000)),
            ("openclaw gateway run --port=19000", Some(19000)),
            ("openclaw gateway --port 1 --port=2", Some(2)),
            ("node /opt/openclaw.mjs gateway --port 7", Some(7)),
            ("python3 gateway.py --port 8", Some(8)),
            ("openclaw gateway -- --port 9", None),
            ("openclaw gateway run", None),
            ("openclaw gateway --portal 9", None),
            ("--port 9", None),
        ] {
            let said = said(line);
            assert_eq!((said.port, said.mistakes.as_slice()), (port, [].as_slice()), "{line}");
        }
    }

    #[test]
    fn a_port_of_command_that_is_none_is_a_mistake() {
        for line in ["openclaw gateway --port none", "x --port", "x --port=0", "x --port 65536", "x --port --bind"] {
            assert_eq!(said(line).mistakes.len(), 1, "{line}");
        }
    }

    #[test]
    fn bind_and_profile_count_behind_openclaw_alone() {
        let ours = said("env A=b /usr/bin/openclaw --profile work gateway --bind=lan");
        assert_eq!((ours.profile.as_deref(), ours.bind), (Some("work"), Some(Bind::Lan)));
        assert_eq!(said("cloud --profile x --bind y"), Said::default());
        let wrapped = said("cloud --profile other openclaw gateway --profile work");
        assert_eq!(wrapped.profile.as_deref(), Some("work"));
    }

    #[test]
    fn dev_is_a_profile_only_before_the_word_gateway() {
        assert_eq!(said("openclaw --dev gateway run").profile.as_deref(), Some("dev"));
        assert_eq!(said("openclaw gateway --dev").profile, None);
    }

    #[test]
    fn a_wrong_bind_or_profile_is_a_mistake() {
        assert_eq!(said("openclaw gateway --bind all --profile a/b").mistakes.len(), 2);
    }
}
