//! A named network namespace, and code that runs in it.
//!
//! Only the network is entered, by a thread of its own: `ip netns exec` would also bring a fresh
//! `/sys`, in which the BPF file system is not to be seen. A socket belongs to the namespace it was
//! made in, wherever it is used.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::{LabError, cleanup::NETNS_DIR};

/// A named network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens a namespace that `ip netns add` has made.
    pub(crate) fn open(name: String) -> Result<Self, LabError> {
        let path = Path::new(NETNS_DIR).join(&name);
        let file = File::open(&path)
            .map_err(LabError::io(format!("open the namespace {}", path.display())))?;
        Ok(Self { name, file })
    }

    /// Its name, as in `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs the closure on a thread in this namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If the closure does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
                    LabError::io(format!("enter the namespace {}", self.name))(errno.into())
                })?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command in this namespace and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails.
    pub fn command(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        let output = self
            .run(|| Command::new(program).args(args).output())?
            .map_err(|source| LabError::Start { program: program.into(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Failed {
            command: format!("{program} {}", args.join(" ")),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Writes kernel settings, each a path below `/proc/sys/net` and a value.
    pub(crate) fn settings(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.run(|| {
            for (path, value) in settings {
                let path = Path::new("/proc/sys/net").join(path);
                fs::write(&path, value)
                    .map_err(LabError::io(format!("write {value} to {}", path.display())))?;
            }
            Ok(())
        })?
    }
}
