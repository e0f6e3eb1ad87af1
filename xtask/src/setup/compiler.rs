//! The compiler of the kernel half: one that has the source of its own `core`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::version::Version;
use crate::process::{self, Purpose};

/// The workspace's `rust-version`: older ones do not know the edition's features in use.
pub(super) const OLDEST: Version = Version::new(1, 95, 0);
/// Debian's compiler that follows upstream closely (kept for browsers), with its source.
pub(super) const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Clippy of the same version.
pub(super) const CLIPPY_PACKAGE: &str = "rust-web-clippy";
/// What to do where Debian's packages are no way.
pub(super) const REMEDY: &str = "either run `rustup component add rust-src` (and install the \
     development files of the LLVM that `rustc -vV` names), or on Debian 12 run, as root: \
     apt-get install rustc-web rust-web-src rust-web-clippy llvm-22-dev libpolly-22-dev libzstd-dev";

/// A compiler that can build `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The program.
    pub(crate) rustc: PathBuf,
    /// Its installation; `bin/` below it has what belongs to it.
    pub(crate) sysroot: PathBuf,
    /// Its own version.
    pub(super) version: Version,
    /// The version of the LLVM in it.
    pub(super) llvm: Version,
}

impl Compiler {
    /// For messages.
    pub(super) fn show(&self) -> String {
        format!("{} {}", self.rustc.display(), self.version)
    }

    /// Whether the distribution's package manager put it there.
    pub(super) fn is_packaged(&self) -> bool {
        self.sysroot == Path::new("/usr")
    }
}

/// Every usable compiler, the distribution's first: there all parts come from one source.
pub(super) fn find_all() -> Vec<Compiler> {
    let mut found = Vec::new();
    if let Some(packaged) = inspect(Path::new("/usr/bin/rustc")) {
        found.push(packaged);
    }
    let active = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    if let Some(sysroot) = sysroot_of(Path::new(&active))
        // The compiler itself, not rustup's proxy: which one the proxy starts depends on where.
        && let Some(active) = inspect(&sysroot.join("bin/rustc"))
        && !found.contains(&active)
    {
        found.push(active);
    }
    found
}

/// The compiler at `rustc`, if it is there, new enough and with the source of `core`.
fn inspect(rustc: &Path) -> Option<Compiler> {
    if !rustc.is_file() {
        return None;
    }
    let sysroot = sysroot_of(rustc)?;
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let (version, llvm) = versions(&ask(rustc, &["-vV"])?)?;
    (core.is_file() && version >= OLDEST).then(|| Compiler {
        rustc: rustc.to_path_buf(),
        sysroot,
        version,
        llvm,
    })
}

/// What coverage needs to know of a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) sysroot: PathBuf,
    /// Its own target.
    pub(super) host: String,
    pub(super) llvm_major: u32,
}

/// The compiler that cargo uses.
pub(super) fn active(rustc: &Path) -> Option<Active> {
    let text = ask(rustc, &["-vV"])?;
    let (_, llvm) = versions(&text)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host:"))?.trim().to_owned();
    Some(Active { sysroot: sysroot_of(rustc)?, host, llvm_major: llvm.major })
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    Some(PathBuf::from(ask(rustc, &["--print", "sysroot"])?.trim()))
}

/// What a compiler says; `None` if it is not there or does not work, which is the same here.
fn ask(rustc: &Path, arguments: &[&str]) -> Option<String> {
    let purpose = Purpose::new("asking the compiler for its version", "reinstall it");
    // cargo's library path is for its own toolchain's programs.
    let mut command = Command::new(rustc);
    command.args(arguments).env_remove("LD_LIBRARY_PATH");
    process::capture(&mut command, &purpose).ok()
}

/// The compiler's and its LLVM's versions in what `rustc -vV` prints.
fn versions(text: &str) -> Option<(Version, Version)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Version::parse(line.trim())
    };
    Some((field("release:")?, field("LLVM version:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\n\
                    LLVM version: 22.1.8\n";
        assert_eq!(versions(text), Some((Version::new(1, 96, 0), Version::new(22, 1, 8))));
        assert_eq!(versions("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_oldest_version_is_the_workspaces() {
        let root = crate::workspace::Workspace::find();
        let manifest = std::fs::read_to_string(root.root().join("Cargo.toml")).unwrap();
        let line = manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).unwrap();
        assert_eq!(Version::parse(line.trim_matches('"')), Some(OLDEST));
    }

    #[test]
    fn a_compiler_that_is_not_there_is_no_candidate() {
        assert_eq!(inspect(Path::new("/nonexistent/rustc")), None);
    }
}
