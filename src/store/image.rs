//! A database of the other kind: read as bytes, and replaced by a new file. It is never opened.
//!
//! Two kernels that share a folder share neither the locks of fcntl(2) nor memory, and `SQLite` needs both: see section 2
//! of <https://www.sqlite.org/wal.html> and section 2.1 of <https://www.sqlite.org/howtocorrupt.html>. A connection that finds
//! no lock on the index of the log truncates it under its owner, and one that finds a journal without a lock rolls back a
//! transaction that is going on, even when it only reads. So the journal mode of a file is chosen when the file is made: a
//! write-ahead log by an owner by lock, a rollback journal by an owner by heartbeat. It never changes. A new owner of the other
//! kind makes a new file of what it has read, and an old owner that wakes up writes to its own, which has no name any more.

use super::clock::Patience;
use super::error::StoreError;
use super::folder::{DATABASE, FileId, database_of, with_suffix};
use crate::core::lease::Basis;
use crate::platform::folder::Folder;
use crate::platform::{random, regular_file};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first bytes of a database, and where its header has the journal mode, see
/// <https://www.sqlite.org/fileformat.html>.
const MAGIC: &[u8] = b"SQLite format 3\0";
const MODES: [usize; 2] = [18, 19];

const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// How long a database that is being written is waited for, and the pause between two attempts.
const CALM: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(5);

/// What a database was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileKind {
    pub(super) basis: Basis,
    pub(super) id: FileId,
}

/// `None` if it is missing, empty, or no database. A process that has the database open must not ask: see [`FileId::at`].
pub(super) fn kind(path: &Path) -> Result<Option<FileKind>, StoreError> {
    let look = || {
        let Some(file) = found(regular_file::open(path))? else { return Ok(None) };
        let mut header = Vec::new();
        (&file).take(20).read_to_end(&mut header)?;
        let id = FileId::of(&file.metadata()?);
        Ok(basis(&header).map(|basis| FileKind { basis, id }))
    };
    look().map_err(StoreError::file("read", path, "check its permissions and the file system"))
}

fn basis(header: &[u8]) -> Option<Basis> {
    match (header.starts_with(MAGIC), header.get(MODES[0])?) {
        (true, 1) => Some(Basis::Heartbeat),
        (true, 2) => Some(Basis::Lock),
        _ => None,
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A database with all that its log has.
#[derive(Debug)]
pub(super) struct DatabaseImage {
    bytes: Vec<u8>,
    pub(super) basis: Basis,
    path: PathBuf,
}

impl DatabaseImage {
    /// `None` if the database is missing, empty, or of our kind, or if that cannot be told.
    pub(super) fn of_other_kind(dir: &Path, ours: Basis) -> Result<Option<Self>, StoreError> {
        Self::of(dir, |basis| basis != ours)
    }

    /// `None` if the database is missing or empty, or if readers share the memory of its log with us: `sees` is as for
    /// [`crate::core::lease::rule`].
    pub(super) fn of_unshared(dir: &Path, sees: Basis) -> Result<Option<Self>, StoreError> {
        Self::of(dir, |basis| (basis, sees) != (Basis::Lock, Basis::Lock))
    }

    pub(super) fn of_any(dir: &Path) -> Result<Option<Self>, StoreError> {
        Self::of(dir, |_| true)
    }

    fn of(dir: &Path, wanted: impl Fn(Basis) -> bool) -> Result<Option<Self>, StoreError> {
        let path = database_of(dir);
        match kind(&path) {
            Ok(Some(kind)) if wanted(kind.basis) => {
                Self::read(&path).map_err(StoreError::file("read", &path, "check the file system"))
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Reads until nothing changed meanwhile.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let logs = ["-wal", "-journal"].map(|suffix| with_suffix(path, suffix));
        let patience = Patience::new(CALM);
        loop {
            let before = state(path, &logs)?;
            let [wal, journal] = [read(&logs[0])?, read(&logs[1])?];
            let Some(mut bytes) = found(fs::read(path))? else { return Ok(None) };
            if state(path, &logs)? == before {
                let Some(basis) = basis(&bytes) else { return Ok(None) };
                match basis {
                    Basis::Lock => replay(&mut bytes, &wal),
                    Basis::Heartbeat => roll_back(&mut bytes, &journal),
                };
                // A database in memory has no log.
                set_mode(&mut bytes, Basis::Heartbeat);
                return Ok(Some(Self { bytes, basis, path: path.to_owned() }));
            }
            if !patience.pause(STEP) {
                return Err(io::Error::new(ErrorKind::ResourceBusy, "it is being written"));
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a new file with this content into place, of the kind of this basis.
    pub(super) fn install(mut self, basis: Basis) -> Result<(), StoreError> {
        set_mode(&mut self.bytes, basis);
        self.replace().map_err(StoreError::file("replace", &self.path, "check the free space and the file system"))
    }

    /// What the old logs say is in the new file already: to apply them once more, after a crash in between, changes nothing.
    fn replace(&self) -> io::Result<()> {
        Folder::open(self.path.parent().unwrap_or(Path::new("/")))?.replace(
            DATABASE,
            &format!("{DATABASE}.{}", random::id()),
            &self.bytes,
        )?;
        remove_logs(&self.path)
    }
}

/// Removes what a database of another kind left.
pub(super) fn remove_logs(path: &Path) -> io::Result<()> {
    let folder = Folder::open(path.parent().unwrap_or(Path::new("/")))?;
    ["-wal", "-shm", "-journal"].iter().try_for_each(|suffix| folder.remove(format!("{DATABASE}{suffix}")))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    found(fs::read(path)).map(Option::unwrap_or_default)
}

type FileStates = Vec<Option<(u64, u64, i64, i64)>>;

fn state(path: &Path, logs: &[PathBuf]) -> io::Result<FileStates> {
    let one = |path: &Path| {
        let meta = found(fs::metadata(path))?;
        Ok(meta.map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())))
    };
    [path].into_iter().chain(logs.iter().map(PathBuf::as_path)).map(one).collect()
}

fn set_mode(bytes: &mut [u8], basis: Basis) {
    let mode = if basis == Basis::Lock { 2 } else { 1 };
    for at in MODES {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = mode;
        }
    }
}

fn number(from: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(from.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn size(from: &[u8], at: usize) -> Option<usize> {
    number(from, at).and_then(|number| usize::try_from(number).ok())
}

fn put_page(bytes: &mut Vec<u8>, number: usize, page: &[u8]) -> Option<()> {
    let from = number.checked_sub(1)?.checked_mul(page.len())?;
    let to = from.checked_add(page.len())?;
    if bytes.len() < to {
        bytes.resize(to, 0);
    }
    bytes.get_mut(from..to)?.copy_from_slice(page);
    Some(())
}

/// Applies the committed frames of a write-ahead log, see section 4 of <https://www.sqlite.org/fileformat.html>. `None` at the
/// end of what is valid.
fn replay(bytes: &mut Vec<u8>, wal: &[u8]) -> Option<()> {
    const HEADER: usize = 32;
    const FRAME: usize = 24;
    let magic = number(wal, 0).filter(|magic| magic & !1 == 0x377f_0682)?;
    let sum = |from: &[u8], mut sum: (u32, u32)| {
        for pair in from.chunks_exact(8) {
            let half = |at: usize| {
                let half = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if magic & 1 == 1 { u32::from_be_bytes(half) } else { u32::from_le_bytes(half) }
            };
            sum.0 = sum.0.wrapping_add(half(0)).wrapping_add(sum.1);
            sum.1 = sum.1.wrapping_add(half(4)).wrapping_add(sum.0);
        }
        sum
    };
    let page = size(wal, 8).filter(|page| page.is_power_of_two() && *page <= 65_536)?;
    let mut sums = sum(&wal[..24], (0, 0));
    if (number(wal, 24)?, number(wal, 28)?) != sums {
        return None;
    }
    let mut pending = Vec::new();
    for frame in wal.get(HEADER..)?.chunks_exact(FRAME + page) {
        sums = sum(&frame[FRAME..], sum(&frame[..8], sums));
        if frame[8..16] != wal[16..24] || (number(frame, 16)?, number(frame, 20)?) != sums {
            return None;
        }
        pending.push((size(frame, 0)?, &frame[FRAME..]));
        // With a commit comes the number of pages.
        let pages = size(frame, 4)?;
        if pages > 0 {
            for (number, content) in pending.drain(..) {
                put_page(bytes, number, content)?;
            }
            bytes.truncate(pages.checked_mul(page)?);
        }
    }
    Some(())
}

/// Undoes a transaction that is going on, or was cut short, see section 3 of <https://www.sqlite.org/fileformat.html>. `None`
/// at the end of what is valid.
fn roll_back(bytes: &mut Vec<u8>, journal: &[u8]) -> Option<()> {
    let mut at = 0;
    while journal.get(at..)?.starts_with(&JOURNAL_MAGIC) {
        let (count, nonce) = (number(journal, at + 8)?, number(journal, at + 12)?);
        let (pages, sector, page) = (size(journal, at + 16)?, size(journal, at + 20)?, size(journal, at + 24)?);
        if !sector.is_power_of_two() || !page.is_power_of_two() || page > 65_536 {
            return None;
        }
        let first = at.checked_add(sector)?;
        let records = journal.get(first..)?.chunks_exact(page + 8).take(usize::try_from(count).ok()?);
        let mut end = first;
        for record in records {
            let content = &record[4..4 + page];
            let samples = (1..).map_while(|step| page.checked_sub(step * 200)).filter(|sample| *sample > 0);
            let sum = samples.fold(nonce, |sum, sample| sum.wrapping_add(u32::from(content[sample])));
            if number(record, 4 + page)? != sum {
                return None;
            }
            put_page(bytes, size(record, 0)?, content)?;
            end += page + 8;
        }
        bytes.truncate(pages.checked_mul(page)?);
        // The next header begins at a sector.
        at = end.checked_next_multiple_of(sector)?;
    }
    Some(())
}
