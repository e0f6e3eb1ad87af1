//! What no well-behaved program sends, and what the network itself sends: by hand, frame by frame.

use std::{net::IpAddr, time::Duration};

use enforcer_tests::{
    AgentOptions, Lab, Mode, Place, PodSpec, Probe, Protocol, World, packet,
    packet::{Fragment, ethertype, protocol, tcp_flags},
    policy,
    wire::{PathFlow, Wire, packet_between, send_too_big},
    world::{must, shop_pods, shop_policies},
};

/// How long to look for a frame that must not come.
const NEVER: Duration = Duration::from_millis(300);
/// How long to wait for one that must come.
const SOON: Duration = Duration::from_secs(2);
const BROADCAST: [u8; 6] = [0xff; 6];
const FAMILIES: [bool; 2] = [false, true];

fn shop(mode: Mode) -> World {
    World::shop(mode, AgentOptions::default())
}

fn wire(lab: &Lab, pod: &str) -> Wire {
    must(Wire::open(must(lab.pod(pod)).netns(), "eth0"))
}

fn address(lab: &Lab, pod: &str, v6: bool) -> IpAddr {
    must(must(lab.pod(pod)).address(v6))
}

/// A pod of the shop's network that does not exist.
fn nobody(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd10, 0x244, 0, 0, 0, 0, 200, 200])
    } else {
        IpAddr::from([10, 244, 200, 200])
    }
}

/// Sends an IP packet from the pod's interface, by way of the node.
fn send(world: &World, from: &str, packet: &[u8]) {
    let pod = must(world.lab.pod(from));
    // On a bridge the neighbour's own interface is the way, else the gateway.
    let to = match world.lab.mode() {
        Mode::PointToPoint => world.lab.gateway_mac(),
        _ => must(world.lab.pod("shop/server")).mac(),
    };
    must(wire(&world.lab, from).send(&packet::ip_frame(to, pod.mac(), packet)));
}

/// Whether a packet with these addresses is seen on the wire.
fn seen(wire: &Wire, patience: Duration, src: IpAddr, dst: IpAddr) -> bool {
    must(wire.wait_for(patience, |frame| packet_between(frame, src, dst).is_some())).is_some()
}

fn datagram(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    packet::ip(src.0, dst.0, protocol::UDP, &packet::udp(src, dst, b"by hand"))
}

#[test]
fn both_ways_to_attach_enforce() {
    for attach in ["tcx", "clsact"] {
        for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
            let options = AgentOptions { attach: Some(attach), ..AgentOptions::default() };
            let world = World::shop(mode, options);
            let mut probes = Vec::new();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for (from, port, open) in [
                    ("shop/client", 80, true),
                    ("shop/client", 81, false),
                    ("shop/other", 80, false),
                ] {
                    let server = Place::pod("shop/server");
                    let probe = Probe::new(Place::pod(from), server, port, protocol);
                    probes.extend([(probe.clone(), open), (probe.v6(), open)]);
                }
            }
            world.expect(&probes);
        }
    }
}

#[test]
fn a_source_that_is_not_the_pods_is_dropped() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        // No policy: anti-spoof holds for every pod.
        let world = World::new(mode, &shop_pods(), "");
        for v6 in FAMILIES {
            let server = address(&world.lab, "shop/server", v6);
            let own = address(&world.lab, "shop/other", v6);
            let eyes = wire(&world.lab, "shop/server");
            let node = world.lab.node_address(v6);
            for forged in [address(&world.lab, "shop/client", v6), nobody(v6), node] {
                send(&world, "shop/other", &datagram((forged, 5000), (server, 80)));
                assert!(!seen(&eyes, NEVER, forged, server), "{forged}, {}", mode.name());
            }
            send(&world, "shop/other", &datagram((own, 5000), (server, 80)));
            assert!(seen(&eyes, SOON, own, server), "the pod's own source, {}", mode.name());
        }
    }
}

#[test]
fn arp_for_somebody_else_is_dropped() {
    let world = World::new(Mode::PlainBridge, &shop_pods(), "");
    let other = must(world.lab.pod("shop/other"));
    let [own, client, server] =
        ["shop/other", "shop/client", "shop/server"].map(|pod| address(&world.lab, pod, false));
    let eyes = wire(&world.lab, "shop/server");
    let claims = |ip: IpAddr| {
        let packet = packet::arp(2, (other.mac(), ip), (BROADCAST, server));
        must(wire(&world.lab, "shop/other").send(&packet::frame(
            BROADCAST,
            other.mac(),
            ethertype::ARP,
            &packet,
        )));
        let arrived = eyes.wait_for(if ip == own { SOON } else { NEVER }, |frame| {
            frame[6..14] == packet::frame(BROADCAST, other.mac(), ethertype::ARP, &[])[6..14]
                && frame[14..].starts_with(&packet[..20])
        });
        must(arrived).is_some()
    };
    assert!(!claims(client), "a claim to a neighbour's address arrived");
    assert!(!claims(nobody(false)), "a claim to a free address arrived");
    assert!(claims(own), "the pod's own address must arrive");
}

#[test]
fn a_pod_advertises_no_router_and_no_foreign_neighbour() {
    let world = World::new(Mode::PlainBridge, &shop_pods(), "");
    let other = must(world.lab.pod("shop/other"));
    let own = must(other.address(true));
    let client = address(&world.lab, "shop/client", true);
    let everyone: IpAddr = "ff02::1".parse().expect("an address");
    let eyes = wire(&world.lab, "shop/server");
    let advertise = |src: IpAddr, kind: u8, body: &[u8], patience: Duration| {
        let message = packet::icmp(src, everyone, kind, 0, [0x20, 0, 0, 0], body);
        let packet = packet::ip_with_hops(src, everyone, protocol::ICMPV6, 255, &message);
        let frame = packet::ip_frame([0x33, 0x33, 0, 0, 0, 1], other.mac(), &packet);
        must(wire(&world.lab, "shop/other").send(&frame));
        let arrived = must(eyes.wait_for(patience, |seen| seen[14..] == frame[14..]));
        arrived.is_some()
    };
    let IpAddr::V6(own_octets) = own else { panic!("an IPv6 address") };
    let IpAddr::V6(foreign) = client else { panic!("an IPv6 address") };
    assert!(!advertise(own, 134, &[0; 8], NEVER), "a router advertisement arrived");
    assert!(!advertise(own, 137, &[0; 32], NEVER), "a redirect arrived");
    assert!(!advertise(own, 136, &foreign.octets(), NEVER), "a neighbour's address was claimed");
    assert!(advertise(own, 136, &own_octets.octets(), SOON), "the pod's own advertisement");
}

#[test]
fn large_datagrams_arrive_whole_or_not_at_all() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let world = shop(mode);
        for v6 in FAMILIES {
            let probe = |port| {
                let probe = Probe::udp("shop/client", "shop/server", port).bytes(6000);
                Probe { v6, ..probe }
            };
            world.open(probe(80));
            let eyes = wire(&world.lab, "shop/server");
            world.closed(probe(81));
            let [from, to] = ["shop/client", "shop/server"].map(|pod| address(&world.lab, pod, v6));
            assert!(!seen(&eyes, NEVER, from, to), "a fragment arrived, {}", mode.name());
        }
    }
}

#[test]
fn a_later_fragment_without_its_first_is_dropped() {
    let world = shop(Mode::PointToPoint);
    for v6 in FAMILIES {
        let [from, to] = ["shop/client", "shop/server"].map(|pod| address(&world.lab, pod, v6));
        let whole = packet::udp((from, 5000), (to, 80), &[7; 64]);
        let (first, later) = whole.split_at(24);
        let part = |id, offset, more, payload: &[u8]| {
            packet::ip_fragment(from, to, protocol::UDP, Fragment { id, offset, more }, payload)
        };
        let eyes = wire(&world.lab, "shop/server");
        send(&world, "shop/client", &part(77, 24, false, later));
        assert!(!seen(&eyes, NEVER, from, to), "a later fragment alone arrived");
        // Bytes enough for a transport header, or nobody can say what it is.
        send(&world, "shop/client", &part(78, 0, true, &first[..0]));
        assert!(!seen(&eyes, NEVER, from, to), "a first fragment without its ports arrived");
        send(&world, "shop/client", &part(79, 0, true, first));
        assert!(seen(&eyes, SOON, from, to), "an allowed first fragment");
        send(&world, "shop/client", &part(79, 24, false, later));
        assert!(seen(&eyes, SOON, from, to), "its later fragment");
        // Rewriting the ports of a datagram that was let through.
        send(&world, "shop/client", &part(79, 0, false, &whole[..16]));
        send(&world, "shop/client", &part(79, 8, false, later));
        let overlapping = must(eyes.wait_for(NEVER, |frame| {
            packet_between(frame, from, to)
                .is_some_and(|packet| packet.ends_with(&part(79, 8, false, later)[later.len()..]))
        }));
        assert!(overlapping.is_none(), "an overlapping fragment arrived");
    }
}

#[test]
fn a_router_is_heard_about_flows_that_are_there_and_no_others() {
    let outside = ["203.0.113.50", "2001:db8::50"];
    let client = PodSpec::numbered("shop/client", 2).label("role", "client");
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let policies = policy::all(&[
            policy::deny("role=client", &["Ingress", "Egress"]),
            policy::allow_out("v4", "role=client", "203.0.113.0/24", &[(Protocol::Udp, 4000)]),
            policy::allow_out("v6", "role=client", "2001:db8::/32", &[(Protocol::Udp, 4000)]),
        ]);
        let mut world = World::new(mode, std::slice::from_ref(&client), &policies);
        must(world.lab.add_outside(&outside.map(|ip| ip.parse().expect("an address"))));
        for outside in outside {
            let v6 = outside.contains(':');
            let (pod, to) = (Place::pod("shop/client"), Place::outside(outside));
            let flow = must(PathFlow::open(&world.lab, &pod, &to, 4000, v6));
            let eyes = wire(&world.lab, "shop/client");
            let router = world.lab.router_address(v6);
            // A flow that is not there: another port of the same pod.
            let mut elsewhere = flow.local();
            elsewhere.set_port(flow.local().port() ^ 1);
            must(send_too_big(&world.lab, elsewhere, flow.remote(), 1280));
            assert!(!seen(&eyes, NEVER, router, flow.local().ip()), "{outside}: forged");
            must(send_too_big(&world.lab, flow.local(), flow.remote(), 1300));
            assert!(seen(&eyes, SOON, router, flow.local().ip()), "{outside}, {}", mode.name());
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(must(flow.path_mtu()), 1300, "{outside}");
        }
    }
}

#[test]
fn a_rule_with_ports_lets_no_ping_in_and_one_without_does() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let world = shop(mode);
        let [client, server, other] = ["shop/client", "shop/server", "shop/other"].map(Place::pod);
        let ping = |from: &Place, to: &Place, v6| {
            must(world.lab.ping(from, to, v6, Duration::from_millis(800)))
        };
        for v6 in FAMILIES {
            assert!(!ping(&client, &server, v6), "under a rule for ports only");
            assert!(ping(&client, &other, v6), "towards a pod that is not isolated");
            assert!(ping(&server, &other, v6), "replies follow their request");
        }
        world.policies(&policy::all(&[
            shop_policies(),
            policy::allow_in("allow-everything", "app=server", "role=client", &[]),
        ]));
        world.settle();
        for v6 in FAMILIES {
            assert!(ping(&client, &server, v6), "under a rule without ports");
            assert!(!ping(&other, &server, v6));
        }
    }
}

#[test]
fn the_pods_own_node_is_always_let_in_and_nobody_else() {
    for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
        let deny = policy::deny("", &["Ingress", "Egress"]);
        let mut world = World::new(mode, &shop_pods(), &deny);
        let strange = ["192.0.2.77", "2001:db8:77::1"].map(|ip| ip.parse().expect("an address"));
        let outside = ["198.51.100.9", "2001:db8:9::9"].map(|ip| ip.parse().expect("an address"));
        must(world.lab.add_outside(&outside));
        let mut probes = Vec::new();
        for v6 in FAMILIES {
            must(world.lab.add_node_address(strange[usize::from(v6)]));
            for (from, open) in [
                (Place::Node, true),
                (Place::NodeAddress(strange[usize::from(v6)]), true),
                (Place::Outside(outside[usize::from(v6)]), false),
                (Place::pod("shop/other"), false),
            ] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let probe = Probe::new(from.clone(), Place::pod("shop/server"), 80, protocol);
                    probes.push((Probe { v6, ..probe }, open));
                }
            }
            // The way out to the node is the pod's policy's to decide.
            let to_node = Probe::new(Place::pod("shop/server"), Place::Node, 80, Protocol::Tcp);
            probes.push((Probe { v6, ..to_node }, false));
        }
        world.expect(&probes);
        for v6 in FAMILIES {
            let server = Place::pod("shop/server");
            assert!(must(world.lab.ping(&Place::Node, &server, v6, SOON)), "{}", mode.name());
        }
    }
}

/// Packets from `attacker` that would make a careless agent believe that `victim` has a connection
/// with it, and then packets that would use that.
fn forge(world: &World, attacker: IpAddr, victim: IpAddr, port: u16) {
    let (there, here) = ((victim, 80), (attacker, port));
    let segment = |src: (IpAddr, u16), dst: (IpAddr, u16), flags| {
        packet::ip(src.0, dst.0, protocol::TCP, &packet::tcp(src, dst, flags, 1000, 1001))
    };
    // As if the victim had opened the connection, or answered it.
    for flags in [tcp_flags::SYN, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::ACK] {
        send(world, "shop/other", &segment(there, here, flags));
    }
    send(world, "shop/other", &datagram(there, here));
    for flags in [tcp_flags::SYN, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::ACK] {
        send(world, "shop/other", &segment(here, there, flags));
    }
    // Once more: the segments before could have prepared the way.
    send(world, "shop/other", &segment(here, there, tcp_flags::SYN));
    send(world, "shop/other", &datagram(here, there));
}

/// Next header of ICMPv6.
const ICMPV6: u8 = 58;

#[test]
fn forged_packets_prepare_no_way_to_an_isolated_pod() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let world = shop(mode);
        for way_out_closed in [false, true] {
            if way_out_closed {
                let closed = policy::deny("app=server", &["Egress"]).replace("\"deny\"", "\"out\"");
                world.policies(&policy::all(&[shop_policies(), closed]));
                world.settle();
            }
            for v6 in FAMILIES {
                let victim = address(&world.lab, "shop/server", v6);
                let attacker = address(&world.lab, "shop/other", v6);
                let eyes = wire(&world.lab, "shop/server");
                let first = if way_out_closed { 41_000 } else { 40_000 };
                for port in first..first + 4 {
                    forge(&world, attacker, victim, port);
                }
                // In the first minute of an agent, what looks like an answer to a connection that
                // the victim may open could be one that is older than the agent; nothing else.
                let (flags_at, proto_at) = if v6 { (40 + 13, 6) } else { (20 + 13, 9) };
                let arrived = must(eyes.wait_for(NEVER, |frame| {
                    packet_between(frame, attacker, victim).is_some_and(|packet| {
                        // Neighbour discovery goes between any two ports of a bridge.
                        packet.get(proto_at) != Some(&ICMPV6)
                            && (way_out_closed || packet.get(flags_at) != Some(&tcp_flags::ACK))
                    })
                }));
                assert_eq!(arrived, None, "{}, closed: {way_out_closed}", mode.name());
            }
            world.expect(&[
                (Probe::tcp("shop/client", "shop/server", 80), true),
                (Probe::tcp("shop/other", "shop/server", 80), false),
            ]);
        }
    }
}

#[test]
fn what_a_bridge_floods_is_not_delivered() {
    let world = World::new(Mode::PlainBridge, &shop_pods(), "");
    let other = must(world.lab.pod("shop/other"));
    for v6 in FAMILIES {
        let (from, to) = (must(other.address(v6)), nobody(v6));
        let eyes = wire(&world.lab, "shop/server");
        let packet = datagram((from, 5000), (to, 80));
        let frame = packet::ip_frame([0x0a, 0x58, 0xde, 0xad, 0xbe, 0xef], other.mac(), &packet);
        must(wire(&world.lab, "shop/other").send(&frame));
        assert!(!seen(&eyes, NEVER, from, to));
    }
    world.open(Probe::tcp("shop/other", "shop/server", 80));
}
