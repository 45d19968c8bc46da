//! Where the gateway listens, from every source that it has itself. Measured on 2026.9.6, docs/CONFIGURATION.md has the
//! table: its command line, its environment, its `.env` files and the variables in its config, its config, its profile.

use super::command::CommandOptions;
use super::config::{self, Config};
use super::paths::Selection;
use super::process_context::ProcessContext;
use super::source_file::Findings;
use super::{document, dot_env, listener, port};
use crate::cli::Host;
use crate::gateway::endpoint::{Resolved, Resolver};
use crate::gateway::heap::NODE_OPTIONS;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const PORT: &str = "OPENCLAW_GATEWAY_PORT";

/// The variables that select the files which are read. Where a file sets one of them, the gateway begins anew with the
/// files that it selects.
const SELECTORS: [&str; 6] =
    ["HOME", "USERPROFILE", "OPENCLAW_HOME", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_PROFILE"];
/// Each time, a selector that was unset is set.
const ROUNDS: usize = SELECTORS.len() + 1;

/// How often files that seem half-written are read before the first start, and the pause between two readings.
const READINGS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
pub(super) struct Sources {
    /// As the gateway finds it: with what our options and the profile of COMMAND set.
    pub(super) context: ProcessContext,
    pub(super) port: Option<u16>,
    pub(super) host: Option<Host>,
    pub(super) command: CommandOptions,
    /// What each config said when it could be read last: a gateway that runs while it is broken was started with that.
    pub(super) known: Arc<Mutex<BTreeMap<PathBuf, Map<String, Value>>>>,
}

impl Sources {
    pub(super) fn resolver(self) -> Resolver {
        Resolver::new(move || self.read().0)
    }

    /// Gives files that seem half-written a second.
    #[expect(clippy::disallowed_methods, reason = "the loop has not begun")]
    pub(super) fn read_until_whole(&self) -> Resolved {
        let mut readings = READINGS;
        loop {
            readings -= 1;
            let (resolved, is_half_written) = self.read();
            if !is_half_written || readings == 0 {
                return resolved;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Reads everything anew. Also returns whether a file seems half-written.
    pub(super) fn read(&self) -> (Resolved, bool) {
        let mut findings = Findings::default();
        let Effective { context, set, name, root, is_unread } = self.environment(&mut findings);
        let mut problems = std::mem::take(&mut findings.problems);
        let config = Config::of(&root, &name, &context, &mut problems);
        problems.extend(self.command.problems.iter().cloned());
        let variable = context.variable(PORT).filter(|_| self.port.or(self.command.port).is_none());
        if let Some(value) = variable.as_ref().filter(|value| port::of_variable(value).is_none()) {
            let value = value.to_string_lossy();
            problems.push(format!("{PORT} {value:?} is not a port, and the gateway ignores it"));
        }
        let profile = context.variable("OPENCLAW_PROFILE");
        let candidates = port::Candidates {
            flag: self.port,
            command: self.command.port,
            variable: variable.as_deref(),
            config: config.port,
            profile: profile.as_deref(),
        };
        let (port, is_guess) = (candidates.choose(), is_unread && candidates.configured().is_none());
        let mut odd = Vec::new();
        let endpoint = listener::endpoint(self.host, self.command.bind, &config, port, &context, &mut odd);
        problems.dedup();
        let warn = |problem| format!("{problem}; assuming that the gateway listens on {endpoint}");
        let warnings = problems.into_iter().map(warn).chain(odd).collect();
        let exports = set.into_iter().filter(|(name, value)| name == PORT && port::of_variable(value).is_some());
        let exports = exports.map(|(_, value)| (PORT, value)).collect();
        let (files, node_options) = (findings.files, context.variable(NODE_OPTIONS));
        (Resolved { endpoint, is_guess, warnings, files, exports, node_options }, findings.is_half_written)
    }

    /// Also returns whether nothing could be read, now or before.
    fn config(&self, path: &Path, findings: &mut Findings) -> (Map<String, Value>, bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = findings.problems.len();
        let root = document::read(path, findings);
        if findings.problems.len() == before {
            known.insert(path.to_owned(), root.clone());
            return (root, false);
        }
        let before = known.get(path).cloned().or_else(|| document::read_last_good(path));
        before.map_or((root, true), |before| (before, false))
    }

    fn environment(&self, findings: &mut Findings) -> Effective {
        let mut context = self.context.clone();
        let mut round = 0;
        loop {
            round += 1;
            *findings = Findings { files: std::mem::take(&mut findings.files), ..Findings::default() };
            let selection = Selection::from_environment(&context);
            let mut set = of_dot_env(&selection, &context, findings);
            let moves = selectors(&set);
            if !moves.is_empty() && round < ROUNDS {
                context = context.with(moves);
                continue;
            }
            let with_files = context.with(set.iter().cloned());
            let path = selection.config(&with_files);
            let (root, is_unread) = self.config(&path, findings);
            let of_config = config::variables(&root, &with_files);
            let of_config: Vec<_> = of_config.into_iter().map(|(name, value)| (name, OsString::from(value))).collect();
            let moves = selectors(&of_config);
            if !moves.is_empty() && round < ROUNDS {
                context = context.with(moves);
                continue;
            }
            set.extend(of_config);
            let context = context.with(set.iter().cloned());
            return Effective { context, set, name: path.display().to_string(), root, is_unread };
        }
    }
}

/// What the gateway works with once it has read its files.
struct Effective {
    context: ProcessContext,
    /// What the files set.
    set: Vec<(String, OsString)>,
    /// The path of the config, and what it says.
    name: String,
    root: Map<String, Value>,
    /// Whether it could not be read.
    is_unread: bool,
}

/// The first file wins, and none over the environment, even where that has an empty value.
fn of_dot_env(selection: &Selection, context: &ProcessContext, findings: &mut Findings) -> Vec<(String, OsString)> {
    let mut set: Vec<(String, OsString)> = Vec::new();
    let mut add = |variables: Vec<(String, String)>| {
        for (name, value) in variables {
            if (context.env)(&name).is_none() && !set.iter().any(|(known, _)| *known == name) {
                set.push((name, value.into()));
            }
        }
    };
    // That of the working directory is not trusted with the gateway's own variables. A directory of that name is Python's.
    let is_plain = |name: &str| !name.to_ascii_uppercase().starts_with("OPENCLAW_") && !SELECTORS.contains(&name);
    let known = findings.problems.len();
    let workspace: PathBuf = context.cwd.join(".env");
    add(dot_env::read(&workspace, findings).into_iter().filter(|(name, _)| is_plain(name)).collect());
    findings.problems.truncate(known);
    for path in selection.dot_env_files(context) {
        add(dot_env::read(&path, findings));
    }
    set
}

fn selectors(variables: &[(String, OsString)]) -> Vec<(String, OsString)> {
    variables.iter().filter(|(name, _)| SELECTORS.contains(&name.as_str())).cloned().collect()
}
