//! Peers of a rule: who may be at the other end.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use super::{encode::Encoder, selector::Selector};

/// Where a peer's pods are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NamespacePeer {
    /// In the policy's own namespace, by name.
    Same(Arc<str>),
    /// In every namespace with these labels.
    Selected(Selector),
}

/// Pods by labels. Only pods: a node, a hostNetwork pod and an outside address never match.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerSelector {
    /// Their namespaces.
    pub namespace: NamespacePeer,
    /// Their labels; everything if empty.
    pub pod: Selector,
}

/// A CIDR without some parts. Matches the address that a packet carries, pods' too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IpBlock {
    /// Host bits are zero.
    cidr: IpNet,
    /// Inside `cidr`, sorted, none inside another.
    except: Vec<IpNet>,
}

/// One element of `from` or `to`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Pods.
    Pods(PeerSelector),
    /// Addresses.
    Block(IpBlock),
}

/// The one form of a prefix: host bits zero, an IPv4 network in IPv6 clothes (RFC 4291, 2.5.5.2)
/// as the IPv4 network that it is.
#[must_use]
pub fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(addr) = v6.addr().to_ipv4_mapped()
        && let Some(len) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(addr, len)
    {
        return IpNet::V4(v4.trunc());
    }
    net.trunc()
}

impl IpBlock {
    /// A block in canonical form. `None` if the excepts leave nothing of it.
    #[must_use]
    pub fn new(cidr: IpNet, except: impl IntoIterator<Item = IpNet>) -> Option<Self> {
        let cidr = canonical(cidr);
        let mut except: Vec<IpNet> = except.into_iter().map(canonical).collect();
        if except.iter().any(|except| except.contains(&cidr)) {
            return None;
        }
        except.retain(|except| cidr.contains(except));
        // By address and then by length: what contains another stands before it.
        except.sort_unstable();
        except.dedup_by(|inner, outer| outer.contains(&*inner));
        Some(Self { cidr, except })
    }

    /// The CIDR.
    #[must_use]
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// What is left out.
    #[must_use]
    pub fn except(&self) -> &[IpNet] {
        &self.except
    }

    /// Whether the whole of `net` is in the block. Of a prefix that is partly excepted: no.
    #[must_use]
    pub fn contains_net(&self, net: &IpNet) -> bool {
        if !self.cidr.contains(net) {
            return false;
        }
        // Excepts are disjoint and sorted: only the last that starts at or before can hold it.
        let after = self.except.partition_point(|except| except <= net);
        !after
            .checked_sub(1)
            .and_then(|last| self.except.get(last))
            .is_some_and(|e| e.contains(net))
    }

    /// Whether an address is in the block. IPv4 and IPv6 never match each other.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_net(&IpNet::from(address))
    }
}

impl Peer {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Pods(PeerSelector { namespace: NamespacePeer::Same(name), pod }) => {
                out.tag(0);
                out.text(name);
                pod.encode(out);
            }
            Self::Pods(PeerSelector { namespace: NamespacePeer::Selected(selector), pod }) => {
                out.tag(1);
                selector.encode(out);
                pod.encode(out);
            }
            Self::Block(IpBlock { cidr, except }) => {
                out.tag(2);
                out.text(&cidr.to_string());
                out.number(except.len());
                for except in except {
                    out.text(&except.to_string());
                }
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(PeerSelector { namespace: NamespacePeer::Same(name), pod }) => {
                write!(f, "pods {{{pod}}} in namespace {name}")
            }
            Self::Pods(PeerSelector { namespace: NamespacePeer::Selected(selector), pod }) => {
                write!(f, "pods {{{pod}}} in namespaces {{{selector}}}")
            }
            Self::Block(IpBlock { cidr, except }) => {
                write!(f, "{cidr}")?;
                for (place, except) in except.iter().enumerate() {
                    write!(f, "{}{except}", if place == 0 { " except " } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn block(cidr: &str, except: &[&str]) -> Option<IpBlock> {
        IpBlock::new(net(cidr), except.iter().map(|e| net(e)))
    }

    #[test]
    fn a_block_matches_what_its_excepts_leave() {
        let b = block("10.0.0.0/8", &["10.2.0.0/16", "10.1.0.0/16", "10.1.2.0/24"]).unwrap();
        for (address, expected) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("10.1.0.0", false),
            ("10.1.2.3", false),
            ("10.2.255.255", false),
            ("10.3.0.0", true),
            ("::ffff:a00:1", false),
        ] {
            assert_eq!(b.contains(address.parse().unwrap()), expected, "{address}");
        }
        let all = block("::/0", &[]).unwrap();
        assert!(all.contains("fd00::1".parse().unwrap()));
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn one_meaning_has_one_form() {
        let a = block("10.1.2.3/8", &["10.1.2.0/24", "10.1.9.9/16", "192.168.0.0/16", "fd00::/8"]);
        let b = block("10.0.0.0/8", &["10.1.0.0/16"]);
        assert_eq!(a, b);
        assert_eq!(a.map(Peer::Block).unwrap().to_string(), "10.0.0.0/8 except 10.1.0.0/16");
        assert_eq!(block("::ffff:10.0.0.0/104", &[]), block("10.0.0.0/8", &[]));
        assert_eq!(block("10.0.0.0/8", &["10.0.0.0/8"]), None);
        assert_eq!(block("10.0.0.0/8", &["0.0.0.0/0"]), None);
    }

    #[test]
    fn different_peers_have_different_bytes_and_equal_ones_the_same() {
        let selector = |labels: &str| {
            let yaml = format!("{{matchLabels: {{{labels}}}}}");
            Selector::compile(&serde_norway::from_str(&yaml).unwrap()).unwrap()
        };
        let pods =
            |namespace, labels| Peer::Pods(PeerSelector { namespace, pod: selector(labels) });
        let same = |name: &str| NamespacePeer::Same(name.into());
        let chosen = |labels| NamespacePeer::Selected(selector(labels));
        let ip = |cidr, except: &[&str]| Peer::Block(block(cidr, except).unwrap());
        let peers = || {
            [
                pods(same("a"), ""),
                pods(same("b"), ""),
                pods(same("a"), "a: b"),
                pods(same("a"), "a: b, c: d"),
                pods(chosen(""), ""),
                pods(chosen("a: b"), ""),
                pods(chosen(""), "a: b"),
                ip("10.0.0.0/8", &[]),
                ip("10.0.0.0/9", &[]),
                ip("10.0.0.0/8", &["10.1.0.0/16"]),
                ip("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.0/16"]),
            ]
        };
        let bytes = |peer: &Peer| {
            let mut encoder = Encoder::default();
            peer.encode(&mut encoder);
            encoder.finish()
        };
        for (at, one) in peers().iter().enumerate() {
            for (place, other) in peers().iter().enumerate() {
                assert_eq!(bytes(one) == bytes(other), at == place, "{one} and {other}");
            }
        }
    }
}
