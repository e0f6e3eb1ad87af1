//! bpf-linker: turns the compiler's bitcode into the kernel object with its BTF.

use std::{fs, path::PathBuf};

use super::{SetupError, llvm::Llvm};
use crate::{
    console,
    process::{self, Purpose},
    workspace::Workspace,
};

/// The version that the build was verified with.
pub(super) const VERSION: &str = "0.13.0";

/// The linker for `llvm`, built if it is not there.
pub(super) fn ensure(workspace: &Workspace, llvm: &Llvm) -> Result<PathBuf, SetupError> {
    let folder = workspace.tools().join(format!("bpf-linker-{VERSION}"));
    let program = folder.join("bin/bpf-linker");
    let feature = format!("llvm-{}", llvm.version.major);
    // cargo's own record of the features: a linker for another LLVM is there but of no use.
    let record = fs::read_to_string(folder.join(".crates2.json")).unwrap_or_default();
    if program.is_file() && record.contains(&format!("\"{feature}\"")) {
        return Ok(program);
    }
    console::step(&format!("building bpf-linker {VERSION} for LLVM {} (a minute)", llvm.version));
    let build = workspace.tools().join("build");
    process::run(
        workspace
            .cargo()
            .args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION])
            .args(["--no-default-features", "--features", &feature, "--root"])
            .arg(&folder)
            .arg("--target-dir")
            .arg(&build)
            // Without it the build script guesses a folder, and linking fails on -lLLVM.
            .env("LLVM_PREFIX", &llvm.prefix),
        &Purpose::new(
            format!("building bpf-linker {VERSION}"),
            format!(
                "if the crate registry cannot be reached, put a bpf-linker {VERSION} built with \
                 feature {feature} into {} and repeat",
                workspace.show(&folder)
            ),
        ),
    )?;
    // Half a gigabyte that nothing reads again; what could not be removed is only in the way.
    drop(fs::remove_dir_all(&build));
    Ok(program)
}
