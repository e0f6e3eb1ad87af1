//! Which flows are told where not all are: one of so many by a hash of its tuple, so that all
//! events of a flow are told, or none.

use crate::abi::{Addr, CtKey4, CtKey6};

/// A 32-bit hash, word by word; the finalizer of MurmurHash3 spreads what the words differ in.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u32);

impl Hash {
    /// The hash of no words.
    pub const EMPTY: Self = Self(0x9e37_79b9);

    /// With one word more.
    #[must_use]
    #[inline(always)]
    pub const fn word(self, word: u32) -> Self {
        Self((self.0 ^ word).wrapping_mul(0xcc9e_2d51).rotate_left(15))
    }

    /// With an address more.
    #[must_use]
    #[inline(always)]
    pub const fn addr(self, addr: &Addr) -> Self {
        let [a, b, c, d] = addr.0;
        self.word(a).word(b).word(c).word(d)
    }

    /// The hash.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> u32 {
        let mut hash = self.0;
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^ hash >> 16
    }
}

/// Hash of a flow's tuple as its conntrack key has it: the same for both directions.
#[must_use]
#[inline(always)]
pub const fn tuple(
    local: &Addr,
    remote: &Addr,
    local_port: u16,
    remote_port: u16,
    proto: u8,
) -> u32 {
    let ports = (local_port as u32) << 16 | remote_port as u32;
    Hash::EMPTY.addr(local).addr(remote).word(ports).word(proto as u32).get()
}

/// The same of an IPv4 flow's key.
#[must_use]
pub const fn key4(key: &CtKey4) -> u32 {
    let (local, remote) = (Addr::v4(key.local), Addr::v4(key.remote));
    tuple(&local, &remote, key.local_port, key.remote_port, key.proto as u8)
}

/// The same of an IPv6 flow's key.
#[must_use]
pub const fn key6(key: &CtKey6) -> u32 {
    let (local, remote) = (Addr(key.local), Addr(key.remote));
    tuple(&local, &remote, key.local_port, key.remote_port, key.proto as u8)
}

/// Whether a flow with this hash is told where one of `one_of` is; 0 and 1 mean all.
#[must_use]
#[inline(always)]
pub const fn is_told(hash: u32, one_of: u32) -> bool {
    one_of <= 1 || hash.is_multiple_of(one_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_is_told() {
        for one_of in [2, 7, 10, 100] {
            let told = (0..60_000_u32)
                .filter(|n| {
                    let remote = Addr::v4((n / 30_000).to_be());
                    let port = (n % 30_000) as u16;
                    is_told(tuple(&Addr::v4(9), &remote, 443, port, 6), one_of)
                })
                .count();
            let expected = 60_000 / one_of as usize;
            assert!(told.abs_diff(expected) < expected / 5, "{told} of {expected}");
        }
        assert!((0..100).all(|n| is_told(n, 0) && is_told(n, 1)));
    }

    #[test]
    fn the_finalizer_is_that_of_murmur_hash_3() {
        // What `fmix32` of the published MurmurHash3_x86_32 makes of these.
        let finalized = [0, 1, 0xdead_beef, u32::MAX].map(|hash| Hash(hash).get());
        assert_eq!(finalized, [0, 0x514e_28b7, 0x0de5_c6a9, 0x81f1_6f39]);
    }

    #[test]
    fn every_part_of_a_tuple_moves_its_hash() {
        let (a, b) = (Addr::v4(1), Addr::v4(2));
        let one = tuple(&a, &b, 80, 4_000, 6);
        let others = [
            tuple(&b, &a, 80, 4_000, 6),
            tuple(&a, &a, 80, 4_000, 6),
            tuple(&a, &b, 81, 4_000, 6),
            tuple(&a, &b, 80, 4_001, 6),
            tuple(&a, &b, 4_000, 80, 6),
            tuple(&a, &b, 80, 4_000, 17),
        ];
        assert!(!others.contains(&one), "{one:#x} {others:x?}");
    }

    #[test]
    fn a_key_is_its_flows_tuple() {
        let key = CtKey4 {
            ifindex: 3,
            local: 1,
            remote: 2,
            local_port: 80,
            remote_port: 4_000,
            proto: 17,
        };
        assert_eq!(key4(&key), tuple(&Addr::v4(1), &Addr::v4(2), 80, 4_000, 17));
        let v6 = CtKey6 {
            ifindex: 3,
            local: Addr::v4(1).0,
            remote: Addr::v4(2).0,
            local_port: 80,
            remote_port: 4_000,
            proto: 17,
        };
        assert_eq!(key6(&v6), key4(&key));
    }
}
