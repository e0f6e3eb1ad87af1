//! A pod whose interface cannot be seen from the node: nothing can be enforced on it, and that is said.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Lab, Manifests, Mode,
    api::{Api, NODE},
    spec::namespace_manifest,
    world::{must, shop_pods, shop_policies},
};

/// Longer than an agent waits for an interface that comes late.
const PATIENCE: Duration = Duration::from_secs(40);
const POD: &str = "shop/other";

#[test]
fn a_pod_whose_interface_cannot_be_seen_is_named() {
    let mut lab = must(Lab::new(Mode::PointToPoint));
    must(lab.add_pods(&shop_pods()));
    // A child of the node's uplink in the place of its veth.
    let pod = must(lab.pod(POD));
    let address = must(pod.address(false)).to_string();
    let (netns, host) = (pod.netns(), pod.host_interface());
    must(lab.node().command("ip", &["link", "del", host]));
    let child = ["link", "add", "child0", "link", "uplink0", "type", "macvlan"];
    must(lab.node().command("ip", &child));
    must(lab.node().command("ip", &["link", "set", "child0", "netns", netns.name()]));
    must(netns.command("ip", &["addr", "add", &address, "dev", "child0"]));
    must(netns.command("ip", &["link", "set", "child0", "up"]));

    let api = must(Api::start(lab.node(), lab.dir()));
    api.put(&namespace_manifest("shop"));
    for pod in shop_pods() {
        api.put(&pod.manifest());
    }
    api.put(&shop_policies());
    let options = AgentOptions {
        kubeconfig: Some(api.kubeconfig().to_owned()),
        flags: vec![format!("--node-name={NODE}")],
        ..AgentOptions::default()
    };
    let manifests = must(Manifests::new(lab.dir()));
    let agent = must(Agent::start(&lab, &manifests, options));
    let status = || must(agent.status());
    let named = || status()["report"]["not_enforced"].to_string();
    assert_eq!(named(), "[]", "it may only come late");
    let deadline = Instant::now() + PATIENCE;
    while !named().contains(POD) {
        assert!(Instant::now() < deadline, "{}", named());
        thread::sleep(Duration::from_millis(200));
    }
    let names = named();
    assert!(!names.contains("shop/client") && !names.contains("shop/server"), "{names}");
    assert!(names.contains("macvlan"), "{names}");
    let failure = status()["failure"].to_string();
    assert!(failure.contains("pod shop/other"), "{failure}");
}
