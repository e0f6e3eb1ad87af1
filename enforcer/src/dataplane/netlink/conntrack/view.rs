//! How a flow of the node looks at a pod's interface.
//!
//! The pod's interface lies outside of the node's translation. A packet that the pod sends is seen
//! before any of it, so a flow that the pod began is the original direction. A packet that
//! reaches the pod is seen after all of it, so a flow to the pod is the reply direction reversed.

use std::net::IpAddr;

use enforcer_common::{
    conntrack::{ECHO_FROM_POD, ECHO_TO_POD},
    verdict::proto::{ICMP, ICMPV6, SCTP, TCP, UDP},
};

use super::{KernelFlow, Tuple};

/// Types of echo requests.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_6: u8 = 128;

/// A flow as a pod's interface sees it: the parts of a key of our own conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodFlow {
    /// The pod's address.
    pub local: IpAddr,
    /// The pod's port; for an echo flow its identifier; else 0.
    pub local_port: u16,
    /// The other address.
    pub remote: IpAddr,
    /// The other port; for an echo flow [`ECHO_FROM_POD`] or [`ECHO_TO_POD`]; else 0.
    pub remote_port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// The pod sent the first packet.
    pub from_pod: bool,
}

/// How `flow` looks at the interface of the pod with this address; `None` if it has no part in it,
/// or the flow is ICMP other than echo. Of a flow from the pod to itself: the side that began it.
#[must_use]
pub fn pod_view(flow: &KernelFlow, pod: IpAddr) -> Option<PodFlow> {
    pod_views(flow, pod).next()
}

/// The same, with both sides of a flow from the pod to itself (through its own Service: each side
/// has another address opposite).
pub fn pod_views(flow: &KernelFlow, pod: IpAddr) -> impl Iterator<Item = PodFlow> + use<> {
    let began = (flow.orig.source == pod).then(|| from_pod(&flow.orig)).flatten();
    let received = (flow.reply.source == pod).then(|| to_pod(flow)).flatten();
    began.into_iter().chain(received)
}

fn from_pod(orig: &Tuple) -> Option<PodFlow> {
    let (local_port, remote_port) = match orig.protocol {
        ICMP | ICMPV6 => (echo(orig, orig)?, ECHO_FROM_POD),
        TCP | UDP | SCTP => (orig.source_port, orig.destination_port),
        _ => (0, 0),
    };
    Some(PodFlow {
        local: orig.source,
        local_port,
        remote: orig.destination,
        remote_port,
        proto: orig.protocol,
        from_pod: true,
    })
}

fn to_pod(flow: &KernelFlow) -> Option<PodFlow> {
    let reply = &flow.reply;
    let (local_port, remote_port) = match reply.protocol {
        ICMP | ICMPV6 => (echo(&flow.orig, reply)?, ECHO_TO_POD),
        TCP | UDP | SCTP => (reply.source_port, reply.destination_port),
        _ => (0, 0),
    };
    Some(PodFlow {
        local: reply.source,
        local_port,
        remote: reply.destination,
        remote_port,
        proto: reply.protocol,
        from_pod: false,
    })
}

/// The identifier that `seen` has, if the flow began with an echo request.
fn echo(orig: &Tuple, seen: &Tuple) -> Option<u16> {
    let request = orig.icmp.is_some_and(|icmp| {
        matches!((orig.protocol, icmp.kind), (ICMP, ECHO_REQUEST) | (ICMPV6, ECHO_REQUEST_6))
    });
    seen.icmp.filter(|_| request).map(|icmp| icmp.id)
}

#[cfg(test)]
mod tests {
    use super::{super::IcmpPart, *};

    const CLIENT: (&str, u16) = ("10.0.0.5", 40_000);
    const SERVER: (&str, u16) = ("10.0.0.9", 8080);
    const SERVICE: (&str, u16) = ("172.20.0.1", 80);
    const NODE: (&str, u16) = ("192.0.2.1", 61_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tuple(from: (&str, u16), to: (&str, u16)) -> Tuple {
        Tuple {
            source: ip(from.0),
            destination: ip(to.0),
            protocol: TCP,
            source_port: from.1,
            destination_port: to.1,
            icmp: None,
        }
    }

    fn flow(orig: Tuple, reply: Tuple) -> KernelFlow {
        KernelFlow {
            orig,
            reply,
            seen_reply: true,
            assured: true,
            tcp_state: Some(3),
            timeout: Some(100),
            zone: 0,
        }
    }

    fn view(local: (&str, u16), remote: (&str, u16), from_pod: bool) -> PodFlow {
        PodFlow {
            local: ip(local.0),
            local_port: local.1,
            remote: ip(remote.0),
            remote_port: remote.1,
            proto: TCP,
            from_pod,
        }
    }

    #[track_caller]
    fn check(flow: &KernelFlow, client: Option<PodFlow>, server: Option<PodFlow>) {
        assert_eq!(pod_view(flow, ip(CLIENT.0)), client, "at the client");
        assert_eq!(pod_view(flow, ip(SERVER.0)), server, "at the server");
        for other in [SERVICE.0, NODE.0, "10.0.0.77", "fd00::1"] {
            assert_eq!(pod_view(flow, ip(other)), None);
        }
    }

    #[test]
    fn without_translation() {
        let flow = flow(tuple(CLIENT, SERVER), tuple(SERVER, CLIENT));
        check(&flow, Some(view(CLIENT, SERVER, true)), Some(view(SERVER, CLIENT, false)));
    }

    #[test]
    fn with_another_destination() {
        // The client sees the Service, the server sees itself.
        let flow = flow(tuple(CLIENT, SERVICE), tuple(SERVER, CLIENT));
        check(&flow, Some(view(CLIENT, SERVICE, true)), Some(view(SERVER, CLIENT, false)));
    }

    #[test]
    fn with_another_source() {
        // The server sees the node in place of the client.
        let flow = flow(tuple(CLIENT, SERVER), tuple(SERVER, NODE));
        let at_server = pod_view(&flow, ip(SERVER.0));
        assert_eq!(at_server, Some(view(SERVER, NODE, false)));
        assert_eq!(pod_view(&flow, ip(CLIENT.0)), Some(view(CLIENT, SERVER, true)));
        assert_eq!(pod_view(&flow, ip(NODE.0)), None);
    }

    #[test]
    fn with_both() {
        let flow = flow(tuple(CLIENT, SERVICE), tuple(SERVER, NODE));
        check(&flow, Some(view(CLIENT, SERVICE, true)), Some(view(SERVER, NODE, false)));
    }

    #[test]
    fn a_pod_that_reaches_itself_has_two_sides() {
        // Through its own Service, masqueraded so that the reply comes back the same way.
        let own = (CLIENT.0, 8080);
        let flow = flow(tuple(CLIENT, SERVICE), tuple(own, NODE));
        let sides: Vec<PodFlow> = pod_views(&flow, ip(CLIENT.0)).collect();
        assert_eq!(sides, [view(CLIENT, SERVICE, true), view(own, NODE, false)]);
        assert_eq!(pod_view(&flow, ip(CLIENT.0)), sides.first().copied());
    }

    #[test]
    fn an_echo_is_known_by_its_identifier_and_who_asked() {
        let icmp = |from: &str, to: &str, kind, id| Tuple {
            protocol: ICMP,
            icmp: Some(IcmpPart { id, kind, code: 0 }),
            ..tuple((from, 0), (to, 0))
        };
        // Translation gave the request another identifier.
        let echo = flow(icmp("10.0.0.5", "10.0.0.9", 8, 7), icmp("10.0.0.9", "192.0.2.1", 0, 9));
        let client = pod_view(&echo, ip("10.0.0.5")).unwrap();
        assert_eq!((client.local_port, client.remote_port), (7, ECHO_FROM_POD));
        let server = pod_view(&echo, ip("10.0.0.9")).unwrap();
        assert_eq!((server.local_port, server.remote_port), (9, ECHO_TO_POD));
        assert_eq!(server.remote, ip("192.0.2.1"));
        // Timestamps are no echo.
        let other = flow(icmp("10.0.0.5", "10.0.0.9", 13, 7), icmp("10.0.0.9", "10.0.0.5", 14, 7));
        assert_eq!(pod_view(&other, ip("10.0.0.5")), None);
        assert_eq!(pod_view(&other, ip("10.0.0.9")), None);
    }

    #[test]
    fn other_protocols_have_no_ports() {
        let lite = |tuple: Tuple| Tuple { protocol: 136, ..tuple };
        let flow = flow(lite(tuple(CLIENT, SERVER)), lite(tuple(SERVER, CLIENT)));
        let client = pod_view(&flow, ip(CLIENT.0)).unwrap();
        assert_eq!((client.local_port, client.remote_port, client.proto), (0, 0, 136));
    }
}
