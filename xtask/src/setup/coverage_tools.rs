//! The two programs of LLVM that read what instrumented programs write. Their LLVM must be that of
//! the compiler: the format changes with its major version.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{SetupError, apt, compiler};

/// The programs, and the compiler's own target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoverageTools {
    /// `llvm-profdata`.
    pub(crate) profdata: PathBuf,
    /// `llvm-cov`.
    pub(crate) cov: PathBuf,
    /// The target that the compiler itself runs on.
    pub(crate) host: String,
}

/// Those of rustup's `llvm-tools`, else Debian's, which are installed if they are not there.
pub(crate) fn ensure() -> Result<CoverageTools, SetupError> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Some(active) = compiler::active(Path::new(&rustc)) else {
        return Err(SetupError::Missing {
            missing: format!("{} does not say which LLVM it has", Path::new(&rustc).display()),
            remedy: "reinstall the toolchain".to_owned(),
        });
    };
    let own = active.sysroot.join("lib/rustlib").join(&active.host).join("bin");
    let packaged = PathBuf::from(format!("/usr/lib/llvm-{}/bin", active.llvm_major));
    let folders = [own, packaged.clone()];
    if let Some(tools) = folders.iter().find_map(|folder| inside(folder, &active.host)) {
        return Ok(tools);
    }
    let package = format!("llvm-{}", active.llvm_major);
    apt::install(&[&package], "coverage needs llvm-profdata and llvm-cov of the compiler's LLVM")?;
    inside(&packaged, &active.host).ok_or_else(|| SetupError::Missing {
        missing: format!("{package} is installed and has no llvm-profdata or no llvm-cov"),
        remedy: "run `rustup component add llvm-tools`".to_owned(),
    })
}

/// Both programs, if they are in the folder.
fn inside(folder: &Path, host: &str) -> Option<CoverageTools> {
    let (profdata, cov) = (folder.join("llvm-profdata"), folder.join("llvm-cov"));
    (profdata.is_file() && cov.is_file()).then(|| CoverageTools {
        profdata,
        cov,
        host: host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_alone_is_not_enough() {
        let folder = env::temp_dir().join(format!("enforcer-coverage-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("llvm-cov"), "").unwrap();
        assert_eq!(inside(&folder, "here"), None);
        std::fs::write(folder.join("llvm-profdata"), "").unwrap();
        let found = inside(&folder, "here").map(|tools| tools.cov);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, Some(folder.join("llvm-cov")));
    }
}
