//! The ipBlocks in use, found by what they contain, and the prefixes that bound them.
//!
//! Every CIDR and every except of a block in use is a node of the kernel's trie. Between two nodes
//! no block begins or ends, so all addresses with one longest node are in the same blocks, and the
//! trie answers exactly, however blocks and excepts overlap.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::atom::AtomId;
use crate::policy::peer::IpBlock;

/// Blocks in use.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    by_cidr: HashMap<IpNet, Vec<(AtomId, IpBlock)>>,
    /// Lengths of the keys of `by_cidr` and how many have it, IPv4 and IPv6: the steps of a walk.
    lengths: [BTreeMap<u8, usize>; 2],
    /// How many blocks name the prefix as CIDR or except.
    nodes: BTreeMap<IpNet, usize>,
}

fn family(net: &IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

impl Blocks {
    pub(super) fn insert(&mut self, id: AtomId, block: IpBlock) {
        let cidr = block.cidr();
        for node in std::iter::once(&cidr).chain(block.except()) {
            *self.nodes.entry(*node).or_default() += 1;
        }
        let blocks = self.by_cidr.entry(cidr).or_default();
        if blocks.is_empty() {
            *self.lengths[family(&cidr)].entry(cidr.prefix_len()).or_default() += 1;
        }
        blocks.push((id, block));
    }

    pub(super) fn remove(&mut self, id: AtomId, block: &IpBlock) {
        let cidr = block.cidr();
        for node in std::iter::once(&cidr).chain(block.except()) {
            decrement(&mut self.nodes, node);
        }
        if let Some(blocks) = self.by_cidr.get_mut(&cidr) {
            blocks.retain(|(other, _)| *other != id);
            if blocks.is_empty() {
                self.by_cidr.remove(&cidr);
                decrement(&mut self.lengths[family(&cidr)], &cidr.prefix_len());
            }
        }
    }

    /// Visits the blocks that contain the whole of `net`.
    pub(super) fn containing(&self, net: &IpNet, mut visit: impl FnMut(AtomId)) {
        for length in self.lengths[family(net)].range(..=net.prefix_len()).map(|(len, _)| *len) {
            let Ok(cidr) = IpNet::new(net.addr(), length) else { continue };
            for (id, block) in self.by_cidr.get(&cidr.trunc()).into_iter().flatten() {
                if block.contains_net(net) {
                    visit(*id);
                }
            }
        }
    }

    /// Whether some block in use has this prefix as CIDR or except.
    pub(super) fn is_node(&self, net: &IpNet) -> bool {
        self.nodes.contains_key(net)
    }

    /// The nodes inside a prefix, itself included.
    pub(super) fn nodes_within(&self, net: IpNet) -> impl Iterator<Item = IpNet> + '_ {
        // Sorted by address and then by length: what is inside follows without a gap.
        self.nodes.range(net..).map(|(node, _)| *node).take_while(move |node| net.contains(node))
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        IpBlock::new(cidr.parse().unwrap(), except.iter().map(|e| e.parse().unwrap())).unwrap()
    }

    fn containing(blocks: &Blocks, net: &str) -> Vec<AtomId> {
        let mut found = Vec::new();
        blocks.containing(&net.parse().unwrap(), |id| found.push(id));
        found
    }

    #[test]
    fn overlapping_blocks_are_all_found_and_forgotten() {
        let mut blocks = Blocks::default();
        let list = [
            block("0.0.0.0/0", &["10.0.0.0/8"]),
            block("10.0.0.0/8", &["10.1.0.0/16"]),
            block("10.1.0.0/16", &[]),
            block("::/0", &[]),
        ];
        for (id, block) in (0..).zip(&list) {
            blocks.insert(id, block.clone());
        }
        assert_eq!(containing(&blocks, "192.0.2.1/32"), [0]);
        assert_eq!(containing(&blocks, "10.2.0.0/32"), [1]);
        assert_eq!(containing(&blocks, "10.1.2.3/32"), [2]);
        assert_eq!(containing(&blocks, "10.0.0.0/8"), [1]);
        assert_eq!(containing(&blocks, "fd00::1/128"), [3]);
        let within: Vec<_> = blocks.nodes_within("10.0.0.0/8".parse().unwrap()).collect();
        assert_eq!(within.len(), 2);
        for (id, block) in (0..).zip(&list) {
            blocks.remove(id, block);
        }
        assert!(blocks.nodes.is_empty() && blocks.by_cidr.is_empty());
        assert!(blocks.lengths.iter().all(BTreeMap::is_empty));
    }
}
