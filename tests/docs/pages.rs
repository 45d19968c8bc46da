//! The pages and what is marked as code in them.

use std::fs;
use std::path::{Path, PathBuf};

/// One fenced block.
pub(crate) struct Block {
    pub(crate) page: String,
    pub(crate) line: usize,
    /// What stands behind its first fence.
    pub(crate) kind: String,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn is_run(&self) -> bool {
        self.kind == "sh" || self.kind.starts_with("sh ")
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page for readers: its path from the root, and its text.
pub(crate) fn pages() -> Vec<(String, String)> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md"))
        .map(|name| format!("docs/{name}"));
    let mut names: Vec<_> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into_iter().chain(docs).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read_to_string(root().join(name)).unwrap())).collect()
}

pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (page, text) in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), open.take()) {
                (Some(kind), None) => {
                    open = Some(Block {
                        page: page.clone(),
                        line: number + 1,
                        kind: kind.to_owned(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(block)) => blocks.push(block),
                (None, Some(mut block)) => {
                    block.text += line;
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{page} has a fence without an end");
    }
    blocks
}

/// What stands in backticks outside of blocks, each on one line.
pub(crate) fn spans(text: &str) -> Vec<String> {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let prose = outside.collect::<Vec<_>>().join("\n");
    // A span does not go past its paragraph.
    let paragraphs = prose.split("\n\n");
    paragraphs.flat_map(|text| text.split('`').skip(1).step_by(2)).map(|span| span.replace('\n', " ")).collect()
}

/// The texts of the Rust files below this folder.
pub(crate) fn sources(folder: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}
