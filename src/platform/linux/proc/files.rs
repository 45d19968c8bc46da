//! The files of `/proc`, and the line of `/proc/PID/stat`.

use crate::platform::linux::time_namespace::start_of_machine;
use crate::platform::stat::{ProcessState, Stat};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

/// More than the first 22 fields of a line can have: a name of 64 bytes and numbers of 20 digits.
pub(super) const STAT_LENGTH_MAX: usize = 1024;

/// `PF_KTHREAD` of the kernel's `sched.h`, as the ninth field of a line shows it.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Takes most environments and every usual list of children whole.
pub(super) const CHUNK: usize = 8 * 1024;

/// Whether `/proc` lists the processes of another pid namespace than ours, as in a namespace without its own mount: then
/// every pid in it names another process here, and none is looked up. The same where it is not mounted.
#[must_use]
pub fn is_foreign() -> bool {
    static IS_FOREIGN: OnceLock<bool> = OnceLock::new();
    *IS_FOREIGN.get_or_init(|| match fs::read_to_string("/proc/self/status") {
        Ok(status) => {
            // Our pid in each namespace from that of the mount down to our own, see proc(5).
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            pids.is_some_and(|pids| pids.split_ascii_whitespace().count() > 1)
        }
        // That of a namespace which is not above ours does not list us.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    })
}

/// A file about a process.
///
/// # Errors
/// ENOENT if it would be about another one.
pub(in crate::platform::linux) fn path_of(pid: i32, file: &str) -> io::Result<String> {
    if is_foreign() { Err(io::Error::from_raw_os_error(libc::ENOENT)) } else { Ok(format!("/proc/{pid}/{file}")) }
}

/// A process, and whether it is a thread of the kernel. The name in the second field may hold blanks, parentheses and
/// newlines, so fields are counted from its last `)`.
pub(super) fn parse_stat(text: &[u8]) -> Option<(Stat, bool)> {
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let open = text.iter().position(|&byte| byte == b'(')?;
    let pid = std::str::from_utf8(text.get(..open)?).ok()?.trim().parse().ok()?;
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    // flags is field 9, num_threads field 20, starttime field 22; the session was field 6.
    let flags: u32 = fields.nth(2)?.parse().ok()?;
    let threads: u32 = fields.nth(10)?.parse().ok()?;
    let start_time = start_of_machine(fields.nth(1)?.parse().ok()?);
    // The letter is that of the first thread, which may end before the others do.
    let state = match state {
        b'Z' | b'X' | b'x' if threads <= 1 => ProcessState::Dead,
        b'T' => ProcessState::Stopped,
        b'D' => ProcessState::Uninterruptible,
        _ => ProcessState::Other,
    };
    Some((Stat { pid, state, parent, group, session, start_time }, flags & KERNEL_THREAD != 0))
}

/// The state in such a file.
pub(super) fn letter_of(stat: &str) -> Option<char> {
    let line = read(stat).ok()?;
    let close = line.iter().rposition(|&byte| byte == b')')?;
    Some(char::from(*line.get(close + 2)?))
}

/// Whether we have run out of something. Otherwise the process is gone or hidden.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// A whole file, in as few reads as can be: a system call each is what a walk over all processes consists of.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut bytes, mut length) = (vec![0; CHUNK], 0);
    loop {
        match file.read(&mut bytes[length..])? {
            0 => break,
            more => length += more,
        }
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_parentheses_and_newlines_does_not_shift_the_fields() {
        let line = b"12 (a) (b\n) c) S 3 4 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2";
        let (stat, is_kernel) = parse_stat(line).expect("it parses");
        assert_eq!(
            stat,
            Stat { pid: 12, state: ProcessState::Other, parent: 3, group: 4, session: 5, start_time: 987 }
        );
        assert!(!is_kernel);
        let line = b"7 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 18 0 0";
        assert!(parse_stat(line).expect("it parses").1);
    }

    #[test]
    fn a_zombie_is_dead_unless_other_threads_of_it_live() {
        for (letter, threads, state) in [
            ("Z", 1, ProcessState::Dead),
            ("Z", 0, ProcessState::Dead),
            ("Z", 3, ProcessState::Other),
            ("X", 1, ProcessState::Dead),
            ("D", 1, ProcessState::Uninterruptible),
            ("T", 4, ProcessState::Stopped),
            ("t", 1, ProcessState::Other),
            ("R", 1, ProcessState::Other),
        ] {
            let line = format!("12 (a) {letter} 3 4 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 987 1 2");
            assert_eq!(parse_stat(line.as_bytes()).expect("it parses").0.state, state, "{line}");
        }
    }

    #[test]
    fn a_short_or_empty_line_is_refused() {
        for line in [&b""[..], b"12", b"12 (x)", b"12 (x) S 1 2 3", b"(x) S"] {
            assert_eq!(parse_stat(line), None);
        }
    }
}
