//! OpenClaw's files: their state, and whether they are whole just now.

use super::{Openclaw, Reader};
use crate::core::SpawnFailure;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// npm retires the package that it replaces to a hidden neighbour, and removes that at its end. One that has been there
/// for longer than this was left by an update that failed. The kernel stamps a rename as a change of status.
const RETIRED_AGE_MAX: Duration = Duration::from_mins(10);

/// The length of the hash that npm puts behind the name of a retired package: letters and digits of a base64.
const RETIRED_HASH: usize = 8;

impl Openclaw {
    /// Stands for the state of its files: the same number, the same files.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let package = fs::canonicalize(&self.file).ok().and_then(|file| package_of(&file));
        let manifest = package.as_ref().map(|package| package.join("package.json"));
        fingerprint([Some(self.program.as_path()), Some(&self.file), package.as_deref(), manifest.as_deref()])
    }

    /// The same of the gateway's configuration.
    pub(in crate::gateway) fn config_fingerprint(&self) -> u64 {
        fingerprint([Some(self.config.as_path())])
    }

    /// Why its files cannot be started just now, if that is so. `now` is the time since 1970.
    #[must_use]
    pub fn obstacle(&self, now: Duration) -> Option<SpawnFailure> {
        let package = match fs::canonicalize(&self.file) {
            Ok(file) => package_of(&file)?,
            Err(error) => return self.absence(&error, now),
        };
        if !package.join("package.json").exists() {
            return Some(SpawnFailure::Updating(format!("{} has no package.json", package.display())));
        }
        retired(&package, now).map(SpawnFailure::Updating)
    }

    /// What it means that the file cannot be found.
    fn absence(&self, error: &io::Error, now: Duration) -> Option<SpawnFailure> {
        let link = fs::read_link(&self.file).ok().zip(self.file.parent());
        let file = link.map_or_else(|| self.file.clone(), |(target, folder)| folder.join(target));
        if let Some(why) = package_of(&file).and_then(|package| retired(&package, now)) {
            return Some(SpawnFailure::Updating(why));
        }
        let shown = self.file.display();
        match self.reader {
            _ if self.was_there => {
                Some(SpawnFailure::Updating(format!("{shown} was there and cannot be found any more: {error}")))
            }
            Reader::Runtime => Some(SpawnFailure::Program(format!(
                "cannot start {shown} with {}: {error}; correct COMMAND, or install OpenClaw there",
                self.program.display()
            ))),
            Reader::Kernel | Reader::Unknown => None,
        }
    }
}

/// The folder of the package that this file of it is in.
fn package_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    if folder.ends_with("dist") {
        return folder.parent().map(Path::to_owned);
    }
    Some(folder.to_owned()).filter(|folder| folder.ends_with("openclaw"))
}

/// Tells of the neighbour that npm makes of a package while it replaces it: its name behind a dot, a dash and a hash.
fn retired(package: &Path, now: Duration) -> Option<String> {
    let prefix = format!(".{}-", package.file_name()?.to_str()?);
    let is_its = |name: &str| {
        let hash = name.strip_prefix(&prefix).unwrap_or_default();
        hash.len() == RETIRED_HASH && hash.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let is_young = |changed: i64| {
        u64::try_from(changed).is_ok_and(|changed| now.saturating_sub(Duration::from_secs(changed)) < RETIRED_AGE_MAX)
    };
    let entries = fs::read_dir(package.parent()?).ok()?.flatten();
    let mut retired = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_its));
    let entry = retired.find(|entry| entry.metadata().is_ok_and(|meta| is_young(meta.ctime())))?;
    Some(format!("{} is what npm retires a package to", entry.path().display()))
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
    use crate::gateway::process::Launch;
    use std::ffi::OsString;

    fn openclaw(line: &str) -> Openclaw {
        let mut words = line.split(' ').map(OsString::from);
        let program = words.next().unwrap().into();
        let arguments = words.collect();
        let launch = Launch { key: String::new(), program, arguments, config: PathBuf::new(), exports: vec![] };
        Openclaw::of(&launch).unwrap()
    }

    /// A package as npm lays it out, in a folder of its own.
    struct Installed {
        folder: PathBuf,
        package: PathBuf,
    }

    impl Installed {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("supervise-package-{name}-{}", std::process::id()));
            let package = folder.join("node_modules/openclaw");
            fs::create_dir_all(folder.join("node_modules/.bin")).unwrap();
            fs::create_dir(&package).unwrap();
            fs::write(package.join("package.json"), r#"{"name":"openclaw"}"#).unwrap();
            fs::write(package.join("openclaw.mjs"), "").unwrap();
            std::os::unix::fs::symlink("../openclaw/openclaw.mjs", folder.join("node_modules/.bin/openclaw")).unwrap();
            Self { folder, package }
        }

        fn link(&self) -> String {
            self.folder.join("node_modules/.bin/openclaw").display().to_string()
        }

        fn file(&self) -> String {
            self.package.join("openclaw.mjs").display().to_string()
        }

        /// When the package was put there.
        fn now(&self) -> Duration {
            Duration::from_secs(fs::metadata(&self.package).unwrap().ctime().cast_unsigned())
        }

        fn retired(&self) -> PathBuf {
            self.package.with_file_name(".openclaw-1a2B3c4D")
        }
    }

    impl Drop for Installed {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.folder);
        }
    }

    /// Its words, if an update is what is in the way.
    fn update(openclaw: &Openclaw, now: Duration) -> Option<String> {
        match openclaw.obstacle(now) {
            Some(SpawnFailure::Updating(why)) => Some(why),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_update_is_seen_while_it_lasts() {
        let installed = Installed::new("update");
        let (openclaw, now) = (openclaw(&format!("{} gateway run", installed.link())), installed.now());
        assert_eq!(update(&openclaw, now), None);
        fs::create_dir(installed.retired()).unwrap();
        assert!(update(&openclaw, now).unwrap().contains(".openclaw-1a2B3c4D"));
        let later = now + RETIRED_AGE_MAX + Duration::from_mins(1);
        assert_eq!(update(&openclaw, later), None, "an update that failed long ago");
        fs::remove_dir(installed.retired()).unwrap();
        for other in [".openclaws", ".openclaw-plugin-1a2B3c4D", ".openclaw-1a2B3c4", ".openclaw-1a2B-c4D"] {
            fs::create_dir(installed.package.with_file_name(other)).unwrap();
        }
        assert_eq!(update(&openclaw, now), None, "somebody else's");
        fs::remove_file(installed.package.join("package.json")).unwrap();
        assert!(update(&openclaw, now).unwrap().contains("package.json"));
    }

    #[test]
    fn a_package_that_is_away_is_an_update_whatever_its_program_is_started_with() {
        let installed = Installed::new("away");
        let now = installed.now();
        let (link, file) = (installed.link(), installed.file());
        let dist = installed.package.join("dist/index.js");
        fs::create_dir(installed.package.join("dist")).unwrap();
        fs::write(&dist, "").unwrap();
        let lines = [&file, &link, &dist.display().to_string()].map(|file| format!("/bin/node {file} gateway"));
        let [by_file, by_link, by_dist] = lines.each_ref().map(|line| openclaw(line));
        let as_program = openclaw(&format!("{link} gateway"));
        fs::rename(&installed.package, installed.retired()).unwrap();
        for openclaw in [&by_file, &by_link, &by_dist] {
            assert!(update(openclaw, now).unwrap().contains(".openclaw-1a2B3c4D"), "{openclaw:?}");
        }
        // One that has begun meanwhile.
        for line in &lines {
            assert!(update(&openclaw(line), now).unwrap().contains(".openclaw-1a2B3c4D"), "{line}");
        }
        assert!(update(&as_program, now).unwrap().contains(".openclaw-1a2B3c4D"));
        // With other means than those of npm.
        fs::rename(installed.retired(), installed.folder.join("elsewhere")).unwrap();
        assert!(update(&by_file, now).unwrap().contains("openclaw.mjs was there"), "{by_file:?}");
    }

    #[test]
    fn a_file_that_was_never_there_is_a_mistake_where_its_reader_would_look_for_it_here() {
        let now = Duration::from_secs(1);
        let failure = openclaw("/bin/node /nowhere/openclaw/openclaw.mjs gateway").obstacle(now);
        assert!(
            matches!(&failure, Some(SpawnFailure::Program(why)) if why.contains("/nowhere/openclaw")),
            "{failure:?}"
        );
        for line in ["/bin/docker exec it /nowhere/openclaw.mjs gateway", "/bin/env node /nowhere/openclaw.mjs gateway"]
        {
            assert_eq!(openclaw(line).obstacle(now), None, "{line}");
        }
    }

    #[test]
    fn another_file_has_another_fingerprint_and_the_same_one_the_same() {
        let installed = Installed::new("fingerprint");
        let openclaw = openclaw(&format!("{} gateway run", installed.link()));
        let before = openclaw.fingerprint();
        assert_eq!(openclaw.fingerprint(), before);
        fs::write(installed.package.join("package.json"), r#"{"version":"2"}"#).unwrap();
        assert_ne!(openclaw.fingerprint(), before);
    }
}
