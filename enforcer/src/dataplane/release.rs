//! The running kernel's version, and the oldest that this product is known to work on.

use std::fmt;

/// The first two numbers of a kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// As 6 in `6.12.9-cloud-amd64`.
    pub major: u32,
    /// As 12 there.
    pub minor: u32,
}

/// The oldest on which all tests of a kernel pass (`cargo xtask test --kernels`). Others may have
/// what it takes from a newer one, so they are not refused for their number.
pub const OLDEST: Release = Release { major: 6, minor: 1 };

impl Release {
    /// The running kernel's; `None` if its version has no such numbers.
    #[must_use]
    pub fn running() -> Option<Self> {
        Self::parse(&text())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The running kernel's whole version, as `uname -r` gives it.
pub(super) fn text() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// What is to be said of the running kernel, if it is older than [`OLDEST`].
pub(super) fn warning() -> Option<String> {
    Release::running().filter(|running| *running < OLDEST).map(|_older| {
        format!(
            "Linux {} is older than {OLDEST}, the oldest that this version is tested on: upgrade the \
             node's kernel",
            text()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let parse = |text| Release::parse(text).unwrap();
        assert_eq!(parse("6.12.117+deb12-cloud-amd64"), Release { major: 6, minor: 12 });
        assert!(parse("5.15.0-91-generic") < OLDEST && parse("6.1") >= OLDEST);
        assert!(parse("6.12.0") > parse("6.2.0") && parse("10.0-rc1") > OLDEST);
        assert_eq!(Release::parse("unknown"), None);
        assert!(Release::running().is_some(), "{}", text());
    }
}
