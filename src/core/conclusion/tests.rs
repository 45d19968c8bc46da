use super::*;
use std::vec;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A hang of a minute, with a sample at its begin and one at its end that has so much more of each.
fn case(cpu: u64, waited: u64, throttled: u64, faults: u64) -> HangContext {
    let sample = |part: u64| Usage {
        cpu: Some(s(100 + cpu * part)),
        waited: Some(s(50 + waited * part)),
        throttled: Some(s(throttled * part)),
        major_faults: Some(faults * part),
        ..Usage::default()
    };
    HangContext {
        why: "it does not answer",
        last_good: Some(s(63)),
        failed_probes: 12,
        listener: Some(7),
        age: s(900),
        excess: None,
        looks: vec![],
        // The first is from before the hang, when it worked.
        samples: vec![(s(90), Usage { cpu: Some(s(0)), ..Usage::default() }), (s(60), sample(0)), (s(0), sample(1))],
    }
}

fn idle() -> HangContext {
    case(0, 0, 0, 0)
}

fn holder(pid: i32, command: &str) -> Holder {
    Holder { pid, command: command.to_owned(), uid: None }
}

fn seen(state: char, wchan: Option<&str>) -> Condition {
    Condition { state: Some(state), wchan: wchan.map(str::to_owned), ..Condition::default() }
}

#[test]
fn each_kind_of_hang_has_its_line() {
    let mut blocked = idle();
    let write = BlockedWrite { stream: "stdout".into(), file: "pipe:[7]".into(), reader: Some(holder(9, "less")) };
    blocked.samples[2].1.blocked = Some(write);
    let gdb = Condition { tracer: Some(holder(5, "gdb")), ..seen('t', None) };
    let swapped = Condition { rss_kb: Some(1024), swapped_kb: Some(900 << 10), ..seen('D', Some("folio_wait")) };
    let full = Condition { group_kb: Some((990 << 10, 1000 << 10)), ..seen('R', None) };
    let queued = Condition { waiting: Some(3), ..seen('S', Some("ep_poll")) };
    let spins = Condition { is_in_user_mode: true, ..seen('R', None) };
    for (case, condition, cause, text) in [
        (idle(), seen('T', None), IncidentCause::Stopped, "stopped by a signal, such as SIGSTOP (state T)"),
        (idle(), gdb, IncidentCause::Traced, "stopped by a debugger or tracer: pid 5 (gdb)"),
        (idle(), seen('t', None), IncidentCause::Traced, "stopped by a debugger or tracer (state t)"),
        (idle(), seen('S', Some("do_freezer_trap")), IncidentCause::Frozen, "frozen by the freezer"),
        (
            blocked,
            seen('S', Some("pipe_write")),
            IncidentCause::BlockedWrite,
            "(pipe:[7]): pid 9 (less) does not read it",
        ),
        (
            case(0, 0, 0, 4000),
            swapped,
            IncidentCause::SwappedOut,
            "swapped out: 900 MiB of it are on swap and 1 MiB in",
        ),
        (idle(), seen('D', Some("nfs_wait")), IncidentCause::DiskWait, "(uninterruptible, state D in nfs_wait)"),
        (case(3, 57, 0, 0), seen('R', None), IncidentCause::NoProcessor, "waited for one for 57s of 1m"),
        (case(3, 57, 40, 0), seen('R', None), IncidentCause::NoProcessor, "throttled it for 40s: raise that limit"),
        (case(58, 1, 0, 0), spins, IncidentCause::Busy, "native code: 58s of CPU in 1m, in no system call"),
        (
            case(58, 1, 0, 0),
            full.clone(),
            IncidentCause::Busy,
            "uses 990 MiB of 1000 MiB (99%), where garbage collection",
        ),
        (
            idle(),
            full,
            IncidentCause::MemoryFull,
            "memory near its limit: its control group uses 990 MiB of 1000 MiB (99%)",
        ),
        (idle(), queued, IncidentCause::Idle, "3 connections are not accepted"),
        (idle(), seen('S', Some("ep_poll")), IncidentCause::Idle, "idle in epoll_wait, 0ms of CPU in 1m: no request"),
        (
            idle(),
            seen('S', Some("futex_do_wait")),
            IncidentCause::Waiting,
            "a lock or for another of its threads (futex)",
        ),
        (idle(), seen('S', Some("do_wait")), IncidentCause::Waiting, "the end of a child process (do_wait)"),
        (idle(), seen('S', Some("unix_wait")), IncidentCause::Waiting, "in the kernel function unix_wait, 0ms of CPU"),
        (idle(), seen('S', None), IncidentCause::Unknown, "unknown: state S, 0ms of CPU in 1m"),
    ] {
        let found = Conclusion::of(&case, Some(&condition));
        assert_eq!(found.cause, cause, "{}", found.text);
        assert!(found.text.contains(text) && !found.text.contains('\n'), "{text}: {}", found.text);
    }
}

#[test]
fn what_was_not_asked_is_concluded_from_the_samples_alone() {
    assert_eq!(Conclusion::of(&case(58, 1, 0, 0), None).cause, IncidentCause::Busy);
    assert_eq!(Conclusion::of(&idle(), None).text, "unknown: 0ms of CPU in 1m");
    let unsampled = HangContext { samples: vec![], ..idle() };
    assert_eq!(Conclusion::of(&unsampled, None).text, "unknown: nothing could be seen of it");
}

#[test]
fn a_little_on_swap_or_a_few_faults_are_no_cause() {
    let little = Condition { rss_kb: Some(800 << 10), swapped_kb: Some(1 << 10), ..seen('S', Some("ep_poll")) };
    assert_eq!(Conclusion::of(&case(0, 0, 0, 3), Some(&little)).cause, IncidentCause::Idle);
    let pressed = Condition { memory_pressure: Some(40), ..little };
    assert_eq!(Conclusion::of(&case(0, 0, 0, 3), Some(&pressed)).cause, IncidentCause::SwappedOut);
}

#[test]
fn a_tree_over_its_limit_names_its_largest_process() {
    let excess = Some(Excess { tree_rss_kb: 2 << 20, limit_kb: 1 << 20 });
    let condition = Condition {
        largest: Some((holder(8, "chrome"), 1 << 20)),
        members: 5,
        // Whatever else it does.
        ..seen('T', None)
    };
    let found = Conclusion::of(&HangContext { excess, ..idle() }, Some(&condition));
    let text =
        "over its memory limit: 2048 MiB of 1024 MiB in 5 processes, the largest of them pid 8 (chrome) with 1024 MiB";
    assert_eq!((found.cause, found.text.as_str()), (IncidentCause::OverLimit, text));
}
