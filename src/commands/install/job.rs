//! The `LaunchAgent`, made of the one that this repository ships.

use super::Error;
use super::record::{Planned, sign};
use crate::settings::ServiceSettings;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const SHIPPED: &str = include_str!("../../../contrib/launchd/ai.openclaw.supervise.plist");

/// What the shipped file has in place of a home.
const HOME: &str = "/HOME";

/// The label of the job.
pub(super) fn label(settings: &ServiceSettings) -> String {
    let profile = settings.profile.as_ref().map(|profile| format!(".{profile}")).unwrap_or_default();
    format!("ai.openclaw.supervise{profile}")
}

/// OpenClaw's own job for the same gateway, if it is there.
pub(super) fn rival(settings: &ServiceSettings) -> PathBuf {
    let label = settings.profile.as_ref().map_or_else(|| "gateway".to_owned(), Clone::clone);
    folder(settings).join(format!("ai.openclaw.{label}.plist"))
}

fn folder(settings: &ServiceSettings) -> PathBuf {
    settings.home.join("Library/LaunchAgents")
}

/// Its place.
pub(super) fn place(settings: &ServiceSettings) -> PathBuf {
    folder(settings).join(format!("{}.plist", label(settings)))
}

/// The file. `program` is ours, `path` leads to OpenClaw and its Node.
pub(super) fn plan(settings: &ServiceSettings, program: &Path, path: &OsStr) -> Result<Planned, Error> {
    let mut words = vec![text_of(program.as_os_str())?];
    for word in &settings.words {
        words.push(text_of(word)?);
    }
    let array = words.iter().fold(String::new(), |array, word| array + "\t\t<string>" + word + "</string>\n");
    let home = text_of(settings.home.as_os_str())?;
    let text = with_array(&without_advice(SHIPPED), &array);
    let logs = format!("{HOME}/Library/Logs/");
    let text = text
        .replace("<string>ai.openclaw.supervise</string>", &format!("<string>{}</string>", label(settings)))
        .replace(SHIPPED_PATH, &text_of(path)?)
        .replace(&format!("{logs}openclaw-supervise"), &format!("{logs}{}", label(settings)))
        .replace(HOME, &home);
    // The declaration has to come first.
    let (declaration, rest) = text.split_once('\n').unwrap_or(("", &text));
    Ok(Planned { path: place(settings), text: declaration.to_owned() + &sign("<!-- ", " -->", rest) })
}

/// The PATH of the shipped file.
const SHIPPED_PATH: &str = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A file with other words in its one array.
fn with_array(shipped: &str, words: &str) -> String {
    let parts =
        shipped.split_once("<array>\n").and_then(|(before, rest)| Some((before, rest.split_once("\t</array>")?.1)));
    parts.map_or_else(|| shipped.to_owned(), |(before, after)| format!("{before}<array>\n{words}\t</array>{after}"))
}

/// The shipped file without the words on how to copy it.
fn without_advice(shipped: &str) -> String {
    let parts = shipped.split_once("<!--\n").and_then(|(before, rest)| Some((before, rest.split_once("-->\n")?.1)));
    parts.map_or_else(|| shipped.to_owned(), |(before, after)| format!("{before}{after}"))
}

/// Text between two tags.
fn text_of(word: &OsStr) -> Result<String, Error> {
    let text = word.to_str().filter(|text| !text.contains(|c: char| c.is_control()));
    let Some(text) = text else { return Err(Error::Word(word.to_string_lossy().into_owned())) };
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
            dry_run: false,
            force: false,
            log: LogSettings { format: Format::Text, level: tracing::Level::INFO },
        }
    }

    #[test]
    fn the_job_is_the_shipped_one_with_our_words_and_home() {
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
    fn a_job_is_known_as_ours_until_it_is_edited() {
        use crate::commands::install::record::{Found, look};
        let mut planned = plan(&settings(None), Path::new("/opt/ocs"), OsStr::new("/a")).unwrap();
        planned.path = std::env::temp_dir().join(format!("ocs-job-{}.plist", std::process::id()));
        planned.write().unwrap();
        assert_eq!(look(&planned.path, None).unwrap(), Found::Ours);
        std::fs::write(&planned.path, planned.text.replace("<integer>30<", "<integer>31<")).unwrap();
        assert_eq!(look(&planned.path, None).unwrap(), Found::Foreign);
        std::fs::remove_file(&planned.path).unwrap();
    }
}
