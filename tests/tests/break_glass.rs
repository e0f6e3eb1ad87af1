//! Enforcement switched off and on again by the command line, with an agent and without one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Mode, PodSpec, Probe, World,
    world::{must, shop_pods},
};
use serde_json::Value;

fn shop() -> World {
    World::shop(Mode::PointToPoint, AgentOptions::default())
}

fn other() -> Probe {
    Probe::tcp("shop/other", "shop/server", 80)
}

/// Waits until the agent's status says this of the whole answer.
fn until_status(world: &World, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let status = must(world.agent.status());
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:#}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn failure(status: &Value) -> &str {
    status["failure"].as_str().unwrap_or_default()
}

#[test]
fn a_pod_is_open_without_an_agent_until_the_time_is_over() {
    let mut world = shop();
    must(world.agent.kill());
    world.closed(other());
    must(world.agent.switch(&["disable", "--pod", "shop/server", "--for", "3s"]));
    let since = Instant::now();
    world.expect(&[(other(), true), (other().v6(), true)]);
    let connection = world.connect("shop/other", "shop/server", 80).beat();
    let stopped = connection.stopped(Duration::from_millis(500), Duration::from_secs(6));
    let stopped = stopped.expect("the connection ends when the time is over");
    let after = stopped.duration_since(since);
    assert!((Duration::from_millis(2500)..Duration::from_secs(4)).contains(&after), "{after:?}");
    world.expect(&[(other(), false), (Probe::tcp("shop/client", "shop/server", 80), true)]);
}

#[test]
fn the_agent_says_so_and_does_not_end_it() {
    let mut world = shop();
    must(world.agent.switch(&[
        "disable",
        "--pod",
        "shop/server",
        "--for",
        "1h",
        "--reason",
        "why",
    ]));
    let status = until_status(&world, "disabled", |status| !failure(status).is_empty());
    assert!(failure(&status).contains("disabled for shop/server until"), "{status:#}");
    assert!(world.agent.ask(&["status"]).is_err(), "the answer is no while it is disabled");
    // Neither a plan nor a restart ends it.
    let [server, ..] = shop_pods();
    world.describe(&server.label("more", "labels"));
    thread::sleep(Duration::from_millis(200));
    world.open(other());
    must(world.agent.kill());
    must(world.agent.switch(&["enable"]));
    world.closed(other());
    must(world.agent.switch(&["disable", "--pod", "shop/server", "--for", "3s"]));
    let since = Instant::now();
    let connection = world.connect("shop/other", "shop/server", 80).beat();
    // Ready is who enforces: it becomes so when the time is over.
    must(world.agent.restart());
    let stopped = connection.stopped(Duration::from_millis(500), Duration::from_secs(6));
    let after = stopped.expect("the connection ends").duration_since(since);
    assert!(after > Duration::from_millis(2500), "{after:?}");
    let flows = must(world.agent.ask(&["observe", "--verdict", "AUDIT", "--all", "--why"]));
    let why = "enforcement is switched off for now";
    assert!(flows.contains("AUDITED") && flows.contains(why), "{flows}");
    let status = until_status(&world, "enabled", |status| failure(status).is_empty());
    let spared = status["report"]["spared"].as_array().expect("packets that were spared");
    assert!(spared.iter().any(|one| one["why"] == "disabled" && one["reason"] == "PolicyDenied"));
    world.closed(other());
    let log = world.agent.log();
    for said in ["enforcement is DISABLED for a pod", "in force again for a pod"] {
        assert!(log.contains(said), "{log}");
    }
    let path = world.agent.state_dir().join("break-glass.log");
    let text = fs::read_to_string(&path).expect("the log");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let actions: Vec<_> = lines.iter().filter_map(|line| line["action"].as_str()).collect();
    assert_eq!(actions, ["disable", "enable", "disable"]);
    assert_eq!(
        (&lines[0]["reason"], &lines[0]["target"]),
        (&"why".into(), &"pod shop/server".into())
    );
    let mode = fs::metadata(&path).expect("the log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_whole_node_and_pods_that_start_meanwhile() {
    let mut world = shop();
    must(world.agent.switch(&["disable", "--node", "--for", "1h"]));
    world.open(other());
    let late = PodSpec::numbered("shop/late", 7).label("app", "server");
    must(world.lab.add_pods(std::slice::from_ref(&late)));
    world.describe(&late);
    until_status(&world, "the late pod's endpoint", |status| {
        let endpoints = status["report"]["endpoints"].as_array();
        endpoints.is_some_and(|all| all.iter().any(|one| one["pod"] == "shop/late"))
    });
    world.open(Probe::tcp("shop/other", "shop/late", 80));
    must(world.agent.switch(&["enable", "--node"]));
    world.expect(&[(other(), false), (Probe::tcp("shop/other", "shop/late", 80), false)]);
}

#[test]
fn that_the_version_before_still_enforces_is_said_and_its_end_is_waited_for() {
    let mut world = shop();
    must(world.agent.kill());
    let old = world.agent.bpf_dir().join("v1/maps");
    fs::create_dir_all(&old).expect("a folder");
    let meta = || fs::hard_link(world.agent.bpf_dir().join("v2/maps/META"), old.join("META"));
    meta().expect("a pin");
    let off = ["disable", "--node", "--for", "1m"];
    let error = world.agent.switch(&off).expect_err("it is not off everywhere").chain();
    assert!(error.contains("version 1 of the maps is still in force"), "{error}");
    // What can be switched off is.
    world.open(other());
    must(world.agent.switch(&["enable", "--node"]));
    world.closed(other());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            fs::remove_file(old.join("META")).expect("the upgrade ends");
        });
        must(world.agent.switch(&off));
    });
    world.open(other());
}

#[test]
fn what_cannot_be_switched_is_said() {
    let mut world = shop();
    let error = world.agent.switch(&["disable", "--pod", "shop/nobody", "--for", "1m"]);
    let error = error.expect_err("no such pod").chain();
    assert!(error.contains("no pod shop/nobody has an endpoint on this node"), "{error}");
    must(world.agent.stop());
    must(world.agent.uninstall());
    let error = world.agent.switch(&["disable", "--node", "--for", "1m"]);
    let error = error.expect_err("nothing to switch").chain();
    assert!(error.contains("no maps are pinned there"), "{error}");
}
