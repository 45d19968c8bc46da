//! The version matrix: the built program in front of real releases of OpenClaw, one after the other.
//!
//! `.ci/check-versions` runs it. Not part of `cargo test`: it installs about 3.5 GB and takes a quarter of an
//! hour. Every cell of the table is measured; a required one that fails makes the exit code 1.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_macros, reason = "a program of its own: nothing else writes to stdout")]
#![expect(clippy::disallowed_methods, reason = "it polls beside the supervisor, by its own clock")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a check that cannot go on says so by a panic")]

mod alone;
mod behaviour;
mod look;
mod release;
mod supervised;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
#[path = "../support/mod.rs"]
mod support;
mod table;
mod update;

use release::Release;
use std::process::ExitCode;
use table::{Column, Table};

fn main() -> ExitCode {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let releases =
        if wanted.is_empty() { Release::all() } else { wanted.iter().map(|version| Release::named(version)).collect() };
    table::keep_panics_for_the_cells();
    let mut table = Table::default();
    for release in releases {
        let installed = release.install();
        let mut column = Column::new(&installed.title());
        supervised::measure(&mut column, &installed);
        alone::measure(&mut column, &installed);
        update::measure(&mut column, &installed);
        table.push(column);
    }
    println!("{}\n{}", table.text(), table.markdown());
    let failed = table.failed();
    for line in &failed {
        eprintln!("check-versions: {line}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
