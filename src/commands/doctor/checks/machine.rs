//! What the machine has left: disk, memory, processes, descriptors; and whether its clock can be right.

use crate::commands::doctor::facts::container::MIB;
use crate::commands::doctor::facts::machine::{Disk, MachineFacts};
use crate::commands::doctor::finding::Finding;
use std::path::Path;

/// Below this `SQLite` and the sessions of the gateway fail within minutes.
const DISK_MIN: u64 = 64 * MIB;

/// An update of OpenClaw takes several hundred MiB.
const DISK_LOW: u64 = 1024 * MIB;

/// Each session and each write takes a few.
const INODES_MIN: u64 = 500;
const INODES_LOW: u64 = 10_000;

/// A boot of the gateway takes 400 MiB.
const MEMORY_MIN: u64 = 64 * MIB;
const MEMORY_LOW: u64 = 400 * MIB;

/// Threads count too, and Node.js alone has a dozen.
const PROCESSES_MIN: u64 = 256;

/// 2026-11-01, before this version was built, in milliseconds since 1970.
const BUILT_MS: i64 = 1_793_491_200_000;

/// A clock that was stepped back by less does no harm.
const STEP_MAX_MS: i64 = 60_000;

/// `in_container`: there the clock is that of the host.
pub(in super::super) fn check(facts: &MachineFacts, in_container: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.silent.iter().map(|dir| silent(dir)).collect();
    findings.extend(facts.disks.iter().flat_map(|disk| [Some(space(disk)), inodes(disk)]).flatten());
    findings.extend([memory(facts), group_memory(facts), tasks(facts), processes(facts)].into_iter().flatten());
    findings.extend([machine_files(facts), descriptors(facts)].into_iter().flatten());
    findings.push(clock(facts, in_container));
    findings
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}

fn silent(dir: &Path) -> Finding {
    Finding::fail(
        "disk",
        format!("the file system of {} does not answer", dir.display()),
        "the gateway and the supervisor wait for it with each file; it is most likely a network file system with a dead server",
        super::MOUNT_FIX,
    )
}

fn space(disk: &Disk) -> Finding {
    let (check, dir) = ("disk", disk.dir.display());
    if disk.is_read_only {
        return Finding::fail(
            check,
            format!("the file system of {dir} is mounted read-only"),
            "neither the gateway nor the supervisor can write its state; the kernel does this after I/O errors",
            "dmesg | tail -n 50; repair the file system, then mount -o remount,rw it",
        );
    }
    let found = format!("{} free for {dir}", mebibytes(disk.free));
    let fix = format!("df -h {dir}; du -xh {dir} | sort -h | tail");
    match disk.free {
        DISK_LOW.. => Finding::ok(check, found),
        DISK_MIN.. => {
            Finding::warn(check, found, "an update of OpenClaw, or a large session, does not fit any more", fix)
        }
        _ => Finding::fail(check, found, "the gateway cannot write its state, and the supervisor not its records", fix),
    }
}

fn inodes(disk: &Disk) -> Option<Finding> {
    let (check, dir, free) = ("inodes", disk.dir.display(), disk.inodes_free?);
    let found = format!("{free} free for {dir}");
    let fix = format!("df -i {dir}; remove what consists of many small files");
    Some(match free {
        INODES_LOW.. => Finding::ok(check, found),
        INODES_MIN.. => Finding::warn(check, found, "an update of OpenClaw needs more", fix),
        _ => Finding::fail(check, found, "no new file can be written, however much space is free", fix),
    })
}

fn memory(facts: &MachineFacts) -> Option<Finding> {
    let (check, available) = ("memory free", facts.memory_available?);
    let found = format!("{} available on the machine", mebibytes(available));
    let fix = "ps -eo rss,pid,args --sort=-rss | head";
    Some(match available {
        MEMORY_LOW.. => Finding::ok(check, found),
        MEMORY_MIN.. => Finding::warn(check, found, "the next boot of the gateway may not fit", fix),
        _ => Finding::fail(check, found, "the kernel OOM killer is about to end a process", fix),
    })
}

fn group_memory(facts: &MachineFacts) -> Option<Finding> {
    let (check, used) = ("memory free", facts.memory?);
    let found = format!("{} of {} of the control group used", mebibytes(used.used), mebibytes(used.limit));
    if !used.is_nearly_all() {
        return Some(Finding::ok(check, found));
    }
    let why = "the kernel OOM killer ends a process of the group when it is full";
    Some(Finding::warn(check, found, why, "raise the limit (MemoryMax=, mem_limit), or set --memory-max below it"))
}

fn tasks(facts: &MachineFacts) -> Option<Finding> {
    let (check, used) = ("processes", facts.tasks?);
    let found = format!("{} of {} of the control group used, threads included", used.used, used.limit);
    if !used.is_nearly_all() {
        return Some(Finding::ok(check, found));
    }
    let why = "the gateway can start neither threads nor tools when it is full";
    Some(Finding::fail(check, found, why, "raise the limit (TasksMax=, pids_limit)"))
}

fn processes(facts: &MachineFacts) -> Option<Finding> {
    let max = facts.processes_max.filter(|max| *max < PROCESSES_MIN)?;
    let found = format!("at most {max} for this user (RLIMIT_NPROC)");
    Some(Finding::warn(
        "processes",
        found,
        "threads count too, and Node.js alone has a dozen",
        "LimitNPROC=infinity, or ulimit -u 4096",
    ))
}

fn machine_files(facts: &MachineFacts) -> Option<Finding> {
    let used = facts.open_files.filter(|used| used.is_nearly_all())?;
    let found = format!("{} of {} of the machine are open", used.used, used.limit);
    Some(Finding::fail(
        "open files",
        found,
        "every process fails to open files and sockets when all are",
        "sysctl fs.file-max",
    ))
}

fn descriptors(facts: &MachineFacts) -> Option<Finding> {
    let (check, used) = ("open files", facts.descriptors?);
    let found = format!("the gateway has {} of {} open", used.used, used.limit);
    if !used.is_nearly_all() {
        return Some(Finding::ok(check, found));
    }
    let why = "it stops answering when it has none left";
    Some(Finding::fail(
        check,
        found,
        why,
        "LimitNOFILE=65536 in its unit, or ulimits of its container; then restart that",
    ))
}

fn clock(facts: &MachineFacts, in_container: bool) -> Finding {
    let check = "clock";
    let fix = "timedatectl set-ntp true, or start an NTP client; then look at `date`";
    if facts.now_ms < BUILT_MS {
        let why = "certificates are not valid yet by this clock, so that channels and models cannot be reached";
        return Finding::fail(check, "the clock is before the release of this program", why, fix);
    }
    if let Some(newest) = facts.newest_ms.filter(|newest| facts.now_ms.saturating_add(STEP_MAX_MS) < *newest) {
        let why = "the clock was stepped back, and times on record lie in the future";
        return Finding::warn(check, "the clock is before the last event on record", why, fix).since(Some(newest));
    }
    match facts.is_synchronised {
        Some(true) => Finding::ok(check, "synchronised"),
        Some(false) if !in_container => {
            let why = "a clock that drifts makes logins and certificates fail";
            Finding::warn(check, "no NTP client keeps the clock right", why, fix)
        }
        Some(false) | None => Finding::ok(check, "after the last event on record"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::platform::group_limits::Used;

    fn facts() -> MachineFacts {
        MachineFacts { now_ms: BUILT_MS + 1, is_synchronised: Some(true), ..MachineFacts::default() }
    }

    #[test]
    fn what_runs_out_is_found_before_and_after() {
        let disk = |free, inodes_free, is_read_only| MachineFacts {
            disks: vec![Disk { dir: "/s".into(), free, inodes_free, is_read_only }],
            ..facts()
        };
        let used = |used| Some(Used { used, limit: 1000 });
        let memory = |available| MachineFacts { memory_available: Some(available), ..facts() };
        let group = |mib: u64| MachineFacts { memory: Some(Used { used: mib * MIB, limit: 1000 * MIB }), ..facts() };
        let cases = [
            ("enough", disk(2 << 30, Some(50_000), false)),
            ("little", disk(500 << 20, Some(2000), false)),
            ("none", disk(1 << 20, Some(3), false)),
            ("read-only, no inodes", disk(2 << 30, None, true)),
            ("silent", MachineFacts { silent: vec!["/s".into()], ..facts() }),
            ("memory", memory(2 << 30)),
            ("little memory", memory(200 << 20)),
            ("no memory", memory(3 << 20)),
            ("group", group(500)),
            ("full group", group(950)),
            ("tasks", MachineFacts { tasks: used(500), processes_max: Some(4096), ..facts() }),
            ("all tasks", MachineFacts { tasks: used(950), processes_max: Some(100), ..facts() }),
            ("files", MachineFacts { open_files: used(500), descriptors: used(500), ..facts() }),
            ("all files", MachineFacts { open_files: used(950), descriptors: used(950), ..facts() }),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, facts)| {
            let mut findings = check(&facts, false);
            findings.retain(|finding| finding.check != "clock");
            (case, findings)
        })));
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_found() {
        let cases = [
            ("synchronised", facts(), false),
            ("before the release", MachineFacts { now_ms: 0, ..facts() }, false),
            ("before the record", MachineFacts { newest_ms: Some(BUILT_MS + 100_000), ..facts() }, false),
            ("not synchronised", MachineFacts { is_synchronised: Some(false), ..facts() }, false),
            ("in a container", MachineFacts { is_synchronised: Some(false), ..facts() }, true),
            ("unknown", MachineFacts { is_synchronised: None, ..facts() }, false),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, facts, inside)| (case, vec![clock(&facts, inside)]))));
    }
}
