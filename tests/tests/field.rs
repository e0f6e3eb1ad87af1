//! Situations that enforcers in the field got wrong, and that no other test here has: identities,
//! ICMP, ports, prefixes with exceptions, and what flows tell of them.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Mode, Place, PodSpec, Probe, Protocol, World, policy,
    world::{must, shop_pods, shop_policies},
};
use serde_json::{Value, json};

/// How long a ping waits for its answer.
const PING: Duration = Duration::from_millis(600);

fn shop() -> World {
    World::shop(Mode::PointToPoint, AgentOptions::default())
}

/// A policy in namespace `shop`.
fn written(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
    .to_string()
}

fn pings(world: &World, from: &str, to: &Place) -> [bool; 2] {
    [false, true].map(|v6| must(world.lab.ping(&Place::pod(from), to, v6, PING)))
}

#[test]
fn a_pod_whose_name_has_dots_is_like_others() {
    let dotted = PodSpec::numbered("shop/web.v1.example", 7).label("app", "dotted");
    let [server, client, _] = shop_pods();
    let world = World::new(
        Mode::PointToPoint,
        &[server, client, dotted],
        &policy::deny("app=dotted", &["Egress"]),
    );
    let probe = Probe::tcp("shop/web.v1.example", "shop/client", 80);
    world.closed(probe.clone());
    world.policies("");
    world.settle();
    world.open(probe);
}

#[test]
fn a_pod_made_anew_under_its_name_has_the_labels_that_it_has_now() {
    let mut world = shop();
    let task = || PodSpec::numbered("shop/task-0", 8);
    let probe = Probe::tcp("shop/other", "shop/task-0", 80);
    for (role, open) in [("shut", false), ("free", true), ("shut", false)] {
        let task = task().label("role", role);
        world.policies(&policy::deny("role=shut", &["Ingress"]));
        must(world.lab.add_pods(std::slice::from_ref(&task)));
        world.describe(&task);
        world.settle();
        world.expect(&[(probe.clone(), open)]);
        world.forget("shop/task-0");
        must(world.lab.remove_pod("shop/task-0"));
        world.settle();
    }
}

#[test]
fn a_pod_of_the_hosts_network_is_the_node_and_shuts_nobody_off() {
    let world = shop();
    let node = world.lab.node_address(false);
    let mut host: Value =
        serde_json::from_str(&PodSpec::new("shop/on-host", &[node]).manifest()).expect("JSON");
    host["spec"]["hostNetwork"] = true.into();
    must(world.manifests.write("on-host.yaml", &host.to_string()));
    // Every pod of the namespace is isolated, but may go out to the node.
    let all = policy::all(&[
        policy::deny("", &["Ingress", "Egress"]),
        policy::allow_out("to-node", "", &format!("{node}/32"), &[(Protocol::Tcp, 8080)]),
        written(
            "by-label",
            &json!({"podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"from": [{"podSelector": {}}]}]}),
        ),
    ]);
    world.policies(&all);
    world.settle();
    let to_node = |port| Probe::new(Place::pod("shop/client"), Place::Node, port, Protocol::Tcp);
    let from_node = Probe::new(Place::Node, Place::pod("shop/server"), 80, Protocol::Tcp);
    world.expect(&[
        (to_node(8080), true),
        (to_node(8081), false),
        (from_node, true),
        (Probe::tcp("shop/client", "shop/server", 80), false),
    ]);
}

#[test]
fn a_pod_reaches_its_own_address_however_isolated() {
    let world = shop();
    world.policies(&policy::deny("", &["Ingress", "Egress"]));
    world.settle();
    let own = Probe::tcp("shop/server", "shop/server", 80);
    world.expect(&[(own.clone(), true), (own.v6(), true)]);
}

#[test]
fn ping_is_let_in_by_a_rule_without_ports_and_by_no_other() {
    let world = shop();
    let server = Place::pod("shop/server");
    assert_eq!(pings(&world, "shop/client", &server), [false; 2], "the rule is for ports");
    world.policies(&policy::allow_in("any", "app=server", "role=client", &[]));
    world.settle();
    assert_eq!(pings(&world, "shop/client", &server), [true; 2]);
    assert_eq!(pings(&world, "shop/other", &server), [false; 2]);
    // An isolated sender has no ping either.
    world.policies(&policy::deny("role=client", &["Egress"]));
    world.settle();
    assert_eq!(pings(&world, "shop/client", &server), [false; 2]);
    assert_eq!(pings(&world, "shop/other", &server), [true; 2]);
}

#[test]
fn a_rule_for_one_protocol_is_for_no_other() {
    let world = shop();
    for (allowed, tcp, udp) in [("SCTP", false, false), ("UDP", false, true), ("TCP", true, false)]
    {
        let rule = json!({"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"ports": [{"protocol": allowed, "port": 80}]}]});
        world.policies(&written("one", &rule));
        world.settle();
        world.expect(&[
            (Probe::tcp("shop/client", "shop/server", 80), tcp),
            (Probe::udp("shop/client", "shop/server", 80), udp),
        ]);
    }
    // No ports: all; a port without protocol: TCP; a protocol without port: all of its ports.
    for (ports, open) in [
        (json!([]), [true; 3]),
        (json!([{"port": 80}]), [true, false, false]),
        (json!([{"protocol": "TCP"}]), [true, true, false]),
    ] {
        let rule = json!({"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"ports": ports}]});
        world.policies(&written("some", &rule));
        world.settle();
        world.expect(&[
            (Probe::tcp("shop/client", "shop/server", 80), open[0]),
            (Probe::tcp("shop/client", "shop/server", 81), open[1]),
            (Probe::udp("shop/client", "shop/server", 80), open[2]),
        ]);
    }
}

#[test]
fn a_longer_prefix_for_one_port_hides_no_wider_rule_and_an_exception_stays_one() {
    let mut world = shop();
    let (inside, outside) = ("198.51.100.7", "203.0.113.9");
    must(world.lab.add_outside(&[inside, outside].map(|ip| ip.parse().expect("an address"))));
    let rules = json!({"podSelector": {"matchLabels": {"role": "client"}}, "policyTypes": ["Egress"],
    "egress": [
        {"to": [{"ipBlock": {"cidr": "198.51.0.0/16"}}], "ports": [{"port": 3306}]},
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.0.0/16"]}}]},
    ]});
    world.policies(&written("mixed", &rules));
    world.settle();
    let to =
        |ip, port| Probe::new(Place::pod("shop/client"), Place::outside(ip), port, Protocol::Tcp);
    // More than once: nothing flaps.
    for _ in 0..3 {
        world.expect(&[
            (to(inside, 3306), true),
            (to(inside, 3307), false),
            (to(outside, 3306), true),
            (to(outside, 3307), true),
        ]);
    }
}

/// Flows of a connection's port as `VERDICT FLAGS`, once enough of them have been told.
fn flows(world: &World, port: u16, wanted: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    let since = Instant::now();
    loop {
        let port = port.to_string();
        let told = must(world.agent.ask(&["observe", "--all", "--port", &port, "-o", "json"]));
        let told: BTreeSet<String> = told
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).expect("a line of JSON");
                let flow = &line["flow"];
                let flags = flow["l4"]["TCP"]["flags"].as_object();
                let flags: Vec<&str> =
                    flags.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let reply = if flow["is_reply"] == true { " reply" } else { "" };
                format!("{} {}{reply}", flow["verdict"].as_str().unwrap_or("?"), flags.join(","))
            })
            .collect();
        if wanted(&told) {
            return told;
        }
        assert!(since.elapsed() < Duration::from_secs(5), "{told:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn flows_tell_a_connection_from_its_first_packet_to_its_last_and_a_denied_one_by_its_drop() {
    let world = shop();
    world.open(Probe::tcp("shop/client", "shop/server", 80));
    let ends = |told: &BTreeSet<String>| {
        told.iter().any(|flow| flow.contains("FIN") || flow.contains("RST"))
    };
    let told = flows(&world, 80, |told| {
        told.contains("FORWARDED SYN") && told.contains("FORWARDED ACK,SYN reply") && ends(told)
    });
    assert!(told.iter().all(|flow| flow.starts_with("FORWARDED ")), "{told:?}");

    world.closed(Probe::tcp("shop/client", "shop/server", 81));
    let told = flows(&world, 81, |told| told.contains("DROPPED SYN"));
    // Where the packet left, it was forwarded; nothing came back.
    assert!(told.iter().all(|flow| flow.ends_with(" SYN")), "{told:?}");
}

#[test]
fn after_ordinary_use_nothing_was_dropped_but_by_policy() {
    let world = World::with(Mode::Bridge, &shop_pods(), &shop_policies(), AgentOptions::default());
    for _ in 0..3 {
        world.expect(&[
            (Probe::tcp("shop/client", "shop/server", 80), true),
            (Probe::tcp("shop/client", "shop/server", 80).v6(), true),
            (Probe::udp("shop/client", "shop/server", 80), true),
            (Probe::tcp("shop/other", "shop/server", 80), false),
            (Probe::new(Place::Node, Place::pod("shop/server"), 80, Protocol::Tcp), true),
        ]);
    }
    let status = must(world.agent.status());
    let counters = status["report"]["counters"].as_array().expect("a list");
    let reasons: BTreeSet<&str> = counters
        .iter()
        .filter(|counter| counter["packets"] != 0)
        .filter_map(|counter| counter["reason"].as_str())
        .collect();
    let usual = ["Allowed", "Discovery", "FromNode", "NotIsolated", "PolicyDenied"];
    assert!(reasons.is_subset(&BTreeSet::from(usual)), "{counters:?}");
    assert!(reasons.contains("PolicyDenied"), "{counters:?}");
}
