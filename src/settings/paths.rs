//! Where the gateway keeps its state and its config, by its own rules: a profile chosen on the command line selects
//! both, `OPENCLAW_PROFILE` alone selects neither.

use super::port;
use super::process_context::ProcessContext;
use crate::cli::is_profile;
use crate::platform::refusal::is_refusal;
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

const CONFIG: &str = "openclaw.json";
/// The names of earlier releases, which later ones still read.
const LEGACY_CONFIG: &str = "clawdbot.json";
const LEGACY_STATE: &str = ".clawdbot";

/// The four variables that select a gateway, as the gateway will find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) profile: Option<OsString>,
    pub(super) state_dir: Option<OsString>,
    pub(super) config: Option<OsString>,
    pub(super) gateway_port: Option<OsString>,
}

/// Which of them a profile must not change, because options of ours set them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pinned {
    pub(super) state_dir: bool,
    pub(super) config: bool,
}

impl Selection {
    pub(super) fn from_environment(context: &ProcessContext) -> Self {
        Self {
            profile: context.variable("OPENCLAW_PROFILE"),
            state_dir: context.variable("OPENCLAW_STATE_DIR"),
            config: context.variable("OPENCLAW_CONFIG_PATH"),
            gateway_port: context.variable("OPENCLAW_GATEWAY_PORT"),
        }
    }

    /// Selects `profile` as `openclaw --profile NAME` does: a state directory that was set stays, unless it is that of
    /// the former profile.
    pub(super) fn switch_to(&mut self, profile: &str, pinned: Pinned, context: &ProcessContext) {
        let former = self.profile.as_deref().and_then(OsStr::to_str).map_or("default", str::trim);
        let (former, selected) = (profile_dir(former, context), profile_dir(profile, context));
        let stale = |path: &Option<OsString>, of_former: &Path| {
            path.as_ref().is_some_and(|path| resolve(path, context) == of_former)
        };
        let leaves_former = !pinned.state_dir && stale(&self.state_dir, &former);
        let replaces_config =
            !pinned.config && (self.state_dir.is_none() || leaves_former) && stale(&self.config, &former.join(CONFIG));
        if self.state_dir.is_none() || leaves_former {
            self.state_dir = Some(selected.into_os_string());
        }
        if let (None, Some(state_dir)) = (self.config.as_ref().filter(|_| !replaces_config), &self.state_dir) {
            self.config = Some(resolve(state_dir, context).join(CONFIG).into_os_string());
        }
        if profile == "dev" && self.gateway_port.is_none() {
            self.gateway_port = Some(OsString::from(port::OF_DEV.to_string()));
        }
        self.profile = Some(OsString::from(profile));
    }

    pub(super) fn state_dir(&self, context: &ProcessContext) -> PathBuf {
        if let Some(path) = &self.state_dir {
            return resolve(path, context);
        }
        let home = home(context);
        let (current, legacy) = (home.join(".openclaw"), home.join(LEGACY_STATE));
        if !current.exists() && legacy.exists() { legacy } else { current }
    }

    /// The config file, which need not exist.
    pub(super) fn config(&self, context: &ProcessContext) -> PathBuf {
        if let Some(path) = &self.config {
            return resolve(path, context);
        }
        let state_dir = self.state_dir(context);
        let mut folders = vec![state_dir.clone()];
        if self.state_dir.is_none() {
            folders.extend([".openclaw", LEGACY_STATE].map(|name| home(context).join(name)));
        }
        folders
            .iter()
            .flat_map(|folder| [CONFIG, LEGACY_CONFIG].map(|name| folder.join(name)))
            .find(|path| path.exists())
            .unwrap_or_else(|| state_dir.join(CONFIG))
    }

    /// The files that set variables of the gateway, in the order in which they win. None of them need exist.
    pub(super) fn dot_env_files(&self, context: &ProcessContext) -> Vec<PathBuf> {
        let (state_dir, of_home) = (self.state_dir(context), home(context).join(".openclaw"));
        let beside_config = match (&self.state_dir, &self.config) {
            (Some(_), _) => state_dir.clone(),
            (None, Some(config)) => resolve(config, context).parent().map(Path::to_owned).unwrap_or_default(),
            (None, None) => of_home.clone(),
        };
        // A fallback of earlier installations.
        let is_default = self.state_dir.is_none() || state_dir == of_home;
        let fallback = is_default.then(|| home(context).join(".config/openclaw/gateway.env"));
        let mut files = vec![state_dir.join(".env"), beside_config.join(".env")];
        files.dedup();
        files.extend(fallback);
        files
    }

    /// The variables in which this differs from `before`, with their names.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<(&'static str, OsString)> {
        [
            ("OPENCLAW_PROFILE", &self.profile, &before.profile),
            ("OPENCLAW_STATE_DIR", &self.state_dir, &before.state_dir),
            ("OPENCLAW_CONFIG_PATH", &self.config, &before.config),
            ("OPENCLAW_GATEWAY_PORT", &self.gateway_port, &before.gateway_port),
        ]
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .filter_map(|(name, now, _)| now.clone().map(|value| (name, value)))
        .collect()
    }
}

fn profile_dir(profile: &str, context: &ProcessContext) -> PathBuf {
    if profile.eq_ignore_ascii_case("default") || !is_profile(profile) {
        return home(context).join(".openclaw");
    }
    home(context).join(format!(".openclaw-{profile}"))
}

/// The gateway ignores `undefined` and `null`, which some launchers write for a missing home.
fn home_variable(name: &str, context: &ProcessContext) -> Option<OsString> {
    context.variable(name).filter(|value| value != "undefined" && value != "null")
}

/// The home directory of the gateway, which `OPENCLAW_HOME` may move.
fn home(context: &ProcessContext) -> PathBuf {
    let user = || {
        let variable = home_variable("HOME", context).or_else(|| home_variable("USERPROFILE", context));
        variable.map(PathBuf::from).or_else(context.home).unwrap_or_else(|| context.cwd.clone())
    };
    let home = home_variable("OPENCLAW_HOME", context).map_or_else(user, |explicit| expand_tilde(&explicit, user));
    absolute(&home, &context.cwd)
}

/// `path` as an absolute one, `~` expanded.
pub(super) fn resolve(path: &OsStr, context: &ProcessContext) -> PathBuf {
    let trimmed = path.to_str().map_or(path, |text| OsStr::new(text.trim()));
    absolute(&expand_tilde(trimmed, || home(context)), &context.cwd)
}

/// `~` and `~/...` only: the gateway takes `~name` for a file name.
pub(super) fn expand_tilde(path: &OsStr, home: impl FnOnce() -> PathBuf) -> PathBuf {
    match Path::new(path).strip_prefix("~") {
        Ok(rest) => home().join(rest),
        Err(_) => PathBuf::from(path),
    }
}

/// Removes `.` and `..` lexically, as Node's `path.resolve` does; the path need not exist.
pub(super) fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in cwd.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Why a folder cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotWritable {
    pub(super) why: String,
    /// See [`is_refusal`].
    pub(super) is_refused: bool,
}

impl NotWritable {
    fn of(place: &Path, error: &io::Error) -> Self {
        Self { why: format!("{}: {error}", place.display()), is_refused: is_refusal(error) }
    }

    fn refused(why: String) -> Self {
        Self { why, is_refused: true }
    }
}

/// Checks that `folder` can be written, or created where it is missing, without changing anything.
pub(super) fn check_writable(folder: &Path) -> Result<(), NotWritable> {
    for place in folder.ancestors() {
        match fs::metadata(place) {
            Ok(found) if !found.is_dir() => {
                return Err(NotWritable::refused(format!("{} is not a directory", place.display())));
            }
            Ok(_) => {
                // For our real user, who is the effective one as well: we are not set-user-ID. faccessat2(2), which asks
                // for the effective one, is missing before Linux 5.8 and in old sandboxes.
                return access(place, Access::WRITE_OK | Access::EXEC_OK)
                    .map_err(|error| NotWritable::of(place, &error.into()));
            }
            // A dangling link looks like a missing directory, but mkdir(2) fails with EEXIST.
            Err(_) if fs::symlink_metadata(place).is_ok() => {
                return Err(NotWritable::refused(format!("{} is a dangling link", place.display())));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(NotWritable::of(place, &error)),
        }
    }
    Err(NotWritable::refused("no part of the path exists".to_owned()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::Arc;

    pub(in super::super) fn context(variables: &'static [(&'static str, &'static str)]) -> ProcessContext {
        ProcessContext {
            env: Arc::new(move |name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            }),
            home: || Some(PathBuf::from("/nowhere/account")),
            cwd: PathBuf::from("/nowhere/cwd"),
            terminal: false,
            journal: false,
            container: None,
            process_manager: None,
            launchd: false,
            tailnet: || None,
        }
    }

    #[test]
    fn paths_are_expanded_as_the_gateway_expands_them() {
        let context = context(&[("HOME", "/nowhere/home"), ("OPENCLAW_HOME", "~/moved")]);
        for (path, absolute) in [
            ("/a/./b/../c", "/a/c"),
            ("~", "/nowhere/home/moved"),
            (" ~/s ", "/nowhere/home/moved/s"),
            ("~name/s", "/nowhere/cwd/~name/s"),
            ("s", "/nowhere/cwd/s"),
            ("../s", "/nowhere/s"),
            ("/../..", "/"),
        ] {
            assert_eq!(resolve(OsStr::new(path), &context), Path::new(absolute), "{path}");
        }
    }

    #[test]
    fn home_is_the_first_of_its_variables_that_names_one() {
        for (variables, expected) in [
            (&[][..], "/nowhere/account"),
            (&[("HOME", "")], "/nowhere/account"),
            (&[("HOME", "undefined"), ("USERPROFILE", "/u")], "/u"),
            (&[("HOME", "/h"), ("OPENCLAW_HOME", "null")], "/h"),
            (&[("HOME", "/h"), ("OPENCLAW_HOME", "/o")], "/o"),
            (&[("HOME", "h")], "/nowhere/cwd/h"),
        ] {
            assert_eq!(home(&context(variables)), Path::new(expected), "{variables:?}");
        }
    }

    fn selected(profile: Option<&str>, variables: &'static [(&'static str, &'static str)]) -> (PathBuf, PathBuf) {
        let context = context(variables);
        let mut selection = Selection::from_environment(&context);
        if let Some(profile) = profile {
            selection.switch_to(profile, Pinned::default(), &context);
        }
        (selection.state_dir(&context), selection.config(&context))
    }

    #[test]
    fn a_profile_of_the_command_line_selects_state_and_config() {
        for (profile, variables, state_dir, config) in [
            (None, &[("HOME", "/h")][..], "/h/.openclaw", "/h/.openclaw/openclaw.json"),
            (None, &[("HOME", "/h"), ("OPENCLAW_PROFILE", "work")], "/h/.openclaw", "/h/.openclaw/openclaw.json"),
            (Some("work"), &[("HOME", "/h")], "/h/.openclaw-work", "/h/.openclaw-work/openclaw.json"),
            (Some("default"), &[("HOME", "/h")], "/h/.openclaw", "/h/.openclaw/openclaw.json"),
            (Some("work"), &[("HOME", "/h"), ("OPENCLAW_STATE_DIR", "/s")], "/s", "/s/openclaw.json"),
            (
                Some("work"),
                &[("HOME", "/h"), ("OPENCLAW_STATE_DIR", "~/.openclaw")],
                "/h/.openclaw-work",
                "/h/.openclaw-work/openclaw.json",
            ),
            (
                Some("work"),
                &[("HOME", "/h"), ("OPENCLAW_PROFILE", "old"), ("OPENCLAW_STATE_DIR", "/h/.openclaw-old")],
                "/h/.openclaw-work",
                "/h/.openclaw-work/openclaw.json",
            ),
            (
                Some("work"),
                &[("HOME", "/h"), ("OPENCLAW_CONFIG_PATH", "/h/.openclaw/openclaw.json")],
                "/h/.openclaw-work",
                "/h/.openclaw-work/openclaw.json",
            ),
            (Some("work"), &[("HOME", "/h"), ("OPENCLAW_CONFIG_PATH", "/c")], "/h/.openclaw-work", "/c"),
        ] {
            let expected = (PathBuf::from(state_dir), PathBuf::from(config));
            assert_eq!(selected(profile, variables), expected, "{profile:?} {variables:?}");
        }
    }

    #[test]
    fn the_profile_dev_brings_its_own_port_unless_one_is_set() {
        let of = |variables| {
            let context = context(variables);
            let mut selection = Selection::from_environment(&context);
            selection.switch_to("dev", Pinned::default(), &context);
            selection.gateway_port
        };
        assert_eq!(of(&[("HOME", "/h")]), Some(OsString::from("19001")));
        assert_eq!(of(&[("HOME", "/h"), ("OPENCLAW_GATEWAY_PORT", "5")]), Some(OsString::from("5")));
    }

    #[test]
    fn a_file_in_the_way_cannot_be_written() {
        let file = std::env::current_exe().unwrap();
        assert!(check_writable(&file).is_err());
        assert!(check_writable(&file.join("below/it")).is_err());
        assert_eq!(check_writable(&std::env::temp_dir().join("nowhere/to/be/found")), Ok(()));
    }
}
