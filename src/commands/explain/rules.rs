//! By which rule a gateway ended, in words. The causes are those of `gateway.exited`, see docs/EVENTS.md.

/// What is said of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// Continues `gateway 3 `.
    pub(super) decided: &'static str,
    pub(super) text: &'static str,
    pub(super) advice: &'static str,
}

const UNPLANNED: Rule = Rule {
    decided: "exited by itself with code 0",
    text: "OpenClaw exits with 0 to be started again, and its command line is asked afterwards whether it had planned that: \
           a planned exit costs nothing, any other one spends restart budget",
    advice: "if it was not planned, its last output says what ended it",
};

/// By what a gateway that hangs counts as hung.
pub(super) const HUNG: Rule = Rule {
    decided: "was ended because it hung",
    text: "a running gateway is replaced after --hang-after without a successful probe, of which at least 3 must have failed in \
           a row, unless its event loop works, gets no processor, or waits in a write to its own output",
    advice: "read the conclusion and the evidence; a gateway that is only slow needs a longer --hang-after",
};

/// The same of one that has not come up.
pub(super) const NOT_UP: Rule = Rule {
    decided: "was ended because it did not come up",
    text: "a gateway that has not started within --startup-timeout is replaced, unless it gets no processor or waits in a write \
           to its own output",
    advice: "read its last output and the evidence; one that needs longer to start needs a longer --startup-timeout",
};

#[expect(clippy::too_many_lines, reason = "one row for each cause")]
pub(super) fn of(cause: &str) -> Rule {
    match cause {
        "hung" => HUNG,
        "over its memory limit" => Rule {
            decided: "was ended because its processes used too much memory",
            text: "three consecutive samples above --memory-max: it is drained and replaced",
            advice: "the evidence names its largest processes; raise --memory-max if that is what it needs",
        },
        "stop requested" => Rule {
            decided: "was stopped on request",
            text: "a stop sends SIGTERM to the gateway, SIGKILL to its processes after --stop-timeout, and ends the supervisor",
            advice: "nothing is wrong; start its service again when it is to run",
        },
        "restart requested" | "requested" => Rule {
            decided: "was replaced on request",
            text: "a restart sends SIGTERM, SIGKILL after --stop-timeout, and starts the next gateway at once; it costs no budget",
            advice: "nothing is wrong",
        },
        "exited with code 0 without a request" => UNPLANNED,
        "exited with code 0 before it answered" => Rule {
            decided: "exited with code 0 before it answered",
            text: "it did not start: another process may have its port or its state; the port is probed before the next start",
            advice: "read its last output: it says why it did not start",
        },
        "refused to start" => Rule {
            decided: "refused to start (exit code 78)",
            text: "exit code 78 is the gateway's own: its configuration or its port is wrong and another start ends the same, so \
                   it is not retried (--repair lets OpenClaw repair its configuration once)",
            advice: "its last output names the key or the port; correct that, then start again",
        },
        "the command or its interpreter was not found" | "the command cannot be executed" => Rule {
            decided: "could not be executed",
            text: "exit code 127 or 126 before it answered: COMMAND, or the interpreter that it asks for, is missing or not \
                   executable, and another start ends the same, so it is not retried",
            advice: "correct COMMAND or the PATH of the service (is Node.js on it?), then start again",
        },
        "killed by the kernel OOM killer" => Rule {
            decided: "was killed by the kernel: out of memory (OOM)",
            text: "it died of a SIGKILL that the supervisor did not send, and the kernel counted an OOM kill; it is restarted as \
                   after a crash",
            advice: "give it more memory (the memory limit of its unit or container, or the machine's), or replace it before that \
                     with --memory-max",
        },
        "crashed" => Rule {
            decided: "crashed",
            text: "it ended by a signal or with an error code without a request: it is restarted with a backoff, and spends \
                   restart budget unless it had been healthy for --stable-after",
            advice: "its last output says what failed",
        },
        "the lease was not confirmed" => Rule {
            decided: "was ended because the store did not confirm the lease",
            text: "without a confirmed lease another supervisor may start a gateway: with --on-store-lost stop this one is ended \
                   after 20 s",
            advice: "repair the disk or the mount of the store directory",
        },
        "the lease was lost" => Rule {
            decided: "was ended because another supervisor has the lease",
            text: "two supervisors never keep a gateway each: the one without the lease ends its own and exits",
            advice: "run only one supervisor with this store directory",
        },
        "survived SIGKILL" => Rule {
            decided: "survived SIGKILL",
            text: "a process in uninterruptible sleep cannot be killed: it is tried again every 5 s, and nothing is started \
                   beside it",
            advice: "find what it waits for (a disk, NFS, FUSE); only that or a reboot ends it",
        },
        "ended while no supervisor ran" => Rule {
            decided: "ended while no supervisor ran",
            text: "the next supervisor found its record and not its process; that counts as a failure",
            advice: "find out why no supervisor ran then: the journal, or the log of what starts it",
        },
        _ => Rule {
            decided: "ended, and how is not known",
            text: "the exit status of an adopted process cannot be read; its command line is asked whether it had planned its exit",
            advice: "its last output says what ended it",
        },
    }
}
