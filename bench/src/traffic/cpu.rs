//! Processor time, and the processors on which the ends of the traffic run.

use std::{io, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// A processor, of those that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    First,
    Last,
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin(processor: Processor) -> io::Result<()> {
    let own = Pid::from_raw(0);
    let may = sched_getaffinity(own)?;
    let mut usable = Vec::new();
    for processor in 0..CpuSet::count() {
        if may.is_set(processor)? {
            usable.push(processor);
        }
    }
    let chosen = match processor {
        Processor::First => usable.first(),
        Processor::Last => usable.last(),
    };
    let mut one = CpuSet::new();
    one.set(*chosen.unwrap_or(&0))?;
    Ok(sched_setaffinity(own, &one)?)
}

/// Processor time of this process. What the kernel does for a packet in its sender's system call,
/// the programs and hooks on its way included, is in it.
pub(crate) fn own_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Processor time of another process.
pub(crate) fn time_of(pid: Pid) -> io::Result<Duration> {
    Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
}

#[cfg(test)]
mod tests {
    use std::{process, thread, time::Instant};

    use super::*;

    #[test]
    fn work_shows_in_this_process_by_both_clocks() {
        let me = Pid::from_raw(i32::try_from(process::id()).unwrap());
        let before = [own_time().unwrap(), time_of(me).unwrap()];
        let since = Instant::now();
        // By the clock of the process, so that a busy machine only makes it longer.
        while own_time().unwrap() - before[0] < Duration::from_millis(20) {
            assert!(since.elapsed() < Duration::from_secs(20), "the clock does not move");
        }
        assert!(time_of(me).unwrap() - before[1] >= Duration::from_millis(15));
    }

    #[test]
    fn a_pinned_thread_has_one_processor() {
        let usable = || {
            let may = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (0..CpuSet::count()).filter(|cpu| may.is_set(*cpu).unwrap()).collect::<Vec<_>>()
        };
        let all = usable();
        let pinned = |processor| {
            thread::spawn(move || {
                pin(processor).unwrap();
                usable()
            })
        };
        assert_eq!(pinned(Processor::First).join().unwrap(), all[..1]);
        assert_eq!(pinned(Processor::Last).join().unwrap(), all[all.len() - 1..]);
    }
}
