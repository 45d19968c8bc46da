//! The table of figures.

use std::fmt::Write;

pub(crate) struct Row {
    what: &'static str,
    note: String,
    unit: &'static str,
    figures: Vec<f64>,
    /// What the operating system alone takes, measured alternately with the figures.
    floor: Vec<f64>,
    /// The upper limit of the median.
    goal: Option<f64>,
}

impl Row {
    /// A figure with several samples.
    pub(crate) fn new(what: &'static str, note: impl Into<String>, unit: &'static str, figures: Vec<f64>) -> Self {
        Self { what, note: note.into(), unit, figures, floor: Vec::new(), goal: None }
    }

    /// A figure with one sample.
    pub(crate) fn single(
        what: &'static str,
        note: impl Into<String>,
        figure: f64,
        unit: &'static str,
        goal: Option<f64>,
    ) -> Self {
        Self { goal, ..Self::new(what, note, unit, vec![figure]) }
    }

    pub(crate) fn above(self, floor: Vec<f64>) -> Self {
        Self { floor, ..self }
    }

    pub(crate) fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// The table, as Markdown.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| what | min / median / max | n | floor: min / median / max | x floor | goal | met | |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let middle = median(&row.figures);
        let ratio = match spread(&row.floor) {
            [_, floor, _] if floor > 0.0 => format!("{:.1}", middle / floor),
            _ => String::new(),
        };
        let (goal, met) = match row.goal {
            Some(goal) => (format!("<= {}", short(goal)), if middle <= goal { "yes" } else { "NO" }),
            None => (String::new(), ""),
        };
        let _infallible = writeln!(
            text,
            "| {} | {} {} | {} | {} | {ratio} | {goal} | {met} | {} |",
            row.what,
            range(&row.figures),
            row.unit,
            row.figures.len(),
            range(&row.floor),
            row.note
        );
    }
    text
}

/// The median.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let [_, median, _] = spread(figures);
    median
}

/// Minimum, median and maximum.
fn spread(figures: &[f64]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    [at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1))]
}

fn range(figures: &[f64]) -> String {
    match figures {
        [] => String::new(),
        [one] => short(*one),
        _ => {
            let [least, median, most] = spread(figures).map(short);
            format!("{least} / **{median}** / {most}")
        }
    }
}

/// Three significant digits.
fn short(figure: f64) -> String {
    match figure {
        figure if figure.fract() == 0.0 => format!("{figure:.0}"),
        figure if figure < 10.0 => format!("{figure:.2}"),
        figure if figure < 100.0 => format!("{figure:.1}"),
        figure => format!("{figure:.0}"),
    }
}
