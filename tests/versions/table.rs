//! The results: one column per release, one row per behaviour.

use super::behaviour::{BEHAVIOURS, Behaviour, Need};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// One release.
pub(crate) struct Column {
    title: String,
    cells: BTreeMap<Behaviour, Cell>,
}

/// One behaviour of one release.
#[derive(Debug, Clone)]
enum Cell {
    /// As required, or only observed.
    Measured(String),
    /// Failed, with the first line of the reason.
    Failed(String),
}

/// All of them.
#[derive(Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
}

/// A failed check is a cell; its full output goes to stderr, without the source location.
pub(crate) fn keep_panics_for_the_cells() {
    std::panic::set_hook(Box::new(|info| eprintln!("check-versions: {}", reason(info.payload()))));
}

fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

impl Column {
    pub(crate) fn new(title: &str) -> Self {
        eprintln!("check-versions: {title}");
        Self { title: title.to_owned(), cells: BTreeMap::new() }
    }

    /// Measures one cell. `None` if it fails: later cells depend on it.
    pub(crate) fn measure<T>(&mut self, row: Behaviour, check: impl FnOnce() -> (T, String)) -> Option<T> {
        let begin = Instant::now();
        let (value, cell) = match catch_unwind(AssertUnwindSafe(check)) {
            Ok((value, text)) => (Some(value), Cell::Measured(text)),
            Err(payload) => {
                let text = reason(&*payload);
                (None, Cell::Failed(text.lines().next().unwrap_or("it broke off").to_owned()))
            }
        };
        eprintln!("check-versions: {row}: {} [{} s]", cell.text(), begin.elapsed().as_secs());
        self.cells.insert(row, cell);
        value
    }

    fn cell(&self, row: Behaviour) -> String {
        self.cells.get(&row).map_or_else(|| "not reached".to_owned(), Cell::text)
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Measured(text) => text.clone(),
            Self::Failed(text) => format!("FAILED: {text}"),
        }
    }
}

impl Table {
    pub(crate) fn push(&mut self, column: Column) {
        self.columns.push(column);
    }

    /// The required cells that failed.
    pub(crate) fn failed(&self) -> Vec<String> {
        let required = || BEHAVIOURS.iter().filter(|row| row.need() == Need::Required);
        let bad = |column: &Column, row: Behaviour| !matches!(column.cells.get(&row), Some(Cell::Measured(_)));
        let of = |column: &Column| {
            let rows = required().filter(|&&row| bad(column, row));
            rows.map(|&row| format!("{}: {row}: {}", column.title, column.cell(row))).collect::<Vec<_>>()
        };
        self.columns.iter().flat_map(of).collect()
    }

    /// For a terminal: one block per behaviour, since the cells are too long for columns.
    pub(crate) fn text(&self) -> String {
        let width = self.columns.iter().map(|column| column.title.len()).max().unwrap_or(0);
        let mut text = String::new();
        for &row in BEHAVIOURS {
            writeln!(text, "\n{row}").unwrap();
            for column in &self.columns {
                writeln!(text, "  {:width$}  {}", column.title, column.cell(row)).unwrap();
            }
        }
        text
    }

    /// For the document: required behaviour first, then what was only observed.
    pub(crate) fn markdown(&self) -> String {
        [Need::Required, Need::Noted].map(|need| self.markdown_of(need)).join("\n")
    }

    fn markdown_of(&self, need: Need) -> String {
        let titles: Vec<_> = self.columns.iter().map(|column| column.title.as_str()).collect();
        let head = if need == Need::Required { "required" } else { "noted" };
        let mut text = format!("| {head} | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
        for &row in BEHAVIOURS.iter().filter(|row| row.need() == need) {
            let cells: Vec<_> = self.columns.iter().map(|column| column.cell(row).replace('|', "\\|")).collect();
            writeln!(text, "| {row} | {} |", cells.join(" | ")).unwrap();
        }
        text
    }
}
