//! What a full ring of flows takes of the agent's memory. About five seconds.

use std::{
    net::{SocketAddr, UdpSocket},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, World, world::must};

/// Flows that are kept by default.
const KEPT: u64 = 65_535;
/// How much the agent may grow by them, KiB.
const MOST: u64 = 64 << 10;

/// A flow from each of these ports, which is told at both pods.
fn send(world: &World, ports: Range<u16>) {
    let pod = must(world.lab.pod("shop/client"));
    let own = must(pod.address(false));
    let server = must(must(world.lab.pod("shop/server")).address(false));
    let work = || {
        for port in ports {
            let socket = UdpSocket::bind(SocketAddr::new(own, port)).expect("a free port");
            socket.send_to(b"?", SocketAddr::new(server, 80)).expect("a datagram");
        }
    };
    must(pod.netns().run(work));
}

/// Whether the flow from this port is in the ring.
fn has(world: &World, port: u16) -> bool {
    let port = format!("--from-port={port}");
    let ask = ["observe", "--last=1", "-o", "json", "--protocol=udp", "--ip=10.244.1.2", &port];
    !must(world.agent.ask(&ask)).is_empty()
}

/// Resident memory of the agent, KiB.
fn resident(world: &World) -> u64 {
    let line = must(world.agent.process_status("VmRSS"));
    line.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of kB")
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_full_ring_is_below_64_mib() {
    let world = World::shop(Mode::PointToPoint, AgentOptions::default());
    // What reading, and answering, take for themselves.
    send(&world, 1_000..2_000);
    until("the first flows are kept", || has(&world, 1_999));
    let before = resident(&world);
    // Two flows a datagram; when what was there before is overwritten, the ring is full.
    let mut next = 2_000;
    while has(&world, 1_999) {
        assert!(next < 60_000, "flows are lost on their way");
        send(&world, next..next + 2_000);
        next += 2_000;
        until("the last flow is kept", || has(&world, next - 1));
    }
    let full = resident(&world);
    println!("{before} kB with few flows, {full} kB with {KEPT}");
    assert!(full - before < MOST, "{before} kB with few flows, {full} kB with {KEPT}");
    // And it stays at that.
    for part in 0..4 {
        send(&world, next + part * 1_000..next + (part + 1) * 1_000);
    }
    until("the last flow is kept", || has(&world, next + 3_999));
    assert!(resident(&world) < full + (MOST >> 2), "{} kB later", resident(&world));
}
