//! What the kernel tells of a process that does not answer. On macOS that is little without the rights of a debugger:
//! `sample PID` and `spindump` tell more, by hand and before it is ended.

use super::proc::condition_of;
use serde_json::{Value, json};

const ADVICE: &str = "not told on macOS; run 'sample PID' on a gateway that hangs";

/// One process.
#[must_use]
pub fn process(pid: i32) -> Value {
    json!({ "status": condition_of(pid), "note": ADVICE })
}

/// What it waits for.
#[must_use]
pub fn wait(_pid: i32) -> Value {
    json!({})
}

/// Nothing: there are no control groups.
#[must_use]
pub fn group(_pid: i32) -> Value {
    Value::Null
}

/// How long ago a process was started that has this start time.
#[must_use]
pub fn age_ms(start_time: u64) -> Option<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).ok()?;
    u64::try_from(now.tv_sec()).ok()?.checked_mul(1000)?.checked_sub(start_time / 1000)
}

/// Its threads.
#[must_use]
pub fn threads(_pid: i32) -> Value {
    json!({ "note": ADVICE })
}

/// The machine.
#[must_use]
pub fn machine() -> Value {
    let mut load = [0.0_f64; 3];
    // SAFETY: getloadavg(3) writes up to three numbers to the array of three.
    let known = unsafe { libc::getloadavg(load.as_mut_ptr(), 3) };
    json!({ "load": (known == 3).then_some(load) })
}

/// The connections to a port.
#[must_use]
pub fn port(_port: u16) -> Value {
    json!({ "note": "not told on macOS; 'netstat -Lan' shows the queues of listeners" })
}
