//! Children of the stand-in gateway that never come to rest. Each kind is bounded in its number, and ends by itself: with
//! the log of its scene, or with its time.
//!
//! `kid NAME DIR next SECOND` is one link of a chain that ends at that second of the machine's uptime, and
//! `kid NAME DIR leaf` what was left behind on the way.

use crate::diary::Diary;
use crate::kids::command;
use crate::script::Kid;
use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{fs, thread};

/// A test that is killed leaves the machine in peace after so many seconds.
const TIME: u64 = 10;

/// How many chains a storm is made of. Each is one process, or two while the one starts the other.
const CHAINS: usize = 4;

/// A chain of the shell, which forks without any execve(2): each link starts the next one and ends. Once in a while it
/// begins anew, for each link sits deeper in the shell's stack, and looks at the clock.
const CHAIN: &str = r#"storm() {
    n=$((n + 1))
    [ -e "$1/gateway.log" ] || exit
    if [ $n -ge 200 ]; then
        read -r now rest < /proc/uptime
        [ "${now%%.*}" -lt "$2" ] && exec /bin/sh "$0" "$1" "$2"
        exit
    fi
    storm "$1" "$2" &
}
n=0
storm "$1" "$2"
"#;

/// How long an orphan of a [`Kid::Shedder`] lives, and the pause before the next one: some twenty at any time.
const LEAF: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(5));

/// Begins it.
pub(crate) fn rage(diary: &Diary, kid: Kid) -> io::Result<()> {
    let end = uptime()? + TIME;
    match kid {
        Kid::Storm => {
            let script = diary.dir().join(format!("storm-{}.sh", std::process::id()));
            fs::write(&script, CHAIN)?;
            for _ in 0..CHAINS {
                let mut chain = Command::new("/bin/sh");
                chain.arg(&script).arg(diary.dir()).arg(end.to_string());
                chain.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
            }
        }
        Kid::Shedder => {
            while goes_on(diary, end)? {
                let mut branch = command(diary, kid, &["next", &end.to_string()])?;
                branch.stdout(Stdio::null()).spawn()?.wait()?;
                thread::sleep(LEAF.1);
            }
        }
        _ => {
            for _ in 0..CHAINS {
                start(diary, kid, &["next", &end.to_string()])?;
            }
        }
    }
    Ok(())
}

/// One link.
pub(crate) fn go_on(diary: &Diary, kid: Kid, words: &[String]) -> io::Result<ExitCode> {
    nix::unistd::setsid()?;
    match words {
        [leaf] if leaf == "leaf" => thread::sleep(LEAF.0),
        [_, _] if kid == Kid::Shedder => start(diary, kid, &["leaf"])?,
        [next, end] if goes_on(diary, end.parse().map_err(io::Error::other)?)? => start(diary, kid, &[next, end])?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing but its ancestry shows whose it is.
fn start(diary: &Diary, kid: Kid, words: &[&str]) -> io::Result<()> {
    command(diary, kid, words)?.env_clear().stdout(Stdio::null()).spawn().map(drop)
}

fn goes_on(diary: &Diary, end: u64) -> io::Result<bool> {
    Ok(diary.exists() && uptime()? < end)
}

/// In seconds. It is the same in every namespace that tests are run in.
fn uptime() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split('.').next().unwrap_or_default().parse().map_err(io::Error::other)
}
