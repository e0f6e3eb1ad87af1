//! How long it takes from a packet to its line in `enforcer observe --follow`: through the kernel's
//! ring, the agent, its socket, and the command. About ten seconds.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Follow, Line, Mode, World, world::must};

/// The goal: of a hundred lines ninety-nine are read this soon.
const GOAL: Duration = Duration::from_millis(50);
/// Flows of a round.
const FLOWS: u16 = 200;
/// The best of so many rounds counts: what else the machine does delays any process, and what is
/// slow by itself is so in each of them.
const ROUNDS: u16 = 5;

/// Sends one datagram from each of these ports to the server's; when each was sent, by port.
fn send(world: &World, from: &str, ports: Range<u16>) -> BTreeMap<u16, Instant> {
    let pod = must(world.lab.pod(from));
    let own = must(pod.address(false));
    let server = must(must(world.lab.pod("shop/server")).address(false));
    let work = || {
        let mut sent = BTreeMap::new();
        for port in ports {
            // Some come one upon another, some after a quiet time in which the agent looks less
            // often.
            let pause = if port % 12 == 0 { 60 } else { u64::from(port % 4) };
            thread::sleep(Duration::from_millis(pause));
            let socket = UdpSocket::bind(SocketAddr::new(own, port)).expect("a free port");
            sent.insert(port, Instant::now());
            socket.send_to(b"?", SocketAddr::new(server, 80)).expect("a datagram");
        }
        sent
    };
    must(pod.netns().run(work))
}

/// The port of the sender, if the line tells what the server's policy has decided.
fn judged(line: &Line, verdict: &str) -> Option<u16> {
    let flow = &line.json["flow"];
    let is_it = flow["verdict"] == verdict
        && flow["traffic_direction"] == "INGRESS"
        && flow["event_type"]["type"] == 5;
    let port = flow["l4"]["UDP"]["source_port"].as_u64().filter(|_| is_it)?;
    u16::try_from(port).ok()
}

/// In which time ninety-nine of a hundred were read. All allowed ones must come; of the denied some
/// are told without their ports, together with others of their set in the table of drops.
fn ninety_nine(follow: &Follow, sent: &BTreeMap<u16, Instant>, verdict: &str) -> Duration {
    let least = if verdict == "DROPPED" { sent.len() * 3 / 4 } else { sent.len() };
    let mut took = BTreeMap::new();
    while took.len() < sent.len() {
        let enough = took.len() >= least;
        let line = follow.next(Duration::from_millis(if enough { 500 } else { 10_000 }));
        let Some(line) = line else {
            assert!(enough, "{} of {} {verdict}", took.len(), sent.len());
            break;
        };
        if let Some((port, sent)) = judged(&line, verdict).and_then(|p| sent.get_key_value(&p)) {
            took.entry(*port).or_insert(line.at - *sent);
        }
    }
    let mut took: Vec<Duration> = took.into_values().collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[test]
fn a_flow_is_read_within_50_ms_of_its_packet() {
    let world = World::shop(Mode::PointToPoint, AgentOptions::default());
    let follow = must(Follow::start(&world.agent, &[]));
    // It follows from when its request has arrived.
    let begun = (1_000..2_000).any(|port| {
        send(&world, "shop/client", port..port + 1);
        follow.next(Duration::from_millis(20)).is_some()
    });
    assert!(begun, "nothing is shown");
    for (from, verdict) in [("shop/client", "FORWARDED"), ("shop/other", "DROPPED")] {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let first = 10_000 + round * FLOWS;
            let sent = send(&world, from, first..first + FLOWS);
            rounds.push(ninety_nine(&follow, &sent, verdict));
            if rounds.last() < Some(&GOAL) {
                break;
            }
        }
        for took in &rounds {
            println!(
                "{verdict}: 99 of 100 lines are read {} ms after their packets",
                took.as_millis()
            );
        }
        assert!(rounds.iter().any(|took| *took < GOAL), "{verdict}: {rounds:?}");
    }
}
