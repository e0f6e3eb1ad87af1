//! Services at the edges: views that differ, addresses that collide, and hooks of both kinds.

use std::net::IpAddr;

use enforcer_tests::{
    AgentOptions, Backend, Market, Masquerade, Mode, Outcome, Place, Probe, Protocol, Service,
    market::{TARGET, bad, client, closed, far, far_bad, far_good, good, near, policies, stops},
    policy,
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];
const FAMILIES: [bool; 2] = [false, true];

fn on_node(market: &Market) -> Backend {
    let lab = market.lab();
    Backend::at(Place::Node, &[lab.node_address(false), lab.node_address(true)], TARGET)
}

#[test]
fn both_ways_to_attach_judge_behind_the_translation() {
    for mode in MODES {
        let options = AgentOptions { attach: Some("clsact"), ..AgentOptions::default() };
        let mut market = Market::with(mode, &policies(), options);
        let services = [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()])];
        market.offer(&services);
        for service in &services {
            for (v6, protocol) in [(false, Protocol::Tcp), (true, Protocol::Udp)] {
                let probe = Market::ask(service, v6, protocol);
                market.judge(&probe, service, &service.backends[..1], 40);
            }
        }
    }
}

/// Lets the client reach the node's addresses, too.
fn allow_node(market: &mut Market) {
    let on = [(Protocol::Tcp, TARGET), (Protocol::Udp, TARGET)];
    let [four, six] = [("four", false, 32), ("six", true, 128)].map(|(name, v6, length)| {
        let address = market.lab().node_address(v6);
        policy::allow_out(name, "role=client", &format!("{address}/{length}"), &on)
    });
    market.world.policies(&policy::all(&[policies(), four, six]));
}

#[test]
fn a_process_of_the_node_that_no_slice_names_is_sent_nothing_that_policy_denies() {
    for mode in MODES {
        for policies in [policies(), {
            let on = [(Protocol::Tcp, TARGET), (Protocol::Udp, TARGET)];
            let vip = policy::allow_out("vip", "role=client", "10.96.0.0/16", &on);
            policy::all(&[policies(), vip])
        }] {
            let mut market = Market::with(mode, &policies, AgentOptions::default());
            let hidden = on_node(&market);
            let late = near(1, &[]);
            let other = near(2, &[good()]);
            market.offer(&[late.clone(), other.clone()]);
            let both = [late, other].map(|one| one.with(std::slice::from_ref(&hidden)));
            market.translate(&both);
            for service in &both {
                for probe in Market::ask_all(service) {
                    market.judge(&probe, service, &[], 4);
                }
            }
            market.told("PolicyDenied", &["shop/client"]);
        }
    }
}

#[test]
fn a_process_of_the_node_that_no_slice_names_does_not_answer_though_policy_allows_it() {
    for mode in MODES {
        let mut market = Market::new(mode);
        allow_node(&mut market);
        let hidden = on_node(&market);
        let service = near(1, &[good()]);
        market.offer(std::slice::from_ref(&service));
        market.translate(&[service.clone().with(std::slice::from_ref(&hidden))]);
        for probe in Market::ask_all(&service) {
            assert_ne!(market.arrived(&probe, &hidden), 0, "{probe}, {}", mode.name());
        }
        market.expect(&[(&service, false)]);
        market.told("ServiceNodeBackend", &["shop/client"]);
    }
}

#[test]
fn datagrams_of_a_flow_that_gets_a_process_of_the_node_reach_it_no_more() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let hidden = on_node(&market);
        let service = near(1, &[good()]);
        market.offer(std::slice::from_ref(&service));
        for v6 in FAMILIES {
            let probe = Market::ask(&service, v6, Protocol::Udp).from_port(9_999);
            market.world.open(probe.clone());
            market.translate(&[service.clone().with(std::slice::from_ref(&hidden))]);
            must(market.lab().forget_connections());
            assert_eq!(market.arrived(&probe, &hidden), 0, "{}", mode.name());
            market.world.closed(probe);
            market.translate(std::slice::from_ref(&service));
            must(market.lab().forget_connections());
        }
    }
}

#[test]
fn the_nodes_own_packets_are_nobodys_whatever_marks_them() {
    let market = Market::new(Mode::PointToPoint);
    let lab = market.lab();
    market.serve(&near(1, &[]).with(&[on_node(&market)]));
    let outside = far_good().addresses[0];
    let probe = Probe::new(Place::Outside(outside), Place::Node, TARGET, Protocol::Tcp);
    market.world.open(probe.clone());
    // As if the client, whom policy allows nothing there, had sent it to a Service.
    let host = must(lab.pod("shop/client")).host_interface().to_owned();
    let link = must(lab.node().command("ip", &["-o", "link", "show", "dev", &host]));
    let index: u32 = link.split(':').next().and_then(|n| n.parse().ok()).expect("an index");
    let class = format!("1:{:x}", 0xc000 | index);
    let route = must(lab.node().command("ip", &["-o", "route", "get", &outside.to_string()]));
    let uplink = route.split_once("dev ").and_then(|(_, rest)| rest.split(' ').next());
    let uplink = uplink.expect("a way to the outside");
    must(lab.node().command("tc", &["qdisc", "add", "dev", uplink, "clsact"]));
    let filter = ["filter", "add", "dev", uplink, "ingress", "protocol", "ip", "u32"];
    let all = ["match", "u32", "0", "0", "flowid", &class];
    must(lab.node().command("tc", &[&filter[..], &all[..]].concat()));
    market.world.open(probe);
}

#[test]
fn a_service_without_endpoints_refuses_as_the_proxy_does() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let service = near(1, &[]).node_port(30_000);
        market.offer(std::slice::from_ref(&service));
        for probe in Market::ask_all(&service) {
            let outcome = must(market.lab().probe_one(&probe.clone().expecting(true)));
            assert!(matches!(outcome, Outcome::Refused(_)), "{probe}, {}: {outcome}", mode.name());
        }
    }
}

#[test]
fn enforcement_that_is_switched_off_passes_denied_backends_and_ends() {
    let mut market = Market::new(Mode::PointToPoint);
    let services = [near(1, &[bad()]), far(2, &[far_bad()]), near(3, &[good(), bad()])];
    market.offer(&services);
    must(market.world.agent.switch(&["disable", "--pod", "shop/client", "--for", "4s"]));
    market.expect(&services.each_ref().map(|service| (service, true)));
    let bads = services.clone().map(|service| {
        let last = service.backends.len() - 1;
        service.clone().with(&service.backends[last..])
    });
    market.translate(&bads);
    let connections = bads.each_ref().map(|service| market.beat(service));
    std::thread::sleep(std::time::Duration::from_secs(3));
    connections.iter().for_each(stops);
    market.expect(&bads.each_ref().map(|service| (service, false)));
}

#[test]
fn two_services_of_one_address_are_judged_for_the_backends_of_both() {
    let mut market = Market::new(Mode::PointToPoint);
    let one = near(1, &[good()]);
    let two = Service { name: "shop/two".to_owned(), ..near(1, &[bad()]) };
    market.offer(&[one.clone(), two.clone()]);
    let both = one.clone().with(&[Backend::pod(&good(), TARGET), Backend::pod(&bad(), TARGET)]);
    market.translate(std::slice::from_ref(&both));
    for v6 in FAMILIES {
        market.judge(&Market::ask(&both, v6, Protocol::Tcp), &both, &both.backends[..1], 40);
    }
    let status = must(market.world.agent.status()).to_string();
    assert!(status.contains("shop/two"), "{status}");
}

#[test]
fn a_virtual_address_that_is_a_pods_gives_nobody_that_pod() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let bads: Vec<IpAddr> = bad().addresses;
        let service = Service::new("shop/stolen", &bads)
            .port(Protocol::Tcp, TARGET)
            .with(&[Backend::pod(&good(), TARGET)]);
        // Not translated: the packet gets to the pod itself.
        must(market.lab().answer(&Place::pod("shop/bad"), false, TARGET, Protocol::Tcp));
        market.announce(&service);
        market.announce_slices(&service);
        market.world.settle();
        let probe = Probe::tcp("shop/client", "shop/bad", TARGET);
        market.world.closed(probe.clone());
        market.world.closed(probe.v6());
        if mode == Mode::PointToPoint {
            market.translate(std::slice::from_ref(&service));
            for v6 in FAMILIES {
                let place = service.place(v6);
                let to = Probe::new(Place::pod("shop/client"), place, TARGET, Protocol::Tcp);
                market.world.open(to);
            }
        }
    }
}

#[test]
fn what_is_no_pods_of_this_node_is_not_judged_where_it_leaves() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let stranger: IpAddr = [203, 0, 113, 50].into();
        must(market.world.lab.add_outside(&[stranger]));
        let services =
            [near(1, &[bad()]).node_port(30_100), far(2, &[far_bad()]).node_port(30_200)];
        for masquerade in [Masquerade::Hairpin, Masquerade::All] {
            market.proxy.masquerade = masquerade;
            market.offer(&services);
            let node = Place::Virtual(market.lab().node_address(false));
            for from in [Place::Outside(stranger), Place::Node, Place::pod("shop/good")] {
                // Back to where it came from, a stranger's packet needs the node's address.
                let far_too = masquerade == Masquerade::All || !matches!(from, Place::Outside(_));
                for (port, asked) in [(30_100, true), (30_200, far_too)] {
                    if asked {
                        let probe = Probe::new(from.clone(), node.clone(), port, Protocol::Tcp);
                        market.world.open(probe);
                    }
                }
            }
        }
    }
}

#[test]
fn where_no_node_object_says_less_every_address_of_the_node_serves_node_ports() {
    let second: IpAddr = [198, 51, 100, 7].into();
    let mut market = Market::new(Mode::PointToPoint);
    must(market.lab().add_node_address(second));
    market.offer(&[near(1, &[good()]).node_port(30_000), near(2, &[bad()]).node_port(30_100)]);
    let to = |port| {
        let place = Place::Virtual(second);
        Probe::new(Place::pod("shop/client"), place, port, Protocol::Tcp)
    };
    market.world.expect(&[(to(30_000), true), (to(30_100), false)]);
    // What an ipBlock says of the address is not asked.
    let on = [(Protocol::Tcp, 30_000), (Protocol::Tcp, 30_100)];
    let address = policy::allow_out("second", "role=client", "198.51.100.7/32", &on);
    for (others, open) in [(policies(), true), (closed(), false)] {
        market.world.policies(&policy::all(&[others, address.clone()]));
        market.world.settle();
        market.world.expect(&[(to(30_000), open), (to(30_100), false)]);
    }
}

#[test]
fn a_flow_to_a_service_is_told_once_with_the_service_and_the_backend() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let on = [(Protocol::Tcp, TARGET)];
        let node = policy::allow_out("node", "role=client", "172.31.255.2/32", &on);
        market.world.policies(&policy::all(&[policies(), node]));
        let services = [
            near(1, &[good(), bad()]),
            far(2, &[far_good(), far_bad()]),
            near(3, &[bad()]),
            near(4, &[client()]),
            near(5, &[]).with(&[on_node(&market)]),
        ];
        market.offer(&services);
        for (service, index, backend, verdict) in [
            (0, 0, "shop/good:8080", "ALLOWED BY shop/allow-good"),
            (0, 1, "shop/bad:8080", "DENIED"),
            (1, 0, "shop/far-good:8080", "ALLOWED BY shop/allow-good"),
            (1, 1, "shop/far-bad:8080", "DENIED"),
            (2, 0, "shop/bad:8080", "DENIED"),
            (3, 0, "shop/client:8080", "ALLOWED"),
            (4, 0, "172.31.255.2:8080", "ALLOWED BY shop/node"),
        ] {
            let service = &services[service];
            market.translate(&[service.clone().with(&service.backends[index..=index])]);
            let port = market.port();
            let probe = Market::ask(service, false, Protocol::Tcp).from_port(port);
            let outcome = must(market.lab().probe_one(&probe.expecting(verdict != "DENIED")));
            assert_eq!(outcome.is_open(), verdict != "DENIED", "{}: {backend}", service.name);
            let from = format!("shop/client:{port} -> ");
            let named = format!("(service {})", service.name);
            let wanted = [from.as_str(), backend, named.as_str(), "EGRESS", verdict];
            let all = market.told_of(&["--type", "policy-verdict"], &wanted);
            let lines: Vec<&str> = all
                .lines()
                .filter(|line| line.contains(&from) && line.contains("EGRESS"))
                .collect();
            assert_eq!(lines.len(), 1, "{all}");
        }
    }
}
