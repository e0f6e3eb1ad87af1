//! Conntrack messages, read: total over any bytes.

use std::net::IpAddr;

use super::{
    super::{
        address::ip,
        wire::{Attributes, be16, be32},
    },
    IcmpPart, KernelFlow, Tuple,
};

/// Bytes of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_ZONE: u16 = 18;
pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;

/// Reads an entry of a dump; `None` if it lacks a direction.
pub(super) fn flow(payload: &[u8]) -> Option<KernelFlow> {
    let (mut orig, mut reply) = (None, None);
    let (mut status, mut timeout, mut tcp_state, mut zone) = (0, None, None, 0);
    for (kind, value) in Attributes::after(payload, HEADER) {
        match kind {
            CTA_TUPLE_ORIG => orig = tuple(value),
            CTA_TUPLE_REPLY => reply = tuple(value),
            CTA_STATUS => status = be32(value).unwrap_or(0),
            CTA_PROTOINFO => {
                tcp_state = Attributes(value)
                    .find(CTA_PROTOINFO_TCP)
                    .and_then(|tcp| Attributes(tcp).find(CTA_PROTOINFO_TCP_STATE))
                    .and_then(|state| state.first().copied());
            }
            CTA_TIMEOUT => timeout = be32(value),
            CTA_ZONE => zone = be16(value).unwrap_or(0),
            _ => {}
        }
    }
    Some(KernelFlow {
        orig: orig?,
        reply: reply?,
        seen_reply: status & IPS_SEEN_REPLY != 0,
        assured: status & IPS_ASSURED != 0,
        tcp_state,
        timeout,
        zone,
    })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (source, destination) = addresses(Attributes(bytes).find(CTA_TUPLE_IP)?)?;
    let protocol = Attributes(Attributes(bytes).find(CTA_TUPLE_PROTO)?);
    let byte = |kind| protocol.clone().find(kind).and_then(|value| value.first().copied());
    let short = |kind| protocol.clone().find(kind).and_then(be16);
    // CTA_PROTO_ICMP_{ID, TYPE, CODE}, then the same of ICMPv6.
    let icmp = [(4, 5, 6), (7, 8, 9)].into_iter().find_map(|(id, kind, code)| {
        Some(IcmpPart { id: short(id)?, kind: byte(kind)?, code: byte(code)? })
    });
    Some(Tuple {
        source,
        destination,
        // CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT.
        protocol: byte(1)?,
        source_port: short(2).unwrap_or(0),
        destination_port: short(3).unwrap_or(0),
        icmp,
    })
}

fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let of = |kind| Attributes(bytes).find(kind).and_then(ip);
    // CTA_IP_V4_{SRC, DST}, CTA_IP_V6_{SRC, DST}.
    Some((of(1).or_else(|| of(3))?, of(2).or_else(|| of(4))?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dataplane::netlink::wire::Request;

    fn empty() -> Request {
        Request::new(0, 0, &[])
    }

    fn tuple_of(addresses: [(u16, &[u8]); 2], protocol: &[(u16, &[u8])]) -> Request {
        let ip = addresses.into_iter().fold(empty(), |r, (kind, value)| r.attribute(kind, value));
        let proto = protocol.iter().fold(empty(), |r, (kind, value)| r.attribute(*kind, value));
        empty().nested(CTA_TUPLE_IP, &ip).nested(CTA_TUPLE_PROTO, &proto)
    }

    fn payload(mut request: Request) -> Vec<u8> {
        request.finish(0)[16..].to_vec()
    }

    fn icmp6() -> Vec<u8> {
        let (a, b) = ([0xfd; 16], [0xfe; 16]);
        let orig: [(u16, &[u8]); 4] = [(1, &[58]), (7, &[0x12, 0x34]), (8, &[128]), (9, &[0])];
        let reply: [(u16, &[u8]); 4] = [(1, &[58]), (7, &[0x12, 0x34]), (8, &[129]), (9, &[0])];
        payload(
            Request::new(0, 0, &[10, 0, 0, 0])
                .nested(CTA_TUPLE_ORIG, &tuple_of([(3, &a), (4, &b)], &orig))
                .nested(CTA_TUPLE_REPLY, &tuple_of([(3, &b), (4, &a)], &reply))
                .attribute(CTA_STATUS, &[0, 0, 0, 2])
                .attribute(CTA_ZONE, &[0, 5])
                .attribute(CTA_TIMEOUT, &[0, 0, 0, 29]),
        )
    }

    #[test]
    fn an_echo_flow_has_its_identifier() {
        let flow = flow(&icmp6()).unwrap();
        assert_eq!(flow.orig.icmp, Some(IcmpPart { id: 0x1234, kind: 128, code: 0 }));
        assert_eq!(flow.reply.icmp.map(|icmp| icmp.kind), Some(129));
        assert_eq!(
            (flow.orig.source, flow.orig.destination),
            ([0xfd; 16].into(), [0xfe; 16].into())
        );
        assert_eq!((flow.seen_reply, flow.assured), (true, false));
        assert_eq!((flow.zone, flow.timeout, flow.tcp_state), (5, Some(29), None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            // A flow has two directions, each with two addresses of 4 bytes and a protocol, in
            // their attributes.
            prop_assert!(flow(&bytes).is_none() || bytes.len() > 60);
        }

        #[test]
        fn a_damaged_message_is_read(at in 0_usize..128, value: u8, cut in 0_usize..256) {
            let mut bytes = icmp6();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(cut);
            // Cut within its second direction it is no flow, whatever the damage.
            prop_assert!(flow(&bytes).is_none() || bytes.len() > 60);
        }
    }
}
