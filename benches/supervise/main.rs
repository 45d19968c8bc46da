//! The cost of supervision, against what the operating system itself takes in the same run.
//!
//! `cargo bench --bench supervise [-- --runs N | --tree N | --soak N]`. This program is the bench, the gateway and
//! everything that the gateway starts, see `stand_in`. docs/BENCHMARKS.md explains the rows.

mod lease;
mod measure;
mod stand_in;
mod start;
mod table;
mod tree;
mod world;

use measure::Failure;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use table::Row;
use world::World;

/// Samples of each figure.
const RUNS: usize = 20;

/// A stop of fifty processes takes long to set up and varies little.
const STOPS_MAX: usize = 10;

/// The program under test, as Cargo has just built it.
const SUPERVISOR: &str = env!("CARGO_BIN_EXE_openclaw-supervise");

fn main() -> ExitCode {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    if Path::new(&name).ends_with(stand_in::OPENCLAW) {
        return stand_in::play_openclaw(&args);
    }
    if args.first().is_some_and(|word| word == stand_in::ROLE) {
        return stand_in::play(args.get(1..).unwrap_or_default());
    }
    let result = plan(&args).and_then(bench);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(io::stderr().lock(), "the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The benchmarks to run, and the number of samples.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// The whole table.
    All(usize),
    /// Process trees only.
    Tree(usize),
    /// Many trees one after the other; counts only the survivors.
    Soak(usize),
}

/// Cargo adds `--bench` and passes on the arguments after `--`.
fn plan(args: &[String]) -> Result<Plan, Failure> {
    let words: Vec<_> = args.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    let (plan, number): (fn(usize) -> Plan, _) = match words.as_slice() {
        [] => return Ok(Plan::All(RUNS)),
        ["--runs", number] => (Plan::All, number),
        ["--tree", number] => (Plan::Tree, number),
        ["--soak", number] => (Plan::Soak, number),
        _ => return Err("usage: cargo bench --bench supervise [-- --runs N | --tree N | --soak N]".into()),
    };
    match number.parse() {
        Ok(0) | Err(_) => Err(format!("{number}: not a number from 1").into()),
        Ok(runs) => Ok(plan(runs)),
    }
}

fn bench(plan: Plan) -> Result<(), Failure> {
    let world = World::new()?;
    let (Plan::All(runs) | Plan::Tree(runs) | Plan::Soak(runs)) = plan;
    say(&format!("{} ({runs} runs, load {})", world::machine(), world::load()))?;
    let rows = match plan {
        Plan::All(runs) => all(&world, runs)?,
        Plan::Tree(runs) => trees(&world, runs)?,
        Plan::Soak(runs) => return tree::soak(&world, runs),
    };
    say(&format!("{}load afterwards {}", table::render(&rows), world::load()))
}

fn all(world: &World, runs: usize) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::from(start::start(world, runs)?);
    rows.extend([start::respawn(world, runs)?, start::planned(world, runs)?, start::duplicate(world, runs)?]);
    rows.extend(lease::crowds(world, runs)?);
    rows.extend(lease::adoption(world, runs)?);
    rows.extend(lease::store(world, runs)?);
    rows.extend(trees(world, runs)?);
    rows.extend(measure::idle(world)?);
    rows.push(Row::single("size", "release binary, stripped", megabytes(Path::new(SUPERVISOR))?, "MB", Some(5.0)));
    Ok(rows)
}

fn trees(world: &World, runs: usize) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::from(measure::stop(world, runs.min(STOPS_MAX))?);
    rows.extend(tree::kills(world, runs.min(STOPS_MAX))?);
    rows.extend(tree::crowd(world, runs)?);
    Ok(rows)
}

fn megabytes(path: &Path) -> Result<f64, Failure> {
    Ok(u32::try_from(path.metadata()?.len()).map(f64::from)? / 1e6)
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}
