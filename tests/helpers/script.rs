//! What one start of the stand-in gateway does, as its script says it.
//!
//! A script holds one scene for each start, parted by `;`; the last one serves for every further start. A scene holds
//! words, parted by blanks. `boot=300ms` waits before the port is opened, `warm=300ms` answers `starting` for so long
//! after that, `drain=300ms` drains on SIGTERM, `exit=3@1s` leaves one second after the start. The table in
//! [`Scene::parse`] has them all.

use nix::sys::signal::Signal;
use std::time::Duration;

/// What it looks like on the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A gateway of 2026.8 or later.
    Gateway,
    /// A gateway of an earlier release: `/startupz` is an unknown path and so answers HTML.
    OldGateway,
    /// A web server that answers every path with 200 and HTML.
    Foreign,
    /// Accepts and never answers.
    Silent,
}

/// How it takes SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Drains for so long, then exits 0.
    Drain(Duration),
    /// Not at all.
    Ignore,
}

/// How it answers `/healthz` once the fault has begun. Nothing else about it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthReply {
    /// As it should.
    Sound,
    /// One request in so many; the others get no answer.
    Every(u32),
    /// Only after this time.
    Late(Duration),
    /// 503, with the body of a healthy gateway.
    Unavailable,
    /// 200 and HTML.
    Html,
    /// A body that ends before its time.
    Cut,
    /// A head of which one byte comes a second.
    Drip,
    /// A body of one GiB.
    Flood,
    /// 302 to a path that answers as `/healthz` should.
    Redirect,
    /// With a reset.
    Reset,
}

/// What befalls it at some time after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It exits.
    Exit(i32),
    /// A signal that it raises itself ends it.
    Die(Signal),
    /// Its event loop stands still: the port is open, nothing is answered, no signal is heeded.
    Freeze,
    /// It closes its listener and lives on: a restart inside the process that failed.
    Close,
    /// It drains, closes its listener and opens it again so much later: a restart inside the process.
    Cycle(Duration),
    /// It has so many bytes more in memory from then on, or for so long.
    Touch(usize, Option<Duration>),
    /// Its event loop works for so much CPU time.
    Burn(Duration),
    /// Its event loop writes so much to its standard output.
    Print(usize),
    /// It answers in another way from now on.
    Answer(HealthReply),
    /// It leaves a detached successor that answers on its port, and exits 0: an update restart before 2026.8.
    Succeed,
    /// It closes its listener at once, works for so much CPU time and opens it again: a restart inside the process
    /// without a visible drain.
    Work(Duration),
}

/// How a child of the gateway is bound to it, and what else makes it hard to find or to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kid {
    /// In the gateway's process group.
    Plain,
    /// In a process group of its own, in the gateway's session.
    Group,
    /// In its own session.
    Setsid,
    /// In its own session and orphaned: its parent is gone.
    Daemon,
    /// Executed anew without any environment.
    Wiped,
    /// A daemon without any environment.
    Lost,
    /// In its own session, with SIGTERM, SIGINT and SIGHUP blocked.
    Deaf,
    /// In its own session, with SIGTERM, SIGINT and SIGHUP ignored.
    Ignoring,
    /// In its own session, stopped by SIGSTOP.
    Stopped,
    /// In its own session, under a name that tears a careless reader of `/proc/PID/stat` apart.
    Odd,
    /// The same, and its program has such a name.
    OddFile,
    /// In its own session, with the gateway's listener: the port is not free before it is gone.
    Heir,
    /// In its own session, with chains of processes that fork and exit as fast as a shell can.
    Storm,
    /// The same by fork, execve without an environment and setsid.
    Gale,
    /// In its own session. Starts processes that leave an orphan and exit, one after the other.
    Shedder,
    /// In its own session, with 64 MiB of memory in use.
    Large,
}

impl Kid {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Plain, "plain"),
        (Self::Group, "group"),
        (Self::Setsid, "setsid"),
        (Self::Daemon, "daemon"),
        (Self::Wiped, "wiped"),
        (Self::Lost, "lost"),
        (Self::Deaf, "deaf"),
        (Self::Ignoring, "ignoring"),
        (Self::Stopped, "stopped"),
        (Self::Odd, "odd"),
        (Self::OddFile, "odd-file"),
        (Self::Heir, "heir"),
        (Self::Storm, "storm"),
        (Self::Gale, "gale"),
        (Self::Shedder, "shedder"),
        (Self::Large, "large"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|&(kid, _)| kid == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|&(_, known)| known == name).map(|(kid, _)| kid)
    }
}

/// One start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) role: Role,
    pub(crate) boot: Duration,
    pub(crate) warm: Duration,
    pub(crate) farewell: Farewell,
    pub(crate) kids: Vec<Kid>,
    /// In the order of their times.
    pub(crate) mishaps: Vec<(Duration, Mishap)>,
    /// Whether `/readyz` says ready.
    pub(crate) ready: bool,
    /// Whether it may leave a core file.
    pub(crate) core: bool,
}

impl Scene {
    /// The scene for start number `start`, counted from 1.
    pub(crate) fn of_start(script: &str, start: usize) -> Result<Self, String> {
        let scenes: Vec<_> = script.split(';').collect();
        let index = start.saturating_sub(1).min(scenes.len() - 1);
        Self::parse(scenes[index])
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut scene = Self {
            role: Role::Gateway,
            boot: Duration::ZERO,
            warm: Duration::ZERO,
            farewell: Farewell::Drain(Duration::ZERO),
            kids: Vec::new(),
            mishaps: Vec::new(),
            ready: true,
            core: false,
        };
        for word in text.split_whitespace() {
            let wrong = || format!("{word:?} is no word of a script");
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let (value, at) = value.split_once('@').unwrap_or((value, "0s"));
            let at = duration(at).ok_or_else(wrong)?;
            match name {
                "healthy" => {}
                "old" => scene.role = Role::OldGateway,
                "foreign" => scene.role = Role::Foreign,
                "silent" => scene.role = Role::Silent,
                "unready" => scene.ready = false,
                "core" => scene.core = true,
                "deaf" => scene.farewell = Farewell::Ignore,
                "drain" => scene.farewell = Farewell::Drain(duration(value).ok_or_else(wrong)?),
                "boot" => scene.boot = duration(value).ok_or_else(wrong)?,
                "warm" => scene.warm = duration(value).ok_or_else(wrong)?,
                "kid" => scene.kids.push(Kid::from_name(value).ok_or_else(wrong)?),
                _ => scene.mishaps.push((at, mishap(name, value).ok_or_else(wrong)?)),
            }
        }
        scene.mishaps.sort_by_key(|&(at, _)| at);
        Ok(scene)
    }
}

/// `exit=CODE`, `die=SEGV`, `freeze`, `close`, `succeed`, `cycle=TIME`, `touch=64M`, `touch=64M/1s`, `burn=TIME`,
/// `work=TIME`, `print=64M`, `answers-every=N` and the other manners by their names: in a script with `@TIME`, in the control file at once.
pub(crate) fn mishap(name: &str, value: &str) -> Option<Mishap> {
    Some(match name {
        "exit" => Mishap::Exit(value.parse().ok()?),
        "die" => Mishap::Die(format!("SIG{value}").parse().ok()?),
        "freeze" => Mishap::Freeze,
        "close" => Mishap::Close,
        "succeed" => Mishap::Succeed,
        "cycle" => Mishap::Cycle(duration(value)?),
        "touch" => {
            let (size, time) = value.split_once('/').map_or((value, None), |(size, time)| (size, Some(time)));
            Mishap::Touch(mebibytes(size)?, time.map(duration).map_or(Some(None), |time| time.map(Some))?)
        }
        "burn" => Mishap::Burn(duration(value)?),
        "work" => Mishap::Work(duration(value)?),
        "print" => Mishap::Print(mebibytes(value)?),
        "answers-every" => Mishap::Answer(HealthReply::Every(value.parse().ok().filter(|&number| number > 0)?)),
        "late" => Mishap::Answer(HealthReply::Late(duration(value)?)),
        "unavailable" => Mishap::Answer(HealthReply::Unavailable),
        "html" => Mishap::Answer(HealthReply::Html),
        "cut" => Mishap::Answer(HealthReply::Cut),
        "drip" => Mishap::Answer(HealthReply::Drip),
        "flood" => Mishap::Answer(HealthReply::Flood),
        "redirect" => Mishap::Answer(HealthReply::Redirect),
        "reset" => Mishap::Answer(HealthReply::Reset),
        _ => return None,
    })
}

/// `500ms`, `2s`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

/// `64M`.
fn mebibytes(text: &str) -> Option<usize> {
    text.strip_suffix('M')?.parse::<usize>().ok()?.checked_mul(1024 * 1024)
}
