//! A node in audit, and namespaces that differ from it.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, Probe, World, policy, world::must};

fn other() -> Probe {
    Probe::tcp("shop/other", "shop/server", 80)
}

fn label(world: &World, value: &str) {
    let yaml = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels:\n    \
         enforcer.io/enforcement: {value}\n"
    );
    must(world.manifests.write("namespace-shop.yaml", &yaml));
    world.settle();
}

fn in_audit(attach: &'static str) -> World {
    let flags = vec!["--enforcement=audit".to_owned()];
    World::shop(
        Mode::PointToPoint,
        AgentOptions { attach: Some(attach), flags, ..AgentOptions::default() },
    )
}

#[test]
fn nothing_is_dropped_and_what_would_be_is_shown_with_its_policies() {
    for attach in ["tcx", "clsact"] {
        let world = in_audit(attach);
        world.expect(&[(other(), true), (other().v6(), true)]);
        let deadline = Instant::now() + Duration::from_secs(5);
        let flows = loop {
            let asked = ["observe", "--verdict", "AUDIT", "--all", "--why", "-o", "dict"];
            let flows = must(world.agent.ask(&asked));
            if flows.matches("WHY:").count() >= 2 || Instant::now() > deadline {
                break flows;
            }
            thread::sleep(Duration::from_millis(20));
        };
        for flow in flows.split("------------") {
            assert!(flow.contains("shop/other") && flow.contains("AUDITED"), "{flows}");
            assert!(flow.contains("no rule of shop/allow-clients, shop/"), "{flows}");
        }
        assert_eq!(flows.matches("WHY:").count(), 2, "one for each connection: {flows}");
        let dropped = must(world.agent.ask(&["observe", "--verdict", "DROPPED", "--all"]));
        assert_eq!(dropped, "");
        let status = must(world.agent.status());
        let endpoints = status["report"]["endpoints"].as_array().expect("endpoints");
        assert!(endpoints.iter().all(|one| one["audit"] == true), "{status:#}");
    }
}

#[test]
fn a_namespaces_label_counts_and_a_change_of_it_holds_from_the_next_packet() {
    let world = in_audit("tcx");
    world.open(other());
    let connection = world.connect("shop/other", "shop/server", 80).beat();
    label(&world, "enforce");
    let stopped = connection.stopped(Duration::from_millis(400), Duration::from_secs(3));
    assert!(stopped.is_some(), "an audited connection does not outlive the audit");
    world.closed(other());
    label(&world, "audit");
    world.open(other());
    label(&world, "Audit");
    world.closed(other());
    let status = must(world.agent.status());
    let problems = status["report"]["problems"].to_string();
    assert!(problems.contains("must be audit or enforce"), "{problems}");
}

#[test]
fn a_connection_that_policy_allows_before_the_end_of_the_audit_lives_on() {
    let world = in_audit("tcx");
    let connection = world.connect("shop/other", "shop/server", 80).beat();
    world.policies(&policy::deny("app=nobody", &["Ingress"]));
    label(&world, "enforce");
    let before = connection.beats();
    thread::sleep(Duration::from_millis(300));
    assert!(connection.beats() > before, "no policy selects the server any more");
    assert_eq!(connection.end().expect("it lives").lost_segments(), 0);
}
