//! The tables of the docs that are made from the command line. Each stands between two comments:
//! `<!-- generated: NAME -->` and `<!-- end -->`.

use crate::pages::root;
use clap::{Arg, Command};
use openclaw_supervise::cli;
use std::fmt::Write;
use std::fs;

pub(crate) const PAGE: &str = "docs/CONFIGURATION.md";

/// What the page has to be.
pub(crate) fn generated(page: &str) -> String {
    let program = cli::command();
    let mut text = page.to_owned();
    for (name, table) in [("options", options(&program)), ("verbs", verbs(&program))] {
        let (before, rest) =
            text.split_once(&format!("<!-- generated: {name} -->\n")).unwrap_or_else(|| panic!("{name}"));
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        text = format!("{before}<!-- generated: {name} -->\n{table}<!-- end -->{after}");
    }
    text
}

/// Writes it, as `INSTA_UPDATE=always` asks for snapshots to be written.
pub(crate) fn update() {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    fs::write(path, generated(&page)).unwrap();
}

/// The lines that only one of two texts has, in order.
pub(crate) fn difference(is: &str, should: &str) -> String {
    let only = |text: &str, other: &str, mark: &str| -> String {
        let other: Vec<&str> = other.lines().collect();
        let lines = text.lines().filter(|line| !other.contains(line));
        lines.flat_map(|line| [mark, " ", line, "\n"]).collect()
    };
    only(is, should, "-") + &only(should, is, "+")
}

/// A row for each option of `run`, in the groups of its help.
fn options(program: &Command) -> String {
    let run = program.find_subcommand("run").unwrap();
    let (mut table, mut group) = (String::new(), None);
    for option in run.get_arguments().filter(|option| option.get_long().is_some() && option.get_id() != "help") {
        if group != option.get_help_heading() {
            group = option.get_help_heading();
            writeln!(table, "\n**{}**\n\n| option | | default | variable |\n|---|---|---|---|", group.unwrap())
                .unwrap();
        }
        let [sentence, default, variable] = parts(option);
        let end = variable.find(',').unwrap_or(variable.len());
        let (name, remark) = variable.split_at(end);
        let variable = if name.is_empty() { String::new() } else { format!("`{name}`{remark}") };
        writeln!(table, "| {} | {sentence} | {default} | {variable} |", typed(option)).unwrap();
    }
    table + "\n"
}

/// A row for each verb, with the options that no other verb shares.
fn verbs(program: &Command) -> String {
    let mut table = "\n| verb | | options of its own | exit codes |\n|---|---|---|---|\n".to_owned();
    for verb in program.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let own = verb.get_arguments().filter(|option| {
            option.get_help_heading().is_none() && !option.is_positional() && option.get_id() != "help"
        });
        let own: Vec<String> = own.map(|option| format!("{}: {}", typed(option), told(option))).collect();
        let notes = cli::NOTES.iter().find(|notes| notes.verb == verb.get_name());
        let codes = notes.map(cli::codes).unwrap_or_default().into_iter().filter(|(code, _)| *code != 2);
        let codes: Vec<String> = codes.map(|(code, meaning)| format!("{code} {meaning}")).collect();
        let about = verb.get_about().unwrap().to_string();
        let (own, codes) = (own.join("<br>"), codes.join("<br>"));
        writeln!(table, "| `{}` | {} | {own} | {} |", verb.get_name(), escaped(&about), escaped(&codes)).unwrap();
    }
    table + "\n"
}

/// `--port PORT`; a choice of words stands behind it.
fn typed(option: &Arg) -> String {
    let flag =
        option.get_long().map_or_else(|| format!("-{}", option.get_short().unwrap()), |long| format!("--{long}"));
    let value = option.get_value_names().filter(|_| option.get_num_args().unwrap().takes_values());
    match value.map(<[clap::builder::Str]>::concat) {
        None => format!("`{flag}`"),
        Some(value) if value.contains('|') => format!("`{flag}` {}", value.replace('|', ", ")),
        Some(value) => format!("`{flag} {value}`"),
    }
}

/// Its sentence, its default and its variable. A default that clap knows counts as well.
fn parts(option: &Arg) -> [String; 3] {
    let help = option.get_help().unwrap().to_string();
    let (help, variable) = help.split_once(" [env: ").unwrap_or((&help, ""));
    let (sentence, default) = help.split_once(" [default: ").unwrap_or((help, ""));
    [sentence, default.trim_end_matches(']'), variable.trim_end_matches(']')].map(escaped)
}

/// Its sentence and its default.
fn told(option: &Arg) -> String {
    let [sentence, default, _] = parts(option);
    let known = option.get_default_values().iter().filter(|value| *value != "false");
    let default = known.map(|value| value.to_string_lossy().into_owned()).chain([default]).collect::<String>();
    if default.is_empty() { sentence } else { format!("{sentence}. Default: {default}") }
}

/// As it is in a cell: an angle bracket would begin an HTML tag.
fn escaped(text: &str) -> String {
    text.replace('<', "\\<").replace('|', "\\|").replace("\\<br>", "<br>")
}
