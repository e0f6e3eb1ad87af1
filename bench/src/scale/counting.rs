//! What a piece of work costs: time, processor time of its thread, and memory asked for. The
//! counting allocator is in the benchmark only, not in what is shipped.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Instant,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread asks the system's allocator for.
#[derive(Debug)]
pub(crate) struct Counting;

fn count(size: usize) {
    // A thread that ends may free and allocate when its counters are gone.
    let _gone = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    let _gone = BYTES.try_with(|bytes| bytes.set(bytes.get() + size as u64));
}

fn count_freed(size: usize) {
    let _gone = FREED.try_with(|bytes| bytes.set(bytes.get() + size as u64));
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps to the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count_freed(layout.size());
        // SAFETY: the caller keeps to the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        count_freed(layout.size());
        // SAFETY: the caller keeps to the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What something cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Milliseconds.
    pub(crate) wall: f64,
    /// Milliseconds of the thread.
    pub(crate) cpu: f64,
    pub(crate) allocations: u64,
    pub(crate) bytes: u64,
}

impl Cost {
    /// Adds what else it cost.
    pub(crate) fn add(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
    }
}

/// Bytes that this thread has asked for and not given back. What one thread frees of another's is
/// taken for its own, so this is right where one thread does everything.
pub(crate) fn held() -> i64 {
    BYTES.get().cast_signed() - FREED.get().cast_signed()
}

/// Does something, and says what it cost.
pub(crate) fn cost<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = (ALLOCATIONS.get(), BYTES.get());
    let (wall, cpu) = (Instant::now(), processor());
    let done = work();
    let (cpu, wall) = (processor() - cpu, wall.elapsed().as_secs_f64() * 1e3);
    let (allocations, bytes) = (ALLOCATIONS.get() - before.0, BYTES.get() - before.1);
    (done, Cost { wall, cpu, allocations, bytes })
}

/// Processor time of this thread, ms.
fn processor() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(f64::NAN, |time| time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        let (sum, cost) = cost(|| {
            let numbers: Vec<Box<u64>> = (0..1000).map(Box::new).collect();
            numbers.iter().map(|number| **number).sum::<u64>()
        });
        assert_eq!(sum, 499_500);
        assert!(cost.allocations >= 1001 && cost.bytes >= 16_000, "{cost:?}");
        let (before, kept) = (held(), vec![0u8; 5000]);
        assert!(held() - before >= 5000);
        drop(kept);
        assert_eq!(held(), before);
        assert!(cost.wall > 0.0 && cost.cpu > 0.0);
    }
}
