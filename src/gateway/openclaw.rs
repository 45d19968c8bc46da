//! OpenClaw's own command line and its files, as the gateway's command names them.

mod files;

pub use files::fingerprint;

use super::process::{INSTANCE, Launch, OWNED, scrub};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of a package stands at the head of its `package.json`, which has 140 KB.
const MANIFEST_HEAD: u64 = 4096;

/// How to start it: as the gateway is started, up to the word `gateway`.
#[derive(Debug, Clone)]
pub struct Openclaw {
    program: PathBuf,
    arguments: Vec<OsString>,
    exports: Vec<(&'static str, OsString)>,
    /// The file that is OpenClaw's own, as the command names it; a bare name where it was found on PATH.
    file: PathBuf,
    /// Who reads that file.
    reader: Reader,
    /// Whether it was there when we began.
    was_there: bool,
    /// The gateway's configuration.
    config: PathBuf,
}

/// Who reads OpenClaw's own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The kernel: it is the program of the command.
    Kernel,
    /// A runtime of JavaScript, which finds it where we would.
    Runtime,
    /// Some program that may look for it elsewhere: in a container, as another user, on another host.
    Unknown,
}

impl Reader {
    fn of(program: &Path, at: usize) -> Self {
        let is_runtime = program.file_name().is_some_and(|name| name == "node" || name == "nodejs" || name == "bun");
        match at {
            0 => Self::Kernel,
            _ if is_runtime => Self::Runtime,
            _ => Self::Unknown,
        }
    }
}

impl Openclaw {
    /// That of a gateway's command, if it names one.
    #[must_use]
    pub fn of(launch: &Launch) -> Option<Self> {
        let words: Vec<_> =
            std::iter::once(launch.program.clone().into()).chain(launch.arguments.iter().cloned()).collect();
        let Named { at, end } = named(&words)?;
        let file = located(&words[at], std::env::var_os("PATH").as_deref());
        Some(Self {
            program: launch.program.clone(),
            arguments: words[1..end].to_vec(),
            exports: launch.exports.clone(),
            reader: Reader::of(&launch.program, at),
            was_there: fs::canonicalize(&file).is_ok(),
            file,
            config: launch.config.clone(),
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

    /// The command line up to the word `gateway`, as text.
    pub(super) fn line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
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

/// A bare `openclaw` stands for the one on PATH, be its link broken or not. Other names are files.
fn located(word: &OsStr, path: Option<&OsStr>) -> PathBuf {
    let named = PathBuf::from(word);
    let folders = path.filter(|_| word == "openclaw").into_iter().flat_map(std::env::split_paths);
    let found = folders
        .map(|folder| folder.join(word))
        .find(|file| fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink() || meta.is_file()));
    found.unwrap_or(named)
}

/// Whether a command, its program first, is a gateway of OpenClaw's own program.
#[must_use]
pub fn is_gateway(words: &[OsString]) -> bool {
    named(words).is_some()
}

/// Whether this word of a command is OpenClaw's own program: what npm links to, or what that runs.
#[must_use]
pub fn is_openclaw(word: &OsStr) -> bool {
    let path = Path::new(word);
    match path.file_name().and_then(OsStr::to_str) {
        Some("openclaw" | "openclaw.mjs") => true,
        Some("index.js" | "entry.js" | "index.mjs" | "entry.mjs") => is_built(path),
        _ => false,
    }
}

/// Whether it lies in the folder `dist` of OpenClaw's package. One that cannot be read now goes by the folder's name.
fn is_built(file: &Path) -> bool {
    let dist = file.parent().filter(|folder| folder.ends_with("dist"));
    let Some(package) = dist.and_then(Path::parent) else { return false };
    let mut head = Vec::new();
    let read =
        File::open(package.join("package.json")).and_then(|file| file.take(MANIFEST_HEAD).read_to_end(&mut head));
    match read {
        Ok(_) => first_name(&String::from_utf8_lossy(&head)) == Some("openclaw"),
        Err(_) => package.ends_with("openclaw"),
    }
}

/// The first `"name": "..."` of a manifest, which is the package's.
fn first_name(manifest: &str) -> Option<&str> {
    let (_, rest) = manifest.split_once("\"name\"")?;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
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

    #[test]
    fn what_a_build_of_openclaw_runs_is_its_program_by_the_name_of_the_package() {
        let folder = std::env::temp_dir().join(format!("supervise-built-{}", std::process::id()));
        let manifest = |of: &str, text: &str| fs::write(folder.join(of).join("package.json"), text).unwrap();
        for name in ["app/dist", "openclaw/dist", "other/dist", "app/src"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let at = |name: &str| folder.join(name).display().to_string();
        // Some text in which a letter straddles the end of what is read.
        let long = "\u{e4}".repeat(4000);
        manifest("app", &format!("{{\n  \"name\" : \"openclaw\", \"description\": \"{long}\"}}"));
        manifest("other", r#"{"name": "openclaw-like"}"#);
        for (file, expected) in [
            ("app/dist/index.js", true),
            ("app/dist/entry.js", true),
            ("app/dist/index.mjs", true),
            ("app/dist/entry.mjs", true),
            ("app/dist/worker.js", false),
            ("app/src/index.js", false),
            ("other/dist/index.js", false),
            ("openclaw/dist/index.js", true),
            ("nowhere/dist/index.js", false),
        ] {
            assert_eq!(is_openclaw(at(file).as_ref()), expected, "{file}");
        }
        assert!(!is_openclaw("index.js".as_ref()));
        let line = format!("/bin/node {} gateway --port 1", at("app/dist/index.js"));
        let openclaw = Openclaw::of(&launch(&line)).unwrap();
        assert_eq!(openclaw.command(&[]).get_args().collect::<Vec<_>>(), [at("app/dist/index.js").as_str()]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_bare_name_is_the_one_on_path_and_a_file_is_where_it_says() {
        let folder = std::env::temp_dir().join(format!("supervise-path-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = std::env::join_paths([Path::new("/nowhere"), &folder]).unwrap();
        assert_eq!(located("openclaw".as_ref(), Some(&path)), Path::new("openclaw"));
        // npm has taken away what it leads to.
        std::os::unix::fs::symlink("../gone", folder.join("openclaw")).unwrap();
        assert_eq!(located("openclaw".as_ref(), Some(&path)), folder.join("openclaw"));
        assert_eq!(located("openclaw.mjs".as_ref(), Some(&path)), Path::new("openclaw.mjs"));
        assert_eq!(located("/bin/openclaw".as_ref(), Some(&path)), Path::new("/bin/openclaw"));
        fs::remove_dir_all(folder).unwrap();
    }
}
