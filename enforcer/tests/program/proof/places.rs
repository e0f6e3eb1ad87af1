//! Where things can be: the addresses of local pods, of others, of Services and of nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Pods of this node, each behind an interface of its own.
pub(crate) const LOCAL: usize = 6;
/// Places of pods elsewhere.
pub(crate) const REMOTE: usize = 8;
/// Namespaces.
pub(crate) const NAMESPACES: [&str; 3] = ["a", "b", "c"];

fn pair(four: [u8; 4], six: [u16; 2]) -> [IpAddr; 2] {
    let [net, host] = six;
    [Ipv4Addr::from(four).into(), Ipv6Addr::new(0xfd00, 0, 0, net, 0, 0, 0, host).into()]
}

/// Addresses of the local pod in a slot: mostly of both families.
pub(crate) fn local(slot: usize) -> Vec<IpAddr> {
    let number = u8::try_from(slot).unwrap();
    let both = pair([10, 0, number % 2, 10 + number], [number.into(), 1]);
    match slot {
        4 => vec![both[0]],
        5 => vec![both[1]],
        _ => both.to_vec(),
    }
}

/// Addresses at a place elsewhere, IPv4 and IPv6; half of them near those of local pods.
pub(crate) fn remote(place: usize) -> [IpAddr; 2] {
    let number = u8::try_from(place).unwrap();
    let near = u8::from(place % 2 == 1);
    pair([10, near, number / 4, 20 + number], [(100 * u16::from(near)) + u16::from(number / 4), 2])
}

/// The own node's addresses.
pub(crate) fn node() -> [IpAddr; 2] {
    pair([10, 0, 0, 254], [0, 0xfe])
}

/// Virtual addresses of Services.
pub(crate) fn service(number: usize) -> [IpAddr; 2] {
    let number = u8::try_from(number).unwrap();
    pair([10, 96, 0, number], [96, number.into()])
}

/// Addresses that nobody has.
pub(crate) fn outside() -> [IpAddr; 8] {
    let [a, b] = pair([10, 0, 0, 1], [0, 0x99]);
    let [c, d] = pair([10, 0, 1, 255], [1, 0xffff]);
    let [e, f] = pair([203, 0, 113, 9], [0x7fff, 9]);
    [a, b, c, d, e, f, Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into()]
}

/// All that a packet may come from or go to, virtual addresses left out.
pub(crate) fn all() -> Vec<IpAddr> {
    let local = (0..LOCAL).flat_map(local);
    local.chain((0..REMOTE).flat_map(remote)).chain(outside()).chain(node()).collect()
}
