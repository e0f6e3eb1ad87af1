//! Nothing stays behind: names that say who made a thing, removal on a signal, and removal of what
//! runs that were killed have left.

use std::{
    fs,
    io::{Read, Write},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    libc,
    mount::{MntFlags, umount2},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use crate::{LabError, bpffs};

/// First part of every name that a laboratory gives to something.
const MARK: &str = "enf";
/// Where `ip netns` keeps names.
pub(crate) const NETNS_DIR: &str = "/run/netns";
/// Where BPF objects are pinned.
pub(crate) const BPF_DIR: &str = "/sys/fs/bpf";

/// Where one is mounted for a single agent, in its laboratory's folder.
pub(crate) const OWN_BPFFS: &str = "bpf";

/// Write end of the pipe that the signal handler uses; -1 without a handler.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);
/// A signal has come.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// Held for reading while something is made, for writing while all is removed.
static MAKING: RwLock<()> = RwLock::new(());
/// Laboratories made by this process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A new prefix: `enf<pid>-<n>`.
pub(crate) fn new_prefix() -> String {
    format!("{MARK}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Keeps the removal on a signal from running while something is being made.
pub(crate) fn making() -> Result<RwLockReadGuard<'static, ()>, LabError> {
    if STOPPING.load(Ordering::SeqCst) {
        return Err(LabError::Interrupted);
    }
    Ok(MAKING.read().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a signal has asked this process to end.
#[must_use]
pub fn stop_requested() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// Sleeps until a signal ends the process.
pub fn wait_for_signal() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

extern "C" fn on_signal(_: libc::c_int) {
    let fd = SIGNAL_PIPE.load(Ordering::Relaxed);
    // SAFETY: write is async-signal-safe; the buffer is a static byte. A failure cannot be told to
    // anyone here, and the pipe never fills up with the few signals there can be.
    unsafe { libc::write(fd, b"!".as_ptr().cast(), 1) };
}

/// From now on SIGINT, SIGTERM and SIGHUP remove everything that this process made, then end it
/// with exit code 130.
///
/// # Errors
/// If the handler cannot be installed.
pub fn clean_up_on_signals() -> Result<(), LabError> {
    static INSTALL: Once = Once::new();
    let mut result = Ok(());
    INSTALL.call_once(|| result = install());
    result
}

fn install() -> Result<(), LabError> {
    let (mut read, write) =
        UnixStream::pair().map_err(LabError::io("make a pipe for the signal handler"))?;
    write.set_nonblocking(true).map_err(LabError::io("set up the signal handler's pipe"))?;
    // The handler needs it for as long as the process lives.
    SIGNAL_PIPE.store(write.into_raw_fd(), Ordering::SeqCst);
    thread::Builder::new()
        .name("clean-up".into())
        .spawn(move || {
            let mut byte = [0];
            if read.read_exact(&mut byte).is_err() {
                return;
            }
            STOPPING.store(true, Ordering::SeqCst);
            let _all = MAKING.write().unwrap_or_else(PoisonError::into_inner);
            writeln!(std::io::stderr(), "\nInterrupted: removing what was made.").ok();
            remove_prefix(&format!("{MARK}{}-", std::process::id()));
            bpffs::unmount();
            std::process::exit(130);
        })
        .map_err(LabError::io("start the thread that cleans up"))?;
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only calls write, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }
            .map_err(|errno| LabError::io(format!("handle {signal}"))(errno.into()))?;
    }
    Ok(())
}

/// Removes namespaces, pins and folders of laboratories whose process is gone.
pub(crate) fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut dead: Vec<String> =
            [Path::new(NETNS_DIR), Path::new(BPF_DIR), &std::env::temp_dir()]
                .iter()
                .flat_map(|dir| names_in(dir))
                .filter_map(|name| {
                    let rest = name.strip_prefix(MARK)?;
                    let pid: u32 = rest.split_once('-')?.0.parse().ok()?;
                    let alive = Path::new(&format!("/proc/{pid}")).exists();
                    (!alive).then(|| format!("{MARK}{pid}-"))
                })
                .collect();
        dead.sort_unstable();
        dead.dedup();
        for prefix in dead {
            remove_prefix(&prefix);
        }
    });
}

/// Removes the namespaces of that prefix, the pins and the folders.
///
/// No process is looked for: an agent dies with the thread that started it, and a shell that
/// somebody opened in a pod is theirs.
pub(crate) fn remove_prefix(prefix: &str) {
    let namespaces = matching(Path::new(NETNS_DIR), prefix);
    for pins in matching(Path::new(BPF_DIR), prefix) {
        fs::remove_dir_all(pins).ok();
    }
    let lines: String = namespaces
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .fold(String::new(), |all, name| all + "netns del " + name + "\n");
    if !lines.is_empty() {
        remove_namespaces(&lines);
    }
    for dir in matching(&std::env::temp_dir(), prefix) {
        umount2(&dir.join(OWN_BPFFS), MntFlags::MNT_DETACH).ok();
        fs::remove_dir_all(dir).ok();
    }
}

/// Not through [`crate::ip`]: that refuses to work once a signal has come.
fn remove_namespaces(lines: &str) {
    let child = Command::new("ip")
        .args(["-force", "-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    if let Ok(mut child) = child {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).ok();
        }
        child.wait().ok();
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn matching(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    names_in(dir)
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .map(|name| dir.join(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_unique_and_name_their_process() {
        let (a, b) = (new_prefix(), new_prefix());
        assert_ne!(a, b);
        let start = format!("{MARK}{}-", std::process::id());
        assert!(a.starts_with(&start) && b.starts_with(&start));
    }
}
