//! `cargo xtask image`: the daemon's container image, an OCI archive made without a container
//! engine; and the image of the tests' workload.

mod build;

use std::{fs, io, path::PathBuf, process::Command};

use clap::ValueEnum;
use enforcer_cluster::{Architecture, Image, ImageError};

use crate::{
    console,
    ebpf::{self, EbpfError},
    process::{self, ProcessError, Purpose},
    workspace::Workspace,
};

/// The processors that an image is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86-64.
    #[default]
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Arch {
    fn image(self) -> Architecture {
        match self {
            Self::Amd64 => Architecture::Amd64,
            Self::Arm64 => Architecture::Arm64,
        }
    }

    /// The compiler's name of it, with glibc: its static parts come with every C compiler.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The one that this program itself runs on.
    fn is_own(self) -> bool {
        cfg!(target_arch = "x86_64") == (self == Self::Amd64)
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageTaskError {
    /// The kernel half could not be built.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// cargo was content but named no program.
    #[error("cargo built {0} but named no program; check that its package still has it")]
    NoProgram(String),
    /// The compiler cannot build for these processors.
    #[error("cannot build for {target}: {missing}; {remedy}")]
    NoTarget { target: &'static str, missing: String, remedy: String },
    /// An image has no libraries.
    #[error(
        "{0} asks for a dynamic linker, and an image has none; check the flags in \
         xtask/src/image/build.rs"
    )]
    NotStatic(String),
    /// A file could not be read.
    #[error("cannot read {path}: {reason}; build again")]
    Read { path: String, reason: io::Error },
    /// The archive could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Makes the daemon's image.
pub(crate) fn run(workspace: &Workspace, arch: Arch) -> Result<(), ImageTaskError> {
    // Before the long builds: nobody should wait to learn what is missing.
    build::check_target(arch)?;
    ebpf::build(workspace)?;
    let archive = daemon(workspace, arch)?;
    let size = fs::metadata(&archive).map_or(0, |metadata| metadata.len());
    console::detail(&format!("{}: {} KiB", workspace.show(&archive), size.div_ceil(1024)));
    console::detail(&format!("ctr --namespace k8s.io images import {}", workspace.show(&archive)));
    Ok(())
}

/// Makes the daemon's image, its kernel half being there, and returns the archive's path.
pub(crate) fn daemon(workspace: &Workspace, arch: Arch) -> Result<PathBuf, ImageTaskError> {
    console::step(&format!("building the daemon for its image ({})", arch.image().name()));
    let program = build::program(workspace, arch, "enforcer", "enforcer")?;
    if arch.is_own() {
        // A static program may still not start: by a wrong loader, or a missing instruction.
        let purpose = Purpose::new("the image's program", "see what it says above");
        let version = process::capture(Command::new(&program).arg("--version"), &purpose)?;
        console::detail(&format!("static, and runs: {}", version.trim()));
    }
    let name = format!("enforcer:{}", env!("CARGO_PKG_VERSION"));
    let image = Image::new(&name, arch.image(), &["/enforcer"])
        .program("/enforcer", read(workspace, &program)?);
    let archive = workspace.image_target().join(format!("enforcer-{}.tar", arch.image().name()));
    image.write(&archive)?;
    Ok(archive)
}

/// Makes the image of the tests' workload, which is also that of pod sandboxes, and returns the
/// archive's path.
pub(crate) fn workload(workspace: &Workspace) -> Result<PathBuf, ImageTaskError> {
    let arch = if Arch::Amd64.is_own() { Arch::Amd64 } else { Arch::Arm64 };
    build::check_target(arch)?;
    console::step("building the tests' workload");
    let program = build::program(workspace, arch, "enforcer-cluster", "workload")?;
    let image = Image::new("localhost/workload:1", arch.image(), &["/workload"])
        .arguments(&["pause"])
        .program("/workload", read(workspace, &program)?);
    let archive = workspace.image_target().join("workload.tar");
    image.write(&archive)?;
    Ok(archive)
}

fn read(workspace: &Workspace, path: &std::path::Path) -> Result<Vec<u8>, ImageTaskError> {
    fs::read(path).map_err(|reason| ImageTaskError::Read { path: workspace.show(path), reason })
}
