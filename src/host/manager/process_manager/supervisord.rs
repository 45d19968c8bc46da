//! `stopwaitsecs` from the configuration file of supervisord.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where supervisord looks without `-c`, see "Configuration File" in its documentation. The first two are relative to its
/// working directory.
const PLACES: [&str; 4] =
    ["supervisord.conf", "etc/supervisord.conf", "/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"];

/// More than any configuration has.
const FILE_SIZE_MAX: u64 = 1024 * 1024;

/// The setting of the first of these programs that has it, in the file of the supervisord with this pid. `None` if it has
/// none, or cannot be read.
pub(super) fn stop_wait(pid: i32, programs: &[String]) -> Option<Duration> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_else(|_| PathBuf::from("/"));
    let file = match named_file(&words) {
        Some(file) => cwd.join(file),
        None => PLACES.into_iter().map(|place| cwd.join(place)).find(|place| place.exists())?,
    };
    let text = read(&file)?;
    let of_folder = file.parent().map_or_else(Vec::new, |folder| included(&text, folder));
    let texts: Vec<String> = std::iter::once(text).chain(of_folder.iter().filter_map(|file| read(file))).collect();
    let sections: Vec<String> = programs.iter().map(|program| format!("[program:{program}]")).collect();
    let seconds =
        sections.iter().find_map(|section| texts.iter().find_map(|text| setting(text, section, "stopwaitsecs")));
    seconds?.parse().ok().map(Duration::from_secs)
}

fn read(file: &Path) -> Option<String> {
    let is_small = fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_SIZE_MAX);
    if is_small { fs::read_to_string(file).ok() } else { None }
}

/// `-c FILE`, `-cFILE`, `--configuration FILE` or `--configuration=FILE`.
fn named_file<'a>(words: &[&'a str]) -> Option<&'a str> {
    let names = |word: &str| word == "-c" || word == "--configuration";
    let apart = words.iter().position(|word| names(word)).and_then(|at| words.get(at + 1)).copied();
    let joined = || {
        let file = |word: &&'a str| word.strip_prefix("--configuration=").or_else(|| word.strip_prefix("-c"));
        words.iter().skip(1).find_map(file)
    };
    apart.or_else(joined).filter(|file| !file.is_empty())
}

/// The value of a setting of a section, without a comment behind it.
fn setting<'a>(text: &'a str, section: &str, name: &str) -> Option<&'a str> {
    let lines = text.lines().skip_while(|line| line.trim() != section).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    lines.find_map(|line| {
        let (key, value) = line.split_once(['=', ':'])?;
        let value = value.split_once(" ;").map_or(value, |(value, _)| value);
        (key.trim() == name).then(|| value.trim())
    })
}

/// The files of `[include]`: names, or all of one ending in a folder (`conf.d/*.conf`).
fn included(text: &str, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for pattern in setting(text, "[include]", "files").unwrap_or_default().split_whitespace() {
        let path = folder.join(pattern);
        match path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('*')) {
            Some((head, tail)) => {
                let fits = |name: &str| name.starts_with(head) && name.ends_with(tail);
                let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
                let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
                files.extend(paths.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits)));
            }
            None => files.push(path),
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[supervisord]
nodaemon=true
[program:other]
stopwaitsecs=3
[program:gateway]
command=openclaw-supervise
;stopwaitsecs=5
stopwaitsecs = 345 ; longer than the drain
[include]
files = conf.d/*.conf one.ini
";

    #[test]
    fn a_setting_belongs_to_its_section_and_a_comment_does_not_count() {
        assert_eq!(setting(TEXT, "[program:gateway]", "stopwaitsecs"), Some("345"));
        assert_eq!(setting(TEXT, "[program:other]", "stopwaitsecs"), Some("3"));
        assert_eq!(setting(TEXT, "[program:other]", "command"), None);
        assert_eq!(setting(TEXT, "[program:none]", "stopwaitsecs"), None);
    }

    #[test]
    fn the_file_is_the_one_of_the_command_line() {
        for (words, expected) in [
            (&["python3", "supervisord", "-n", "-c", "/a"][..], Some("/a")),
            (&["python3", "supervisord", "--configuration=/a"], Some("/a")),
            (&["supervisord", "-c/a", "-n"], Some("/a")),
            (&["supervisord", "-n"], None),
            (&["supervisord", "-c"], None),
        ] {
            assert_eq!(named_file(words), expected, "{words:?}");
        }
    }

    #[test]
    fn included_files_are_found() {
        let folder = std::env::temp_dir().join(format!("supervisord-{}", std::process::id()));
        fs::create_dir_all(folder.join("conf.d")).unwrap();
        for file in ["conf.d/a.conf", "conf.d/b.txt"] {
            fs::write(folder.join(file), "").unwrap();
        }
        let found = included(TEXT, &folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["conf.d/a.conf", "one.ini"].map(|file| folder.join(file)));
    }
}
