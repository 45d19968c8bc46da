//! Random numbers of the kernel, see getrandom(2).

/// 64 random bits.
///
/// # Panics
/// Without getrandom(2) and `/dev/urandom`, as the hash maps of std do.
#[must_use]
#[expect(clippy::expect_used, reason = "see the doc")]
pub fn bits() -> u64 {
    getrandom::u64().expect("the kernel has random numbers")
}

/// 128 random bits, as 32 hexadecimal digits.
#[must_use]
pub fn id() -> String {
    format!("{:016x}{:016x}", bits(), bits())
}
