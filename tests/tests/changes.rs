//! What happens when objects change: how soon, to new connections and to those that are open.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Connection, Heartbeat, Mode, PodSpec, Probe, World, policy,
    spec::namespace_manifest,
    world::{must, shop_pods, shop_policies},
};

/// Silence after which a connection counts as stopped: longer than TCP's first retransmission.
const SILENCE: Duration = Duration::from_millis(400);
/// From the moment that a change is in force to the last answer that was already under way.
const UNDER_WAY: Duration = Duration::from_millis(50);

fn shop() -> World {
    World::shop(Mode::PointToPoint, AgentOptions::default())
}

fn client() -> Probe {
    Probe::tcp("shop/client", "shop/server", 80)
}

fn other() -> Probe {
    Probe::tcp("shop/other", "shop/server", 80)
}

/// The heartbeat stopped when what was written last came into force. Gives the connection back.
fn stops_at_its_next_packet(world: &World, heartbeat: Heartbeat) -> Connection {
    world.settle();
    let in_force = Instant::now();
    let last = heartbeat.stopped(SILENCE, Duration::from_secs(3)).expect("the connection stops");
    let late = last.saturating_duration_since(in_force);
    assert!(late < UNDER_WAY, "answers came for {} ms more", late.as_millis());
    heartbeat.end().expect("the heartbeat's thread lives")
}

#[test]
fn a_label_opens_a_way_within_100_ms() {
    let world = shop();
    let [_, _, without] = shop_pods();
    let with = without.clone().label("role", "client");
    let mut times = Vec::new();
    for _ in 0..5 {
        world.closed(other());
        let written = Instant::now();
        world.describe(&with);
        times.push(world.time_until_open(&other(), written, Duration::from_secs(5)));
        world.describe(&without);
        world.settle();
    }
    times.sort_unstable();
    let shown: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    println!(
        "label to open, ms: {}",
        shown.iter().map(u128::to_string).collect::<Vec<_>>().join(" ")
    );
    assert!(times[2] < Duration::from_millis(100), "the median is {} ms", shown[2]);
}

#[test]
fn policies_come_and_go() {
    let world = shop();
    world.expect(&[
        (client(), true),
        (other(), false),
        (client().v6(), true),
        (other().v6(), false),
    ]);
    world.policies(&policy::deny("app=server", &["Ingress"]));
    world.settle();
    world.expect(&[(client(), false), (client().v6(), false)]);
    must(world.manifests.remove("policies.yaml"));
    world.settle();
    world.expect(&[(client(), true), (other(), true), (other().v6(), true)]);
    world.policies(&shop_policies());
    world.settle();
    world.expect(&[(client(), true), (other(), false)]);
}

#[test]
fn an_established_connection_stops_with_its_policy_and_lives_again_with_it() {
    let world = shop();
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    thread::sleep(Duration::from_millis(100));
    assert!(heartbeat.beats() > 3);
    world.policies(&policy::deny("app=server", &["Ingress"]));
    let mut connection = stops_at_its_next_packet(&world, heartbeat);
    assert!(!connection.echo(Duration::from_millis(500)));
    // A deny is never kept: what TCP still repeats is judged anew.
    world.policies(&shop_policies());
    world.settle();
    let revived = Instant::now();
    let beats = connection.beat();
    while beats.beats() == 0 && revived.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(beats.beats() > 0, "no answer after the policy came back");
}

#[test]
fn a_lost_label_stops_the_flows_that_it_allowed_and_no_other() {
    let world = World::with(
        Mode::PointToPoint,
        &[&shop_pods()[..], &[PodSpec::numbered("shop/second", 4).label("role", "client")]]
            .concat(),
        &shop_policies(),
        AgentOptions::default(),
    );
    let first = world.connect("shop/client", "shop/server", 80).beat();
    let second = world.connect("shop/second", "shop/server", 80).beat();
    world.describe(&PodSpec::numbered("shop/client", 2));
    stops_at_its_next_packet(&world, first);
    world.closed(client());
    assert!(second.last().elapsed() < SILENCE, "the other client's connection stopped as well");
    let second = second.end().expect("the heartbeat's thread lives");
    assert_eq!(second.lost_segments(), 0);
}

#[test]
fn an_isolated_sender_stops_as_well() {
    let world = shop();
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    let closed = policy::deny("role=client", &["Egress"]).replace("\"deny\"", "\"deny-out\"");
    world.policies(&policy::all(&[shop_policies(), closed]));
    stops_at_its_next_packet(&world, heartbeat);
    world.closed(client());
}

#[test]
fn a_thousand_new_pods_disturb_no_connection() {
    let world = shop();
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    let pods: Vec<String> = (0..1000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let address = [10, 244, 100 + high, low].into();
            PodSpec::new(&format!("shop/more-{number}"), &[address])
                .label("role", if number % 2 == 0 { "client" } else { "none" })
                .manifest()
        })
        .collect();
    world.manifests.write("more.yaml", &policy::all(&pods)).expect("written");
    world.settle();
    let before = heartbeat.beats();
    thread::sleep(Duration::from_millis(300));
    assert!(heartbeat.beats() > before);
    let connection = heartbeat.end().expect("the heartbeat's thread lives");
    assert_eq!(connection.lost_segments(), 0);
    world.expect(&[(client(), true), (other(), false)]);
}

#[test]
fn what_is_invalid_leaves_the_last_good_state_and_is_named() {
    let world = shop();
    let typo = shop_policies().replace("podSelector", "podSelectors");
    for bad in [typo.as_str(), "kind: [", "kind: NetworkPolicy"] {
        world.policies(bad);
        world.settle();
        world.expect(&[(client(), true), (other(), false)]);
        let status = must(world.agent.status());
        let problems = status["report"]["problems"].as_array().expect("a list of problems");
        assert!(
            problems.iter().any(|problem| problem["file"] == "policies.yaml"),
            "{bad}: not named in {status}"
        );
    }
    world.policies(&shop_policies());
    world.settle();
    assert_eq!(must(world.agent.status())["report"]["problems"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_new_pod_on_an_old_address_inherits_nothing() {
    let mut world = shop();
    let connection = world.connect("shop/client", "shop/server", 80);
    must(world.lab.remove_pod("shop/client"));
    world.forget("shop/client");
    let new = PodSpec::numbered("shop/new", 2);
    world.describe(&new);
    must(world.lab.add_pods(&[new]));
    world.settle();
    drop(connection);
    let probe = Probe::tcp("shop/new", "shop/server", 80);
    world.expect(&[(probe.clone(), false), (probe.v6(), false)]);
    world.open(Probe::tcp("shop/server", "shop/new", 80));
}

#[test]
fn a_finished_pod_does_not_speak_for_its_address() {
    let world = shop();
    let [_, _, other_pod] = shop_pods();
    // A job that has ended still lists the address that `other` has now.
    let job = PodSpec::new("shop/job", &other_pod.addresses).label("role", "client");
    must(world.manifests.write("job.yaml", &job.manifest().replace("Running", "Succeeded")));
    world.settle();
    world.expect(&[(client(), true), (other(), false)]);
}

#[test]
fn an_interface_that_is_made_again_is_enforced_on_again() {
    let mut world = shop();
    for _ in 0..3 {
        must(world.lab.replace_interface("shop/server"));
        world.settle();
        world.expect(&[(client(), true), (other(), false), (other().v6(), false)]);
    }
    let status = must(world.agent.status());
    let endpoints = status["report"]["endpoints"].as_array().expect("a list of endpoints");
    let host = must(world.lab.pod("shop/server")).host_interface();
    let of_server: Vec<_> =
        endpoints.iter().filter(|endpoint| endpoint["pod"] == "shop/server").collect();
    assert_eq!(of_server.len(), 1, "{status}");
    assert_eq!(of_server[0]["interface"], host);
}

#[test]
fn a_namespace_that_gets_a_label_becomes_a_peer() {
    let pods = [shop_pods()[0].clone(), PodSpec::numbered("guests/visitor", 9)];
    let rule = policy::allow_in("allow-guests", "app=server", "", &[]).replace(
        r#""podSelector":{}}]"#,
        r#""namespaceSelector":{"matchLabels":{"trusted":"yes"}}}]"#,
    );
    assert!(rule.contains("namespaceSelector"), "{rule}");
    let world = World::new(Mode::PointToPoint, &pods, &rule);
    let probe = Probe::tcp("guests/visitor", "shop/server", 80);
    world.closed(probe.clone());
    let labelled = namespace_manifest("guests")
        .replace(r#""name":"guests""#, r#""name":"guests","labels":{"trusted":"yes"}"#);
    must(world.manifests.write("namespace-guests.yaml", &labelled));
    world.settle();
    world.open(probe);
}
