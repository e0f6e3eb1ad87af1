//! `cargo xtask test --kernels`: boots Debian's packaged kernels in an emulated machine and runs on each
//! what depends on the kernel: the object's load and the verifier's statistics, test runs of the
//! programs, and the agent end to end.
//!
//! A machine is a kernel and an initial file system ([`initrd`]) with the test programs, the agent and
//! what they need ([`guest`]); the kernels are fetched and unpacked once, below `target/kernels`
//! ([`package`], [`modules`]). Machines say on their console how each test went ([`machine`]).

mod cpio;
mod guest;
mod initrd;
mod machine;
mod modules;
mod package;
mod programs;

use std::{
    io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{
    console,
    daemon::DaemonError,
    process::ProcessError,
    setup::{self, SetupError},
    test::Counts,
    workspace::Workspace,
};

/// Programs that make and run machines, and their packages.
const TOOLS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
];

/// Why kernels could not be tested.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelsError {
    /// What is missing could not be installed.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No agent.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// No kernel of that version.
    #[error(
        "no package of a kernel {0} is on offer: Debian's lists have linux-image-{0}.…-cloud-amd64 for \
         6.1 and 6.12; `apt-cache search linux-image` names what this machine's lists have"
    )]
    NoKernel(String),
    /// A file.
    #[error("cannot {operation} {path}: {reason}")]
    File { operation: &'static str, path: PathBuf, reason: io::Error },
    /// A test program that cargo has not built.
    #[error("cargo built no test program {0}; check that the crate still has it")]
    NoProgram(&'static str),
    /// The package is not one of a kernel.
    #[error("the package {package} has no {what}")]
    Package { package: String, what: &'static str },
}

impl KernelsError {
    fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |reason| Self::File { operation, path, reason }
    }
}

/// Runs the tests on each of these kernels (`6.1`, `6.12`), as many machines at a time as there are
/// processors.
pub(crate) fn run(
    workspace: &Workspace,
    versions: &[String],
    daemon: &std::path::Path,
    long: bool,
) -> Result<Counts, KernelsError> {
    setup::ensure_programs(&TOOLS, "testing on other kernels needs an emulated machine")?;
    let programs = programs::build(workspace)?;
    let mut kernels = Vec::new();
    for version in versions {
        kernels.push(package::ensure(workspace, version)?);
    }
    console::step("testing on other kernels, each in an emulated machine");
    let guest = guest::files(workspace, &programs, daemon, long)?;
    let waiting = Mutex::new(kernels.iter());
    let counts = Mutex::new(Ok(Counts::default()));
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..at_once.min(kernels.len()) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(kernel) = next else { return };
                    let one = initrd::write(workspace, kernel, &guest)
                        .and_then(|initrd| machine::run(kernel, &initrd));
                    let mut all = counts.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *all, one) {
                        (Ok(all), Ok(one)) => all.add(one),
                        (Ok(_), Err(error)) => *all = Err(error),
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}
