//! Changes of an input: what a careless or a hostile writer does to bytes.

/// A generator of numbers that a seed repeats (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `limit`, or 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Bytes that mean something to one format or another.
const TELLING: [u8; 12] = [0, 1, 4, 6, 17, 44, 58, 60, 0x7f, 0x80, 0xfe, 0xff];
/// Largest input.
const LARGEST: usize = 4096;

/// Changes `input` in some ways; `other` is a second input, to take parts from.
pub(crate) fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = TELLING[random.below(TELLING.len())],
            2 if !input.is_empty() => input[at] = random.next() as u8,
            3 => input.truncate(at),
            4 => {
                let end = (at + 1 + random.below(16)).min(input.len());
                input.drain(at.min(end)..end);
            }
            5 => {
                let end = (at + 1 + random.below(32)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                input.splice(at..at, part);
            }
            6 => {
                let from = random.below(other.len());
                let end = (from + 1 + random.below(64)).min(other.len());
                input.splice(at..at, other[from.min(end)..end].iter().copied());
            }
            _ => input.insert(at, random.next() as u8),
        }
    }
    input.truncate(LARGEST);
}

#[test]
fn a_seed_repeats_its_changes_and_they_are_many() {
    let changed = |seed| {
        let mut input = vec![1, 2, 3, 4, 5, 6, 7, 8];
        mutate(&mut Random::new(seed), &mut input, &[9, 9, 9]);
        input
    };
    assert_eq!(changed(7), changed(7));
    let all: std::collections::BTreeSet<_> = (0..1000).map(changed).collect();
    assert!(all.len() > 300, "{}", all.len());
}
