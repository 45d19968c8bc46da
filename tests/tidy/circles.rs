//! Files that need each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

type Needs<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Each group of files that all reach each other, with the needs that hold it together.
pub(crate) fn circles(needs: &Needs<'_>) -> Vec<String> {
    let reach: Needs<'_> = needs.keys().map(|file| (*file, reached_from(file, needs))).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (file, reached) in &reach {
        if !reached.contains(file) || seen.contains(file) {
            continue;
        }
        let circle: BTreeSet<&str> = reached.iter().filter(|other| reach[*other].contains(file)).copied().collect();
        let lines = circle.iter().map(|file| {
            let inside: Vec<&str> = needs[file].intersection(&circle).copied().collect();
            format!("  {file} needs {}", inside.join(", "))
        });
        found.push(format!("a circle of {}:\n{}", circle.len(), lines.collect::<Vec<_>>().join("\n")));
        seen.extend(circle);
    }
    found
}

fn reached_from<'a>(file: &str, needs: &Needs<'a>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = needs[file].iter().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(&needs[next]);
        }
    }
    reached
}
