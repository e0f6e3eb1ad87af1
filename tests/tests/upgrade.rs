//! Another version of the maps is in force when the agent starts: an older one is taken over while
//! both run, a newer one is left alone.

use std::{fs, thread, time::Duration};

use enforcer_tests::{
    AgentOptions, Mode, PodSpec, Probe, World, pins, policy,
    world::{must, shop_client as client, shop_other as other, shop_pods, undisturbed},
};

/// The version of this build's maps.
const OURS: u32 = 2;

fn shop(attach: &'static str) -> World {
    World::shop(
        Mode::PointToPoint,
        AgentOptions { attach: Some(attach), ..AgentOptions::default() },
    )
}

fn never() -> [Probe; 3] {
    [other(), other().v6(), Probe::udp("shop/other", "shop/server", 80)]
}

fn versions(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.agent.bpf_dir()).expect("the folder of pins").flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Packets by reason since our maps were made.
fn counted(world: &World, reason: &str) -> u64 {
    let status = must(world.agent.status());
    let counters = status["report"]["counters"].as_array().expect("counters").clone();
    let of = counters.iter().filter(|one| one["reason"] == reason);
    of.filter_map(|one| one["packets"].as_u64()).sum()
}

#[test]
fn flows_of_the_version_before_live_on_and_nothing_of_it_is_left() {
    for attach in ["tcx", "clsact"] {
        let mut world = shop(attach);
        let incoming = world.connect("shop/client", "shop/server", 80).beat();
        // Policy closes the server's ingress: in the middle, nobody would take the answers for
        // answers.
        let outgoing = world.connect("shop/server", "shop/other", 8080).beat();
        world.while_closed(&never(), |agent, _, _| {
            must(agent.kill());
            must(pins::pretend_version(agent.bpf_dir(), OURS, 1));
            thread::sleep(Duration::from_millis(100));
            must(agent.restart());
        });
        assert!(world.agent.log().contains("took over from the version before"));
        assert_eq!(versions(&world), ["v2"], "--attach={attach}");
        world.expect(&[(client(), true), (client().v6(), true), (other(), false)]);
        undisturbed(incoming);
        undisturbed(outgoing);
        assert_eq!(counted(&world, "Pickup"), 0, "its entry was there before its packets");
        assert_eq!(counted(&world, "EndpointNotReady"), 0);
        // What is removed now is all there was.
        must(world.agent.stop());
        must(world.agent.uninstall());
        world.open(other());
    }
}

#[test]
fn what_is_denied_by_now_stops_with_the_upgrade_and_pods_that_went_are_forgotten() {
    let mut world = shop("tcx");
    let connection = world.connect("shop/client", "shop/server", 80).beat();
    must(world.agent.kill());
    must(pins::pretend_version(world.agent.bpf_dir(), OURS, 1));
    world.policies(&policy::deny("app=server", &["Ingress"]));
    must(world.lab.remove_pod("shop/other"));
    world.forget("shop/other");
    let late = PodSpec::numbered("shop/late", 6);
    must(world.lab.add_pods(std::slice::from_ref(&late)));
    world.describe(&late);
    must(world.agent.restart());
    let stopped = connection.stopped(Duration::from_millis(400), Duration::from_secs(3));
    assert!(stopped.is_some(), "the established connection is not allowed any more");
    world.expect(&[
        (client(), false),
        (Probe::tcp("shop/late", "shop/server", 80), false),
        (Probe::tcp("shop/server", "shop/late", 80), true),
    ]);
    assert_eq!(versions(&world), ["v2"]);
    assert_eq!(shop_pods().len(), 3);
}

#[test]
fn an_upgrade_that_was_interrupted_goes_on() {
    let mut world = shop("tcx");
    let outgoing = world.connect("shop/server", "shop/other", 8080).beat();
    must(world.agent.kill());
    must(pins::pretend_version(world.agent.bpf_dir(), OURS, 1));
    for pause in [40, 80, 120, 160, 200, 240] {
        world.while_closed(&never(), |agent, _, _| {
            must(agent.restart_and_kill_after(Duration::from_millis(pause)));
        });
    }
    must(world.agent.restart());
    assert_eq!(versions(&world), ["v2"]);
    world.expect(&[(client(), true), (other(), false)]);
    undisturbed(outgoing);
}

#[test]
fn a_newer_version_is_left_in_force() {
    let mut world = shop("tcx");
    must(world.agent.kill());
    must(pins::pretend_version(world.agent.bpf_dir(), OURS, OURS + 1));
    world.while_closed(&never(), |agent, _, _| {
        let error = agent.restart().expect_err("a newer version is in force").chain();
        assert!(error.contains("version 3 of the maps is in force"), "{error}");
        assert!(error.contains("start the enforcer of that version again"), "{error}");
    });
    world.open(client());
    assert_eq!(versions(&world), ["v3"], "nothing was made");
    must(pins::pretend_version(world.agent.bpf_dir(), OURS + 1, OURS));
    must(world.agent.restart());
    world.expect(&[(client(), true), (other(), false)]);
}
