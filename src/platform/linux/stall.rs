//! What keeps the main thread of a process from its work, see proc(5).

use super::cgroup;
use super::proc::{guarded, path_of};
use std::fs;
use std::time::Duration;

/// The system calls with which a program writes to its standard output. The first argument of each is the descriptor.
const WRITES: [libc::c_long; 4] = [libc::SYS_write, libc::SYS_writev, libc::SYS_sendto, libc::SYS_sendmsg];

/// The kernel functions in which those wait, and what the descriptor is then: they are asked where `syscall` is not
/// readable. The first two are one function, before and since Linux 6.14.
const WAITS: [(&str, &str); 6] = [
    ("pipe_write", "pipe:"),
    ("anon_pipe_write", "pipe:"),
    ("n_tty_write", "/dev/"),
    ("unix_stream_sendmsg", "socket:"),
    ("unix_dgram_sendmsg", "socket:"),
    ("sock_alloc_send_pskb", "socket:"),
];

/// How long it has waited for a processor while it could run, throttling included; `None` where the kernel does not
/// count that: without `CONFIG_SCHED_INFO` there is no such file, and with it switched off there are only zeroes.
#[must_use]
pub fn waited(pid: i32) -> Option<Duration> {
    parse_schedstat(&schedstat(pid)?).map(|(waited, _)| waited)
}

/// How often its main thread has got a processor, where the kernel counts that. One that stays in one write gets none.
#[must_use]
pub fn turns(pid: i32) -> Option<u64> {
    parse_schedstat(&schedstat(pid)?).map(|(_, turns)| turns)
}

fn schedstat(pid: i32) -> Option<String> {
    fs::read_to_string(path_of(pid, &format!("task/{pid}/schedstat")).ok()?).ok()
}

/// Time on a processor and time of waiting for one, in nanoseconds, and how often it got one.
fn parse_schedstat(line: &str) -> Option<(Duration, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let waited = fields.next()?.parse().ok()?;
    let turns = fields.next()?.parse().ok()?;
    (turns > 0).then(|| (Duration::from_nanos(waited), turns))
}

/// How long any task of its control group has waited for a processor, or of the machine where groups are not asked.
#[must_use]
pub fn pressure(pid: i32) -> Option<Duration> {
    let text = cgroup::cpu_pressure_of(pid).or_else(|| fs::read_to_string("/proc/pressure/cpu").ok())?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("total=")?.parse().ok()).map(Duration::from_micros)
}

/// How long its control groups have been throttled for their CPU limits, added up over the processors.
#[must_use]
pub fn throttled(pid: i32) -> Option<Duration> {
    cgroup::throttled_of(pid)
}

/// The stream, `stdout` or `stderr`, in a write to which it sleeps, and what that is.
#[must_use]
pub fn blocked_write(pid: i32) -> Option<(&'static str, String)> {
    let read = |file: String| {
        let path = path_of(pid, &file).ok()?;
        guarded(pid, || fs::read_to_string(path)).ok()
    };
    let link = |fd: u64| {
        let link = path_of(pid, &format!("fd/{fd}")).and_then(fs::read_link).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    // A stopped process is in its system call too.
    let stat = read(format!("task/{pid}/stat"))?;
    if !stat.rsplit_once(") ")?.1.starts_with(['S', 'D']) {
        return None;
    }
    let streams = [("stdout", link(1)), ("stderr", link(2))];
    let is_at = |fits: &dyn Fn(&str) -> bool| {
        let found = streams.iter().find(|(_, file)| file.as_deref().is_some_and(fits))?;
        Some((found.0, found.1.clone()?))
    };
    if let Some(call) = read(format!("task/{pid}/syscall")) {
        let fd = written_to(&call)?;
        // Node writes to a terminal through a descriptor of its own.
        let file = link(fd)?;
        return match fd {
            1 | 2 => Some((if fd == 1 { "stdout" } else { "stderr" }, file)),
            _ => is_at(&|stream| stream == file),
        };
    }
    let place = read(format!("task/{pid}/wchan"))?;
    let kind = WAITS.iter().find(|(name, _)| *name == place.trim()).map(|(_, kind)| *kind)?;
    is_at(&|stream| stream.starts_with(kind) && stream != "/dev/null")
}

/// The descriptor of a write: a number, then the arguments as hexadecimal ones; or `running`.
fn written_to(call: &str) -> Option<u64> {
    let mut fields = call.split_ascii_whitespace();
    let number: libc::c_long = fields.next()?.parse().ok()?;
    let fd = fields.next()?.strip_prefix("0x")?;
    WRITES.contains(&number).then(|| u64::from_str_radix(fd, 16).ok()).flatten()
}

/// The processes that can read what is written to `file`, as [`blocked_write`] names it. Looks at all open files. Those
/// of a socket cannot be told: its other end has another number.
#[must_use]
pub fn readers_of(file: &str) -> Vec<i32> {
    if file.starts_with("socket:") {
        return Vec::new();
    }
    let Ok(list) = path_of(1, "").and_then(|_| fs::read_dir("/proc")) else { return Vec::new() };
    let pids = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| reads(pid, file)).collect()
}

fn reads(pid: i32, file: &str) -> bool {
    let Ok(list) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    // The other side of a terminal is a descriptor of the multiplexer, which knows the number.
    let terminal = file.strip_prefix("/dev/pts/").map(|number| format!("tty-index:\t{number}"));
    list.flatten().any(|entry| {
        let Ok(link) = fs::read_link(entry.path()) else { return false };
        let is_master = link.ends_with("ptmx");
        if link.as_os_str() != file && !is_master {
            return false;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        let info = fs::read_to_string(info).unwrap_or_default();
        match &terminal {
            Some(index) => is_master && info.lines().any(|line| line == index),
            None => !is_master && is_readable(&info),
        }
    })
}

/// From the flags of open(2), in octal.
fn is_readable(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_WRONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::clock;
    use crate::platform::proc;
    use std::io::{self, Read};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::process::{Child, Command, Stdio};

    /// Killed with this value.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let start = clock::monotonic();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(clock::monotonic().saturating_sub(start) < Duration::from_secs(20), "waited in vain: {what}");
            std::thread::yield_now();
        }
    }

    fn started(program: &str, out: OwnedFd, error: Stdio) -> Ended {
        Ended(Command::new(program).stdin(Stdio::null()).stdout(out).stderr(error).spawn().unwrap())
    }

    #[test]
    fn a_write_to_a_full_pipe_is_seen_with_the_one_that_does_not_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let yes = started("yes", writer.into(), Stdio::null());
        let pid = yes.0.id().cast_signed();
        let (stream, file) = until("a full pipe", || blocked_write(pid));
        assert!(stream == "stdout" && file.starts_with("pipe:["), "{stream} {file}");
        let me = std::process::id().cast_signed();
        assert_eq!(readers_of(&file), [me], "{}", reader.as_raw_fd());
        // Once it is read there is no block.
        let mut some = vec![0; 1 << 20];
        reader.read_exact(&mut some).unwrap();
        until("it to go on", || (proc::stat(pid).is_ok()).then_some(()));
    }

    #[test]
    fn neither_a_sleeper_nor_a_stopped_writer_is_blocked() {
        let (_reader, writer) = io::pipe().unwrap();
        let yes = started("yes", writer.into(), Stdio::null());
        let pid = yes.0.id().cast_signed();
        until("a full pipe", || blocked_write(pid));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
        until("a stopped process", || blocked_write(pid).is_none().then_some(()));
        let mut cat = Command::new("cat");
        let cat = Ended(cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        assert_eq!(blocked_write(cat.0.id().cast_signed()), None);
        assert_eq!((blocked_write(i32::MAX), waited(i32::MAX)), (None, None));
    }

    #[test]
    fn the_arguments_of_a_call_name_the_descriptor_of_a_write() {
        let write = libc::SYS_write;
        assert_eq!(written_to(&format!("{write} 0x11 0x7f 0x9 0x0 0x0 0x0 0x7ff 0x7f1\n")), Some(0x11));
        for call in ["running\n", "", "-1 0x7ff 0x7f1\n", &format!("{} 0x1 0x0\n", libc::SYS_futex)] {
            assert_eq!(written_to(call), None, "{call}");
        }
    }

    #[test]
    fn the_time_of_waiting_is_known_where_the_kernel_counts() {
        assert_eq!(parse_schedstat("33902344 2920792554 40\n"), Some((Duration::from_nanos(2_920_792_554), 40)));
        assert_eq!((parse_schedstat("0 0 0\n"), parse_schedstat("")), (None, None));
    }

    #[test]
    fn a_descriptor_for_writing_alone_is_no_reader() {
        for (flags, expected) in [("01", false), ("0100001", false), ("00", true), ("02", true), ("", false)] {
            assert_eq!(is_readable(&format!("pos:\t0\nflags:\t{flags}\n")), expected, "{flags}");
        }
    }
}
