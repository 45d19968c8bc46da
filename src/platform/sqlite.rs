//! `SQLite`'s memory settings.

use rusqlite::ffi;
use std::ffi::c_int;
use std::ptr;
use std::sync::Once;

/// Makes `SQLite` allocate on demand instead of about 200 KiB per connection up front, see `SQLITE_CONFIG_LOOKASIDE` and
/// `SQLITE_CONFIG_PAGECACHE` in its manual. To be called before any other use of it; later it has no effect.
pub fn keep_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let none: c_int = 0;
        // SAFETY: no other thread uses SQLite yet, since each calls this first. Both calls read exactly the variadic arguments
        // of their option and keep no pointer.
        unsafe {
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, none, none);
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, ptr::null_mut::<std::ffi::c_void>(), none, none);
        }
    });
}
