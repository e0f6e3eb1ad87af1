//! `enforcer uninstall`: the node as if the agent had never been there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    agent::socket::{Lock, SocketError},
    cli::{UninstallArgs, args::DirArgs},
    dataplane::{self, DataplaneError},
};

/// Why something could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// An agent is running.
    #[error(transparent)]
    Running(#[from] SocketError),
    /// The kernel's side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// A file or folder.
    #[error("cannot delete {path}")]
    Delete {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The end cannot be waited for.
    #[error("everything is removed, but staying failed: cannot wait for signals")]
    Stay(#[source] io::Error),
    /// The kernel still runs our programs.
    #[error(
        "the programs are still attached {seconds} s after their pins went; look at `bpftool net`"
    )]
    StillAttached {
        /// How long it was waited.
        seconds: u64,
    },
}

/// The kernel detaches a little after the last pin has gone.
const DETACH: Duration = Duration::from_secs(5);

/// Removes programs, filters, maps, pins and files. Doing it twice is no failure.
///
/// # Errors
/// If an agent is running, or something cannot be removed.
pub fn uninstall(args: &UninstallArgs) -> Result<(), UninstallError> {
    let UninstallArgs { dirs: DirArgs { run_dir, state_dir, bpf_dir }, stay } = args;
    if !dataplane::may_load() {
        return Err(DataplaneError::Privilege.into());
    }
    // With the lock no agent is there, and none comes until all is gone.
    let lock = run_dir.exists().then(|| Lock::take(run_dir)).transpose()?;
    let programs = dataplane::remove(bpf_dir, state_dir)?;
    let since = Instant::now();
    while dataplane::attached_anywhere(&programs)? {
        if since.elapsed() > DETACH {
            return Err(UninstallError::StillAttached { seconds: DETACH.as_secs() });
        }
        sleep(Duration::from_millis(10));
    }
    for dir in [bpf_dir, state_dir, run_dir] {
        delete(dir)?;
    }
    drop(lock);
    if *stay { until_told().map_err(UninstallError::Stay) } else { Ok(()) }
}

/// Waits for SIGTERM or SIGINT, which end nothing by themselves when they come to a container's
/// first process.
fn until_told() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn delete(dir: &Path) -> Result<(), UninstallError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(UninstallError::Delete { path: dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}
