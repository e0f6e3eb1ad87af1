//! Services that are gone while the node's proxy still translates them, and more of them than the
//! kernel's map has room for.

use std::{slice, thread};

use enforcer_tests::{
    AgentOptions, Heartbeat, Market, Mode, Probe, Protocol, Service,
    market::{SILENCE, TARGET, bad, closed, far, far_bad, far_good, good, near, policies},
    policy,
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];

/// The client may reach these prefixes at the Services' port, and the good pods.
fn virtual_allowed(cidrs: &[&str]) -> String {
    let on = [(Protocol::Tcp, 80), (Protocol::Udp, 80)];
    let rules = cidrs.iter().enumerate().map(|(number, cidr)| {
        policy::allow_out(&format!("block-{number}"), "role=client", cidr, &on)
    });
    policy::all(&[policies()].into_iter().chain(rules).collect::<Vec<_>>())
}

fn remove(market: &Market, service: &Service) {
    must(market.world.manifests.remove(&service.file()));
    must(market.world.manifests.remove(&service.slices_file()));
}

#[test]
fn a_virtual_address_whose_service_is_gone_is_not_judged_as_a_plain_one() {
    for mode in MODES {
        let all = virtual_allowed(&["0.0.0.0/0", "::/0"]);
        let mut market = Market::with(mode, &all, AgentOptions::default());
        let services = [
            (near(1, &[bad()]), false),
            (near(2, &[good()]), true),
            (far(3, &[far_bad()]), false),
            (far(4, &[far_good()]), true),
        ];
        let every: Vec<Service> = services.iter().map(|(service, _)| service.clone()).collect();
        let expected = services.each_ref().map(|(service, open)| (service, *open));
        market.offer(&every);
        market.expect(&expected);
        let beats: Vec<Heartbeat> = [1, 3].map(|at| market.beat(&every[at])).into();
        every.iter().for_each(|service| remove(&market, service));
        market.world.settle();
        // The proxy has not noticed.
        market.expect(&expected);
        // Nor does the next agent take it for a plain address, though nobody tells of it.
        must(market.world.agent.kill());
        must(market.world.agent.restart());
        market.expect(&expected);
        thread::sleep(SILENCE);
        assert!(beats.iter().all(|one| one.last().elapsed() < SILENCE), "{}", mode.name());
        // Another has the address: what it leads to counts at once.
        let new = near(1, &[good()]);
        market.offer(slice::from_ref(&new));
        market.world.settle();
        market.expect(&[(&new, true)]);
    }
}

#[test]
fn a_port_that_is_gone_is_not_judged_as_a_plain_one() {
    let mut market =
        Market::with(Mode::Bridge, &virtual_allowed(&["10.96.0.0/16"]), AgentOptions::default());
    let service = near(1, &[bad()]).port(Protocol::Tcp, 81);
    market.offer(slice::from_ref(&service));
    let ask = Market::ask(&service, false, Protocol::Tcp);
    market.world.closed(ask.clone());
    let less = Service { ports: service.ports[2..].to_vec(), ..service.clone() };
    market.announce(&less);
    market.announce_slices(&less);
    market.world.settle();
    market.world.closed(ask);
}

#[test]
fn who_announces_too_much_does_not_close_others_and_opens_nothing() {
    for mode in MODES {
        let options =
            AgentOptions { flags: vec!["--service-entries=64".into()], ..AgentOptions::default() };
        let mut market = Market::with(mode, &policies(), options);
        let wide = |number, pods: &[_]| {
            (100..150).fold(near(number, pods), |service, port| service.port(Protocol::Tcp, port))
        };
        let others = [near(1, &[good()]), near(2, &[bad()]), far(3, &[far_good()])];
        let refused = [wide(4, &[good()]), wide(5, &[bad()]), wide(6, &[good(), bad()])];
        market.offer(&[&others[..], &refused[..]].concat());
        let others_as_ever = |market: &Market| {
            let [open, closed, far] = &others;
            market.expect(&[(open, true), (closed, false), (far, true)]);
            market.world.expect(&[
                (Probe::tcp("shop/client", "shop/good", TARGET), true),
                (Probe::tcp("shop/client", "shop/bad", TARGET), false),
            ]);
        };
        others_as_ever(&market);
        // What is not in the map may be a plain address: both must be allowed.
        market.expect(&refused.each_ref().map(|service| (service, false)));
        let status = must(market.world.agent.status()).to_string();
        assert!(status.contains("more than its namespace's share"), "{status}");
        assert!(!status.contains("\"locked\""), "{status}");
        market.world.policies(&virtual_allowed(&["10.96.0.0/16", "fd10:96::/64"]));
        market.world.settle();
        others_as_ever(&market);
        let [open, closed_one, mixed] = &refused;
        market.expect(&[(open, true), (closed_one, false)]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            market.judge(&Market::ask(mixed, true, protocol), mixed, &mixed.backends[..1], 40);
        }
        let beat = market.beat(open);
        // There is room for them when they are small, and what is open stays.
        let small = [near(4, &[good()]), near(5, &[bad()]), near(6, &[good(), bad()])];
        small.iter().for_each(|service| market.announce(service));
        market.world.policies(&policies());
        market.world.settle();
        market.expect(&[(&small[0], true), (&small[1], false)]);
        others_as_ever(&market);
        thread::sleep(SILENCE);
        assert!(beat.last().elapsed() < SILENCE, "{}", mode.name());
        market.world.policies(&closed());
        market.world.settle();
        enforcer_tests::market::stops(&beat);
    }
}

#[test]
fn another_size_of_the_map_is_in_force_with_the_next_agent() {
    let flags = |entries: u32| AgentOptions {
        flags: vec![format!("--service-entries={entries}")],
        ..AgentOptions::default()
    };
    let mut market = Market::with(Mode::PointToPoint, &policies(), flags(64));
    let services = [near(1, &[good()]), near(2, &[bad()])];
    market.offer(&services);
    let [open, closed] = &services;
    market.expect(&[(open, true), (closed, false)]);
    let beat = market.beat(open);
    for entries in [4096, 64] {
        must(market.world.agent.kill());
        market.world.agent.set_flags(flags(entries).flags);
        must(market.world.agent.restart());
        let status = must(market.world.agent.status());
        let maps = status["report"]["maps"].as_array().expect("a report");
        let map = maps.iter().find(|map| map["name"] == "SERVICES").expect("its map");
        assert_eq!(map["max"].as_u64(), Some(entries.into()));
        market.expect(&[(open, true), (closed, false)]);
        // What comes after is in the map that the programs read.
        let new = near(3, &[good()]);
        market.announce(&new);
        market.announce_slices(&new);
        market.translate(&[&services[..], slice::from_ref(&new)].concat());
        market.world.settle();
        market.expect(&[(&new, true)]);
        remove(&market, &new);
        market.world.settle();
        market.expect(&[(&new, true), (closed, false)]);
    }
    thread::sleep(SILENCE);
    assert!(beat.last().elapsed() < SILENCE);
}
