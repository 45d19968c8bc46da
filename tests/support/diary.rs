//! Reads what the stand-in gateways wrote down.

use super::process::Process;
use super::{PATIENCE, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// The folder with their log.
#[derive(Debug, Clone)]
pub(crate) struct Diary {
    dir: PathBuf,
}

/// One START or KID line.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) process: Process,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// As the script names it: `plain`, `setsid`, `daemon`; nothing for the gateway itself.
    pub(crate) kind: String,
}

impl Diary {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The log as it stands.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default()
    }

    /// Every start there was, in order.
    pub(crate) fn starts(&self) -> Vec<Entry> {
        self.entries("START ")
    }

    /// Every child of a gateway there was.
    pub(crate) fn kids(&self) -> Vec<Entry> {
        self.entries("KID ")
    }

    /// Waits until so many children of gateways have begun.
    pub(crate) fn wait_kids(&self, count: usize) {
        let look = || (self.kids().len() >= count).then_some(());
        wait_for(&format!("{count} children"), PATIENCE, || self.text(), look);
    }

    fn entries(&self, word: &str) -> Vec<Entry> {
        self.text().lines().filter_map(|line| parse(line.strip_prefix(word)?)).collect()
    }

    /// Waits for a line with this beginning and returns its first one.
    pub(crate) fn wait_line(&self, beginning: &str) -> String {
        wait_for(
            &format!("a line {beginning:?} in the gateway's log"),
            PATIENCE,
            || self.text(),
            || self.text().lines().find(|line| line.starts_with(beginning)).map(str::to_owned),
        )
    }

    /// The signals that the gateway of that pid was sent.
    pub(crate) fn signals(&self, pid: i32) -> Vec<String> {
        let beginning = format!("SIGNAL {pid} ");
        self.text().lines().filter_map(|line| line.strip_prefix(&beginning)).map(str::to_owned).collect()
    }

    /// Waits until the gateway of that pid has answered so many more requests.
    pub(crate) fn wait_requests(&self, pid: i32, more: u64) {
        let path = self.dir.join(format!("requests-{pid}"));
        let count = || fs::metadata(&path).map_or(0, |meta| meta.len());
        let goal = count() + more;
        let enough = || (count() >= goal).then_some(());
        wait_for(&format!("{more} more probes of {pid}"), PATIENCE, || self.text(), enough);
    }

    /// Has every stand-in that opens from now on listen there: `ADDRESS:PORT`, or `ADDRESS:PORT tls`.
    pub(crate) fn place(&self, place: &str) {
        let written = self.dir.join("place.new");
        fs::write(&written, place).expect("the scratch folder can be written");
        fs::rename(written, self.dir.join("place")).expect("the scratch folder can be written");
    }

    /// Makes the living stand-in of that pid do one of the script's mishaps at once.
    pub(crate) fn command(&self, pid: i32, mishap: &str) {
        // Written aside and renamed: it is never seen half-written.
        let aside = self.dir.join(format!("aside-{pid}"));
        let written =
            fs::write(&aside, mishap).and_then(|()| fs::rename(aside, self.dir.join(format!("control-{pid}"))));
        assert!(written.is_ok(), "the control file cannot be written: {written:?}");
    }

    /// The environment of the start with that pid.
    pub(crate) fn environment(&self, pid: i32) -> BTreeMap<String, String> {
        let split = |line: String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.given(pid, "env").into_iter().filter_map(split).collect()
    }

    /// What the start with that pid noted of its inheritance: `env`, `fd`, `status`, `arg`, `cwd`.
    pub(crate) fn given(&self, pid: i32, kind: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(format!("start-{pid}"))).unwrap_or_default();
        let beginning = format!("{kind} ");
        text.lines().filter_map(|line| line.strip_prefix(&beginning)).map(str::to_owned).collect()
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let pid = words.next()?.parse().ok()?;
    let fields: BTreeMap<_, _> = words.filter_map(|word| word.split_once('=')).collect();
    let number = |name: &str| fields.get(name)?.parse::<i32>().ok();
    Some(Entry {
        process: Process { pid, start_time: fields.get("starttime")?.parse().ok()? },
        group: number("pgid")?,
        session: number("sid")?,
        kind: fields.get("kind").unwrap_or(&"").to_string(),
    })
}
