//! What NetworkPolicies mean, between pods of one node and of two.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    world::World,
};

/// A policy for one pod's ingress.
fn ingress(to: &str, rules: Value) -> Value {
    json!({
        "podSelector": {"matchLabels": {"app": to}},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    })
}

/// A range of one address.
fn alone(address: &IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn peer(app: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": app}}})
}

/// By label, by namespace, by named and numbered port, by address range with exceptions.
pub(crate) fn semantics(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "policies", &[]);
    let other = Namespace::new(world, "policies-other", &[("team", "blue")]);
    let pods = space.pods(&[
        PodSpec::server("server", "node2"),
        PodSpec::client("near", "node2"),
        PodSpec::client("far", "node1"),
        PodSpec::client("host-near", "node2").host_network(),
        PodSpec::client("host-far", "node1").host_network(),
        PodSpec::server("open", "node1"),
    ]);
    let [server, near, far, host_near, host_far, open] = &pods[..] else { panic!("{pods:?}") };
    let strangers = other.pods(&[
        PodSpec::client("stranger-near", "node2"),
        PodSpec::client("stranger-far", "node1").label("role", "auditor"),
    ]);
    let [stranger_near, stranger_far] = &strangers[..] else { panic!("{strangers:?}") };
    let everyone = [near, far, host_near, host_far, stranger_near, stranger_far];

    let all = everyone.map(|pod| Probe::tcp(pod, server, 80, Allowed));
    world.expect("without a policy", &all);
    world.expect("UDP without a policy", &everyone.map(|pod| Probe::udp(pod, server, 81, Allowed)));

    // Nobody but the pod's own node.
    space.policy("server", ingress("server", json!([])));
    let denied = |pod| Probe::tcp(pod, server, 80, Denied);
    world.expect(
        "default deny",
        &[
            Probe::tcp(host_near, server, 80, Allowed),
            denied(near),
            denied(far),
            denied(host_far),
            denied(stranger_near),
            denied(stranger_far),
            Probe::udp(far, server, 81, Denied),
            Probe::tcp(far, open, 80, Allowed),
            Probe::tcp(near, open, 80, Allowed),
        ],
    );

    // By label; the namespace is the policy's own.
    space.policy("server", ingress("server", json!([{"from": [peer("near"), peer("far")]}])));
    world.expect(
        "by label",
        &[
            Probe::tcp(near, server, 80, Allowed),
            Probe::tcp(far, server, 81, Allowed),
            Probe::udp(far, server, 81, Allowed),
            denied(stranger_near),
            denied(stranger_far),
            denied(host_far),
        ],
    );

    // By namespace and label in one peer: both must hold.
    let both = json!({
        "namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchExpressions": [{"key": "role", "operator": "Exists"}]},
    });
    space.policy("server", ingress("server", json!([{"from": [both]}])));
    world.expect(
        "by namespace and label",
        &[
            denied(near),
            denied(far),
            denied(stranger_near),
            Probe::tcp(stranger_far, server, 80, Allowed),
        ],
    );
    let namespace = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}});
    space.policy("server", ingress("server", json!([{"from": [namespace]}])));
    world.expect(
        "by namespace",
        &[
            denied(near),
            Probe::tcp(stranger_near, server, 80, Allowed),
            Probe::tcp(stranger_far, server, 80, Allowed),
        ],
    );

    // By port: a name, a number, a protocol.
    let rules = json!([
        {"from": [peer("near")], "ports": [{"port": "http"}]},
        {"from": [peer("far")], "ports": [{"port": 81, "protocol": "UDP"}]},
    ]);
    space.policy("server", ingress("server", rules));
    world.expect(
        "by port",
        &[
            Probe::tcp(near, server, 80, Allowed),
            Probe::tcp(near, server, 81, Denied),
            Probe::udp(far, server, 81, Allowed),
            Probe::tcp(far, server, 81, Denied),
            Probe::tcp(far, server, 80, Denied),
        ],
    );

    // By address, with exceptions; another rule takes an exception back for one of them.
    let block = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    let mut pods = [block("10.212.0.0/16"), block("fd4e:f0ce:1::/56")];
    for (number, block) in pods.iter_mut().enumerate() {
        // The second family, where the cluster has it.
        let except = [far, stranger_near].map(|pod| pod.addresses.get(number).map(alone));
        block["ipBlock"]["except"] = except.into_iter().flatten().collect();
    }
    let again: Vec<Value> =
        stranger_near.addresses.iter().map(|address| block(&alone(address))).collect();
    let rules = json!([{"from": pods}, {"from": again, "ports": [{"port": 80}]}]);
    space.policy("server", ingress("server", rules));
    world.expect(
        "by address",
        &[
            Probe::tcp(near, server, 80, Allowed),
            Probe::tcp(stranger_far, server, 80, Allowed),
            denied(far),
            denied(host_far),
            Probe::tcp(stranger_near, server, 80, Allowed),
            Probe::tcp(stranger_near, server, 81, Denied),
        ],
    );
    // Another node is known by its address alone.
    let nodes = ["10.211.0.0/24", "fd4e:f0ce::/64"].map(block);
    space.policy("server", ingress("server", json!([{"from": nodes}])));
    world.expect(
        "by a node's address",
        &[
            Probe::tcp(host_far, server, 80, Allowed),
            Probe::tcp(host_near, server, 80, Allowed),
            denied(near),
        ],
    );

    // The sender's side.
    space.policy("server", ingress("server", json!([{}])));
    let egress = json!({
        "podSelector": {"matchLabels": {"app": "far"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [peer("server")], "ports": [{"port": 80}]}],
    });
    space.policy("far", egress);
    world.expect(
        "egress",
        &[
            Probe::tcp(far, server, 80, Allowed),
            Probe::tcp(far, server, 81, Denied),
            Probe::tcp(far, open, 80, Denied),
            Probe::tcp(near, open, 80, Allowed),
        ],
    );
    space.ask(&["delete", "networkpolicy", "--all"]);
    world.barrier();
    let mut all: Vec<_> = everyone.map(|pod| Probe::tcp(pod, server, 80, Allowed)).into();
    all.push(Probe::tcp(far, open, 80, Allowed));
    world.expect("after the policies", &all);
}

/// `kubectl apply`, `status --wait`, and the very next connection is judged by it.
pub(crate) fn barrier(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "barrier", &[]);
    let pods =
        space.pods(&[PodSpec::server("server", "node1"), PodSpec::client("client", "node2")]);
    let [server, client] = &pods[..] else { panic!("{pods:?}") };
    for round in 0..world.amount(3, 10) {
        space.policy("server", ingress("server", json!([])));
        let when = format!("round {round}");
        world.expect(&when, &[Probe::tcp(client, server, 80, Denied)]);
        let selected = world.status(&world.agent("node1"), &["--for=policy/barrier/server"]);
        let policies = selected.json["report"]["policies"].as_array().cloned().unwrap_or_default();
        let own = policies.iter().find(|policy| policy["policy"] == "barrier/server").unwrap();
        assert_eq!((&own["selected"], &own["enforced"]), (&json!(1), &json!(1)), "{own}");
        // A label is enough, too.
        space.policy("server", ingress("server", json!([{"from": [peer("friend")]}])));
        world.expect(&when, &[Probe::tcp(client, server, 80, Denied)]);
        space.ask(&["label", "pod", "client", "app=friend", "--overwrite"]);
        world.barrier();
        world.expect(&when, &[Probe::tcp(client, server, 80, Allowed)]);
        space.ask(&["label", "pod", "client", "app=client", "--overwrite"]);
        world.barrier();
        world.expect(&when, &[Probe::tcp(client, server, 80, Denied)]);
    }
}

/// The kubelet is the pod's own node, whatever the policies say.
pub(crate) fn probes(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "probes", &[]);
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    space.policy("deny", deny);
    let mut spec = PodSpec::server("probed", "node1");
    let probe = json!({
        "tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 2, "timeoutSeconds": 5,
    });
    spec.container()["readinessProbe"] = probe.clone();
    spec.container()["livenessProbe"] = probe;
    // Ready means that probes have passed under the policy, which was there before the pod.
    let probed = space.pod(&spec);
    let client = space.pod(&PodSpec::client("client", "node1"));
    world.expect("default deny", &[Probe::tcp(&client, &probed, 80, Denied)]);
    std::thread::sleep(std::time::Duration::from_secs(5));
    let after = space.ready("probed");
    assert_eq!(after.container.id, probed.container.id, "it was not restarted");
}
