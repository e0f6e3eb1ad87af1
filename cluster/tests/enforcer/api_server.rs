//! The API server goes away and comes back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{Agent, PATIENCE, World},
};

/// Ingress of the server from pods with this label.
pub(crate) fn from(app: &str) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}],
    })
}

/// Waits until a policy is in what the agent of a node has saved.
pub(crate) fn wait_until_saved(world: &World, node: &str, policy: &str) {
    poll::until("saved state", Duration::from_secs(60), || {
        let words = ["grep", "--quiet", policy, "/var/lib/enforcer/cluster.json"];
        world.cluster.run_in(node, &words).map_err(|error| error.to_string())
    });
}

/// Waits until the agent of a node says that what is in force was saved.
pub(crate) fn wait_for_saved_state(world: &World, node: &str) -> Agent {
    poll::until("state from disk", PATIENCE, || {
        // Without the API server the runtime alone knows its new container.
        let agent = world.agent_by_runtime(node)?;
        let status = world.try_status(&agent, &[])?;
        let report = &status.json["report"];
        poll::holds(
            report["source"]["state"] == "saved" && report["agent"]["armed"] == true,
            || report["source"].to_string(),
        )?;
        assert!(!status.is_yes, "{}", status.json);
        let failure = status.json["failure"].as_str().unwrap_or_default();
        assert!(failure.contains("saved"), "{failure}");
        Ok(agent)
    })
}

/// Waits until the agent of a node follows the API server.
pub(crate) fn wait_until_live(world: &World, node: &str) {
    poll::until("an agent that follows the API server", PATIENCE, || {
        let status = world.try_status(&world.agent_by_runtime(node)?, &["--wait=10"])?;
        poll::holds(status.is_yes, || status.json["failure"].to_string())
    });
}

/// What is in force stays, for the agents that run and for one that starts; changes come later.
pub(crate) fn away(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "api-server", &[]);
    let pods = space.pods(&[
        PodSpec::server("server", "node2"),
        PodSpec::client("friend", "node1"),
        PodSpec::client("friend-near", "node2").label("app", "friend"),
        PodSpec::client("stranger", "node1"),
        PodSpec::client("stranger-near", "node2").label("app", "stranger"),
    ]);
    let [server, friend, friend_near, stranger, stranger_near] = &pods[..] else {
        panic!("{pods:?}")
    };
    let as_said = [
        Probe::tcp(friend, server, 80, Allowed),
        Probe::tcp(friend_near, server, 80, Allowed),
        Probe::tcp(stranger, server, 80, Denied),
        Probe::tcp(stranger_near, server, 80, Denied),
    ];
    space.policy("server-of-friends", from("friend"));
    world.expect("before", &as_said);
    wait_until_saved(world, "node2", "server-of-friends");
    let held = ["--hold", "--rate", "5", "--timeout", "8", "--expect", "ok"];
    let held = world.start_client(friend, server, 81, &held);

    world.cluster.stop_api_server().unwrap();
    world.expect("without an API server", &as_said);
    let agent = world.agent_by_runtime("node2").unwrap();
    let before = world.process(&agent.container);
    world.cluster.run_in("node2", &["kill", "-KILL", &before.to_string()]).unwrap();
    world.expect("without an agent", &as_said);
    wait_for_saved_state(world, "node2");
    world.expect("by an agent that never met the API server", &as_said);

    world.cluster.start_api_server().unwrap();
    for node in world.cluster.nodes() {
        wait_until_live(world, &node);
    }
    world.expect("with the API server again", &as_said);
    let tries = held.end();
    println!("  open connection: {} answers, slowest {:.1} ms", tries.ok, tries.slowest);
    assert!(tries.ok > 20 && tries.failed == 0, "{tries:?}");
    space.policy("server-of-friends", from("stranger"));
    world.expect(
        "after a change",
        &[
            Probe::tcp(friend, server, 80, Denied),
            Probe::tcp(friend_near, server, 80, Denied),
            Probe::tcp(stranger, server, 80, Allowed),
            Probe::tcp(stranger_near, server, 80, Allowed),
        ],
    );
}
