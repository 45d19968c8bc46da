//! What differs between the kernels, and the only place where `unsafe` is allowed.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::*;
