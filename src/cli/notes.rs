//! What stands at the end of the help of each verb: examples and exit codes. A verb without a row fails its test.

use crate::core::exit;

#[derive(Debug, Clone, Copy)]
pub struct VerbNotes {
    /// Empty for the program itself.
    pub verb: &'static str,
    /// Command lines as a person types them.
    pub examples: &'static [&'static str],
    /// Beside [`exit::USAGE`], which all of them have.
    pub codes: &'static [(u8, &'static str)],
}

/// `status`, `restart`, `stop` and `retry-now`: no supervisor and, for `status`, no gateway.
const NOT_RUNNING: u8 = 3;
/// `status`: running, and not healthy or not known.
const NOT_HEALTHY: u8 = 4;

const OF_RUN: &[(u8, &str)] = &[
    (exit::OK, "stopped on request, or detached"),
    (exit::FAILURE, "a failure that may pass, such as a full disk"),
    (exit::GAVE_UP, "gave up: the restart budget is spent"),
    (exit::EX_CONFIG, "another start will not help; the last line says why"),
];

pub const NOTES: &[VerbNotes] = &[
    VerbNotes {
        verb: "",
        examples: &[
            "openclaw-supervise",
            "openclaw-supervise -- openclaw gateway run --port 18799",
            "openclaw-supervise status",
            "openclaw-supervise --profile work restart",
        ],
        codes: OF_RUN,
    },
    VerbNotes {
        verb: "run",
        examples: &[
            "openclaw-supervise run --memory-max 2G",
            "openclaw-supervise run -- openclaw gateway run --port 18799",
        ],
        codes: OF_RUN,
    },
    VerbNotes {
        verb: "gateway",
        examples: &["openclaw gateway install --wrapper /usr/local/bin/openclaw-supervise --force"],
        codes: OF_RUN,
    },
    VerbNotes {
        verb: "probe",
        examples: &[
            "openclaw-supervise probe --ready --wait 5m",
            "openclaw-supervise probe --supervised",
            "openclaw-supervise probe --port 18799 --json",
        ],
        codes: &[(exit::OK, "it is as asked"), (exit::FAILURE, "it is not, or not in time")],
    },
    VerbNotes {
        verb: "status",
        examples: &["openclaw-supervise status", "openclaw-supervise status --json | jq .next"],
        codes: &[
            (exit::OK, "a gateway is healthy"),
            (NOT_RUNNING, "not running"),
            (NOT_HEALTHY, "running, but not healthy; or not known"),
        ],
    },
    VerbNotes {
        verb: "doctor",
        examples: &["openclaw-supervise doctor", "openclaw-supervise doctor --fix --dry-run"],
        codes: &[(exit::OK, "no check fails"), (exit::FAILURE, "at least one check fails")],
    },
    VerbNotes {
        verb: "install",
        examples: &[
            "openclaw-supervise install --dry-run",
            "openclaw-supervise install --memory-max 2G",
            "sudo openclaw-supervise install --system --run-as alice",
        ],
        codes: &[
            (exit::OK, "installed, or nothing was to be changed"),
            (exit::FAILURE, "nothing was changed, or the manager refused"),
            (exit::EX_CONFIG, "no such COMMAND, or no openclaw on PATH"),
        ],
    },
    VerbNotes {
        verb: "uninstall",
        examples: &["openclaw-supervise uninstall --dry-run", "openclaw-supervise uninstall --profile work"],
        codes: &[
            (exit::OK, "removed, or nothing was installed"),
            (exit::FAILURE, "nothing was changed, or the manager refused"),
        ],
    },
    VerbNotes {
        verb: "events",
        examples: &[
            "openclaw-supervise events -n 20",
            "openclaw-supervise events --since 02:00 --level warn",
            "openclaw-supervise events --follow --json",
        ],
        codes: &[(exit::OK, "shown"), (exit::FAILURE, "the record cannot be read")],
    },
    VerbNotes {
        verb: "explain",
        examples: &[
            "openclaw-supervise explain",
            "openclaw-supervise explain 7",
            "openclaw-supervise explain incident",
        ],
        codes: &[
            (exit::OK, "explained"),
            (exit::FAILURE, "nothing of that is on record, or the record cannot be read"),
        ],
    },
    VerbNotes {
        verb: "restart",
        examples: &[
            "openclaw-supervise restart",
            "openclaw-supervise restart --timeout 10m",
            "openclaw-supervise restart --force",
        ],
        codes: &[
            (exit::OK, "a new gateway is up, or will be at the time told"),
            (exit::FAILURE, "it failed, or not in time; it continues"),
            (NOT_RUNNING, "no supervisor is running"),
        ],
    },
    VerbNotes {
        verb: "stop",
        examples: &["openclaw-supervise stop", "openclaw-supervise stop --timeout 1m"],
        codes: &[
            (exit::OK, "gateway and supervisor have exited"),
            (exit::FAILURE, "another end, or not in time; it continues"),
            (NOT_RUNNING, "no supervisor is running"),
        ],
    },
    VerbNotes {
        verb: "start-now",
        examples: &["openclaw-supervise start-now", "openclaw-supervise start-now --force"],
        codes: &[
            (exit::OK, "a gateway or its service was started, or nothing was waiting"),
            (exit::FAILURE, "the attempt failed or has to wait, or not in time"),
            (NOT_RUNNING, "no supervisor is running, and no service of it can be started; the line to type is printed"),
        ],
    },
    VerbNotes {
        verb: "retry-now",
        examples: &["openclaw-supervise retry-now", "openclaw-supervise retry-now --force"],
        codes: &[
            (exit::OK, "a gateway was started, or nothing was waiting"),
            (exit::FAILURE, "the attempt failed or has to wait, or not in time"),
            (NOT_RUNNING, "no supervisor is running"),
        ],
    },
    VerbNotes {
        verb: "pause",
        examples: &["openclaw-supervise pause --for 20m --reason gdb"],
        codes: &[
            (exit::OK, "paused"),
            (exit::FAILURE, "the supervisor is ending, or does not answer"),
            (NOT_RUNNING, "no supervisor is running"),
        ],
    },
    VerbNotes {
        verb: "resume",
        examples: &["openclaw-supervise resume"],
        codes: &[
            (exit::OK, "the supervision goes on, or was not paused"),
            (exit::FAILURE, "the supervisor does not answer"),
            (NOT_RUNNING, "no supervisor is running, and no pause is on record"),
        ],
    },
    VerbNotes {
        verb: "notify",
        examples: &[
            "openclaw-supervise notify --test",
            "openclaw-supervise notify --test --notify @/etc/openclaw/notify",
            "openclaw-supervise notify --test --on-event ./tell-me",
        ],
        codes: &[(exit::OK, "each channel took it"), (exit::FAILURE, "at least one did not, or there is none")],
    },
    VerbNotes {
        verb: "metrics",
        examples: &["openclaw-supervise metrics", "openclaw-supervise metrics --prometheus | promtool check metrics"],
        codes: &[
            (exit::OK, "printed; openclaw_supervise_up is 0 if no supervisor runs"),
            (NOT_HEALTHY, "not known: it may not be asked"),
        ],
    },
    VerbNotes {
        verb: "demo",
        examples: &["openclaw-supervise demo", "openclaw-supervise demo --fast"],
        codes: &[(exit::OK, "shown, or stopped by you"), (exit::FAILURE, "a step failed; the line names it")],
    },
    VerbNotes {
        verb: "completions",
        examples: &[
            "source <(openclaw-supervise completions bash)",
            "openclaw-supervise completions zsh >~/.zfunc/_openclaw-supervise",
            "openclaw-supervise completions fish | source",
        ],
        codes: &[(exit::OK, "printed")],
    },
    VerbNotes {
        verb: "man",
        examples: &["openclaw-supervise man status | man -l -", "openclaw-supervise man --dir ~/.local/share/man/man1"],
        codes: &[(exit::OK, "printed, or written"), (exit::FAILURE, "a page cannot be written")],
    },
    VerbNotes { verb: "version", examples: &["openclaw-supervise version"], codes: &[(exit::OK, "printed")] },
];
