//! Recognises a program that installs packages: one that is killed leaves half an installation.

use crate::platform::{clock, proc};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The verbs that write into an installation, of any of the package managers.
const VERBS: [&str; 10] = ["install", "i", "ci", "add", "update", "upgrade", "up", "rebuild", "link", "dedupe"];

/// The scripts of a package that a package manager runs while it installs that, by `npm_lifecycle_event`.
const SCRIPTS: [&[u8]; 3] = [b"preinstall", b"install", b"postinstall"];

/// What build tools write into `node_modules` as they run.
const CACHES: [&str; 3] = [".cache", ".vite", ".vite-temp"];

/// When a kill of a tree last cut one short, as the time since 1970.
static LAST_CUT: Mutex<Option<Duration>> = Mutex::new(None);

/// The package manager that this command line, as it is shown, runs, and what it is to do: its words but options and their paths.
/// Some set their title to the command that was typed.
fn manager(command: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let mut words = command.split_whitespace();
    let mut program = name(words.next()?);
    if is_runtime(program) {
        let mut rest = words.clone();
        if let Some(script) = rest.by_ref().find(|word| !word.starts_with('-') && !is_value(word)).map(name)
            && is_manager(script)
        {
            (program, words) = (script, rest);
        }
    }
    // `--prefix /opt install`
    let rest = words.filter(|word| !word.starts_with('-') && !word.starts_with(['/', '.', '~']));
    is_manager(program).then(|| (stem(program), rest))
}

/// Whether this command line is an installer at work.
pub(super) fn is_installer(command: &str) -> bool {
    let Some((manager, mut words)) = manager(command) else { return false };
    match (manager, words.next()) {
        ("openclaw", Some("update" | "upgrade")) => true,
        ("openclaw", Some("plugins" | "skills")) => matches!(words.next(), Some("install" | "update")),
        ("openclaw", _) => false,
        (_, Some(verb)) => VERBS.contains(&verb),
        // `yarn` alone installs.
        (manager, None) => manager == "yarn",
    }
}

/// Whether this process replaces OpenClaw's package, in the folder `package`: it is an installer that names it or works there, or
/// it has a file of it open for writing.
pub(super) fn replaces_openclaw(pid: i32, command: &str, package: Option<&Path>) -> bool {
    let is_installer = is_installer(command);
    if is_installer && names_openclaw(command) {
        return true;
    }
    let Some((package, modules)) = package.and_then(|package| Some((package, package.parent()?))) else { return false };
    let works_there = |place: PathBuf| {
        place.starts_with(package) || modules.ends_with("node_modules") && modules.parent() == Some(place.as_path())
    };
    is_installer && proc::working_directory_of(pid).is_some_and(works_there)
        || proc::written_files_of(pid).iter().any(|file| is_in_package(file) && is_of(package, file))
}

/// Whether an installer with this command line is to install OpenClaw itself.
fn names_openclaw(command: &str) -> bool {
    let Some((manager, mut words)) = manager(command) else { return false };
    if manager == "openclaw" {
        return matches!(words.next(), Some("update" | "upgrade"));
    }
    // npm pack names an archive so: `openclaw-2026.8.1.tgz`.
    let is_archive = |word: &str| {
        let version = name(word).strip_prefix("openclaw-").and_then(|rest| rest.strip_suffix(".tgz"));
        version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    };
    words.any(|word| word == "openclaw" || word.starts_with("openclaw@")) || command.split_whitespace().any(is_archive)
}

/// Whether this is a file of the package, or of what npm unpacks or retires beside it: `.NAME-HASH`.
fn is_of(package: &Path, file: &Path) -> bool {
    let Some((modules, name)) = package.parent().zip(package.file_name().and_then(OsStr::to_str)) else { return false };
    let first = file.strip_prefix(modules).ok().and_then(|rest| rest.iter().next()).and_then(OsStr::to_str);
    let hash = |first: &str| first.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('-').map(str::len);
    first.is_some_and(|first| first == name || hash(first).is_some())
}

fn name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or_default()
}

fn is_runtime(program: &str) -> bool {
    let plain = program.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    matches!(plain, "node" | "nodejs" | "bun" | "python" | "sh" | "bash" | "dash" | "env" | "sudo" | "corepack")
}

/// Whether it can only be the value of an option, such as `--require ./hook.js`: a script that is no package manager.
fn is_value(word: &str) -> bool {
    word.contains('/') && !is_manager(name(word))
}

/// The name of a program without its ending: `npm-cli.js`, `yarn-4.1.0.cjs`.
fn stem(program: &str) -> &str {
    let stem =
        program.trim_end_matches(".js").trim_end_matches(".cjs").trim_end_matches(".mjs").trim_end_matches("-cli");
    stem.split_once('-')
        .filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
        .map_or(stem, |(stem, _)| stem)
}

fn is_manager(program: &str) -> bool {
    matches!(stem(program), "npm" | "pnpm" | "yarn" | "bun" | "openclaw")
}

/// Whether the files of a process show that it installs a package, whatever its command line: it writes to a file of one, or
/// is a script of one that is being installed.
pub(super) fn writes_package(pid: i32) -> bool {
    let is_script = || {
        let environment = proc::environment_of(pid);
        let event = environment.as_ref().and_then(|environment| environment.get("npm_lifecycle_event"));
        event.is_some_and(|event| SCRIPTS.contains(&event))
    };
    proc::written_files_of(pid).iter().any(|file| is_in_package(file))
        || proc::working_directory_of(pid).is_some_and(|folder| is_in_package(&folder)) && is_script()
}

fn is_in_package(path: &Path) -> bool {
    let mut parts = path.iter().skip_while(|part| *part != "node_modules").skip(1);
    parts.next().is_some_and(|part| !CACHES.iter().any(|cache| part == *cache))
}

/// Records that a kill has just cut an installer short.
pub(super) fn note_cut() {
    *LAST_CUT.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::wall());
}

/// When a kill of a tree last cut an installer short, as the time since 1970, if none can be at work now. Looks at every process.
#[must_use]
pub fn given_up() -> Option<Duration> {
    let cut = *LAST_CUT.lock().unwrap_or_else(PoisonError::into_inner);
    cut.filter(|_| !is_any_at_work())
}

fn is_any_at_work() -> bool {
    let shows = |pid| proc::command_of(pid).is_some_and(|command| is_installer(&command));
    proc::is_foreign()
        || proc::processes().map_or(true, |all| all.iter().any(|process| !process.is_dead() && shows(process.pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_managers_that_write_are_installers_and_what_only_names_one_is_not() {
        for command in [
            "npm install -g openclaw@latest",
            "npm install ./openclaw-2.0.0.tgz",
            "npm --prefix /opt/openclaw install openclaw",
            "node /usr/lib/node_modules/npm/bin/npm-cli.js i -g openclaw",
            "/usr/bin/node --max-old-space-size=512 /usr/bin/npm ci",
            "node --require ./hook.js /usr/lib/node_modules/npm/bin/npm-cli.js ci",
            "python3.12 npm-cli.js install",
            "node /opt/pnpm/bin/pnpm.cjs add -g openclaw",
            "bun add -g openclaw",
            "yarn",
            "yarn --cwd /opt/app",
            "node /opt/yarn.js add openclaw",
            "node /usr/bin/corepack yarn add openclaw",
            "corepack pnpm install",
            "node /opt/app/.yarn/releases/yarn-4.1.0.cjs install",
            "openclaw update --yes",
            "node /x/openclaw/openclaw.mjs update",
            "node /x/openclaw/openclaw.mjs plugins install x",
        ] {
            assert!(is_installer(command), "{command}");
        }
        for command in [
            "",
            "npm run start",
            "npm run install",
            "npm view openclaw",
            "node server.js install",
            "openclaw gateway run",
            "openclaw plugins list",
            "openclaw-gateway",
            "vim install",
            "bun server.ts",
            "sleep 60",
        ] {
            assert!(!is_installer(command), "{command}");
        }
    }

    #[test]
    fn an_installer_of_openclaw_itself_is_told_from_one_of_another_package() {
        for command in [
            "npm install -g openclaw",
            "npm i openclaw@latest --prefix /opt",
            "npm install ./openclaw-2026.8.1.tgz",
            "npm install /tmp/openclaw-2026.8.1.tgz",
            "node /opt/pnpm/bin/pnpm.cjs add -g openclaw",
            "node /usr/lib/node_modules/corepack/dist/pnpm.js add openclaw@beta",
            "openclaw update --yes",
            "node /x/openclaw/openclaw.mjs update",
        ] {
            assert!(is_installer(command) && names_openclaw(command), "{command}");
        }
        for command in [
            "npm install lodash",
            "npm install --prefix /opt/openclaw lodash",
            "npm install openclaw-weather",
            "npm install openclaw-weather-1.0.0.tgz",
            "openclaw plugins update weather",
            "node /x/openclaw/openclaw.mjs plugins install openclaw",
        ] {
            assert!(!names_openclaw(command), "{command}");
        }
        let package = Path::new("/home/bot/openclaw");
        for (file, is_its) in [("openclaw/dist/x.js", true), (".openclaw-Ab3xYz09/x", true), (".openclaw/x", false)] {
            assert_eq!(is_of(package, &Path::new("/home/bot").join(file)), is_its, "{file}");
        }
    }

    #[test]
    fn a_file_below_node_modules_is_one_of_a_package_unless_it_is_in_a_cache() {
        for path in ["/opt/node_modules/openclaw/dist/x.js", "/opt/node_modules/.openclaw-Ab3xYz09"] {
            assert!(is_in_package(Path::new(path)), "{path}");
        }
        for path in ["/opt/node_modules", "/opt/node_modules/.cache/x", "/opt/my_node_modules/x", "/opt/openclaw"] {
            assert!(!is_in_package(Path::new(path)), "{path}");
        }
    }
}
