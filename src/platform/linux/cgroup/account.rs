//! What the control group of a process has used, and what it had to wait for.

use super::files::text_of;
use super::place;
use std::io;
use std::path::Path;

/// Kept for every group, see `accounting/psi` in the kernel's documentation.
const PRESSURE: [&str; 3] = ["cpu.pressure", "memory.pressure", "io.pressure"];

/// Kept where a controller is switched on, for the group and all below it.
const CONTROLLED: [&str; 6] =
    ["memory.current", "memory.max", "memory.high", "memory.events", "pids.current", "pids.max"];

/// The group's path, its pressure, and what the nearest group from it upwards says that has the controller: by the names
/// of the files, with `_` for `.`.
///
/// # Errors
/// No second version of control groups, or none that we are shown.
pub fn account_of(pid: i32) -> io::Result<Vec<(String, String)>> {
    let group = place::of(pid)?;
    place::open(&group)?;
    Ok(account(&group, |path| place::open(path).is_ok()))
}

fn account(group: &Path, is_group: impl Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut all = vec![("path".to_owned(), group.to_string_lossy().into_owned())];
    let mut tell = |file: &str, text: String| all.push((file.replace('.', "_"), text));
    for file in PRESSURE {
        // Off with `cgroup.pressure`, or without the kernel's CONFIG_PSI.
        if let Ok(text) = text_of(group.join(file)) {
            tell(file, text.trim().to_owned());
        }
    }
    for file in CONTROLLED {
        let mut groups = group.ancestors().take_while(|path| is_group(path));
        if let Some(text) = groups.find_map(|path| text_of(path.join(file)).ok()) {
            tell(file, text.trim().to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_the_group_does_not_count_is_asked_of_the_one_above_and_no_further_than_the_tree() {
        let root = std::env::temp_dir().join(format!("account-of-a-group-{}", std::process::id()));
        let group = root.join("service/leaf");
        fs::create_dir_all(&group).unwrap();
        for (file, text) in [
            ("service/leaf/cpu.pressure", "some avg10=1.00\n"),
            ("service/cpu.pressure", "some avg10=2.00\n"),
            ("service/memory.current", "4096\n"),
            ("memory.max", "max\n"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        let told = account(&group, |path| path.starts_with(root.join("service")));
        fs::remove_dir_all(&root).unwrap();
        let expected =
            [("path", group.to_str().unwrap()), ("cpu_pressure", "some avg10=1.00"), ("memory_current", "4096")];
        assert_eq!(told, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
