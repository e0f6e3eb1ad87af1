//! Services, translated by rules as kube-proxy writes them: who reaches which backend.
//!
//! Policy is about backends. The virtual address is nobody, whatever an ipBlock says.

use std::{env, net::IpAddr};

use enforcer_tests::{
    AgentOptions, Backend, Condition, Market, Mode, Place, PodSpec, Probe, Protocol, Service,
    market::{TARGET, bad, client, closed, far, far_bad, far_good, good, near, policies},
    policy,
    world::must,
};

/// The bridge without br_netfilter translates no Service on one bridge, agent or not.
const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];
const ALL: [Mode; 3] = [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge];
const ON: [(Protocol, u16); 2] = [(Protocol::Tcp, TARGET), (Protocol::Udp, TARGET)];

/// A process of the node.
fn on_node(market: &Market, port: u16) -> Backend {
    let lab = market.lab();
    Backend::at(Place::Node, &[lab.node_address(false), lab.node_address(true)], port)
}

/// Connections of a test about chance.
fn many(short: u16) -> u16 {
    if env::var_os("ENFORCER_LONG").is_some() { 10_000 } else { short }
}

/// The client may reach these prefixes at the target port, and nothing else.
fn blocks(cidrs: &[&str]) -> String {
    let rules = cidrs.iter().enumerate().map(|(number, cidr)| {
        policy::allow_out(&format!("block-{number}"), "role=client", cidr, &ON)
    });
    policy::all(&[closed()].into_iter().chain(rules).collect::<Vec<_>>())
}

#[test]
fn a_single_backend_decides() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let services =
            [near(1, &[good()]), near(2, &[bad()]), far(3, &[far_good()]), far(4, &[far_bad()])];
        market.offer(&services);
        let [good, bad, far_good, far_bad] = &services;
        market.expect(&[(good, true), (bad, false), (far_good, true), (far_bad, false)]);
        market.told("PolicyDenied", &["shop/client"]);
        // Nobody else is concerned.
        let free = Probe::new(Place::pod("shop/good"), bad.place(false), 80, Protocol::Tcp);
        market.world.open(free);
    }
}

#[test]
fn each_connection_to_a_mixed_service_is_judged_for_the_backend_that_it_gets() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let mixed = Service::numbered("shop/mixed", 3)
            .with(&[Backend::pod(&good(), TARGET), Backend::far(&far_bad(), TARGET)]);
        let services = [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()]), mixed];
        market.offer(&services);
        for (service, count) in services.iter().zip([many(200), many(200), 60]) {
            let open = &service.backends[..1];
            market.judge(&Market::ask(service, false, Protocol::Tcp), service, open, count);
            market.judge(&Market::ask(service, true, Protocol::Tcp), service, open, 60);
            market.judge(&Market::ask(service, false, Protocol::Udp), service, open, 60);
            market.judge(&Market::ask(service, true, Protocol::Udp), service, open, 60);
        }
    }
}

#[test]
fn an_ip_block_matches_the_backend_and_never_the_virtual_address() {
    for mode in MODES {
        let virtual_ones = blocks(&["10.96.0.0/16", "fd10:96::/64"]);
        let mut market = Market::with(mode, &virtual_ones, AgentOptions::default());
        let services = [near(1, &[good()]), far(2, &[far_good()]), near(3, &[good(), bad()])];
        market.offer(&services);
        market.expect(&services.each_ref().map(|service| (service, false)));
        let backends = ["10.244.1.3/32", "fd10:244::1:3/128", "10.245.1.5/32", "fd10:245::1:5/128"];
        market.world.policies(&blocks(&backends));
        market.world.settle();
        let [near, far, mixed] = &services;
        market.expect(&[(near, true), (far, true)]);
        market.judge(&Market::ask(mixed, false, Protocol::Tcp), mixed, &mixed.backends[..1], 40);
        market.world.policies(&blocks(&["0.0.0.0/0", "::/0"]));
        market.world.settle();
        market.expect(&services.each_ref().map(|service| (service, true)));
    }
}

#[test]
fn a_port_is_the_backends_and_never_the_services() {
    for mode in MODES {
        let on = [(Protocol::Tcp, 80), (Protocol::Udp, 80)];
        let services_port = policy::allow_to("allow", "role=client", "app=good", &on);
        let policies = policy::all(&[closed(), services_port]);
        let mut market = Market::with(mode, &policies, AgentOptions::default());
        let second = PodSpec::numbered("shop/second", 7).label("app", "good").port("http", 9090);
        let third = PodSpec::numbered("shop/third", 8).label("app", "good").port("http", 9090);
        for pod in [&second, &third] {
            market.world.describe(pod);
        }
        must(market.world.lab.add_pods(&[second.clone(), third.clone()]));
        must(market.lab().allow_hairpin());
        let plain = near(1, &[good()]);
        // The same name is another number on each; on the third it is not the one that is served.
        let named = Service::numbered("shop/named", 2).with(&[
            Backend::pod(&good(), TARGET),
            Backend::pod(&second, 9090),
            Backend::pod(&third, TARGET),
        ]);
        market.offer(&[plain.clone(), named.clone()]);
        market.expect(&[(&plain, false)]);
        let by_name = policy::allow_to_named("allow", "role=client", "app=good", "http");
        market.world.policies(&policy::all(&[closed(), by_name]));
        market.world.settle();
        market.world.open(Market::ask(&plain, false, Protocol::Tcp));
        market.world.closed(Market::ask(&plain, false, Protocol::Udp));
        let open = &named.backends[..2];
        market.judge(&Market::ask(&named, false, Protocol::Tcp), &named, open, 60);
        market.judge(&Market::ask(&named, true, Protocol::Tcp), &named, open, 60);
    }
}

#[test]
fn a_pod_reaches_itself_by_its_own_service() {
    for mode in ALL {
        let isolated = policy::deny("role=client", &["Ingress", "Egress"]);
        let good_only = policy::allow_to("allow", "role=client", "app=good", &ON);
        let policies = policy::all(&[isolated, good_only]);
        let mut market = Market::with(mode, &policies, AgentOptions::default());
        let itself = near(1, &[client()]);
        let or_bad =
            if mode == Mode::PlainBridge { far(2, &[far_bad()]) } else { near(2, &[bad()]) };
        let or_bad = or_bad.clone().with(&[&itself.backends[..], &or_bad.backends[..]].concat());
        market.offer(&[itself.clone(), or_bad.clone()]);
        market.expect(&[(&itself, true)]);
        for v6 in [false, true] {
            let probe = Market::ask(&or_bad, v6, Protocol::Tcp);
            market.judge(&probe, &or_bad, &or_bad.backends[..1], 40);
        }
        // Without isolation, too.
        market.world.policies("");
        market.world.settle();
        market.expect(&[(&itself, true), (&or_bad, true)]);
    }
}

#[test]
fn a_process_of_the_node_is_a_backend_like_others() {
    for mode in ALL {
        let mut market = Market::new(mode);
        let only = Service::numbered("shop/only", 1).with(&[on_node(&market, TARGET)]);
        market.offer(std::slice::from_ref(&only));
        market.expect(&[(&only, false)]);
        // The virtual address opens nothing; the node's does.
        market.world.policies(&blocks(&["10.96.0.0/16", "fd10:96::/64"]));
        market.world.settle();
        market.expect(&[(&only, false)]);
        market.world.policies(&blocks(&["172.31.255.2/32", "fd31:ffff::2/128"]));
        market.world.settle();
        market.expect(&[(&only, true)]);
    }
}

#[test]
fn a_denied_process_of_the_node_closes_a_mixed_service_by_a_reason_of_its_own() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let backends = [Backend::pod(&good(), TARGET), on_node(&market, TARGET)];
        let mixed = Service::numbered("shop/mixed", 1).with(&backends);
        let with_bad = Service::numbered("shop/with-bad", 2)
            .with(&[on_node(&market, TARGET), Backend::pod(&bad(), TARGET)]);
        let with_far = Service::numbered("shop/with-far", 3)
            .with(&[on_node(&market, TARGET), Backend::far(&far_good(), TARGET)]);
        market.offer(&[mixed.clone(), with_bad.clone(), with_far.clone()]);
        market.expect(&[(&mixed, false), (&with_bad, false), (&with_far, false)]);
        market.told("ServiceNodeBackend", &["shop/client"]);
        let node = [
            policy::allow_out("node4", "role=client", "172.31.255.2/32", &ON),
            policy::allow_out("node6", "role=client", "fd31:ffff::2/128", &ON),
        ];
        market.world.policies(&policy::all(&[policies(), policy::all(&node)]));
        market.world.settle();
        market.expect(&[(&mixed, true), (&with_far, true)]);
        for v6 in [false, true] {
            let probe = Market::ask(&with_bad, v6, Protocol::Tcp);
            market.judge(&probe, &with_bad, &with_bad.backends[..1], 40);
        }
    }
}

#[test]
fn the_api_servers_service_is_its_nodes_address_and_port() {
    let api = |market: &Market| {
        let service = Service::new("default/kubernetes", &["10.96.0.1".parse().expect("one")]);
        service.port(Protocol::Tcp, 443).with(&[on_node(market, 6443)])
    };
    let allow = |cidr, port| {
        let rule = policy::allow_out("api", "role=client", cidr, &[(Protocol::Tcp, port)]);
        policy::all(&[closed(), rule])
    };
    for mode in MODES {
        let mut market = Market::with(mode, &closed(), AgentOptions::default());
        let service = api(&market);
        market.offer(std::slice::from_ref(&service));
        let to = service.place(false);
        let probe = Probe::new(Place::pod("shop/client"), to, 443, Protocol::Tcp);
        for (cidr, port, open) in [
            ("10.96.0.1/32", 443, false),
            ("172.31.255.2/32", 443, false),
            ("172.31.255.2/32", 6443, true),
        ] {
            market.world.policies(&allow(cidr, port));
            market.world.settle();
            market.world.expect(&[(probe.clone(), open)]);
        }
    }
}

#[test]
fn node_ports_external_and_balanced_addresses_lead_to_backends() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let dressed = |service: Service, number: u8| {
            service
                .external(address(number))
                .balanced(address(100 + number))
                .node_port(30_000 + 100 * u16::from(number))
        };
        let services = [
            dressed(near(1, &[good()]), 1),
            dressed(near(2, &[bad()]), 2),
            dressed(near(3, &[good(), bad()]), 3),
            dressed(far(4, &[far_good(), far_bad()]), 4),
        ];
        market.offer(&services);
        let ways = |number: u8| {
            let node = |v6| Place::Virtual(market.lab().node_address(v6));
            let node_port = 30_000 + 100 * u16::from(number);
            [
                (Place::Virtual(address(number)), 80),
                (Place::Virtual(address(100 + number)), 80),
                (node(false), node_port),
                (node(true), node_port),
            ]
            .map(|(to, port)| Probe::new(Place::pod("shop/client"), to, port, Protocol::Tcp))
        };
        let expected = |number, open| ways(number).map(|probe| (probe, open));
        market.world.expect(&[expected(1, true), expected(2, false)].concat());
        for (service, number) in [(&services[2], 3), (&services[3], 4)] {
            for probe in ways(number) {
                market.judge(&probe, service, &service.backends[..1], 40);
            }
        }
        // Not even one that names the node's address and the node port.
        let on = [(Protocol::Tcp, 30_200), (Protocol::Tcp, 80)];
        let rules = ["172.31.255.2/32", "fd31:ffff::2/128", "192.0.2.0/24"].map(|cidr| {
            policy::allow_out(&cidr.replace(['.', ':', '/'], "-"), "role=client", cidr, &on)
        });
        market.world.policies(&policy::all(&[closed(), policy::all(&rules)]));
        market.world.settle();
        market.world.expect(&expected(2, false));
    }
}

#[test]
fn headless_services_have_no_address_and_change_nothing() {
    let mut market = Market::new(Mode::PointToPoint);
    let service = Service::new("shop/headless", &[]).port(Protocol::Tcp, TARGET);
    let backends = [Backend::pod(&good(), TARGET), Backend::pod(&bad(), TARGET)];
    market.offer(&[service.with(&backends)]);
    market.world.expect(&[
        (Probe::tcp("shop/client", "shop/good", TARGET), true),
        (Probe::tcp("shop/client", "shop/bad", TARGET), false),
    ]);
}

#[test]
fn endpoints_that_are_not_ready_or_end_count_as_what_may_be_chosen() {
    let mut market = Market::new(Mode::PointToPoint);
    for condition in [Condition::NotReady, Condition::Terminating] {
        let service = Service::numbered("shop/both", 1).with(&[
            Backend::pod(&good(), TARGET),
            Backend::pod(&bad(), TARGET).condition(condition),
        ]);
        market.offer(std::slice::from_ref(&service));
        market.expect(&[(&service, true)]);
        // The node chooses it all the same, as with a view that is older or newer than the slices.
        let ready =
            service.clone().with(&[Backend::pod(&good(), TARGET), Backend::pod(&bad(), TARGET)]);
        market.translate(std::slice::from_ref(&ready));
        market.judge(&Market::ask(&ready, false, Protocol::Tcp), &ready, &ready.backends[..1], 60);
    }
}
