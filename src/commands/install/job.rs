//! The `LaunchAgent`, generated from the plist that this repository ships.

use super::error::Error;
use super::managed_file::{ManagedFile, sign};
use crate::settings::ServiceSettings;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const SHIPPED: &str = include_str!("../../../contrib/launchd/ai.openclaw.supervise.plist");

/// Placeholder for the home directory in the shipped file.
const HOME: &str = "/HOME";

pub(super) fn label(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!(".{profile}")).unwrap_or_default();
    format!("ai.openclaw.supervise{profile}")
}

/// The path of OpenClaw's own job for the same gateway.
pub(super) fn openclaw_path(settings: &ServiceSettings) -> PathBuf {
    let label = settings.profile.as_ref().map_or_else(|| "gateway".to_owned(), Clone::clone);
    folder(settings).join(format!("ai.openclaw.{label}.plist"))
}

fn folder(settings: &ServiceSettings) -> PathBuf {
    settings.home.join("Library/LaunchAgents")
}

pub(super) fn path(settings: &ServiceSettings) -> PathBuf {
    folder(settings).join(format!("{}.plist", label(settings)))
}

/// `program` is our own path, `search_path` leads to OpenClaw and its Node.
pub(super) fn plan(settings: &ServiceSettings, program: &Path, search_path: &OsStr) -> Result<ManagedFile, Error> {
    let mut words = vec![text_of(program.as_os_str())?];
    for word in &settings.words {
        words.push(text_of(word)?);
    }
    let array = words.iter().fold(String::new(), |array, word| array + "\t\t<string>" + word + "</string>\n");
    let (home, label) = (text_of(settings.home.as_os_str())?, label(settings));
    let text = fill(
        &without_advice(SHIPPED),
        &[
            (SHIPPED_WORDS, &array),
            (SHIPPED_LABEL, &format!("<string>{label}</string>")),
            (SHIPPED_PATH, &text_of(search_path)?),
            (SHIPPED_LOG, &format!("{home}/Library/Logs/{label}")),
            (HOME, &home),
        ],
    );
    // The XML declaration has to come first.
    let (declaration, rest) = text.split_once('\n').unwrap_or(("", &text));
    Ok(ManagedFile { path: path(settings), text: declaration.to_owned() + &sign("<!-- ", " -->", rest) })
}

const SHIPPED_WORDS: &str = "\t\t<string>/usr/local/bin/openclaw-supervise</string>\n\t\t<string>run</string>\n";

const SHIPPED_LABEL: &str = "<string>ai.openclaw.supervise</string>";

const SHIPPED_PATH: &str = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

const SHIPPED_LOG: &str = "/HOME/Library/Logs/openclaw-supervise";

/// Replaces each placeholder by its value, in one pass: a value may contain a placeholder. Of two at one position the first in
/// the list counts.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some(c) = rest.chars().next() {
        if let Some((mark, value)) = values.iter().find(|(mark, _)| rest.starts_with(mark)) {
            text += value;
            rest = &rest[mark.len()..];
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    text
}

/// The logs that launchd writes for the job.
pub(super) fn logs(settings: &ServiceSettings) -> [PathBuf; 2] {
    let (folder, label) = (settings.home.join("Library/Logs"), label(settings));
    [folder.join(format!("{label}.log")), folder.join(format!("{label}.out.log"))]
}

/// Seconds from SIGTERM to SIGKILL, from the shipped file.
pub(super) fn exit_time_out() -> u64 {
    let number = |shipped: &str| {
        let (_, rest) = shipped.split_once("<key>ExitTimeOut</key>")?;
        let (_, rest) = rest.split_once("<integer>")?;
        rest.split_once("</integer>")?.0.parse().ok()
    };
    number(SHIPPED).unwrap_or(360)
}

/// Removes the comment on how to copy the shipped file.
fn without_advice(shipped: &str) -> String {
    let parts = shipped.split_once("<!--\n").and_then(|(before, rest)| Some((before, rest.split_once("-->\n")?.1)));
    parts.map_or_else(|| shipped.to_owned(), |(before, after)| format!("{before}{after}"))
}

/// XML text content.
fn text_of(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    let Some(text) = text else { return Err(Error::Unquotable(word.to_string_lossy().into_owned())) };
    Ok(text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::telemetry::Format;
    use crate::settings::{LogSettings, Scope};
    use plist::Value;
    use std::ffi::OsString;

    fn settings(profile: Option<&str>) -> ServiceSettings {
        ServiceSettings {
            scope: Scope::User,
            profile: profile.map(str::to_owned),
            words: ["run", "--pre-start", "a < b && \"c\""].map(OsString::from).into(),
            program: None,
            home: PathBuf::from("/srv/al & co"),
            config_home: PathBuf::from("/srv/al & co/.config"),
            path: OsString::new(),
            openclaws_unit: None,
            left_out: Vec::new(),
            port: None,
            startup_timeout: std::time::Duration::from_mins(5),
            notes: Vec::new(),
            obstacles: Vec::new(),
            dry_run: false,
            force: false,
            log: LogSettings { format: Format::Text, level: tracing::Level::INFO },
        }
    }

    #[test]
    fn the_job_is_the_shipped_one_with_our_arguments_and_home() {
        let planned = plan(&settings(Some("work")), Path::new("/opt/ocs"), OsStr::new("/a:/b")).unwrap();
        assert_eq!(planned.path, Path::new("/srv/al & co/Library/LaunchAgents/ai.openclaw.supervise.work.plist"));
        let job = Value::from_reader_xml(planned.text.as_bytes()).unwrap().into_dictionary().unwrap();
        let shipped = Value::from_reader_xml(SHIPPED.as_bytes()).unwrap().into_dictionary().unwrap();
        assert!(job.keys().eq(shipped.keys()));
        let text = |key: &str| job.get(key).unwrap().as_string().unwrap();
        assert_eq!(text("Label"), "ai.openclaw.supervise.work");
        assert_eq!(text("WorkingDirectory"), "/srv/al & co");
        assert_eq!(text("StandardErrorPath"), "/srv/al & co/Library/Logs/ai.openclaw.supervise.work.log");
        let words: Vec<_> =
            job.get("ProgramArguments").unwrap().as_array().unwrap().iter().map(Value::as_string).collect();
        assert_eq!(words, [Some("/opt/ocs"), Some("run"), Some("--pre-start"), Some("a < b && \"c\"")]);
        let variables = job.get("EnvironmentVariables").unwrap().as_dictionary().unwrap();
        assert_eq!(variables.get("PATH").unwrap().as_string(), Some("/a:/b"));
        assert!(!planned.text.contains("/HOME"), "{}", planned.text);
    }

    #[test]
    fn an_argument_that_looks_like_a_placeholder_is_kept() {
        let mut settings = settings(None);
        settings.home = PathBuf::from("/srv/al");
        settings.words = ["run", "--state-dir", "/srv/HOME/x", SHIPPED_PATH].map(OsString::from).into();
        let path = "/srv/HOME/bin:/HOME";
        let planned = plan(&settings, Path::new("/HOME/bin/ocs"), OsStr::new(path)).unwrap();
        let job = Value::from_reader_xml(planned.text.as_bytes()).unwrap().into_dictionary().unwrap();
        let words = job.get("ProgramArguments").unwrap().as_array().unwrap();
        let words: Vec<_> = words.iter().filter_map(Value::as_string).collect();
        assert_eq!(words, ["/HOME/bin/ocs", "run", "--state-dir", "/srv/HOME/x", SHIPPED_PATH]);
        let variables = job.get("EnvironmentVariables").unwrap().as_dictionary().unwrap();
        assert_eq!(variables.get("PATH").unwrap().as_string(), Some(path));
        assert_eq!(job.get("WorkingDirectory").unwrap().as_string(), Some("/srv/al"));
        assert_eq!(job.get("StandardErrorPath").unwrap().as_string(), logs(&settings)[0].to_str());
        assert_eq!(job.get("StandardOutPath").unwrap().as_string(), logs(&settings)[1].to_str());
        assert_eq!(job.get("ExitTimeOut").unwrap().as_unsigned_integer(), Some(exit_time_out()));
    }

    #[test]
    fn a_job_is_recognised_as_ours_until_it_is_edited() {
        use crate::commands::install::managed_file::{FileState, inspect};
        let mut planned = plan(&settings(None), Path::new("/opt/ocs"), OsStr::new("/a")).unwrap();
        planned.path = std::env::temp_dir().join(format!("ocs-job-{}.plist", std::process::id()));
        planned.write().unwrap();
        assert_eq!(inspect(&planned.path, None).unwrap(), FileState::Ours);
        std::fs::write(&planned.path, planned.text.replace("<integer>30<", "<integer>31<")).unwrap();
        assert_eq!(inspect(&planned.path, None).unwrap(), FileState::Foreign);
        std::fs::remove_file(&planned.path).unwrap();
    }
}
