//! Read-modify-write instructions: core offers none for this target, and the compiler takes those
//! whose order is relaxed for ones whose result nobody wants.

use core::arch::asm;

/// Adds to a word that other CPUs and the agent change, too.
#[inline(always)]
pub(crate) fn add(counter: &mut i64, by: i64) {
    let counter: *mut i64 = counter;
    // SAFETY: aligned, lives as long as the map, only ever changed atomically. The plain
    // instruction has been there since Linux 3.18.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}

/// The same, unsigned.
#[inline(always)]
pub(crate) fn add_unsigned(counter: &mut u64, by: u64) {
    let counter: *mut u64 = counter;
    // SAFETY: as in `add`.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}

/// Stores a value and returns the one before; a full barrier.
#[inline(always)]
pub(crate) fn swap(word: &mut u64, value: u64) -> u64 {
    let word: *mut u64 = word;
    let mut value = value;
    // SAFETY: aligned, and lives as long as the map. The instruction has been there since Linux
    // 5.12.
    unsafe { asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) word) };
    value
}

/// Stores `new` if the word is `old`; whether it was. A full barrier.
#[inline(always)]
pub(crate) fn exchange(word: &mut u64, old: u64, new: u64) -> bool {
    let word: *mut u64 = word;
    let mut seen = old;
    // SAFETY: as in `swap`. The instruction compares with r0 and leaves there what it saw.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) word,
            in(reg) new,
            inout("r0") seen,
        );
    }
    seen == old
}
