//! LLVM's development files, which bpf-linker is linked to.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::version::Version;
use crate::process::{self, Purpose};

/// An installation of LLVM with its development files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Llvm {
    /// What `LLVM_PREFIX` of bpf-linker's build means: the folder over `bin` and `lib`.
    pub(super) prefix: PathBuf,
    /// Its version.
    pub(super) version: Version,
}

/// The packages of `major`; libzstd and Polly are what Debian's LLVM is linked to.
pub(super) fn packages(major: u32) -> [String; 3] {
    [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev"), "libzstd-dev".to_owned()]
}

/// An LLVM of the compiler's major version that is not older: bpf-linker reads the bitcode that
/// the compiler wrote, and bitcode is only readable by the same or a later LLVM.
pub(super) fn find(compilers: Version) -> Option<Llvm> {
    let major = compilers.major;
    let configured = env::var_os("LLVM_PREFIX")
        .map(|prefix| Path::new(&prefix).join("bin/llvm-config").into_os_string());
    let places = [
        format!("/usr/lib/llvm-{major}/bin/llvm-config"),
        format!("llvm-config-{major}"),
        "llvm-config".to_owned(),
    ];
    configured
        .into_iter()
        .chain(places.map(Into::into))
        .filter_map(|program| inspect(Path::new(&program)))
        .find(|llvm| fits(llvm.version, compilers))
}

fn fits(llvm: Version, compilers: Version) -> bool {
    llvm.major == compilers.major && llvm >= compilers
}

/// The installation that an `llvm-config` belongs to, if its headers are there: the program alone
/// also comes with LLVM's runtime packages.
fn inspect(program: &Path) -> Option<Llvm> {
    let purpose = Purpose::new("asking llvm-config", "reinstall LLVM's development files");
    let ask = |argument: &str| {
        process::capture(Command::new(program).arg(argument), &purpose)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let version = Version::parse(&ask("--version")?)?;
    let prefix = PathBuf::from(ask("--prefix")?);
    let include = PathBuf::from(ask("--includedir")?);
    include.join("llvm-c/Core.h").is_file().then_some(Llvm { prefix, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_major_and_not_older_fits() {
        let compilers = Version::new(22, 1, 2);
        assert!(fits(Version::new(22, 1, 8), compilers));
        assert!(fits(Version::new(22, 1, 2), compilers));
        assert!(!fits(Version::new(22, 1, 0), compilers));
        assert!(!fits(Version::new(23, 1, 0), compilers));
    }

    #[test]
    fn no_program_is_no_installation() {
        assert_eq!(inspect(Path::new("/nonexistent/llvm-config")), None);
    }
}
