//! `SQLite`, which is meant for programs that do much more with it, made small.

use rusqlite::ffi;
use std::ffi::c_int;
use std::ptr;
use std::sync::Once;

/// Lets `SQLite` take memory as it needs it, instead of some 200 KiB with each connection for the case that it will:
/// see `SQLITE_CONFIG_LOOKASIDE` and `SQLITE_CONFIG_PAGECACHE` in its manual. To be called before anything else is done
/// with it; too late it has no effect.
pub fn keep_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let none: c_int = 0;
        // SAFETY: no other thread uses SQLite yet, for each calls this first. Both calls read the arguments that their
        // option has, two numbers and a null pointer with two numbers, and keep no pointer to anything.
        unsafe {
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, none, none);
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, ptr::null_mut::<std::ffi::c_void>(), none, none);
        }
    });
}
