//! Waiting until no program runs that began before now.

use std::time::Duration;

use super::sys;

/// Far longer than a program can run, where the kernel offers nothing exact.
const FALLBACK: Duration = Duration::from_secs(1);

/// How a grace period was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// The kernel's own: every program that ran before has ended.
    Exactly,
    /// By time, longer than any program runs.
    Slept,
}

/// Waits, blocking the thread, until every eBPF program run that began before the call has ended:
/// what was unreachable for new runs before the call can be deleted after it.
///
/// `membarrier(MEMBARRIER_CMD_GLOBAL)` is a `synchronize_rcu()` (`kernel/sched/membarrier.c`), and
/// takes some 10 ms. The kernel refuses it on `nohz_full` systems, and does nothing where one
/// processor is online; both are waited out instead.
pub fn grace_period() -> Waited {
    if sys::processors_online() > 1 && sys::membarrier_global().is_ok() {
        return Waited::Exactly;
    }
    std::thread::sleep(FALLBACK);
    Waited::Slept
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_grace_period_ends_and_is_no_empty_call() {
        let start = Instant::now();
        let waited = grace_period();
        let took = start.elapsed();
        match waited {
            Waited::Exactly => assert!(took > Duration::from_micros(5), "{took:?}"),
            Waited::Slept => assert!(took >= FALLBACK, "{took:?}"),
        }
    }
}
