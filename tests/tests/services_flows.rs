//! Flows to Services whose entry in the agent's table says less than there is to know: spared ones,
//! ones older than their Service, ones that got another backend, and parts of datagrams.

use std::{net::IpAddr, thread, time::Duration};

use enforcer_tests::{
    AgentOptions, Backend, Connection, Datagrams, Heartbeat, Market, Mode, Place, Protocol,
    Service,
    market::{
        SILENCE, TARGET, bad, client, far, far_bad, far_good, goes_on, good, near, policies, stops,
    },
    policy,
    wire::{Wire, packet_between},
    world::must,
};

const MODES: [Mode; 2] = [Mode::PointToPoint, Mode::Bridge];
/// The source port of flows that keep theirs.
const PORT: u16 = 9_999;
/// What a flow may lose when its backend goes, at most.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How long the agent may take to note a flow's new backend: two of its rounds.
const NOTED: Duration = Duration::from_secs(10);
/// Whatever is as old, the agent has noted its backend: a round of its upkeep is 5 s.
const OLD: Duration = Duration::from_millis(5_500);
/// How long a stop may take: a policy, and the agent's note of who the backend is.
const PATIENCE: Duration = Duration::from_secs(3);

/// The client may send to the Services' addresses, whoever stands behind them.
fn virtual_allowed() -> String {
    let on = [(Protocol::Tcp, 80), (Protocol::Udp, 80)];
    let addresses = policy::allow_out("virtual", "role=client", "10.96.0.0/16", &on);
    // A class of its own for the bad ones, so that they are denied where the packet leaves the client:
    // what has the client's own might as well be the client.
    let odd = policy::allow_to("odd", "role=client", "app=bad", &[(Protocol::Tcp, 1)]);
    policy::all(&[policies(), addresses, odd])
}

fn datagrams(market: &Market, service: &Service, port: u16) -> Datagrams {
    let from = Place::pod("shop/client");
    let flow = must(market.lab().datagrams((&from, port), (&service.place(false), 80), false));
    assert!(flow.answered(Duration::from_secs(1)), "{}: no answer", service.name);
    flow
}

fn connect_from(market: &Market, service: &Service, port: u16) -> Connection {
    let from = Place::pod("shop/client");
    let place = service.place(false);
    let connection = must(market.lab().connect_from((&from, port), &place, 80, false));
    let mut connection = connection.unwrap_or_else(|| panic!("{}: no answer", service.name));
    assert!(connection.echo(Duration::from_secs(1)), "{}: no echo", service.name);
    connection
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn all_stop(market: &Market, connections: &[Heartbeat], flows: &[Datagrams]) {
    let mode = market.lab().mode().name();
    connections.iter().for_each(stops);
    for (number, flow) in flows.iter().enumerate() {
        assert!(flow.stopped(SILENCE, PATIENCE), "datagrams {number} go on, {mode}");
    }
}

#[test]
fn what_audit_let_through_ends_with_it_though_the_virtual_address_is_allowed() {
    for attach in ["tcx", "clsact"] {
        let flags = vec!["--enforcement=audit".to_owned()];
        let options = AgentOptions { attach: Some(attach), flags, ..AgentOptions::default() };
        let mut market = Market::with(Mode::PointToPoint, &virtual_allowed(), options);
        let services = [near(1, &[bad()]), far(2, &[far_bad()])];
        market.offer(&services);
        let connections = services.each_ref().map(|service| market.beat(service));
        let flows = services.each_ref().map(|service| datagrams(&market, service, 0));
        let enforce = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    \
                       enforcer.io/enforcement: enforce\n";
        must(market.world.manifests.write("namespace-shop.yaml", enforce));
        market.world.settle();
        all_stop(&market, &connections, &flows);
    }
}

#[test]
fn what_a_switch_let_through_ends_with_it_though_the_virtual_address_is_allowed() {
    for mode in MODES {
        let mut market = Market::with(mode, &virtual_allowed(), AgentOptions::default());
        let services = [near(1, &[bad()]), far(2, &[far_bad()])];
        market.offer(&services);
        must(market.world.agent.switch(&["disable", "--pod", "shop/client", "--for", "3s"]));
        let connections = services.each_ref().map(|service| market.beat(service));
        let flows = services.each_ref().map(|service| datagrams(&market, service, 0));
        thread::sleep(Duration::from_secs(2));
        all_stop(&market, &connections, &flows);
    }
}

#[test]
fn flows_that_are_older_than_their_service_are_judged_for_its_backends() {
    for mode in MODES {
        let mut market = Market::with(mode, &virtual_allowed(), AgentOptions::default());
        let denied = [near(1, &[bad()]), far(2, &[far_bad()])];
        let allowed = [near(3, &[good()]), far(4, &[far_good()])];
        let all = [&denied[..], &allowed[..]].concat();
        market.translate(&all);
        let stopping = denied.each_ref().map(|service| market.beat(service));
        let flows = denied.each_ref().map(|service| datagrams(&market, service, 0));
        let living = allowed.each_ref().map(|service| market.beat(service));
        let others = allowed.each_ref().map(|service| datagrams(&market, service, 0));
        for service in &all {
            market.announce(service);
            market.announce_slices(service);
        }
        market.world.settle();
        all_stop(&market, &stopping, &flows);
        living.into_iter().for_each(goes_on);
        for flow in &others {
            assert!(flow.answered(SILENCE), "{}", mode.name());
        }
    }
}

#[test]
fn a_port_that_is_used_again_is_judged_for_the_backend_that_it_has_now() {
    for mode in MODES {
        for service in [near(1, &[good(), bad()]), far(2, &[far_good(), far_bad()])] {
            let mut market = Market::new(mode);
            let on = [(Protocol::Tcp, TARGET)];
            let both = policy::allow_to("allow-bad", "role=client", "app=bad", &on);
            market.world.policies(&policy::all(&[policies(), both]));
            market.offer(std::slice::from_ref(&service));
            let connect = |market: &mut Market, port, index: usize| {
                market.translate(&[service.clone().with(&service.backends[index..=index])]);
                connect_from(market, &service, port)
            };
            let former = [connect(&mut market, PORT, 0), connect(&mut market, PORT + 1, 1)];
            thread::sleep(OLD);
            former.into_iter().for_each(|connection| must(connection.reset()));
            let stopping = connect(&mut market, PORT, 1).beat();
            let living = connect(&mut market, PORT + 1, 0).beat();
            market.world.policies(&policies());
            market.world.settle();
            stops(&stopping);
            goes_on(living);
        }
    }
}

#[test]
fn datagrams_whose_backend_went_reach_another_one_at_once_and_are_answered() {
    for mode in MODES {
        let second = |service: &Service| service.clone().with(&service.backends[1..]);
        let to = |backend| {
            Service::numbered("shop/two", 1).with(&[Backend::pod(&good(), TARGET), backend])
        };
        for service in [to(Backend::far(&far_good(), TARGET)), to(Backend::pod(&client(), TARGET))]
        {
            let mut market = Market::new(mode);
            market.offer(std::slice::from_ref(&service));
            market.translate(&[service.clone().with(&service.backends[..1])]);
            let flow = datagrams(&market, &service, PORT);
            // A change that denies nothing has its backend noted.
            let on = [(Protocol::Udp, TARGET)];
            let more = policy::allow_out("more", "role=client", "203.0.113.0/24", &on);
            market.world.policies(&policy::all(&[policies(), more]));
            market.world.settle();
            assert!(flow.answered(SILENCE), "{}", mode.name());
            thread::sleep(SILENCE);
            market.translate(&[second(&service)]);
            market.world.forget("shop/good");
            market.announce_slices(&second(&service));
            market.world.settle();
            must(market.lab().forget_connections());
            let backend = &service.backends[1];
            let address = backend.addresses[0];
            let (netns, _) = must(market.lab().locate(&backend.place_of(address), false));
            let eyes = must(Wire::open(netns, "eth0"));
            let wanted = |frame: &[u8]| {
                let packet = frame.get(14..).unwrap_or_default();
                packet.get(16..20) == Some(&octets(address)[..])
                    && packet.get(22..24) == Some(&TARGET.to_be_bytes()[..])
            };
            let reached = must(eyes.wait_for(AT_ONCE, wanted));
            assert!(reached.is_some(), "{}, {}", backend.place, mode.name());
            // Its answers pass when the agent has noted that the flow has another backend.
            assert!(flow.answered(NOTED), "{}, {}", backend.place, mode.name());
        }
    }
}

#[test]
fn no_part_of_a_datagram_that_is_denied_for_its_sender_arrives() {
    for mode in MODES {
        let mut market = Market::new(mode);
        let service = near(1, &[good(), bad()]);
        market.offer(std::slice::from_ref(&service));
        for v6 in [false, true] {
            let family = usize::from(v6);
            for (index, open) in [(0, true), (1, false)] {
                let backend = &service.backends[index];
                market.translate(&[service.clone().with(std::slice::from_ref(backend))]);
                let (netns, address) = must(market.lab().locate(&backend.place, v6));
                let eyes = must(Wire::open(netns, "eth0"));
                let probe = Market::ask(&service, v6, Protocol::Udp).bytes(6_000);
                market.world.expect(&[(probe, open)]);
                let client = client().addresses[family];
                let wanted = |frame: &[u8]| packet_between(frame, client, address).is_some();
                let seen = must(eyes.wait_for(Duration::from_millis(300), wanted)).is_some();
                assert_eq!(seen, open, "{} of {address}, {}", service.name, mode.name());
            }
        }
    }
}
