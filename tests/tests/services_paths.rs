//! Services and the ways that packets take: hidden sources, fragments, errors, tunnels.

use std::time::Duration;

use enforcer_tests::{
    Market, Masquerade, Mode, Outcome, Place, Probe, Protocol,
    market::{TARGET, bad, closed, far, far_bad, far_good, good, near, policies},
    policy, tunnel,
    wire::{PathFlow, send_too_big},
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];
const FAMILIES: [bool; 2] = [false, true];

#[test]
fn a_hidden_source_is_judged_as_the_pod_that_it_is() {
    // With every source hidden, the bridge without br_netfilter translates as well.
    for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
        let mut market = Market::new(mode);
        // The good one is particular about who comes.
        let only_clients = policy::all(&[
            policy::deny("app=good", &["Ingress"]).replace("\"deny\"", "\"deny-in\""),
            policy::allow_in("clients", "app=good", "role=client", &[]),
        ]);
        market.world.policies(&policy::all(&[policies(), only_clients]));
        let services =
            [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()]), near(3, &[good()])];
        for masquerade in [Masquerade::All, Masquerade::AllRandom] {
            market.proxy.masquerade = masquerade;
            market.offer(&services);
            for service in &services[..2] {
                for (v6, protocol) in
                    [(false, Protocol::Tcp), (true, Protocol::Tcp), (false, Protocol::Udp)]
                {
                    let probe = Market::ask(service, v6, protocol);
                    market.judge(&probe, service, &service.backends[..1], 40);
                }
            }
            for v6 in FAMILIES {
                let to = services[2].place(v6);
                let by_bad = Probe::new(Place::pod("shop/bad"), to.clone(), 80, Protocol::Tcp);
                // From the node itself, always.
                let by_node = Probe::new(Place::Node, to, 80, Protocol::Tcp);
                market.world.expect(&[(by_bad, false), (by_node, true)]);
            }
        }
    }
}

#[test]
fn what_is_large_and_what_is_in_fragments_follows_its_backend() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let services =
            [near(1, &[good()]), near(2, &[bad()]), far(3, &[far_good()]), far(4, &[far_bad()])];
        market.offer(&services);
        let probes: Vec<(Probe, bool)> = services
            .iter()
            .zip([true, false, true, false])
            .flat_map(|(service, open)| {
                Market::ask_all(service).map(|probe| (probe.bytes(8_000), open))
            })
            .collect();
        market.world.expect(&probes);
        let mixed = near(5, &[good(), bad()]);
        let far_mixed = far(6, &[far_good(), far_bad()]);
        market.offer(&[mixed.clone(), far_mixed.clone()]);
        for service in [mixed, far_mixed] {
            for v6 in FAMILIES {
                let probe = Market::ask(&service, v6, Protocol::Udp).bytes(4_000);
                market.judge(&probe, &service, &service.backends[..1], 30);
            }
        }
    }
}

#[test]
fn an_error_of_the_backend_reaches_the_client() {
    for mode in MODES {
        let mut market = Market::new(mode);
        for service in [near(1, &[good()]), far(2, &[far_good()])] {
            market.announce(&service);
            market.announce_slices(&service);
            // Translated, and nobody listens.
            market.proxy.services = vec![service.clone()];
            must(market.proxy.apply(market.lab()));
            market.world.settle();
            for v6 in FAMILIES {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let probe = Market::ask(&service, v6, protocol).expecting(true);
                    let outcome = must(market.lab().probe_one(&probe));
                    assert!(matches!(outcome, Outcome::Refused(_)), "{probe}: {outcome}");
                }
            }
        }
    }
}

#[test]
fn a_router_that_finds_a_packet_too_big_is_heard() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let service = far(1, &[far_good()]);
        market.offer(std::slice::from_ref(&service));
        for v6 in FAMILIES {
            let client = Place::pod("shop/client");
            let flow = must(PathFlow::open(market.lab(), &client, &service.place(v6), 80, v6));
            assert_eq!(must(flow.path_mtu()), 1500);
            let backend = (service.backends[0].addresses[usize::from(v6)], TARGET).into();
            must(send_too_big(market.lab(), flow.local(), backend, 1300));
            let deadline = std::time::Instant::now() + Duration::from_secs(2);
            while must(flow.path_mtu()) != 1300 {
                assert!(std::time::Instant::now() < deadline, "the error is lost, {}", mode.name());
                std::thread::sleep(Duration::from_millis(5));
            }
            // About a flow that policy does not allow any more, nothing is to be heard.
            market.world.policies(&closed());
            market.world.settle();
            market.world.closed(Market::ask(&service, v6, Protocol::Udp));
            market.world.policies(&policies());
            market.world.settle();
        }
    }
}

#[test]
fn a_tunnels_packet_is_judged_once_and_not_for_the_tunnels_end() {
    for mode in MODES {
        let mut market = Market::new(mode);
        must(market.lab().add_tunnel(&["10.245.0.0/16", "fd10:245::/64"]));
        let services =
            [far(1, &[far_good()]), far(2, &[far_bad()]), far(3, &[far_good(), far_bad()])];
        market.offer(&services);
        let eyes =
            must(enforcer_tests::wire::Wire::open(market.lab().outside(), tunnel::INTERFACE));
        let [open, shut, mixed] = &services;
        market.expect(&[(open, true), (shut, false)]);
        let frame = must(eyes.wait_for(Duration::ZERO, |frame| frame.len() > 34));
        assert!(frame.is_some(), "nothing came by the tunnel");
        for v6 in FAMILIES {
            let probe = Market::ask(mixed, v6, Protocol::Tcp);
            market.judge(&probe, mixed, &mixed.backends[..1], 60);
        }
        market.judge(&Market::ask(mixed, false, Protocol::Udp), mixed, &mixed.backends[..1], 40);
    }
}
