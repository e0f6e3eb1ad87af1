//! Services when things change: policies, endpoints, translations, and the agent itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Backend, Heartbeat, Market, Mode, Outcome, Place, PodSpec, Probe, Protocol,
    Proxy, Service,
    market::{
        SILENCE, TARGET, bad, client, closed, far, far_bad, far_good, goes_on, good, near,
        policies, stops,
    },
    policy,
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];

fn ask(service: &Service) -> Probe {
    Market::ask(service, false, Protocol::Tcp)
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
    // When it goes its proxy goes on for a while.
    must(market.world.manifests.remove(&service.file()));
    market.world.settle();
    market.judge(&ask(&service), &service, &service.backends[..1], 40);
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
            market.beat(&only)
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
        let audited: Vec<Heartbeat> = services.iter().map(|one| market.beat(one)).collect();
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
