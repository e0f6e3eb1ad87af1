//! Services when things change: policies, endpoints, translations, and the agent itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Backend, Connection, Heartbeat, Market, Mode, Outcome, Place, PodSpec, Probe,
    Protocol, Proxy, Service,
    market::{TARGET, bad, client, closed, far_bad, far_good, good, policies},
    policy,
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];
/// Silence after which a connection counts as stopped: longer than TCP's first retransmission.
const SILENCE: Duration = Duration::from_millis(400);

fn near(number: u8, pods: &[PodSpec]) -> Service {
    let backends: Vec<Backend> = pods.iter().map(|pod| Backend::pod(pod, TARGET)).collect();
    Service::numbered(&format!("shop/near-{number}"), number).with(&backends)
}

fn far(number: u8, pods: &[PodSpec]) -> Service {
    let backends: Vec<Backend> = pods.iter().map(|pod| Backend::far(pod, TARGET)).collect();
    Service::numbered(&format!("shop/far-{number}"), number).with(&backends)
}

fn ask(service: &Service) -> Probe {
    Market::ask(service, false, Protocol::Tcp)
}

/// A connection of the client to a Service, that policy must allow.
#[track_caller]
fn connect(market: &Market, service: &Service, v6: bool) -> Connection {
    let client = Place::pod("shop/client");
    let connection = must(market.lab().connect(&client, &service.place(v6), 80, v6));
    connection.unwrap_or_else(|| panic!("{}: no answer", service.name))
}

#[track_caller]
fn beats(market: &Market, service: &Service) -> Heartbeat {
    let mut connection = connect(market, service, false);
    assert!(connection.echo(Duration::from_secs(1)), "{}: connected, no echo", service.name);
    connection.beat()
}

#[track_caller]
fn stops(heartbeat: &Heartbeat) {
    assert!(heartbeat.stopped(SILENCE, Duration::from_secs(3)).is_some(), "it goes on");
}

#[track_caller]
fn goes_on(heartbeat: Heartbeat) {
    let before = heartbeat.beats();
    thread::sleep(Duration::from_millis(500));
    assert!(heartbeat.beats() > before + 5, "{} then {}", before, heartbeat.beats());
    assert_eq!(heartbeat.end().expect("it lives").lost_segments(), 0);
}

#[test]
fn a_service_without_slices_is_pending_and_judged() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let services = [near(1, &[good()]), near(2, &[bad()]), far(3, &[far_good(), far_bad()])];
        services.iter().for_each(|service| market.announce(service));
        market.translate(&services);
        market.world.settle();
        let [open, closed, mixed] = &services;
        market.expect(&[(open, true), (closed, false)]);
        market.judge(&ask(mixed), mixed, &mixed.backends[..1], 60);
        services.iter().for_each(|service| market.announce_slices(service));
        market.world.settle();
        market.expect(&[(open, true), (closed, false)]);
        market.judge(&ask(mixed), mixed, &mixed.backends[..1], 60);
    }
}

#[test]
fn a_slice_that_comes_late_costs_no_connection_and_opens_none() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let service = near(1, &[bad()]);
        market.offer(std::slice::from_ref(&service));
        market.expect(&[(&service, false)]);
        // Known: a good one. The node has a further good one, and a bad one, already.
        let known = service.clone().with(&[Backend::pod(&good(), TARGET)]);
        market.announce_slices(&known);
        market.world.settle();
        let real = service.clone().with(&[
            Backend::pod(&good(), TARGET),
            Backend::far(&far_good(), TARGET),
            Backend::far(&far_bad(), TARGET),
            Backend::pod(&bad(), TARGET),
        ]);
        market.translate(std::slice::from_ref(&real));
        market.judge(&ask(&real), &real, &real.backends[..2], 100);
        market.announce_slices(&real);
        market.judge(&ask(&real), &real, &real.backends[..2], 100);
        market.world.settle();
        market.judge(&ask(&real), &real, &real.backends[..2], 40);
    }
}

#[test]
fn a_connection_that_was_before_its_slice_comes_with_tcps_next_try() {
    for mode in MODES {
        // A class of its own for the bad one: the client's own might as well be the client.
        let odd = policy::allow_to("odd", "role=client", "app=bad", &[(Protocol::Tcp, 1)]);
        let policies = policy::all(&[policies(), odd]);
        let mut market = Market::with(mode, &policies, AgentOptions::default());
        let service = near(1, &[bad()]);
        market.offer(std::slice::from_ref(&service));
        let real = service.clone().with(&[Backend::pod(&good(), TARGET)]);
        market.translate(std::slice::from_ref(&real));
        thread::scope(|scope| {
            let tries =
                scope.spawn(|| must(market.lab().probe_one(&ask(&service).expecting(true))));
            thread::sleep(Duration::from_millis(200));
            assert!(!tries.is_finished(), "every backend that is known is denied");
            market.announce_slices(&real);
            assert_eq!(tries.join().expect("the thread lives"), Outcome::Open, "{}", mode.name());
        });
    }
}

#[test]
fn slices_without_their_service_are_nothing_until_it_comes() {
    let mut market = Market::new(Mode::PointToPoint);
    let service = near(1, &[good(), bad()]);
    market.announce_slices(&service);
    market.translate(std::slice::from_ref(&service));
    market.world.settle();
    // An address that no selector knows.
    market.expect(&[(&service, false)]);
    market.announce(&service);
    market.world.settle();
    market.judge(&ask(&service), &service, &service.backends[..1], 40);
    // And they stay nothing when it goes.
    must(market.world.manifests.remove(&service.file()));
    market.world.settle();
    market.expect(&[(&service, false)]);
}

#[test]
fn a_virtual_address_that_nobody_translates_does_not_leave_the_node() {
    for (mode, rule) in
        [(Mode::PointToPoint, true), (Mode::Bridge, false), (Mode::PlainBridge, true)]
    {
        let everywhere = policy::all(&[
            closed(),
            policy::allow_out("four", "role=client", "0.0.0.0/0", &[(Protocol::Tcp, TARGET)]),
            policy::allow_out("six", "role=client", "::/0", &[(Protocol::Tcp, TARGET)]),
        ]);
        let policies = if rule { everywhere } else { policies() };
        let mut market = Market::with(mode, &policies, AgentOptions::default());
        let service = near(1, &[good()]);
        // Somebody outside has the address: without the agent the packet would get there.
        must(market.world.lab.add_outside(&service.cluster_ips));
        for ip in &service.cluster_ips {
            let place = Place::Outside(*ip);
            must(market.lab().answer(&place, ip.is_ipv6(), 80, Protocol::Tcp));
        }
        market.announce(&service);
        market.announce_slices(&service);
        market.world.settle();
        for v6 in [false, true] {
            market.world.closed(Market::ask(&service, v6, Protocol::Tcp));
            let Place::Virtual(address) = service.place(v6) else { panic!("a virtual place") };
            market.told("ServiceUntranslated", &["shop/client", &address.to_string()]);
        }
    }
}

#[test]
fn a_connection_stops_when_policy_denies_its_backend_and_another_backends_goes_on() {
    for mode in MODES {
        for (one, another) in [
            (near(1, &[good()]), far(2, &[far_good()])),
            (far(2, &[far_good()]), near(1, &[good()])),
        ] {
            let mut market = Market::new(mode);
            // One Service for both: first one of them is what the node chooses, then the other.
            let both = [one.backends.clone(), another.backends.clone()].concat();
            let service = Service::numbered("shop/both", 9).with(&both);
            market.offer(std::slice::from_ref(&service));
            let only = |backends: &[Backend]| service.clone().with(backends);
            market.translate(&[only(&one.backends)]);
            let stopping = beats(&market, &service);
            market.translate(&[only(&another.backends)]);
            let living = beats(&market, &service);
            // The pod behind the first one is no good one any more.
            let Some(pod) = [good(), far_good()]
                .into_iter()
                .find(|pod| pod.addresses == one.backends[0].addresses)
            else {
                panic!("a pod has the address");
            };
            market.world.describe(&pod.label("app", "none"));
            market.world.settle();
            stops(&stopping);
            goes_on(living);
            market.translate(&[only(&one.backends)]);
            market.world.closed(ask(&service));
            market.translate(&[only(&another.backends)]);
            market.world.open(ask(&service));
        }
    }
}

#[test]
fn a_pods_connection_with_itself_outlives_every_change_of_policy() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let itself = near(1, &[client()]);
        let mixed = near(2, &[client(), good()]);
        market.announce(&mixed);
        market.announce_slices(&mixed);
        market.offer(std::slice::from_ref(&itself));
        market.translate(&[itself.clone(), mixed.clone().with(&mixed.backends[..1])]);
        let connections = [beats(&market, &itself), beats(&market, &mixed)];
        let both = policy::deny("role=client", &["Ingress", "Egress"]);
        for yaml in [both.as_str(), "", &closed(), &both] {
            market.world.policies(yaml);
            market.world.settle();
            thread::sleep(SILENCE);
        }
        connections.into_iter().for_each(goes_on);
    }
}

#[test]
fn a_server_that_pushes_is_not_heard_any_more() {
    for mode in MODES {
        for v6 in [false, true] {
            for service in [near(1, &[good()]), far(2, &[far_good()])] {
                let mut market = Market::new(mode);
                let place =
                    service.backends[0].place_of(service.backends[0].addresses[usize::from(v6)]);
                let pushing = must(market.lab().push(&place, v6, TARGET));
                market.announce(&service);
                market.announce_slices(&service);
                market.proxy.services = vec![service.clone()];
                must(market.proxy.apply(market.lab()));
                market.world.settle();
                let mut connection = connect(&market, &service, v6);
                let before = connection.receive_for(Duration::from_millis(300));
                assert!(before > 10_000, "{before} bytes only, {}", mode.name());
                market.world.policies(&closed());
                market.world.settle();
                // What was under way, and until the agent has said whom the flow goes to.
                connection.receive_for(Duration::from_millis(300));
                let after = connection.receive_for(Duration::from_secs(1));
                assert_eq!(after, 0, "bytes still come, {}, {}", mode.name(), service.name);
                drop(pushing);
            }
        }
    }
}

#[test]
fn datagrams_that_get_another_backend_are_judged_for_it() {
    for mode in MODES {
        for [open, shut] in [
            [near(1, &[good()]), near(1, &[bad()])],
            [far(1, &[far_good()]), far(1, &[far_bad()])],
            [near(1, &[good()]), far(1, &[far_bad()])],
            [far(1, &[far_good()]), near(1, &[bad()])],
        ] {
            let mut market = Market::new(mode);
            let both = [open.backends.clone(), shut.backends.clone()].concat();
            let service = open.clone().with(&both);
            market.offer(std::slice::from_ref(&service));
            // One flow, in use all the time.
            let probe = Market::ask(&service, false, Protocol::Udp).from_port(9_999);
            let only = |one: &Service| service.clone().with(&one.backends);
            for _ in 0..2 {
                market.translate(&[only(&open)]);
                must(market.lab().forget_connections());
                market.world.open(probe.clone());
                market.translate(&[only(&shut)]);
                must(market.lab().forget_connections());
                market.world.closed(probe.clone());
            }
        }
    }
}

#[test]
fn without_an_agent_pending_flows_are_judged_all_the_same() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let services = [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()])];
        market.offer(&services);
        let living = {
            let only = near(3, &[good()]);
            market.announce(&only);
            market.announce_slices(&only);
            market.translate(&[&services[..], std::slice::from_ref(&only)].concat());
            market.world.settle();
            beats(&market, &only)
        };
        must(market.world.agent.kill());
        for service in &services {
            market.judge(&ask(service), service, &service.backends[..1], 60);
            let udp = Market::ask(service, true, Protocol::Udp);
            market.judge(&udp, service, &service.backends[..1], 40);
        }
        must(market.world.agent.restart());
        for service in &services {
            market.judge(&ask(service), service, &service.backends[..1], 60);
        }
        goes_on(living);
    }
}

#[test]
fn in_audit_a_denied_backend_is_reached_and_told_once_and_ends_with_the_audit() {
    for attach in ["tcx", "clsact"] {
        let flags = vec!["--enforcement=audit".to_owned()];
        let options = AgentOptions { attach: Some(attach), flags, ..AgentOptions::default() };
        let mut market = Market::with(Mode::PointToPoint, &policies(), options);
        let services = [
            near(1, &[bad()]),
            far(2, &[far_bad()]),
            near(3, &[good(), bad()]),
            far(4, &[far_good(), far_bad()]),
        ];
        market.offer(&services);
        // Mixed ones, the bad one chosen.
        let chosen: Vec<Service> = services
            .iter()
            .map(|service| service.clone().with(&service.backends[service.backends.len() - 1..]))
            .collect();
        market.translate(&chosen);
        let audited: Vec<Heartbeat> = services.iter().map(|one| beats(&market, one)).collect();
        thread::sleep(Duration::from_millis(300));
        let told = must(market.world.agent.ask(&["observe", "--verdict", "AUDIT", "--all"]));
        assert_eq!(told.lines().count(), services.len(), "one for each connection:\n{told}");
        assert!(audited.iter().all(|one| one.beats() > 10));
        let enforce = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    \
                       enforcer.io/enforcement: enforce\n";
        must(market.world.manifests.write("namespace-shop.yaml", enforce));
        market.world.settle();
        audited.iter().for_each(stops);
        for service in &services {
            market.world.closed(ask(service));
        }
    }
}

#[test]
fn endpoints_that_churn_lose_no_allowed_connection_and_let_no_denied_one_through() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let second = PodSpec::numbered("shop/second", 7).label("app", "good");
        market.world.describe(&second);
        must(market.world.lab.add_pods(std::slice::from_ref(&second)));
        must(market.lab().allow_hairpin());
        let all = Service::numbered("shop/churn", 1).with(&[
            Backend::pod(&good(), TARGET),
            Backend::pod(&second, TARGET),
            Backend::far(&far_good(), TARGET),
            Backend::pod(&bad(), TARGET),
            Backend::far(&far_bad(), TARGET),
            Backend::pod(&client(), TARGET),
        ]);
        market.offer(std::slice::from_ref(&all));
        let open: Vec<Backend> =
            [0, 1, 2, 5].map(|index: usize| all.backends[index].clone()).to_vec();
        let of = |number: u32| {
            // The first is always there: with only denied ones known, it would be right to drop.
            let bits = number.wrapping_mul(2_654_435_761) >> 8;
            let some: Vec<Backend> = all
                .backends
                .iter()
                .enumerate()
                .filter(|(index, _)| bits >> index & 1 == 1 || *index == 0)
                .map(|(_, backend)| backend.clone())
                .collect();
            all.clone().with(&some)
        };
        let (lab, manifests) = (&market.world.lab, &market.world.manifests);
        let time = Duration::from_secs(5);
        thread::scope(|scope| {
            let churn = scope.spawn(|| {
                let begin = Instant::now();
                let mut changes = 0_u32;
                while begin.elapsed() < time {
                    let next = of(changes);
                    must(manifests.write(&next.slices_file(), &next.slices()));
                    // The node's view is an older one: nobody sees slices in the same instant.
                    let services = vec![of(changes.saturating_sub(3))];
                    must(Proxy { services, ..Proxy::default() }.apply(lab));
                    changes += 1;
                    let due = begin + Duration::from_millis(20) * changes;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                changes
            });
            let mut wrong = Vec::new();
            let (mut opened, mut denied, mut port) = (0, 0, 20_000_u16);
            while !churn.is_finished() {
                let probes: Vec<Probe> = (port..port + 20)
                    .map(|port| Probe { patience: SILENCE * 2, ..ask(&all).from_port(port) })
                    .collect();
                port += 20;
                let outcomes = must(lab.probe(&probes));
                let chosen = must(Proxy::chosen(lab));
                for (probe, outcome) in probes.iter().zip(outcomes) {
                    let got = all.backends.iter().find(|backend| {
                        let ports = chosen.get(&Proxy::key(backend, false));
                        ports.is_some_and(|ports| ports.contains(&probe.source_port))
                    });
                    let Some(got) = got else {
                        wrong.push(format!("{probe}: nobody, {outcome}"));
                        continue;
                    };
                    let allowed = open.contains(got);
                    if allowed {
                        opened += 1;
                    } else {
                        denied += 1;
                    }
                    let right = if allowed { Outcome::Open } else { Outcome::NoAnswer };
                    if outcome != right {
                        wrong.push(format!("{probe}: {}, {outcome}", got.place));
                    }
                }
            }
            let changes = churn.join().expect("the thread lives");
            println!("{}: {changes} changes, {opened} open, {denied} denied", mode.name());
            assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
            assert!(changes > 100 && opened > 20 && denied > 20, "{changes} {opened} {denied}");
        });
    }
}
