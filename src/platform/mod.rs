//! What differs between the kernels, and the only folder that may use `unsafe`.

mod child;
mod claimant;
pub mod clock;
pub mod command_line;
pub mod descent;
#[expect(unsafe_code, reason = "the safe calls take descriptors that we own")]
pub mod descriptors;
#[expect(unsafe_code, reason = "no safe crate reads a signal's disposition without replacing it")]
pub mod disposition;
pub mod environment;
pub mod folder;
pub mod group_limits;
pub mod hash;
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "no safe crate sets up the allocator of the C library")
)]
pub mod heap;
pub mod kill;
pub mod output;
#[cfg_attr(target_os = "linux", expect(unsafe_code, reason = "no safe crate offers dl_iterate_phdr(3)"))]
pub mod program_pages;
pub mod random;
pub mod refusal;
pub mod regular_file;
#[expect(unsafe_code, reason = "no safe crate offers sqlite3_config(3)")]
pub mod sqlite;
pub mod standard_streams;
mod stat;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod working_directory;

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "system calls that no safe crate offers")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;

#[cfg(target_os = "macos")]
#[expect(unsafe_code, reason = "system calls that no safe crate offers")]
mod macos;
#[cfg(target_os = "macos")]
pub use macos::*;
