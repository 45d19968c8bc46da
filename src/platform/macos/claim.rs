//! A claim on a port that every process of the user can see, whatever other files it shares with us: a locked file in
//! the user's own folder for such things, which holds the pid of the one that locked it.

pub use crate::platform::claimant::Claimant;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// In a shared `TMPDIR` another user may have put a link or a FIFO there.
const NO_LINK: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// A port that is claimed until this is dropped.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// It is ours.
    Taken(Claim),
    /// It is not.
    Held(Claimant),
    /// Never on this system.
    Changing,
}

/// `TMPDIR` is the user's own here; the number of the user is for a `TMPDIR` that is shared.
fn path(port: u16) -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("openclaw-supervise-{user}-{port}.lock"))
}

/// Takes the claim if it is free.
///
/// # Errors
/// The file cannot be made.
pub fn take(port: u16) -> io::Result<ClaimOutcome> {
    let path = path(port);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NO_LINK);
    let mut file = options.open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(ClaimOutcome::Taken(Claim { _file: file }))
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(ClaimOutcome::Held(holder(&mut file))),
        Err(error) => Err(error.into()),
    }
}

/// Looks whether the claim is taken.
///
/// # Errors
/// The file is there and cannot be read.
pub fn peek(port: u16) -> io::Result<Option<Claimant>> {
    let mut file = match OpenOptions::new().read(true).custom_flags(NO_LINK).open(path(port)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(holder(&mut file))),
        Err(error) => Err(error.into()),
    }
}

/// Never asked for on this system.
#[must_use]
pub fn by_table(_port: u16) -> Claimant {
    Claimant { by: None, uid: None }
}

/// Not known on this system.
#[must_use]
pub fn ports() -> Vec<u16> {
    Vec::new()
}

fn holder(file: &mut File) -> Claimant {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).is_ok();
    let uid = file.metadata().ok().map(|meta| meta.uid());
    Claimant { by: text.parse().ok().filter(|pid| read && *pid > 0), uid }
}

/// The lock file does not name the folder of its holder.
///
/// # Errors
/// None on this system.
#[expect(clippy::unused_async, reason = "it asks the holder on Linux")]
pub async fn folder_of(_port: u16, _time: Duration) -> io::Result<Option<PathBuf>> {
    Ok(None)
}

impl Claim {
    /// Nothing has to be served for a locked file.
    ///
    /// # Errors
    /// None on this system.
    pub fn server(&self) -> io::Result<Server> {
        Ok(Server)
    }
}

/// See [`Claim::server`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Waits for ever.
    pub async fn serve(self, _folder: PathBuf) {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_a_port_it_names_its_holder_and_is_gone_with_it() {
        let port = 1;
        let me =
            Claimant { by: Some(std::process::id().cast_signed()), uid: Some(rustix::process::geteuid().as_raw()) };
        let ClaimOutcome::Taken(claim) = take(port).unwrap() else { panic!("it was free") };
        assert!(matches!(take(port).unwrap(), ClaimOutcome::Held(held) if held == me));
        assert_eq!(peek(port).unwrap(), Some(me));
        drop(claim);
        assert_eq!(peek(port).unwrap(), None);
        std::fs::remove_file(path(port)).unwrap();
    }
}
