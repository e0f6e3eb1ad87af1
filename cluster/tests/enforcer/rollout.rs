//! Updates of the agent under traffic: nothing that is allowed is lost, nothing that is denied
//! passes.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    namespace::{Namespace, PodSpec},
    starting::{Starts, finished},
    world::{SYSTEM, World},
};

/// Connections that are held open, half of them from the server's own node.
const HELD: usize = 500;

/// Several updates, one after the other.
pub(crate) fn updates(world: &World) {
    update(world, world.amount(2, 10));
}

/// One update.
pub(crate) fn once(world: &World) {
    update(world, 1);
}

/// `kubectl rollout restart` so many times, with connections open, opened and refused, and pods that
/// start.
fn update(world: &World, rounds: usize) {
    world.ensure_agents();
    let space = Namespace::new(world, "rollout", &[]);
    let friend = |name: &str, node| PodSpec::client(name, node).label("app", "friend");
    let shut = |name: &str, node| PodSpec::client(name, node).label("app", "shut");
    let pods = space.pods(&[
        PodSpec::server("server", "node2"),
        PodSpec::server("open", "node1"),
        friend("friend-near", "node2"),
        friend("friend-far", "node1"),
        PodSpec::client("stranger-near", "node2"),
        PodSpec::client("stranger-far", "node1"),
        shut("shut-near", "node1"),
        shut("shut-far", "node2"),
    ]);
    let [server, open, friend_near, friend_far, stranger_near, stranger_far, shut_near, shut_far] =
        &pods[..]
    else {
        panic!("{pods:?}")
    };
    let ingress = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}],
    });
    space.policy("server", ingress);
    let deny = json!({"podSelector": {"matchLabels": {"app": "shut"}}, "policyTypes": ["Egress"]});
    space.policy("shut", deny);

    // A second's tries: 500 messages on open connections, 100 connections that are allowed and 100
    // that are not.
    let half = (HELD / 2).to_string();
    let hold = ["--hold", "--rate", "1", "--parallel", &half, "--timeout", "8", "--expect", "ok"];
    let open_new = ["--rate", "5", "--parallel", "10", "--timeout", "8", "--expect", "ok"];
    let refused = ["--rate", "1", "--parallel", "25", "--timeout", "0.9", "--expect", "failed"];
    let held = [friend_near, friend_far].map(|pod| world.start_client(pod, server, 80, &hold));
    let new = [friend_near, friend_far].map(|pod| world.start_client(pod, server, 81, &open_new));
    let denied = [
        world.start_client(stranger_near, server, 80, &refused),
        world.start_client(stranger_far, server, 80, &refused),
        world.start_client(shut_near, open, 80, &refused),
        world.start_client(shut_far, open, 80, &refused),
    ];
    // All are open by then: the first message of each comes within the first second.
    thread::sleep(Duration::from_secs(4));

    let target = open.port(80).to_string();
    let mut started = Vec::new();
    for round in 0..rounds {
        let before: Vec<String> = world.agents().into_iter().map(|agent| agent.pod).collect();
        let begun = Instant::now();
        world.cluster.ask(&["rollout", "restart", "daemonset/enforcer", "-n", SYSTEM]).unwrap();
        thread::scope(|scope| {
            let update = scope.spawn(|| world.wait_for_rollout());
            let mut number = 0;
            while !update.is_finished() {
                let node = world.cluster.nodes()[number % 2].clone();
                let starts = |kind| Starts::new(&format!("{kind}-{round}-{number}"), &node);
                let specs = ["shut", "friend"].map(|kind| starts(kind).connect(&target, kind));
                space.create(&specs);
                started.extend(["shut", "friend"].map(|kind| format!("{kind}-{round}-{number}")));
                number += 1;
                thread::sleep(Duration::from_secs(2));
            }
            update.join().unwrap();
        });
        let after: Vec<String> = world.agents().into_iter().map(|agent| agent.pod).collect();
        assert!(after.iter().all(|pod| !before.contains(pod)), "{before:?} {after:?}");
        println!("  update {}: {:.1} s", round + 1, begun.elapsed().as_secs_f64());
    }

    let mut starts = [0; 2];
    for tries in finished(&space, &started) {
        if tries.0.starts_with("shut") {
            assert_eq!(tries.1.ok, 0, "{} came through: {:?}", tries.0, tries.1.lines);
            starts[0] += 1;
        } else {
            assert!(tries.1.ok > 0, "{} never came through: {:?}", tries.0, tries.1.lines);
            starts[1] += 1;
        }
    }
    println!("  pods started meanwhile: {} denied, {} allowed", starts[0], starts[1]);
    let sum = |clients: Vec<crate::network::Client>, what: &str| {
        let (mut ok, mut failed, mut slowest) = (0, 0, 0_f64);
        let mut lines = Vec::new();
        for client in clients {
            let tries = client.end();
            ok += tries.ok;
            failed += tries.failed;
            slowest = slowest.max(tries.slowest);
            lines.extend(tries.lines);
        }
        println!("  {what}: {ok} answered (slowest {slowest:.1} ms), {failed} not");
        (ok, failed, lines)
    };
    let held = sum(held.into(), "messages on 500 open connections");
    let new = sum(new.into(), "new connections that are allowed");
    let denied = sum(denied.into(), "new connections that are denied");
    assert!(held.0 > HELD as u64 && held.1 == 0, "{:?}", held.2);
    assert!(new.0 > 0 && new.1 == 0, "{:?}", new.2);
    assert!(denied.1 > 0 && denied.0 == 0, "{:?}", denied.2);
}
