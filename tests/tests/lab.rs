//! The laboratory itself, without an agent: everything is open, and nothing stays behind.

use std::{
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Lab, Mode, Netns, Outcome, Place, PodSpec, Probe, Protocol, packet,
    wire::{PathFlow, Wire, packet_between, send_too_big},
    world::must,
};

const MODES: [Mode; 3] = [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge];

/// Two pods and two addresses outside.
fn lab(mode: Mode) -> Lab {
    let mut lab = must(Lab::new(mode));
    must(lab.add_pods(&[PodSpec::numbered("a/one", 1), PodSpec::numbered("a/two", 2)]));
    let outside = ["203.0.113.50", "2001:db8::50"].map(|text| text.parse().expect("an address"));
    must(lab.add_outside(&outside));
    lab
}

#[test]
fn everything_reaches_everything() {
    for mode in MODES {
        let lab = lab(mode);
        let mut probes = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (v6, outside) in [(false, "203.0.113.50"), (true, "2001:db8::50")] {
                let places = [
                    Place::pod("a/one"),
                    Place::pod("a/two"),
                    Place::Node,
                    Place::outside(outside),
                ];
                for from in &places {
                    for to in places.iter().filter(|to| *to != from) {
                        let probe = Probe::new(from.clone(), to.clone(), 8080, protocol);
                        probes.push(Probe { v6, ..probe.expecting(true) });
                    }
                }
            }
        }
        assert_eq!(probes.len(), 48);
        for (probe, outcome) in probes.iter().zip(must(lab.probe(&probes))) {
            assert_eq!(outcome, Outcome::Open, "{probe}, {}", mode.name());
        }
        let large = must(lab.probe_one(&Probe::udp("a/one", "a/two", 81).bytes(8000)));
        assert_eq!(large, Outcome::Open);
        for v6 in [false, true] {
            let places = [Place::pod("a/one"), Place::pod("a/two")];
            assert!(must(lab.ping(&places[0], &places[1], v6, Duration::from_secs(1))));
            assert!(must(lab.ping(&Place::Node, &places[1], v6, Duration::from_secs(1))));
        }
    }
}

#[test]
fn silence_is_told_from_an_answer() {
    let lab = lab(Mode::PointToPoint);
    // The node forwards nothing any more.
    must(lab.node().command("ip", &["route", "replace", "blackhole", "10.244.1.2"]));
    let start = Instant::now();
    assert_eq!(must(lab.probe_one(&Probe::tcp("a/one", "a/two", 80))), Outcome::NoAnswer);
    assert!(start.elapsed() < Duration::from_secs(2));
    must(lab.node().command("ip", &["route", "replace", "prohibit", "10.244.1.2"]));
    let outcome = must(lab.probe_one(&Probe::udp("a/one", "a/two", 80).expecting(true)));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
}

#[test]
fn a_hundred_and_ten_pods_take_seconds() {
    let mut lab = must(Lab::new(Mode::PointToPoint));
    let pods: Vec<PodSpec> =
        (1..=110).map(|number| PodSpec::numbered(&format!("many/p{number}"), number)).collect();
    let start = Instant::now();
    must(lab.add_pods(&pods));
    let made = start.elapsed();
    let probes: Vec<Probe> = (1..=110)
        .map(|number| {
            let to = format!("many/p{}", number % 110 + 1);
            Probe::tcp(&format!("many/p{number}"), &to, 80).expecting(true)
        })
        .collect();
    let start = Instant::now();
    let outcomes = must(lab.probe(&probes));
    let probed = start.elapsed();
    assert!(outcomes.iter().all(Outcome::is_open));
    println!("110 pods in {} ms, 110 probes in {} ms", made.as_millis(), probed.as_millis());
    assert!(made < Duration::from_secs(20) && probed < Duration::from_secs(10));
}

#[test]
fn nothing_stays_behind() {
    let lab = lab(Mode::Bridge);
    let (prefix, dir) = (lab.prefix().to_owned(), lab.dir().to_owned());
    let names = || -> Vec<String> {
        std::fs::read_dir("/run/netns")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&format!("{prefix}-")))
            .collect()
    };
    assert_eq!(names().len(), 4);
    assert!(dir.is_dir());
    must(lab.probe_one(&Probe::tcp("a/one", "a/two", 80)));
    drop(lab);
    assert_eq!(names(), Vec::<String>::new());
    assert!(!dir.exists());
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let prefix = thread::spawn(|| {
        let lab = lab(Mode::PointToPoint);
        let prefix = lab.prefix().to_owned();
        std::panic::panic_any(prefix);
    })
    .join()
    .unwrap_err()
    .downcast::<String>()
    .unwrap();
    assert!(prefix.starts_with("enf"), "{prefix}");
    assert!(!Path::new("/run/netns").join(format!("{prefix}-node")).exists());
}

#[test]
fn a_pod_goes_and_its_address_comes_back() {
    let mut lab = lab(Mode::PointToPoint);
    let probe = Probe::tcp("a/one", "a/two", 80).expecting(true);
    assert!(must(lab.probe_one(&probe)).is_open());
    must(lab.replace_interface("a/two"));
    assert!(must(lab.probe_one(&probe)).is_open());
    must(lab.remove_pod("a/two"));
    assert!(lab.probe_one(&probe).is_err());
    must(lab.add_pods(&[PodSpec::numbered("a/new", 2)]));
    let probe = Probe::tcp("a/one", "a/new", 80).expecting(true);
    assert!(must(lab.probe_one(&probe)).is_open());
}

#[test]
fn a_connection_shows_when_it_stops() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let lab = lab(mode);
        let (from, to) = (Place::pod("a/one"), Place::pod("a/two"));
        let mut connection = must(lab.connect(&from, &to, 80, true)).expect("connected");
        assert!(connection.echo(Duration::from_secs(1)));
        let heartbeat = connection.beat();
        thread::sleep(Duration::from_millis(200));
        assert!(heartbeat.beats() > 10);
        let alive = heartbeat.stopped(Duration::from_millis(300), Duration::from_millis(600));
        assert_eq!(alive, None);
        let cut = Instant::now();
        let host = lab.pod("a/two").unwrap().host_interface().to_owned();
        must(lab.node().command("ip", &["link", "set", &host, "down"]));
        let last = heartbeat.stopped(Duration::from_millis(300), Duration::from_secs(3)).unwrap();
        assert!(last < cut + Duration::from_millis(300));
        let connection = heartbeat.end().expect("the heartbeat's thread lives");
        assert!(connection.lost_segments() > 0);
    }
}

#[test]
fn an_undisturbed_connection_loses_nothing() {
    let lab = lab(Mode::PointToPoint);
    let (from, to) = (Place::pod("a/one"), Place::pod("a/two"));
    let mut connection = must(lab.connect(&from, &to, 80, false)).expect("connected");
    for _ in 0..100 {
        assert!(connection.echo(Duration::from_secs(1)));
    }
    assert_eq!(connection.lost_segments(), 0);
}

#[test]
fn frames_by_hand_arrive() {
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let lab = lab(mode);
        let (one, two) = (lab.pod("a/one").unwrap(), lab.pod("a/two").unwrap());
        let sender = must(Wire::open(one.netns(), "eth0"));
        let seen = must(Wire::open(two.netns(), "eth0"));
        for (v6, forged) in [(false, "10.244.9.9"), (true, "fd10:244::9:9")] {
            let forged: IpAddr = forged.parse().unwrap();
            let to = two.address(v6).unwrap();
            let datagram = packet::udp((forged, 5), (to, 6), b"forged");
            let packet = packet::ip(forged, to, packet::protocol::UDP, &datagram);
            must(sender.send(&packet::ip_frame(lab.gateway_mac(), one.mac(), &packet)));
            let arrived = must(seen.wait_for(Duration::from_secs(2), |frame| {
                packet_between(frame, forged, to).is_some()
            }));
            assert!(arrived.is_some(), "no kernel filter stands in for the agent, {}", mode.name());
        }
    }
}

#[test]
fn a_router_can_say_that_a_packet_was_too_big() {
    let lab = lab(Mode::PointToPoint);
    for outside in ["203.0.113.50", "2001:db8::50"] {
        let to = Place::outside(outside);
        let v6 = outside.contains(':');
        let flow = must(PathFlow::open(&lab, &Place::pod("a/one"), &to, 4000, v6));
        assert_eq!(must(flow.path_mtu()), 1500);
        must(send_too_big(&lab, flow.local(), flow.remote(), 1300));
        let deadline = Instant::now() + Duration::from_secs(2);
        while must(flow.path_mtu()) != 1300 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(must(flow.path_mtu()), 1300, "{outside}");
    }
}

#[test]
fn a_command_runs_in_its_namespace() {
    let lab = lab(Mode::PointToPoint);
    let run = |netns: &Netns| must(netns.command("ip", &["-br", "link"]));
    assert!(run(lab.node()).contains("uplink0"));
    assert!(!run(lab.outside()).contains("uplink0"));
    let error = lab.node().command("ip", &["link", "show", "nothing"]).unwrap_err();
    assert!(error.chain().contains("ip link show nothing"), "{}", error.chain());
}

#[test]
fn a_bridge_floods_what_is_for_nobody_it_knows() {
    let lab = lab(Mode::PlainBridge);
    let one = lab.pod("a/one").unwrap();
    let (from, to) = (one.address(false).unwrap(), IpAddr::from([10, 244, 200, 200]));
    let seen = must(Wire::open(lab.pod("a/two").unwrap().netns(), "eth0"));
    let datagram = packet::udp((from, 5), (to, 6), b"flooded");
    let packet = packet::ip(from, to, packet::protocol::UDP, &datagram);
    let frame = packet::ip_frame([0x0a, 0x58, 0xde, 0xad, 0xbe, 0xef], one.mac(), &packet);
    must(must(Wire::open(one.netns(), "eth0")).send(&frame));
    let arrived =
        seen.wait_for(Duration::from_secs(2), |frame| packet_between(frame, from, to).is_some());
    assert!(must(arrived).is_some());
}
