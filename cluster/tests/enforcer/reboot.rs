//! A node loses its power, and comes back while the agent cannot reach the API server.

use std::time::Instant;

use crate::{
    api_server::{from, wait_for_saved_state, wait_until_live, wait_until_saved},
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{PATIENCE, World},
};

/// The address by which agents reach the API server: kube-proxy makes it work, and comes up when it
/// does. The kubelet has the server's own address.
const SERVICE: &str = "10.213.0.1";

/// What was saved is in force for the pods that the kubelet starts again, until the agent can read.
pub(crate) fn reboot(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "reboot", &[]);
    let specs = [
        PodSpec::server("server", "node2"),
        PodSpec::client("friend", "node1"),
        PodSpec::client("friend-near", "node2").label("app", "friend"),
        PodSpec::client("stranger", "node1"),
        PodSpec::client("stranger-near", "node2"),
    ];
    let pods = space.pods(&specs);
    space.policy("server-of-friends", from("friend"));
    wait_until_saved(world, "node2", "server-of-friends");
    let by_runtime = world.agent_by_runtime("node2").unwrap().container.id;

    let begun = Instant::now();
    world.cluster.stop_node("node2").unwrap();
    world.cluster.start_node("node2").unwrap();
    poll::until("a node that is cut off", PATIENCE, || {
        let rules = format!(
            "table ip away {{ chain out {{ type filter hook output priority -500; \
             ip daddr {SERVICE} drop; }}; }}"
        );
        world.cluster.run_in("node2", &["nft", &rules]).map_err(|error| error.to_string())
    });
    poll::until("an agent after the reboot", PATIENCE, || {
        let agent = world.agent_by_runtime("node2")?;
        poll::holds(agent.container.id != by_runtime, || "it is the one before".to_owned())
    });
    wait_for_saved_state(world, "node2");
    println!(
        "  enforced by saved state {:.1} s after the power came back",
        begun.elapsed().as_secs_f64()
    );

    // The pods' containers are started again, in new sandboxes with new addresses.
    let old = |name: &str| &pods.iter().find(|pod| pod.name == name).unwrap().container.id;
    let again = |name: &str| {
        poll::until(&format!("{name} after the reboot"), PATIENCE, || {
            let pod = space.ready(name);
            poll::holds(pod.container.id != *old(name), || "it is the one before".to_owned())?;
            Ok(pod)
        })
    };
    let [server, friend_near, stranger_near] =
        ["server", "friend-near", "stranger-near"].map(again);
    let [friend, stranger] = ["friend", "stranger"].map(|name| space.ready(name));
    // Other nodes' pods have the addresses that were saved, this node's what the network plugins say.
    world.expect(
        "by saved state",
        &[
            Probe::tcp(&friend, &server, 80, Allowed),
            Probe::tcp(&stranger, &server, 80, Denied),
            Probe::tcp(&stranger_near, &server, 80, Denied),
        ],
    );
    let status = world.status(&world.agent_by_runtime("node2").unwrap(), &[]);
    assert_eq!(status.json["report"]["source"]["state"], "saved", "{}", status.json);

    world.cluster.run_in("node2", &["nft", "delete table ip away"]).unwrap();
    world.cluster.wait_for_nodes().unwrap();
    wait_until_live(world, "node2");
    world.wait_for_rollout();
    println!("  enforced by the API server's word {:.1} s after it", begun.elapsed().as_secs_f64());
    world.barrier();
    world.expect(
        "by the API server's word",
        &[
            Probe::tcp(&friend, &server, 80, Allowed),
            Probe::tcp(&friend_near, &server, 80, Allowed),
            Probe::tcp(&stranger, &server, 80, Denied),
            Probe::tcp(&stranger_near, &server, 80, Denied),
        ],
    );
}
