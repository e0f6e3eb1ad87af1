//! Other hands on the same hooks: what they take off comes back.

use std::{
    fs, thread,
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
    // The kernel detaches a moment after the last pin has gone.
    thread::sleep(Duration::from_millis(500));
    let since = Instant::now();
    while must(world.lab.probe_one(&other())).is_open() {
        assert!(since.elapsed() < LOOK, "{what}: not put back");
        thread::sleep(Duration::from_millis(100));
    }
    world.expect(&[(Probe::tcp("shop/client", "shop/server", 80), true), (other(), false)]);
}

#[test]
fn links_that_are_taken_away_are_put_back() {
    let world = shop("tcx");
    world.closed(other());
    for version in fs::read_dir(world.agent.bpf_dir()).expect("the agent's pins").flatten() {
        for link in fs::read_dir(version.path().join("links")).expect("links").flatten() {
            fs::remove_file(link.path()).expect("a pin can be removed");
        }
    }
    closes_again(&world, "links");
}

#[test]
fn filters_that_are_taken_away_are_put_back() {
    let world = shop("clsact");
    let server = must(world.lab.pod("shop/server")).host_interface().to_owned();
    must(world.lab.node().command("tc", &["qdisc", "del", "dev", &server, "clsact"]));
    closes_again(&world, "filters");
}
