//! `cargo xtask setup`: finds or installs what the kernel half needs.
//!
//! The eBPF programs need `core` compiled for `bpfel-unknown-none`: a compiler with the source of
//! its own `core` ([`compiler`]), LLVM's development files of the compiler's major version
//! ([`llvm`]) and bpf-linker linked to that LLVM ([`linker`]). Whatever is complete already is
//! taken; what is missing comes from Debian's packages ([`apt`]) where that is possible. A stamp
//! ([`stamp`]) makes the second time instant.

mod apt;
pub(crate) mod cargo_tool;
mod compiler;
pub(crate) mod coverage_tools;
mod linker;
mod llvm;
pub(crate) mod promtool;
mod stamp;
mod version;

use std::{
    env, io,
    path::{Path, PathBuf},
};

use crate::{
    console,
    process::ProcessError,
    setup::{compiler::Compiler, llvm::Llvm},
    workspace::Workspace,
};

/// Programs that the laboratory, the tests and the demo start, and the packages that have them.
const RUNTIME_TOOLS: [(&str, &str); 3] =
    [("ip", "iproute2"), ("nft", "nftables"), ("bpftool", "bpftool")];

/// Why set-up cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// Packages are missing and this user or machine cannot get them.
    #[error("{missing}; {remedy}")]
    Missing { missing: String, remedy: String },
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The stamp or a folder under `target/` could not be written.
    #[error("cannot write {path}: {reason}; check that this user may write there")]
    Write { path: String, reason: io::Error },
}

/// What builds the kernel half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// LLVM of its major version.
    pub(crate) llvm: Llvm,
    /// bpf-linker, linked to that LLVM.
    pub(crate) linker: PathBuf,
}

/// Finds or installs everything; instant if the last time's findings are still true.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolchain, SetupError> {
    let stamp = workspace.setup_stamp();
    let tools_missing = missing_programs(&RUNTIME_TOOLS);
    if tools_missing.is_empty()
        && let Some(toolchain) = stamp::read(&stamp)
    {
        return Ok(toolchain);
    }
    console::step("looking for what the kernel half needs");
    if !tools_missing.is_empty() {
        apt::install(&tools_missing, "tests and demo need network tools")?;
    }
    let (compiler, llvm) = compiler_and_llvm()?;
    let linker = linker::ensure(workspace, &llvm)?;
    console::detail(&format!("bpf-linker: {}", workspace.show(&linker)));
    let toolchain = Toolchain { compiler, llvm, linker };
    stamp::write(&stamp, &toolchain)
        .map_err(|reason| SetupError::Write { path: workspace.show(&stamp), reason })?;
    Ok(toolchain)
}

/// A compiler with an LLVM to match: the first pair that is complete, else the first compiler
/// with what it lacks installed, else Debian's packages.
fn compiler_and_llvm() -> Result<(Compiler, Llvm), SetupError> {
    let mut candidates = compiler::find_all();
    if candidates.is_empty() {
        if !is_root() {
            // All that will be needed at once, and the way that needs no root.
            return Err(SetupError::Missing {
                missing: "no Rust compiler with the source of its core library was found, and \
                          only root can install packages"
                    .to_owned(),
                remedy: compiler::REMEDY.to_owned(),
            });
        }
        apt::install_latest(
            &compiler::PACKAGES,
            "no Rust compiler with the source of its core library was found",
        )?;
        candidates = compiler::find_all();
    }
    for candidate in &candidates {
        if let Some(llvm) = llvm::find(candidate.llvm) {
            report(candidate, &llvm);
            return Ok((candidate.clone(), llvm));
        }
    }
    let Some(compiler) = candidates.into_iter().next() else {
        return Err(SetupError::Missing {
            missing: format!(
                "no Rust compiler {} or newer with the source of its core library was found, \
                 although its packages are installed",
                compiler::OLDEST
            ),
            remedy: compiler::REMEDY.to_owned(),
        });
    };
    let packages = llvm::packages(compiler.llvm.major);
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt::install(
        &packages,
        &format!("{} needs LLVM {}'s development files", compiler.show(), compiler.llvm.major),
    )?;
    let Some(llvm) = llvm::find(compiler.llvm) else {
        return Err(SetupError::Missing {
            missing: format!(
                "no LLVM {} or newer of that major version was found, although its packages are \
                 installed",
                compiler.llvm
            ),
            remedy: format!(
                "install a newer llvm-{}-dev, or point LLVM_PREFIX to one",
                compiler.llvm.major
            ),
        });
    };
    report(&compiler, &llvm);
    Ok((compiler, llvm))
}

fn report(compiler: &Compiler, llvm: &Llvm) {
    console::detail(&format!("compiler: {}", compiler.show()));
    console::detail(&format!("LLVM: {} in {}", llvm.version, llvm.prefix.display()));
}

/// Makes sure that the kernel compiler's own clippy is there and returns its cargo subcommand.
pub(crate) fn ensure_clippy(toolchain: &Toolchain) -> Result<PathBuf, SetupError> {
    let clippy = toolchain.compiler.sysroot.join("bin/cargo-clippy");
    if clippy.is_file() {
        return Ok(clippy);
    }
    let missing = format!("{} has no clippy", toolchain.compiler.show());
    if toolchain.compiler.is_packaged() {
        apt::install(&[compiler::CLIPPY_PACKAGE], &missing)?;
        if clippy.is_file() {
            return Ok(clippy);
        }
    }
    Err(SetupError::Missing {
        missing,
        remedy: "run `rustup component add clippy` for that toolchain".to_owned(),
    })
}

/// Installs the packages of those `programs` (with their packages) that are not there; `why` says
/// what they are for.
pub(crate) fn ensure_programs(programs: &[(&str, &str)], why: &str) -> Result<(), SetupError> {
    let mut packages = missing_programs(programs);
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { apt::install(&packages, why) }
}

/// Makes sure that the package lists are there and offer `packages`.
pub(crate) fn ensure_offered(packages: &[&str], why: &str) -> Result<(), SetupError> {
    apt::ensure_offered(packages, why)
}

/// Packages of those programs that are neither in PATH nor in `/usr/sbin`.
fn missing_programs<'a>(programs: &[(&str, &'a str)]) -> Vec<&'a str> {
    programs
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect()
}

/// The path of a program in PATH or `/usr/sbin`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // Debian leaves it out of an ordinary user's PATH.
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Whether this process has the rights of root.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string(Path::new("/proc/self/status"))
        .is_ok_and(|status| effective_user(&status) == Some(0))
}

/// The effective user's number in the text of `/proc/<pid>/status`, proc_pid_status(5).
fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_decides() {
        let status = "Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n";
        assert_eq!(effective_user(status), Some(0));
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }
}
