//! How large the JavaScript heap of the gateway may become: Node's `--max-old-space-size`.
//!
//! The service that `openclaw gateway install` writes starts Node with it. Behind a wrapper, in a container and in our own
//! service it is missing, and Node ends the gateway ("heap out of memory") at its default of 2 to 4 GiB. It goes into
//! `NODE_OPTIONS`: that reaches Node behind the `#!` line of `openclaw` and behind a launcher, and the process as which OpenClaw
//! starts itself again. It is an upper limit; nothing is allocated for it.

use super::openclaw::{is_gateway, is_openclaw};
use crate::platform::{group_limits, machine, regular_file};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variable that Node reads its options from.
pub const NODE_OPTIONS: &str = "NODE_OPTIONS";

/// The floor and the cap of OpenClaw 2026.9.6 (`src/daemon/gateway-heap.ts`), in MiB. A quarter of the memory is the cap where
/// that is more.
const FLOOR: u64 = 2048;
const CAP: u64 = 8192;

/// A unit or property list has a few KiB.
const SERVICE_LONGEST: u64 = 64 * 1024;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeapChoice {
    /// As OpenClaw's own service has it.
    #[default]
    Auto,
    /// Node's default.
    Off,
    Mib(u64),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heap {
    /// The limit in MiB; `None` for Node's default, or for one that is no number of MiB.
    pub mib: Option<u64>,
    /// Where it comes from, for people.
    pub source: String,
    /// The gateway's `NODE_OPTIONS`, if it has to get another than the supervisor.
    pub node_options: Option<OsString>,
    /// Why the choice is not followed.
    pub warning: Option<String>,
}

impl Heap {
    /// `options`: `NODE_OPTIONS` as the environment and the gateway's files have it. `services`: where OpenClaw's own service
    /// may be. What the user has set for Node counts more than `choice`. Blocks on the file system.
    #[must_use]
    pub fn resolve(choice: HeapChoice, command: &[OsString], options: Option<&OsStr>, services: &[PathBuf]) -> Self {
        let entry = command.iter().position(|word| is_openclaw(word)).unwrap_or(command.len());
        let of_node = command.get(1..entry).unwrap_or_default().iter().map(|word| word.to_string_lossy().into_owned());
        let given = options.unwrap_or_default().to_string_lossy().into_owned();
        let of_command = control(of_node).map(|control| (control, "COMMAND"));
        let of_options = || control(given.split_whitespace().map(str::to_owned)).map(|control| (control, NODE_OPTIONS));
        if let Some((HeapOption { text, mib }, place)) = of_command.or_else(of_options) {
            let warning = matches!(choice, HeapChoice::Mib(_))
                .then(|| format!("--max-heap is not used, because {place} has {text} for Node; leave one of them out"));
            // What a .env file sets would come after the start of Node, which is too late.
            let node_options = (place == NODE_OPTIONS).then(|| OsString::from(given));
            return Self { mib, source: format!("{text} in {place}"), node_options, warning };
        }
        let (mib, source) = match choice {
            HeapChoice::Off => return Self { source: "Node's default (--max-heap off)".to_owned(), ..Self::default() },
            HeapChoice::Mib(mib) => (mib, "--max-heap".to_owned()),
            HeapChoice::Auto if !is_gateway(command) => {
                let source = "Node's default, if COMMAND is one: it does not name `openclaw gateway`".to_owned();
                return Self { source, ..Self::default() };
            }
            HeapChoice::Auto => match services.iter().find_map(|path| of_service(path)).or_else(of_memory) {
                Some(found) => found,
                None => {
                    return Self { source: "Node's default: the memory is not known".to_owned(), ..Self::default() };
                }
            },
        };
        let options = format!("{given} --max-old-space-size={mib}");
        let node_options = Some(OsString::from(options.trim_start()));
        Self { mib: Some(mib), source, node_options, warning: None }
    }
}

/// What limits the heap among the options of Node.
struct HeapOption {
    text: String,
    mib: Option<u64>,
}

/// The last one, as in Node, which takes dashes and underscores alike. A share of the memory counts more than a size.
fn control(words: impl Iterator<Item = String>) -> Option<HeapOption> {
    let mut words = words.peekable();
    let mut found: Option<HeapOption> = None;
    while let Some(word) = words.next() {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name.replace('_', "-"), Some(value.to_owned())),
            None => (word.replace('_', "-"), None),
        };
        let is_size = name == "--max-old-space-size";
        if !is_size && !matches!(name.as_str(), "--max-old-space-size-percentage" | "--max-heap-size") {
            continue;
        }
        let Some(value) = inline.or_else(|| words.next()) else { break };
        if found.as_ref().is_none_or(|found| found.mib.is_some() || !is_size) {
            let mib = value.parse().ok().filter(|_| is_size);
            found = Some(HeapOption { text: format!("{name}={value}"), mib });
        }
    }
    found
}

/// What OpenClaw's own service has, in a unit or a property list.
fn of_service(path: &Path) -> Option<(u64, String)> {
    let text = regular_file::head(path, SERVICE_LONGEST).ok()?;
    let text = String::from_utf8_lossy(&text);
    let value = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    let mib = text.split("--max-old-space-size=").skip(1).find_map(value).filter(|mib| *mib > 0)?;
    Some((mib, format!("as in {}", path.display())))
}

/// OpenClaw's formula.
fn of_memory() -> Option<(u64, String)> {
    let total = machine::memory()?;
    let limit = group_limits::of(std::process::id().cast_signed()).memory.filter(|limit| *limit < total);
    let memory = limit.unwrap_or(total) / MIB;
    let what = if limit.is_some() { "the memory limit of the control group" } else { "memory" };
    let mib = recommended(memory).filter(|mib| *mib > 0)?;
    Some((mib, format!("as OpenClaw's own service: {memory} MiB {what}")))
}

/// What `openclaw gateway install` gives a gateway on a machine with so much memory, in MiB: half of it, at least [`FLOOR`] and
/// at most the larger of [`CAP`] and a quarter, but never more than three quarters.
#[must_use]
pub fn recommended(memory: u64) -> Option<u64> {
    let cap = CAP.max(memory / 4);
    (memory >= 2).then(|| cap.min(FLOOR.max(memory / 2)).min(memory / 4 * 3 + memory % 4 * 3 / 4))
}

/// The default of V8 on 64 bits, in MiB: half of the memory, up to 2 GiB, or 4 GiB on a machine with 15 GiB or more
/// (`Heap::HeapSizeFromPhysicalMemory`).
#[must_use]
pub fn node_default(memory: u64) -> u64 {
    (memory / 2).min(if memory >= 15 * 1024 { 4096 } else { 2048 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(choice: HeapChoice, command: &str, options: Option<&str>, services: &[PathBuf]) -> Heap {
        let command: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        Heap::resolve(choice, &command, options.map(OsStr::new), services)
    }

    #[test]
    fn the_formula_is_that_of_openclaw() {
        // As resolveGatewayHeapLimit of 2026.9.6 computes it.
        for (memory, mib) in [
            (1, None),
            (512, Some(384)),
            (1023, Some(767)),
            (2048, Some(1536)),
            (3000, Some(2048)),
            (4096, Some(2048)),
            (8192, Some(4096)),
            (24105, Some(8192)),
            (32768, Some(8192)),
            (65536, Some(16384)),
            (131_072, Some(32768)),
        ] {
            assert_eq!(recommended(memory), mib, "{memory}");
        }
        assert_eq!([1024, 8192, 24105].map(node_default), [512, 2048, 4096]);
    }

    #[test]
    fn what_the_user_has_set_for_node_is_never_overridden() {
        let set = HeapChoice::Mib(3000);
        for (command, options, source, mib) in [
            ("node --max-old-space-size=5000 openclaw.mjs gateway", None, "COMMAND", Some(5000)),
            (
                "node --max_old_space_size 5000 openclaw.mjs gateway",
                Some("--max-old-space-size=1"),
                "COMMAND",
                Some(5000),
            ),
            ("openclaw gateway", Some("--max-old-space-size=6000 -r x"), NODE_OPTIONS, Some(6000)),
            ("openclaw gateway", Some("--max-old-space-size=6000 --max-old-space-size=7000"), NODE_OPTIONS, Some(7000)),
            ("openclaw gateway", Some("--max-old-space-size-percentage=50 --max-old-space-size=9"), NODE_OPTIONS, None),
            ("sh run", Some("--max-heap-size=6000"), NODE_OPTIONS, None),
        ] {
            for choice in [HeapChoice::Auto, HeapChoice::Off, set] {
                let heap = resolve(choice, command, options, &[]);
                assert!(heap.mib == mib && heap.source.ends_with(source), "{heap:?}");
                assert_eq!(heap.node_options, options.filter(|_| source == NODE_OPTIONS).map(OsString::from));
                assert_eq!(heap.warning.is_some(), choice == set, "{heap:?}");
            }
        }
    }

    #[test]
    fn other_options_of_node_stay_and_a_command_that_may_be_anything_gets_what_was_asked_for_only() {
        let set = |mib: &str| Some(OsString::from(mib));
        let heap = resolve(HeapChoice::Mib(3000), "openclaw gateway", Some("-r x"), &[]);
        assert_eq!(heap.node_options, set("-r x --max-old-space-size=3000"));
        let heap = resolve(HeapChoice::Mib(3000), "sh run", None, &[]);
        assert_eq!(heap.node_options, set("--max-old-space-size=3000"));
        assert_eq!(resolve(HeapChoice::Auto, "sh run", Some("-r x"), &[]).node_options, None);
        assert_eq!(resolve(HeapChoice::Off, "openclaw gateway", None, &[]).node_options, None);
        let heap = resolve(HeapChoice::Auto, "openclaw gateway", None, &[]);
        let mib = heap.mib.unwrap();
        assert_eq!(heap.node_options, set(&format!("--max-old-space-size={mib}")));
        assert!(mib > 100 && heap.source.contains("OpenClaw's own service"), "{heap:?}");
    }

    #[test]
    fn the_value_of_openclaws_own_service_is_taken_over() {
        let folder = std::env::temp_dir().join(format!("ocs-heap-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (unit, wrapped) = (folder.join("gateway.service"), folder.join("wrapped.service"));
        std::fs::write(&unit, "ExecStart=/usr/bin/node --max-old-space-size=5120 /x/index.js gateway --port 1\n")
            .unwrap();
        std::fs::write(&wrapped, "ExecStart=/usr/local/bin/openclaw-supervise gateway --port 1\n").unwrap();
        let heap = resolve(HeapChoice::Auto, "openclaw gateway", None, &[wrapped.clone(), unit.clone()]);
        assert_eq!((heap.mib, heap.source), (Some(5120), format!("as in {}", unit.display())));
        let heap = resolve(HeapChoice::Auto, "openclaw gateway", None, &[wrapped, folder.join("missing")]);
        assert!(heap.source.starts_with("as OpenClaw's own service: "), "{heap:?}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
