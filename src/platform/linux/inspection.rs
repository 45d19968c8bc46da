//! The state of a process that does not answer, see proc(5), and of the machine. All of it is for people: text and
//! numbers as the kernel has them, errors as text. No environment and no memory is read.

use super::cgroup;
use super::listener::{self, Socket};
use super::proc::{condition_of, path_of, tick};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;

/// How many threads are described; a gateway has about twenty.
const THREADS_MAX: usize = 128;

/// The lines of `/proc/PID/status` that tell what a process is doing; ids and capabilities do not matter here.
const STATUS: [&str; 16] = [
    "State",
    "Threads",
    "TracerPid",
    "FDSize",
    "VmPeak",
    "VmSize",
    "VmHWM",
    "VmRSS",
    "RssAnon",
    "VmSwap",
    "SigQ",
    "SigPnd",
    "ShdPnd",
    "SigBlk",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// One process.
#[must_use]
pub fn process(pid: i32) -> Value {
    json!({
        "status": status(pid),
        "wchan": text(pid, "wchan"),
        "open_files": entries(pid, "fd").map_or_else(|error| error_of(&error), Value::from),
        "open_files_max": limit(pid, "Max open files"),
    })
}

/// What it waits for. These reads wait for its `exec_update_lock`, which it holds during an execve(2).
#[must_use]
pub fn wait(pid: i32) -> Value {
    json!({ "syscall": text(pid, "syscall"), "kernel_stack": text(pid, "stack") })
}

/// The resource usage and the pressure (PSI) of its control group.
#[must_use]
pub fn group(pid: i32) -> Value {
    match cgroup::account_of(pid) {
        Ok(account) => Value::Object(account.into_iter().map(|(name, text)| (name, text.into())).collect()),
        Err(error) => error_of(&error),
    }
}

/// The age of a process, from its start time.
#[must_use]
pub fn age_ms(start_time: u64) -> Option<u64> {
    // SAFETY: sysconf(3) takes a number and touches nothing.
    let hertz = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok()?;
    tick().saturating_sub(start_time).checked_mul(1000)?.checked_div(hertz)
}

/// Its threads: name, state, and the kernel function in which each waits.
#[must_use]
pub fn threads(pid: i32) -> Value {
    let list = path_of(pid, "task").and_then(fs::read_dir);
    let tids = match list {
        Ok(list) => list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()),
        Err(error) => return error_of(&error),
    };
    tids.take(THREADS_MAX).map(|tid| thread(pid, tid)).collect()
}

fn thread(pid: i32, tid: i32) -> Value {
    let file = |name: &str| text(pid, &format!("task/{tid}/{name}"));
    // Its first number is the time on a processor, in nanoseconds.
    let cpu = file("schedstat").as_str().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    json!({
        "tid": tid,
        "name": file("comm"),
        "condition": condition_of(tid),
        "wchan": file("wchan"),
        "cpu_ms": cpu.map(|nanoseconds| nanoseconds / 1_000_000),
    })
}

fn status(pid: i32) -> Value {
    let lines = match path_of(pid, "status").and_then(fs::read) {
        Ok(lines) => String::from_utf8_lossy(&lines).into_owned(),
        Err(error) => return error_of(&error),
    };
    let pairs = lines.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| STATUS.contains(name));
    Value::Object(pairs.map(|(name, value)| (name.to_owned(), value.trim().into())).collect())
}

/// The soft limit of a row of `/proc/PID/limits`.
fn limit(pid: i32, name: &str) -> Value {
    let Ok(table) = path_of(pid, "limits").and_then(fs::read_to_string) else { return Value::Null };
    let row = table.lines().find_map(|line| line.strip_prefix(name));
    row.and_then(|row| row.split_ascii_whitespace().next()).map_or(Value::Null, Value::from)
}

fn entries(pid: i32, folder: &str) -> io::Result<usize> {
    Ok(path_of(pid, folder).and_then(fs::read_dir)?.count())
}

fn text(pid: i32, file: &str) -> Value {
    path_of(pid, file).map_or_else(|error| error_of(&error), content)
}

fn content(path: String) -> Value {
    match fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).trim().into(),
        Err(error) => error_of(&error),
    }
}

fn error_of(error: &io::Error) -> Value {
    json!({ "error": error.to_string() })
}

/// The machine: its pressure (PSI), free memory, and load.
#[must_use]
pub fn machine() -> Value {
    let pressure = |name: &str| content(format!("/proc/pressure/{name}"));
    let table = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = |name: &str| {
        let row = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        row.and_then(|row| row.split_ascii_whitespace().next()?.parse::<u64>().ok())
    };
    json!({
        "pressure": { "cpu": pressure("cpu"), "memory": pressure("memory"), "io": pressure("io") },
        "load": content("/proc/loadavg".to_owned()),
        "memory_total_kb": kb("MemTotal"),
        "memory_available_kb": kb("MemAvailable"),
        "swap_free_kb": kb("SwapFree"),
    })
}

/// A port: each listener with its accept queue and the limit of that, and the number of connections in each state.
#[must_use]
pub fn port(port: u16) -> Value {
    let sockets = match listener::sockets(port) {
        Ok(sockets) => sockets,
        Err(error) => return error_of(&error),
    };
    let (mut listeners, mut states) = (Vec::new(), Map::new());
    for Socket { address, state, queued, limit, .. } in sockets {
        let state = STATES.get(usize::from(state).wrapping_sub(1)).copied().unwrap_or("OTHER");
        if state == "LISTEN" {
            listeners.push(json!({ "address": address.to_string(), "waiting": queued, "waiting_max": limit }));
        } else {
            let count = states.get(state).and_then(Value::as_u64).unwrap_or(0);
            states.insert(state.to_owned(), (count + 1).into());
        }
    }
    json!({ "listeners": listeners, "connections": states })
}

/// The states in the order of the kernel's `tcp_states.h`, from 1.
const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn we_are_described_without_our_environment() {
        let described = process(me());
        assert!(described["status"]["State"].as_str().unwrap().starts_with(['R', 'S']), "{described}");
        assert!(described["open_files"].as_u64().unwrap() > 2, "{described}");
        assert!(described["open_files_max"].is_string(), "{described}");
        let threads = threads(me());
        assert!(threads.as_array().unwrap().iter().any(|thread| thread["tid"] == me()), "{threads}");
        assert!(threads[0]["cpu_ms"].is_u64() && threads[0]["name"].is_string(), "{threads}");
    }

    #[test]
    fn of_one_that_is_gone_there_is_an_error_and_no_panic() {
        let described = process(i32::MAX);
        assert!(described["status"]["error"].is_string() && described["wchan"]["error"].is_string(), "{described}");
        assert!(threads(i32::MAX)["error"].is_string() && group(i32::MAX)["error"].is_string());
        assert!(wait(i32::MAX)["syscall"]["error"].is_string());
    }

    #[test]
    fn the_queue_of_a_listener_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let seen = port(address.port());
        assert_eq!(seen["listeners"][0]["address"], address.to_string(), "{seen}");
        assert_eq!(seen["listeners"][0]["waiting"], 3, "{seen}");
        assert_eq!(seen["connections"], json!({ "ESTABLISHED": 3 }), "{seen}");
    }

    #[test]
    fn the_age_is_counted_in_milliseconds() {
        assert!(age_ms(tick()).unwrap() < 1000);
        assert!((1000..2000).contains(&age_ms(tick() - ticks_of_a_second()).unwrap()));
    }

    fn ticks_of_a_second() -> u64 {
        // SAFETY: sysconf(3) takes a number and touches nothing.
        u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap()
    }

    #[test]
    fn the_machine_tells_its_memory() {
        let machine = machine();
        assert!(machine["memory_available_kb"].as_u64().unwrap() > 0, "{machine}");
        assert!(machine["load"].is_string(), "{machine}");
    }
}
