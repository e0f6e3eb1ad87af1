//! What flows make known, each provoked with real sockets, and normal load that makes nothing known.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, Place, Probe, Protocol, World, policy, world::must};

/// How long after its flows something may be known: the agent looks each second.
const PATIENCE: Duration = Duration::from_secs(10);

fn shop(flags: &[&str]) -> World {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    World::shop(Mode::PointToPoint, AgentOptions { flags, ..AgentOptions::default() })
}

/// What the agent's metrics say.
fn scrape(world: &World) -> String {
    let ask = || {
        let mut stream = TcpStream::connect("127.0.0.1:10465").expect("the agent serves metrics");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    must(world.lab.node().run(ask)).expect("an answer")
}

/// The value of a series, if it is there.
fn value(text: &str, series: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn known(world: &World, kind: &str) -> u64 {
    let series = format!("enforcer_insights_total{{kind=\"{kind}\"}}");
    value(&scrape(world), &series).expect("every kind is shown from the start")
}

/// Waits until it was made known once, of this pod.
#[track_caller]
fn told(world: &World, kind: &str, subject: &str) {
    let deadline = Instant::now() + PATIENCE;
    let is_told = |line: &str| line.contains(kind) && line.contains(subject);
    while known(world, kind) == 0 || !world.agent.log().lines().any(is_told) {
        assert!(Instant::now() < deadline, "no {kind} of {subject}:\n{}", world.agent.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(known(world, kind), 1);
}

/// Tries without waiting for long; whether it works is not asked.
fn attempt(world: &World, probes: impl IntoIterator<Item = Probe>) {
    let brief = |probe| Probe { patience: Duration::from_millis(100), ..probe };
    let probes: Vec<Probe> = probes.into_iter().map(brief).collect();
    must(world.lab.probe(&probes));
}

fn virtual_address(from: &str, to: &str, port: u16) -> Probe {
    let to = Place::Virtual(to.parse().expect("an address"));
    Probe::new(Place::pod(from), to, port, Protocol::Tcp)
}

#[test]
fn a_port_scan_is_known_by_its_denials() {
    let world = shop(&["--insight-port-scan=10/60"]);
    attempt(&world, (1000..1009).map(|port| Probe::tcp("shop/other", "shop/server", port)));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(known(&world, "PortScan"), 0, "nine are not ten");
    attempt(&world, (1009..1030).map(|port| Probe::tcp("shop/other", "shop/server", port)));
    told(&world, "PortScan", "shop/other");
}

#[test]
fn many_denied_peers_are_known() {
    let world = shop(&["--insight-denied-peers=5/60"]);
    let closed = policy::all(&[policy::deny("role=client", &["Egress"])]);
    world.policies(&closed);
    world.settle();
    let peers = |range: std::ops::Range<u8>| {
        range.map(|last| virtual_address("shop/client", &format!("203.0.113.{last}"), 80))
    };
    attempt(&world, peers(1..5).chain(peers(1..5)));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(known(&world, "DeniedPeers"), 0, "four are not five");
    attempt(&world, peers(5..12));
    told(&world, "DeniedPeers", "shop/client");
}

#[test]
fn a_first_contact_outside_is_known_once() {
    let world = shop(&["--insight-learning=0"]);
    let outside = || virtual_address("shop/client", "198.51.100.77", 443);
    attempt(&world, [outside()]);
    told(&world, "FirstOutsideContact", "shop/client");
    attempt(&world, [outside(), outside()]);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(known(&world, "FirstOutsideContact"), 1);
}

#[test]
fn what_is_learned_first_is_no_news() {
    let world = shop(&["--insight-learning=600"]);
    attempt(&world, [virtual_address("shop/client", "198.51.100.77", 443)]);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(known(&world, "FirstOutsideContact"), 0);
}

#[test]
fn the_metadata_address_is_known_though_policy_denies_it() {
    let world = shop(&[]);
    world.policies(&policy::deny("role=client", &["Egress"]));
    world.settle();
    attempt(&world, [virtual_address("shop/client", "169.254.169.254", 80)]);
    told(&world, "MetadataAccess", "shop/client");
}

#[test]
fn a_first_contact_with_the_api_server_is_known() {
    let world = shop(&["--insight-learning=0", "--insight-first-outside=false"]);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {namespace: default, name: kubernetes}\n\
                   spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 443}]}\n";
    must(world.manifests.write("kubernetes.yaml", service));
    world.settle();
    attempt(&world, [virtual_address("shop/other", "10.96.0.1", 443)]);
    told(&world, "FirstApiServerContact", "shop/other");
}

#[test]
fn normal_load_makes_nothing_known_and_is_counted() {
    let world = shop(&[]);
    for _ in 0..5 {
        let mut probes: Vec<(Probe, bool)> =
            (0..40).map(|_| (Probe::tcp("shop/client", "shop/server", 80), true)).collect();
        probes.push((Probe::tcp("shop/other", "shop/server", 80), false));
        world.expect(&probes);
    }
    thread::sleep(Duration::from_secs(2));
    let text = scrape(&world);
    let kinds = ["PortScan", "DeniedPeers", "FirstOutsideContact", "MetadataAccess"];
    for kind in kinds.into_iter().chain(["FirstApiServerContact"]) {
        assert_eq!(known(&world, kind), 0, "{kind}:\n{}", world.agent.log());
    }
    // The same flows in Hubble's metrics.
    let allowed =
        "hubble_policy_verdicts_total{direction=\"ingress\",match=\"l3-l4\",action=\"forwarded\"}";
    assert!(value(&text, allowed) >= Some(200), "{text}");
    let denied = "hubble_drop_total{reason=\"POLICY_DENIED\",protocol=\"TCP\",source=\"shop/other\",\
                  destination=\"shop/server\",traffic_direction=\"ingress\"}";
    assert!(value(&text, denied) >= Some(5), "{text}");
    // Ours: connections that are over, with the packets of their data and both handshakes.
    for way in ["sent", "received"] {
        let labels = format!("{{namespace=\"shop\",workload=\"client\",way=\"{way}\"}}");
        let packets = value(&text, &format!("enforcer_workload_packets_total{labels}"));
        let bytes = value(&text, &format!("enforcer_workload_bytes_total{labels}"));
        assert!(packets >= Some(400) && bytes > packets.map(|n| n * 40), "{way}: {text}");
    }
    let handshakes = "enforcer_workload_tcp_handshake_seconds_count\
                      {namespace=\"shop\",workload=\"client\"}";
    assert!(value(&text, handshakes) >= Some(200), "{text}");
}
