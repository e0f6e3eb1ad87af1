//! Signals that ask to end: waiting stops, and what was made is removed on the way out.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use crate::ClusterError;

/// A signal has come.
static STOPPING: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    STOPPING.store(true, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP make everything that waits for the cluster end with
/// [`ClusterError::Interrupted`]; a cluster that is being started is removed then.
///
/// # Errors
/// If the handler cannot be installed.
pub fn end_on_signals() -> Result<(), ClusterError> {
    // System calls are begun again: what is under way ends by itself, then the flag is seen.
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }
            .map_err(|errno| ClusterError::io(format!("handle {signal}"))(errno.into()))?;
    }
    Ok(())
}

/// An error once a signal has come.
pub(crate) fn check() -> Result<(), ClusterError> {
    if STOPPING.load(Ordering::SeqCst) { Err(ClusterError::Interrupted) } else { Ok(()) }
}
