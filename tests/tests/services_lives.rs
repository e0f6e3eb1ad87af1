//! Connections through Services that are there when something changes: each goes on or stops for the
//! backend that it has.

use std::{thread, time::Duration};

use enforcer_tests::{
    Backend, Heartbeat, Market, Mode, Place, Probe, Protocol, Service,
    market::{
        SILENCE, TARGET, bad, client, closed, far, far_bad, far_good, goes_on, good, near,
        policies, stops,
    },
    policy,
    wire::{Wire, packet_between},
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];

fn ask(service: &Service) -> Probe {
    Market::ask(service, false, Protocol::Tcp)
}

/// A process of the node.
fn on_node(market: &Market) -> Backend {
    let lab = market.lab();
    Backend::at(Place::Node, &[lab.node_address(false), lab.node_address(true)], TARGET)
}

/// The client may send to the node's addresses, too.
fn node_allowed() -> String {
    let on = [(Protocol::Tcp, TARGET)];
    let four = policy::allow_out("node4", "role=client", "172.31.255.2/32", &on);
    policy::all(&[policies(), four])
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
            let stopping = market.beat(&service);
            market.translate(&[only(&another.backends)]);
            let living = market.beat(&service);
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
    for mode in [Mode::PointToPoint, Mode::Bridge, Mode::PlainBridge] {
        let mut market = Market::new(mode);
        let itself = near(1, &[client()]);
        let mixed = near(2, &[client(), good()]);
        market.announce(&mixed);
        market.announce_slices(&mixed);
        market.offer(std::slice::from_ref(&itself));
        market.translate(&[itself.clone(), mixed.clone().with(&mixed.backends[..1])]);
        let connections = [market.beat(&itself), market.beat(&mixed)];
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
                let mut connection = market.connect(&service, v6);
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
fn what_was_open_before_any_policy_is_judged_for_its_backend_when_one_comes() {
    for mode in MODES {
        let mut market = Market::new(mode);
        market.world.policies("");
        let allowed = [near(1, &[good()]), far(2, &[far_good()])];
        let denied = [near(3, &[bad()]), far(4, &[far_bad()])];
        market.offer(&[&allowed[..], &denied[..]].concat());
        let beats = |services: &[Service]| -> Vec<Heartbeat> {
            services.iter().map(|service| market.beat(service)).collect()
        };
        let (living, stopping) = (beats(&allowed), beats(&denied));
        market.world.policies(&policies());
        market.world.settle();
        stopping.iter().for_each(stops);
        living.into_iter().for_each(goes_on);
    }
}

#[test]
fn what_was_open_before_the_first_agent_is_judged_for_its_backend() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let allowed = [near(1, &[good()]), far(2, &[far_good()]), near(3, &[good(), bad()])];
        let denied = [near(4, &[bad()]), far(5, &[far_bad()]), far(6, &[far_good(), far_bad()])];
        let chosen = |service: &Service, index: usize| {
            service.clone().with(&service.backends[index..=index])
        };
        market.offer(&[&allowed[..], &denied[..]].concat());
        must(market.world.agent.stop());
        must(market.world.agent.uninstall());
        let real: Vec<Service> = allowed
            .iter()
            .map(|service| chosen(service, 0))
            .chain(denied.iter().map(|service| chosen(service, service.backends.len() - 1)))
            .collect();
        market.translate(&real);
        let beats = |services: &[Service]| -> Vec<Heartbeat> {
            services.iter().map(|service| market.beat(service)).collect()
        };
        let (living, stopping) = (beats(&allowed), beats(&denied));
        must(market.world.agent.restart());
        stopping.iter().for_each(stops);
        living.into_iter().for_each(goes_on);
    }
}

#[test]
fn a_connection_to_a_process_of_the_node_follows_policy_and_its_neighbours_are_not_concerned() {
    for mode in MODES {
        let mut market = Market::new(mode);
        market.world.policies(&node_allowed());
        let mixed = Service::numbered("shop/mixed", 1)
            .with(&[on_node(&market), Backend::pod(&good(), TARGET)]);
        market.offer(std::slice::from_ref(&mixed));
        let only = |index: usize| mixed.clone().with(&mixed.backends[index..=index]);
        market.translate(&[only(0)]);
        let to_node = market.beat(&mixed);
        market.translate(&[only(1)]);
        let to_good = market.beat(&mixed);
        // A change that denies nothing of it.
        let more = policy::allow_out("more", "role=client", "203.0.113.0/24", &[]);
        market.world.policies(&policy::all(&[node_allowed(), more]));
        market.world.settle();
        thread::sleep(SILENCE);
        assert!(to_node.last().elapsed() < SILENCE && to_good.last().elapsed() < SILENCE);
        market.world.policies(&policies());
        market.world.settle();
        stops(&to_node);
        goes_on(to_good);
        market.world.closed(ask(&mixed));
    }
}

#[test]
fn a_service_that_goes_leaves_its_connections_to_their_backends() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let services = [near(1, &[good()]), far(2, &[far_good()]), near(3, &[client()])];
        market.offer(&services);
        let beats: Vec<Heartbeat> = services.iter().map(|one| market.beat(one)).collect();
        for service in &services {
            must(market.world.manifests.remove(&service.file()));
            must(market.world.manifests.remove(&service.slices_file()));
        }
        market.translate(&[]);
        market.world.settle();
        thread::sleep(SILENCE);
        // A change that has every flow judged anew.
        let less = policy::allow_to("less", "role=client", "app=good", &[(Protocol::Tcp, TARGET)]);
        market.world.policies(&policy::all(&[closed(), less]));
        market.world.settle();
        thread::sleep(SILENCE);
        assert!(beats.iter().all(|one| one.last().elapsed() < SILENCE), "{}", mode.name());
        market.world.policies(&closed());
        market.world.settle();
        beats[..2].iter().for_each(stops);
        beats.into_iter().skip(2).for_each(goes_on);
    }
}

#[test]
fn datagrams_that_get_back_to_a_backend_that_was_allowed_before_are_judged() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let service = near(1, &[good(), bad()]);
        let only = |index: usize| service.clone().with(&service.backends[index..=index]);
        let on = [(Protocol::Udp, TARGET)];
        let both = policy::allow_to("allow-bad", "role=client", "app=bad", &on);
        market.world.policies(&policy::all(&[policies(), both]));
        market.offer(std::slice::from_ref(&service));
        let probe = Market::ask(&service, false, Protocol::Udp).from_port(9_999);
        let choose = |market: &mut Market, index| {
            market.translate(&[only(index)]);
            must(market.lab().forget_connections());
        };
        choose(&mut market, 1);
        market.world.open(probe.clone());
        choose(&mut market, 0);
        market.world.open(probe.clone());
        market.world.policies(&policies());
        market.world.settle();
        // With the allowed one, the flow is judged anew, and everything is as it should be.
        for _ in 0..3 {
            market.world.open(probe.clone());
            thread::sleep(Duration::from_millis(200));
        }
        choose(&mut market, 1);
        market.world.closed(probe.clone());
        choose(&mut market, 0);
        market.world.open(probe);
    }
}

#[test]
fn segments_that_get_another_backend_reach_it_no_more_when_no_answer_comes() {
    for mode in MODES {
        for service in [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()])] {
            let mut market = Market::new(mode);
            let only = |index: usize| service.clone().with(&service.backends[index..=index]);
            market.offer(std::slice::from_ref(&service));
            market.translate(&[only(0)]);
            let mut connection = market.connect(&service, false);
            assert!(connection.echo(Duration::from_secs(1)), "{}", service.name);
            // The other one listens and says nothing; the node forgets, and takes what comes next
            // for a new connection.
            market.translate(&[only(1)]);
            let address = service.backends[1].addresses[0];
            let place = service.backends[1].place_of(address);
            let (netns, _) = must(market.lab().locate(&place, false));
            for rule in [
                "add table ip lab_silence".to_owned(),
                "add chain ip lab_silence in { type filter hook input priority 0; }".to_owned(),
                format!("add rule ip lab_silence in ip daddr {address} drop"),
            ] {
                must(netns.command("nft", &[&rule]));
            }
            let eyes = must(Wire::open(netns, "eth0"));
            must(market.lab().forget_connections());
            let client = client().addresses[0];
            let seen = |patience| {
                let wanted = |frame: &[u8]| packet_between(frame, client, address).is_some();
                must(eyes.wait_for(patience, wanted)).is_some()
            };
            let heartbeat = connection.beat();
            thread::sleep(Duration::from_millis(2_500));
            while seen(Duration::ZERO) {}
            // TCP's next tries are 3 s and 6 s after the first.
            assert!(!seen(Duration::from_secs(5)), "{}, {}", service.name, mode.name());
            stops(&heartbeat);
        }
    }
}
