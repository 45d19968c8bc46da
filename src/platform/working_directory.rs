//! The working directory, which all that we start inherits. Node does not start in one that was removed (`uv_cwd`: ENOENT).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static FALLBACK: OnceLock<PathBuf> = OnceLock::new();

/// Where to go when the working directory is gone. The first call counts.
pub fn set_fallback(folder: PathBuf) {
    let _second = FALLBACK.set(folder);
}

/// Whether the working directory was removed. It does not block.
#[must_use]
pub fn is_gone() -> bool {
    std::env::current_dir().is_err()
}

/// Goes to the fallback, or else to `/`, if the working directory was removed. Relative paths were resolved at the start. It
/// blocks then.
pub fn ensure() {
    let Err(error) = std::env::current_dir() else { return };
    let root = Path::new("/");
    let places = FALLBACK.get().map(PathBuf::as_path).into_iter().chain([root]);
    if let Some(place) = places.into_iter().find(|place| std::env::set_current_dir(place).is_ok()) {
        tracing::warn!(
            "the working directory of this supervisor is gone ({error}); the gateway and its hooks are started in {}",
            place.display()
        );
    }
}
