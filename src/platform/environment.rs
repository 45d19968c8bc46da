//! The environment of a process.

/// What a process was given as its environment when it was started. What it sets for itself later is not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnvironment(Vec<u8>);

impl ProcessEnvironment {
    /// From `NAME=value` entries with a NUL after each.
    pub(super) fn new(entries: Vec<u8>) -> Self {
        Self(entries)
    }

    /// The entries again.
    #[cfg(target_os = "linux")]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether it holds this `NAME=value`.
    #[must_use]
    pub fn has(&self, entry: &str) -> bool {
        self.entries().any(|own| own == entry.as_bytes())
    }

    /// The value of a variable; of several with the same name the first, as getenv(3) has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.entries().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_by_its_whole_name_and_the_first_one_counts() {
        let environment = ProcessEnvironment::new(b"AB=0\0A=1\0A=2\0EMPTY=\0B=x=y\0".to_vec());
        assert_eq!(environment.get("A"), Some(&b"1"[..]));
        assert_eq!(environment.get("EMPTY"), Some(&b""[..]));
        assert_eq!(environment.get("B"), Some(&b"x=y"[..]));
        assert_eq!(environment.get("C"), None);
        assert!(environment.has("A=2") && environment.has("B=x=y"));
        assert!(!environment.has("A=") && !environment.has("A=12") && !environment.has("B=x"));
    }
}
