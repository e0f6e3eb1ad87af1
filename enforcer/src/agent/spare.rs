//! Memory that a piece of work needed and nobody needs any more, given back to the system.

/// Gives back what is free. The C library keeps it otherwise: it is between things that stay, and
/// nothing asks for that much again.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Resident memory, KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    }

    /// Whether 80 MB that were freed between things that stay make the process smaller.
    fn shrinks() -> bool {
        let mut all: Vec<_> = (0..20_000).map(|_| Some(vec![1u8; 8_000])).collect();
        all.iter_mut().step_by(2).for_each(|one| *one = None);
        let before = resident();
        give_back();
        let after = resident();
        assert_eq!(all.iter().flatten().count(), 10_000);
        // Of each piece the pages that are only its own can go.
        after + 20_000 < before
    }

    #[test]
    fn what_is_free_between_things_that_stay_is_given_back() {
        // Other tests of the process may take as much at that very moment.
        assert!((0..5).any(|_| shrinks()));
    }
}
