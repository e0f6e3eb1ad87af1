//! Other hands on the same hooks: what they take off comes back.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, Probe, World, world::must};

/// Longer than the agent takes between two looks at its hooks.
const LOOK: Duration = Duration::from_secs(8);

fn shop(attach: &'static str) -> World {
    let options = AgentOptions { attach: Some(attach), ..AgentOptions::default() };
    World::shop(Mode::PointToPoint, options)
}

fn other() -> Probe {
    Probe::tcp("shop/other", "shop/server", 80)
}

/// Waits until the probe is closed again.
fn closes_again(world: &World, what: &str) {
    let since = Instant::now();
    while must(world.lab.probe_one(&other())).is_open() {
        assert!(since.elapsed() < LOOK, "{what}: not put back");
        thread::sleep(Duration::from_millis(100));
    }
    world.expect(&[(Probe::tcp("shop/client", "shop/server", 80), true), (other(), false)]);
}

#[test]
fn filters_that_are_taken_away_are_put_back() {
    let world = shop("clsact");
    let server = must(world.lab.pod("shop/server")).host_interface().to_owned();
    must(world.lab.node().command("tc", &["qdisc", "del", "dev", &server, "clsact"]));
    closes_again(&world, "filters");
}

/// Waits for a problem of the pod's interface that names this.
fn is_named(world: &World, what: &str) {
    let client = must(world.lab.pod("shop/client")).host_interface().to_owned();
    let since = Instant::now();
    loop {
        let status = must(world.agent.ask(&["status", "-o", "json"]));
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        let problems = status["report"]["problems"].as_array().cloned().unwrap_or_default();
        let of_client = |problem: &&serde_json::Value| {
            problem["object"] == format!("Interface {client}")
                && problem["reason"].as_str().is_some_and(|reason| reason.contains(what))
        };
        if problems.iter().any(|problem| of_client(&problem)) {
            assert_eq!(problems.len(), 1, "nobody else's: {problems:?}");
            return;
        }
        assert!(since.elapsed() < LOOK, "no problem with {what}: {problems:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_filter_that_could_take_marks_away_is_named_until_it_goes() {
    for attach in ["tcx", "clsact"] {
        let world = shop(attach);
        let tc = |what: &str, interface: &str, pref: &str| {
            let words = ["filter", what, "dev", interface, "ingress", "pref", pref];
            let matched = ["protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "1:7"];
            let matched = if what == "add" { &matched[..] } else { &[] };
            must(world.lab.node().command("tc", &[&words[..], matched].concat()));
        };
        let client = must(world.lab.pod("shop/client")).host_interface().to_owned();
        if attach == "tcx" {
            must(world.lab.node().command("tc", &["qdisc", "add", "dev", &client, "clsact"]));
        }
        tc("add", &client, "9");
        is_named(&world, "u32 filter of priority 9");
        tc("del", &client, "9");
        let since = Instant::now();
        while must(world.agent.ask(&["status", "-o", "json"])).contains("u32 filter") {
            assert!(since.elapsed() < LOOK, "still named");
            thread::sleep(Duration::from_millis(100));
        }
    }
}
