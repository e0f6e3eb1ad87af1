//! The checked-in manifests, applied to a cluster that has never seen the agent.

use std::time::Duration;

use serde_json::json;

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{SYSTEM, World},
};

/// `CAP_NET_ADMIN`, `CAP_PERFMON` and `CAP_BPF`, by their bits (capability.h).
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// Agents get ready on all nodes, with no more rights than the documents say.
pub(crate) fn install(world: &World) {
    world.import_image();
    world.roll_out(&World::manifest("enforcer.yaml"));
    let agents = world.agents();
    let nodes: Vec<&str> = agents.iter().map(|agent| agent.container.node.as_str()).collect();
    assert_eq!(nodes, world.cluster.nodes());
    for agent in &agents {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let bits = u64::from_str_radix(&world.process_field(&agent.container, set), 16);
            assert_eq!(bits.unwrap(), CAPABILITIES, "{set} of {}", agent.pod);
        }
        assert_eq!(world.process_field(&agent.container, "NoNewPrivs"), "1", "{}", agent.pod);
        // 2: by a filter. A privileged container has none.
        assert_eq!(world.process_field(&agent.container, "Seccomp"), "2", "{}", agent.pod);
        let status = world.status(agent, &[]);
        assert!(status.is_yes, "{}", status.json);
        let report = &status.json["report"];
        assert_eq!(report["agent"]["armed"], true, "{report}");
        assert_eq!(report["source"]["state"], "live", "{report}");
        assert_eq!(report["source"]["kind"], "kubernetes", "{report}");
    }
    let privileged = "jsonpath={.items[*].spec.containers[*].securityContext.privileged}";
    let words = ["get", "pods", "-n", SYSTEM, "-o", privileged];
    assert!(!world.cluster.ask(&words).unwrap().contains("true"));
}

/// Removed as the documents say, it leaves nothing on the nodes.
pub(crate) fn remove(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "removed", &[]);
    let pods =
        space.pods(&[PodSpec::server("server", "node1"), PodSpec::client("client", "node2")]);
    let [server, client] = &pods[..] else { panic!("{pods:?}") };
    space.policy("nobody", json!({"podSelector": {}, "ingress": []}));
    take_away(world);
    // Taking the agents away is not taking policy away.
    world.expect("without agents", &[Probe::tcp(client, server, 80, Denied)]);
    forget(world);
    for node in world.cluster.nodes() {
        for path in ["/sys/fs/bpf/enforcer", "/run/enforcer", "/var/lib/enforcer"] {
            world.cluster.run_in(&node, &["test", "!", "-e", path]).unwrap();
        }
    }
    world.expect("without policy", &[Probe::tcp(client, server, 80, Allowed)]);
}

/// Takes the agents away, if there are any; what they enforce stays.
pub(crate) fn take_away(world: &World) {
    let words = ["delete", "daemonset/enforcer", "-n", SYSTEM, "--ignore-not-found"];
    world.cluster.ask(&words).unwrap();
    poll::until("the agents' end", Duration::from_secs(60), || {
        let pods = world.objects(&["get", "pods", "-n", SYSTEM]);
        poll::holds(pods.is_empty(), || format!("there are {}", pods.len()))
    });
}

/// Removes what agents have left on the nodes.
pub(crate) fn forget(world: &World) {
    world.import_image();
    world.cluster.apply(&World::manifest("remove.yaml")).unwrap();
    let words = ["rollout", "status", "daemonset/enforcer-remove", "-n", SYSTEM, "--timeout=120s"];
    world.cluster.ask(&words).unwrap();
    world.cluster.ask(&["delete", "daemonset/enforcer-remove", "-n", SYSTEM]).unwrap();
}
