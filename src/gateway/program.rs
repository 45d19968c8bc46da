//! The gateway's program: where its name leads now, and what would run it.

use crate::platform::filesystem::without_dependable_locks;
use crate::platform::regular_file;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// As much of the first line as the kernel reads since Linux 5.1: `BINPRM_BUF_SIZE`.
const FIRST_LINE_MAX: u64 = 256;

/// Where `word`, as the user gave it, leads now, if that is not `present`. A bare name is looked up on PATH; a path that is
/// gone (nvm, brew and volta have the version in it) is looked for there under its last part. Blocks on the file system.
#[must_use]
pub fn moved(word: &OsStr, present: &Path) -> Option<PathBuf> {
    let is_path = Path::new(word).components().count() > 1;
    let name = if is_path { Path::new(word).file_name()? } else { word };
    if is_path && present.symlink_metadata().is_ok() {
        return None;
    }
    on_path(name, std::env::var_os("PATH").as_deref()).filter(|found| found != present)
}

/// Why this script cannot be run, as its first line shows. `None` if it can, is no script, or is on a file system that another
/// process or machine serves: not even SIGKILL may end a read of it.
#[must_use]
pub fn trouble(program: &Path) -> Option<String> {
    trouble_on(program, std::env::var_os("PATH").as_deref())
}

fn trouble_on(program: &Path, path: Option<&OsStr>) -> Option<String> {
    if without_dependable_locks(program).ok()?.is_some() {
        return None;
    }
    let head = regular_file::head(program, FIRST_LINE_MAX).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let shown = program.display();
    if line.last() == Some(&b'\r') {
        return Some(format!(
            "the first line of {shown} ends with a carriage return (CRLF), which becomes part of the interpreter's name; save \
             it with Unix line ends"
        ));
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let interpreter = Path::new(words.next()?);
    if !interpreter.exists() {
        return Some(format!(
            "its interpreter {} (first line of {shown}) does not exist; install it there, or reinstall {shown}",
            interpreter.display()
        ));
    }
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let is_command = |word: &&OsStr| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'=');
    let command = words.find(is_command)?;
    let is_bare = Path::new(command).components().count() == 1;
    if !is_bare || on_path(command, path).is_some() {
        return None;
    }
    let (command, path) = (command.display(), path.unwrap_or_default().display());
    Some(format!(
        "{shown} would end with exit code 127: its first line asks env for `{command}`, which is not on PATH ({path}); install \
         it, or add its folder to the PATH of this service"
    ))
}

fn on_path(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    which::which_in(name, path.map(OsString::from), &base).ok().map(|found| base.join(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ocs-program-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn script(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_first_line_that_leads_nowhere_is_named() {
        let folder = folder("trouble");
        let file = folder.join("openclaw");
        for (text, words) in [
            ("#!/bin/sh\nexit 0\n", None),
            ("\u{7f}ELF", None),
            ("#!/usr/bin/env sh\n", None),
            ("#!/usr/bin/env -S A=b sh -e\n", None),
            (
                "#!/usr/bin/env nodexyz\n",
                Some("127: its first line asks env for `nodexyz`, which is not on PATH (/bin"),
            ),
            ("#!/usr/bin/env -S NODE_ENV=x nodexyz --flag\n", Some("`nodexyz`")),
            ("#!/opt/node/25.5.0/bin/node\n", Some("its interpreter /opt/node/25.5.0/bin/node (first line of")),
            ("#!/bin/sh\r\nexit 0\r\n", Some("carriage return (CRLF)")),
        ] {
            script(&file, text);
            let found = trouble_on(&file, Some(OsStr::new("/bin:/usr/bin")));
            match words {
                None => assert_eq!(found, None, "{text}"),
                Some(words) => {
                    assert!(found.as_deref().is_some_and(|found| found.contains(words)), "{text}: {found:?}");
                }
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_bare_name_is_looked_up_again_and_a_path_only_once_it_is_gone() {
        let folder = folder("moved");
        let here = folder.join("sh");
        assert_eq!(moved(OsStr::new("sh"), &here), which::which("sh").ok(), "PATH leads elsewhere now");
        assert_eq!(moved(OsStr::new("sh"), &which::which("sh").unwrap()), None);
        assert_eq!(moved(OsStr::new("no-such-program"), &here), None, "there is no better one");
        script(&here, "#!/bin/sh\n");
        assert_eq!(moved(here.as_os_str(), &here), None);
        fs::remove_file(&here).unwrap();
        assert_eq!(moved(here.as_os_str(), &here), which::which("sh").ok());
        fs::remove_dir_all(folder).unwrap();
    }
}
