//! The checked-in manifests, applied to a cluster that has never seen the agent.

use crate::world::{SYSTEM, World};

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
