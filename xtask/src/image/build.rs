//! Static programs: an image has no libraries, and no dynamic linker.

use std::{fs, path::PathBuf, process::Command};

use super::{Arch, ImageTaskError};
use crate::{
    daemon, elf,
    process::{self, Purpose},
    setup,
    workspace::Workspace,
};

/// With glibc in the program. No `getaddrinfo` of it may be needed: that part loads libraries.
const STATIC: &str = "-Ctarget-feature=+crt-static";
/// Debian's cross compiler, as a linker.
const ARM64_LINKER: &str = "aarch64-linux-gnu-gcc";

/// Whether programs can be built for these processors, and if not, what is missing.
pub(super) fn check_target(arch: Arch) -> Result<(), ImageTaskError> {
    let target = arch.target();
    let purpose = Purpose::new("rustc --print target-libdir", "repair the Rust installation");
    let library = process::capture(
        Command::new("rustc").args(["--print", "target-libdir", "--target", target]),
        &purpose,
    )?;
    if !PathBuf::from(library.trim()).is_dir() {
        return Err(ImageTaskError::NoTarget {
            target,
            missing: "the compiler has no standard library for it".to_owned(),
            remedy: format!("run `rustup target add {target}`, or build on such a machine"),
        });
    }
    if !arch.is_own() && arch == Arch::Arm64 && setup::find_program(ARM64_LINKER).is_none() {
        return Err(ImageTaskError::NoTarget {
            target,
            missing: format!("there is no linker {ARM64_LINKER}"),
            remedy: "run, as root: apt-get install gcc-aarch64-linux-gnu".to_owned(),
        });
    }
    Ok(())
}

/// Builds a program of a package and returns its path.
pub(super) fn program(
    workspace: &Workspace,
    arch: Arch,
    package: &str,
    name: &str,
) -> Result<PathBuf, ImageTaskError> {
    let purpose = Purpose::new(format!("building a static {name}"), "see the errors above");
    let mut command = workspace.cargo();
    command
        .args(["build", "--quiet", "--release", "--package", package, "--bin", name])
        // Named also if it is the machine's own: flags then leave build scripts and macros alone,
        // which cannot be static.
        .args(["--target", arch.target(), "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(workspace.image_target())
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", STATIC);
    if !arch.is_own() && arch == Arch::Arm64 {
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", ARM64_LINKER);
    }
    let mut built = None;
    let status = process::each_line(&mut command, &purpose, |line| {
        built = daemon::executable(line, name).or(built.take());
    })?;
    if !status.success() {
        return Err(purpose.failed(status).into());
    }
    let program = built.ok_or_else(|| ImageTaskError::NoProgram(name.to_owned()))?;
    let content = fs::read(&program)
        .map_err(|reason| ImageTaskError::Read { path: workspace.show(&program), reason })?;
    // The section that names the dynamic linker; a program without it is loaded by the kernel alone.
    let is_static = elf::section_names(&content)
        .is_some_and(|sections| !sections.contains(&b".interp".as_slice()));
    if is_static { Ok(program) } else { Err(ImageTaskError::NotStatic(workspace.show(&program))) }
}
