//! The word that says which policy is in force for an endpoint; part of the ABI.

use crate::abi::{Direction, TableId};

/// The one word that says which policy is in force for an endpoint.
///
/// Bits 0 and 1: isolated for ingress, for egress. Bits 2 to 31: [`TableId`]. Bits 32 to 63: the
/// policy generation, which conntrack entries carry. One aligned 64-bit store changes all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct PolicyWord(pub u64);

impl PolicyWord {
    /// Builds the word; `table` has 30 bits.
    #[must_use]
    pub const fn new(table: TableId, isolated: [bool; 2], generation: u32) -> Self {
        let mut word = ((generation as u64) << 32) | (((table & TABLE_MASK) as u64) << 2);
        if isolated[0] {
            word |= 1;
        }
        if isolated[1] {
            word |= 2;
        }
        Self(word)
    }

    /// The verdict table.
    #[must_use]
    pub const fn table(self) -> TableId {
        ((self.0 >> 2) as u32) & TABLE_MASK
    }

    /// Whether some policy isolates the pod in `direction`.
    #[must_use]
    pub const fn isolated(self, direction: Direction) -> bool {
        self.0 & (1 << (direction as u8)) != 0
    }

    /// The policy generation.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Bits of a [`TableId`].
pub const TABLE_MASK: u32 = (1 << 30) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_word_keeps_its_parts_apart() {
        let word = PolicyWord::new(TABLE_MASK, [true, false], u32::MAX);
        assert_eq!(word.table(), TABLE_MASK);
        assert!(word.isolated(Direction::Ingress) && !word.isolated(Direction::Egress));
        assert_eq!(word.generation(), u32::MAX);
        let word = PolicyWord::new(5, [false, true], 7);
        assert_eq!((word.table(), word.generation()), (5, 7));
        assert!(!word.isolated(Direction::Ingress) && word.isolated(Direction::Egress));
    }
}
