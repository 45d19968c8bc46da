//! The CPU limits of control groups, and what they cost.

use super::files::text_of;
use super::place;
use std::path::Path;
use std::time::Duration;

/// How long the groups that a process is in have been throttled, by the limit that did so most: a limit of any group
/// above counts, and each tells of its own. `None` if none of them has one.
pub(in crate::platform::linux) fn throttled_of(pid: i32) -> Option<Duration> {
    let unified = place::of(pid).ok().and_then(|group| most_of(&group, "throttled_usec", Duration::from_micros));
    let first = place::of_cpu(pid).ok().and_then(|group| most_of(&group, "throttled_time", Duration::from_nanos));
    unified.max(first)
}

fn most_of(group: &Path, name: &str, unit: fn(u64) -> Duration) -> Option<Duration> {
    let texts = group.ancestors().map(|group| text_of(group.join("cpu.stat"))).take_while(Result::is_ok).flatten();
    texts.filter_map(|text| value_of(&text, name)).max().map(unit)
}

fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// The pressure of its group (PSI), where that is kept.
pub(in crate::platform::linux) fn cpu_pressure_of(pid: i32) -> Option<String> {
    text_of(place::of(pid).ok()?.join("cpu.pressure")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_limit_that_throttled_most_counts_wherever_it_is_set() {
        let root = std::env::temp_dir().join(format!("throttled-groups-{}", std::process::id()));
        let group = root.join("pod/service");
        fs::create_dir_all(&group).unwrap();
        fs::write(root.join("pod/cpu.stat"), "usage_usec 9\nnr_throttled 30\nthrottled_usec 2842979\n").unwrap();
        fs::write(group.join("cpu.stat"), "usage_usec 9\nnr_throttled 1\nthrottled_usec 7\n").unwrap();
        let most = most_of(&group, "throttled_usec", Duration::from_micros);
        let none = most_of(&group, "throttled_time", Duration::from_nanos);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((most, none), (Some(Duration::from_micros(2_842_979)), None));
    }
}
