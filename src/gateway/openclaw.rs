//! OpenClaw's own command line and its files, as the gateway's command names them.

use super::process::{INSTANCE, Launch, OWNED, scrub};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// npm retires the package that it replaces to a hidden neighbour, and removes that at its end. One that has been there
/// for longer than this was left by an update that failed. The kernel stamps a rename as a change of status.
const RETIRED_AGE_MAX: Duration = Duration::from_mins(10);

/// How to start it: as the gateway is started, up to the word `gateway`.
#[derive(Debug, Clone)]
pub struct Openclaw {
    program: PathBuf,
    arguments: Vec<OsString>,
    exports: Vec<(&'static str, OsString)>,
    /// The file that is OpenClaw's own, as the command names it.
    file: PathBuf,
}

impl Openclaw {
    /// That of a gateway's command, if it names one.
    #[must_use]
    pub fn of(launch: &Launch) -> Option<Self> {
        let words: Vec<_> =
            std::iter::once(launch.program.clone().into()).chain(launch.arguments.iter().cloned()).collect();
        let Named { at, end } = named(&words)?;
        Some(Self {
            program: launch.program.clone(),
            arguments: words[1..end].to_vec(),
            exports: launch.exports.clone(),
            file: PathBuf::from(&words[at]),
        })
    }

    /// Another command of it, in the gateway's environment; its standard streams are not set.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(words);
        scrub(&mut command);
        command.env_remove(INSTANCE).envs(OWNED).envs(self.exports.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Its program, for messages.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Stands for the state of its files: the same number, the same files.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let package = self.package();
        let manifest = package.as_ref().map(|package| package.join("package.json"));
        fingerprint([Some(self.program.as_path()), Some(&self.file), package.as_deref(), manifest.as_deref()])
    }

    /// Why its files cannot be trusted to be whole just now, if that is so. `now` is the time since 1970.
    #[must_use]
    pub fn being_replaced(&self, now: Duration) -> Option<String> {
        let package = self.package()?;
        if !package.join("package.json").exists() {
            return Some(format!("{} has no package.json", package.display()));
        }
        let retired = retired(&package, now)?;
        Some(format!("{} is what npm retires a package to", retired.display()))
    }

    /// The folder of the package that the file is in. Where a link to it leads nowhere there is none to look at: then its
    /// start fails, which says the same.
    fn package(&self) -> Option<PathBuf> {
        Some(fs::canonicalize(&self.file).ok()?.parent()?.to_path_buf()).filter(|folder| folder.ends_with("openclaw"))
    }
}

/// Where a command names its program, and where the word `gateway` stands.
struct Named {
    at: usize,
    end: usize,
}

fn named(words: &[OsString]) -> Option<Named> {
    let at = words.iter().position(|word| is_openclaw(word))?;
    // Before that word OpenClaw has one option with a value that may be anything.
    let is_verb = |&end: &usize| words[end] == "gateway" && words[end - 1] != "--profile";
    let end = (at + 1..words.len()).find(is_verb)?;
    Some(Named { at, end })
}

/// Whether a command, its program first, is a gateway of OpenClaw's own program.
#[must_use]
pub fn is_gateway(words: &[OsString]) -> bool {
    named(words).is_some()
}

/// Whether this word of a command is OpenClaw's own program.
#[must_use]
pub fn is_openclaw(word: &OsStr) -> bool {
    Path::new(word).file_name().is_some_and(|name| name == "openclaw" || name == "openclaw.mjs")
}

/// The neighbour that npm makes of a package while it replaces it: its name behind a dot, and a dash and a hash.
fn retired(package: &Path, now: Duration) -> Option<PathBuf> {
    let prefix = format!(".{}-", package.file_name()?.to_str()?);
    let entries = fs::read_dir(package.parent()?).ok()?.flatten();
    let is_young = |changed: i64| {
        u64::try_from(changed).is_ok_and(|changed| now.saturating_sub(Duration::from_secs(changed)) < RETIRED_AGE_MAX)
    };
    let mut retired = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    retired.find(|entry| entry.metadata().is_ok_and(|meta| is_young(meta.ctime()))).map(|entry| entry.path())
}

/// FNV-1a over when each of these was last changed, and their sizes. One that is not there counts as well.
#[must_use]
pub fn fingerprint<'a>(files: impl IntoIterator<Item = Option<&'a Path>>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let words = files.into_iter().flat_map(|file| {
        let meta = file.and_then(|file| fs::metadata(file).ok());
        meta.map_or([0; 3], |meta| [meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned(), meta.size()])
    });
    words.flat_map(u64::to_le_bytes).fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(line: &str) -> Launch {
        let mut words = line.split(' ').map(OsString::from);
        let program = words.next().unwrap().into();
        Launch { key: String::new(), program, arguments: words.collect(), config: PathBuf::new(), exports: vec![] }
    }

    #[test]
    fn it_is_the_program_that_runs_the_gateway() {
        for (line, file, doctor) in [
            ("/bin/openclaw gateway run --port 1", "/bin/openclaw", "/bin/openclaw doctor"),
            ("/bin/openclaw --profile work gateway", "/bin/openclaw", "/bin/openclaw --profile work doctor"),
            ("/bin/openclaw --profile gateway gateway", "/bin/openclaw", "/bin/openclaw --profile gateway doctor"),
            ("/bin/node /opt/openclaw.mjs gateway run", "/opt/openclaw.mjs", "/bin/node /opt/openclaw.mjs doctor"),
        ] {
            let openclaw = Openclaw::of(&launch(line)).unwrap();
            assert_eq!(openclaw.file, Path::new(file));
            let command = openclaw.command(&["doctor"]);
            let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
            assert_eq!(words.join(OsStr::new(" ")), doctor);
        }
        for line in ["/opt/fake gateway run", "/usr/bin/openclaw doctor", "/bin/gateway openclaw"] {
            assert!(Openclaw::of(&launch(line)).is_none(), "{line}");
        }
    }

    /// A package as npm lays it out, in a folder of its own.
    struct Installed {
        folder: PathBuf,
    }

    impl Drop for Installed {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.folder);
        }
    }

    fn installed(name: &str) -> (Installed, PathBuf, Openclaw) {
        let folder = std::env::temp_dir().join(format!("supervise-package-{name}-{}", std::process::id()));
        let package = folder.join("node_modules/openclaw");
        fs::create_dir_all(folder.join("node_modules/.bin")).unwrap();
        fs::create_dir(&package).unwrap();
        fs::write(package.join("package.json"), "{}").unwrap();
        fs::write(package.join("openclaw.mjs"), "").unwrap();
        let link = folder.join("node_modules/.bin/openclaw");
        std::os::unix::fs::symlink("../openclaw/openclaw.mjs", &link).unwrap();
        let openclaw = Openclaw::of(&launch(&format!("{} gateway run", link.display()))).unwrap();
        (Installed { folder }, package, openclaw)
    }

    #[test]
    fn an_update_is_seen_while_it_lasts() {
        let (_installed, package, openclaw) = installed("update");
        let now = Duration::from_secs(fs::metadata(&package).unwrap().ctime().cast_unsigned());
        assert_eq!(openclaw.being_replaced(now), None);
        fs::create_dir(package.with_file_name(".openclaw-1a2B3c")).unwrap();
        assert!(openclaw.being_replaced(now).unwrap().contains(".openclaw-1a2B3c"));
        let later = now + RETIRED_AGE_MAX + Duration::from_mins(1);
        assert_eq!(openclaw.being_replaced(later), None, "an update that failed long ago");
        fs::remove_dir(package.with_file_name(".openclaw-1a2B3c")).unwrap();
        fs::create_dir(package.with_file_name(".openclaws")).unwrap();
        assert_eq!(openclaw.being_replaced(now), None, "somebody else's");
        fs::remove_file(package.join("package.json")).unwrap();
        assert!(openclaw.being_replaced(now).unwrap().contains("package.json"));
    }

    #[test]
    fn another_file_has_another_fingerprint_and_the_same_one_the_same() {
        let (_installed, package, openclaw) = installed("fingerprint");
        let before = openclaw.fingerprint();
        assert_eq!(openclaw.fingerprint(), before);
        fs::write(package.join("package.json"), r#"{"version":"2"}"#).unwrap();
        assert_ne!(openclaw.fingerprint(), before);
    }
}
