//! The laboratory's Services, without an agent: everything that is translated is reached.

use std::net::IpAddr;

use enforcer_tests::{
    Backend, Condition, Lab, Masquerade, Mode, Outcome, Place, PodSpec, Probe, Protocol, Proxy,
    Service,
    market::{client, far_bad, far_good, good},
    world::must,
};

/// Three pods on the node, two outside.
fn lab(mode: Mode) -> Lab {
    let mut lab = must(Lab::new(mode));
    must(lab.add_pods(&[client(), good()]));
    for pod in [far_good(), far_bad()] {
        must(lab.add_outside(&pod.addresses));
    }
    must(lab.allow_hairpin());
    lab
}

fn answer(lab: &Lab, service: &Service) {
    for backend in &service.backends {
        for address in &backend.addresses {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let place = backend.place_of(*address);
                must(lab.answer(&place, address.is_ipv6(), backend.port, protocol));
            }
        }
    }
}

fn node_backend(lab: &Lab) -> Backend {
    let addresses = [lab.node_address(false), lab.node_address(true)];
    Backend::at(Place::Node, &addresses, 8090)
}

#[track_caller]
fn all(lab: &Lab, probes: &[Probe], wanted: &Outcome) {
    let probes: Vec<Probe> =
        probes.iter().map(|probe| probe.clone().expecting(wanted.is_open())).collect();
    for (probe, outcome) in probes.iter().zip(must(lab.probe(&probes))) {
        assert_eq!(outcome, *wanted, "{probe}, {}", lab.mode().name());
    }
}

fn from_client(to: Place, port: u16) -> Vec<Probe> {
    [Protocol::Tcp, Protocol::Udp]
        .map(|protocol| Probe::new(Place::pod("shop/client"), to.clone(), port, protocol))
        .to_vec()
}

#[test]
fn services_lead_to_pods_to_the_node_and_outside() {
    // On a bridge without br_netfilter a pod of the same bridge answers past the translation.
    for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
        let lab = lab(mode);
        let mut services = vec![
            Service::numbered("shop/node", 2).with(&[node_backend(&lab)]),
            Service::numbered("shop/far", 3).with(&[Backend::far(&far_good(), 8081)]),
        ];
        if mode != Mode::PlainBridge {
            services.push(Service::numbered("shop/near", 1).with(&[Backend::pod(&good(), 8080)]));
        }
        let proxy = Proxy { services: services.clone(), ..Proxy::default() };
        must(proxy.apply(&lab));
        for service in &services {
            answer(&lab, service);
            for v6 in [false, true] {
                all(&lab, &from_client(service.place(v6), 80), &Outcome::Open);
            }
        }
    }
}

#[test]
fn a_pod_reaches_itself_and_every_kind_of_address_leads_there() {
    for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
        let lab = lab(mode);
        let [external, balanced]: [IpAddr; 2] = [[192, 0, 2, 8].into(), [192, 0, 2, 9].into()];
        let service = Service::numbered("shop/self", 1)
            .external(external)
            .balanced(balanced)
            .node_port(30_080)
            .with(&[Backend::pod(&client(), 8080)]);
        answer(&lab, &service);
        let node = Place::Virtual(lab.node_address(false));
        for masquerade in [Masquerade::Hairpin, Masquerade::All, Masquerade::AllRandom] {
            must(Proxy { services: vec![service.clone()], masquerade }.apply(&lab));
            let mut probes = Vec::new();
            for place in [service.place(false), service.place(true)] {
                probes.extend(from_client(place, 80));
            }
            for address in [external, balanced] {
                probes.extend(from_client(Place::Virtual(address), 80));
            }
            let to_node = |port, protocol| {
                Probe::new(Place::pod("shop/client"), node.clone(), port, protocol)
            };
            probes.extend([to_node(30_080, Protocol::Tcp), to_node(30_081, Protocol::Udp)]);
            all(&lab, &probes, &Outcome::Open);
        }
    }
}

#[test]
fn the_choice_is_told_and_an_endpoint_that_is_not_ready_is_none() {
    let lab = lab(Mode::PointToPoint);
    let backends = [Backend::pod(&good(), 8080), Backend::far(&far_good(), 8081)];
    let service = Service::numbered("shop/both", 1).with(&backends);
    answer(&lab, &service);
    must(Proxy { services: vec![service.clone()], ..Proxy::default() }.apply(&lab));
    let like = Probe::new(Place::pod("shop/client"), service.place(false), 80, Protocol::Tcp);
    let probes: Vec<Probe> = (10_000..10_100).map(|port| like.clone().from_port(port)).collect();
    all(&lab, &probes, &Outcome::Open);
    let chosen = must(Proxy::chosen(&lab));
    let [near, far] = [&backends[0], &backends[1]].map(|one| &chosen[&Proxy::key(one, false)]);
    assert!(near.len() > 20 && far.len() > 20, "{chosen:?}");
    assert_eq!(near.union(far).copied().collect::<Vec<_>>(), (10_000..10_100).collect::<Vec<_>>());

    let gone = service.with(&[backends[0].clone().condition(Condition::NotReady)]);
    must(Proxy { services: vec![gone], ..Proxy::default() }.apply(&lab));
    for outcome in must(lab.probe(&[like.clone().from_port(10_101).expecting(true)])) {
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    }
}

#[test]
fn a_datagram_flow_gets_another_backend_when_it_is_forgotten() {
    let lab = lab(Mode::PointToPoint);
    let services = [good(), PodSpec::clone(&client())]
        .map(|pod| Service::numbered("shop/dns", 1).with(&[Backend::pod(&pod, 8080)]));
    let mut chosen = Vec::new();
    for service in &services {
        answer(&lab, service);
        must(Proxy { services: vec![service.clone()], ..Proxy::default() }.apply(&lab));
        let to = service.place(false);
        let probe = Probe::new(Place::pod("shop/client"), to, 80, Protocol::Udp).from_port(10_000);
        for forget in [false, true] {
            if forget {
                must(lab.forget_connections());
            }
            all(&lab, std::slice::from_ref(&probe), &Outcome::Open);
            chosen.push(must(Proxy::chosen(&lab)).values().filter(|set| !set.is_empty()).count());
        }
    }
    assert_eq!(chosen, [1, 1, 1, 2]);
}
