//! What the stand-in gateway writes down, so that a test can read it.

use nix::fcntl::{Flock, FlockArg};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The log and the files beside it.
#[derive(Debug, Clone)]
pub(crate) struct Diary {
    dir: PathBuf,
}

impl Diary {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends one line. A single write to a file opened with `O_APPEND` is never torn by another writer.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let text = format!("{line}\n");
        self.log()?.write_all(text.as_bytes())
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.dir.join("gateway.log"))
    }

    /// Whether this line was written.
    pub(crate) fn has(&self, line: &str) -> io::Result<bool> {
        Ok(fs::read_to_string(self.dir.join("gateway.log"))?.lines().any(|written| written == line))
    }

    /// Whether the folder still exists.
    pub(crate) fn exists(&self) -> bool {
        self.dir.join("gateway.log").exists()
    }

    /// Writes what this process was given, then the START line. Returns which start this is, counted from 1.
    pub(crate) fn note_start(&self) -> io::Result<usize> {
        let pid = std::process::id();
        fs::write(self.dir.join(format!("start-{pid}")), inheritance()?)?;
        let own = format!("START {pid} {}", stat_fields()?);
        self.note(format_args!("{own}"))?;
        let text = fs::read_to_string(self.dir.join("gateway.log"))?;
        let starts = text.lines().filter(|line| line.starts_with("START "));
        Ok(1 + starts.take_while(|line| **line != *own).count())
    }

    /// Notes if another gateway of this folder lives, however it will end. To be held as long as this one lives.
    pub(crate) fn be_alone(&self) -> io::Result<Option<Flock<File>>> {
        let file = OpenOptions::new().create(true).append(true).open(self.dir.join("alone"))?;
        let alone = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
        if alone.is_none() {
            self.note(format_args!("TWO {}", std::process::id()))?;
        }
        Ok(alone)
    }

    /// The command that was put into the control file for this process, once.
    pub(crate) fn take_command(&self) -> Option<String> {
        let path = self.dir.join(format!("control-{}", std::process::id()));
        let text = fs::read_to_string(&path).ok()?;
        fs::remove_file(path).ok()?;
        Some(text)
    }

    /// One byte for each connection that was taken.
    pub(crate) fn count_request(&self) -> io::Result<()> {
        let path = self.dir.join(format!("requests-{}", std::process::id()));
        OpenOptions::new().create(true).append(true).open(path)?.write_all(b".")
    }

    /// A planned restart leaves a handoff for the pid that ended.
    pub(crate) fn leave_handoff(&self) -> io::Result<()> {
        fs::write(self.dir.join(format!("handoff-{}", std::process::id())), "")
    }

    /// Whether there was one; it can be taken once.
    pub(crate) fn take_handoff(&self, pid: &str) -> bool {
        fs::remove_file(self.dir.join(format!("handoff-{pid}"))).is_ok()
    }
}

/// `ppid=1 pgid=2 sid=3 starttime=4`, from proc(5).
pub(crate) fn stat_fields() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
    Ok(format!("ppid={} pgid={} sid={} starttime={}", field(4), field(5), field(6), field(22)))
}

/// Whether SIGINT or SIGQUIT is ignored, see proc(5).
pub(crate) fn ignores_keyboard_signals() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 0b110 != 0)
}

/// Environment, descriptors, signal dispositions, argv and working directory, one a line.
fn inheritance() -> io::Result<String> {
    let mut lines = Vec::new();
    for (name, value) in std::env::vars_os() {
        lines.push(format!("env {}={}", name.to_string_lossy(), value.to_string_lossy()));
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // The descriptor of this very walk is among them, and gone when it is looked at later.
        let Ok(target) = fs::read_link(&path) else { continue };
        let number = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        lines.push(format!("fd {number} {}", target.display()));
    }
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if line.starts_with("Sig") || line.starts_with("Umask") {
            lines.push(format!("status {}", line.replace('\t', " ")));
        }
    }
    for word in std::env::args_os() {
        lines.push(format!("arg {}", word.to_string_lossy()));
    }
    lines.push(format!("cwd {}", std::env::current_dir()?.display()));
    lines.push(String::new());
    Ok(lines.join("\n"))
}
