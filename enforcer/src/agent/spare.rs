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

    #[test]
    fn what_is_free_between_things_that_stay_is_given_back() {
        let mut all: Vec<_> = (0..20_000).map(|_| Some(vec![1u8; 8_000])).collect();
        all.iter_mut().step_by(2).for_each(|one| *one = None);
        let before = resident();
        give_back();
        let after = resident();
        // 80 MB were freed; of each piece the pages that are only its own can go.
        assert!(after + 20_000 < before, "{before} KiB before, {after} KiB after");
        assert_eq!(all.iter().flatten().count(), 10_000);
    }
}
