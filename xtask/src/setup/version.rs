//! Version numbers of three parts, as compilers and LLVM print them.

use std::fmt;

/// `major.minor.patch`; what follows (`-nightly`, `+dfsg1`) is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    /// First number.
    pub(super) major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version with these numbers.
    pub(super) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `1.96.0+dfsg1`, `22.1`, `1.97.0-nightly`; missing parts are 0.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text.get(..end)?.split('.').map(str::parse::<u32>);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next().transpose().ok()?.unwrap_or(0);
        let patch = numbers.next().transpose().ok()?.unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_programs_print_them() {
        assert_eq!(Version::parse("1.96.0+dfsg1-1~deb12u2"), Some(Version::new(1, 96, 0)));
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version::new(1, 97, 0)));
        assert_eq!(Version::parse("22.1"), Some(Version::new(22, 1, 0)));
        assert_eq!(Version::parse("unknown"), None);
        assert!(Version::new(22, 1, 8) > Version::new(22, 1, 2));
    }
}
