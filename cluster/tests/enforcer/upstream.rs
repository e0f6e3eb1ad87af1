//! Kubernetes' own tests of network policy, of the cluster's version, against the agent. They try
//! every pod with every other by the address of a Service.

use std::time::Instant;

use enforcer_cluster::{ProxyMode, Spec, Upstream, Wanted};

use crate::world::World;

/// All that the kernel of a test machine can run: connections of SCTP need one that has it. (That
/// SCTP in a policy means nothing to TCP is among them.) Another version of Kubernetes may have
/// another number of tests: it is changed with a look at what they are.
const ALL: Wanted<'_> =
    Wanted { group: "Netpol", left_out: "[Feature:SCTPConnectivity]", parts: &[""], count: 47 };
/// Those that are tried again where kube-proxy works otherwise: their verdicts need the pod and the
/// port behind the Service, at both ends of a connection.
const AGAIN: Wanted<'_> = Wanted {
    parts: &[
        "should allow egress access on one named port",
        "should enforce policy based on PodSelector or NamespaceSelector",
        "should enforce except clause while egress access to server in CIDR block",
        "should work with Ingress, Egress specified together",
        "using UDP should enforce policy based on Ports",
    ],
    count: 5,
    ..ALL
};
/// One that no cluster passes in which nothing enforces policies.
const CANARY: Wanted<'_> = Wanted {
    parts: &["server and client should support a 'default-deny-ingress' policy"],
    count: 1,
    ..ALL
};

/// All of them with nftables, and the same with iptables in the long run.
pub(crate) fn network_policy(world: &World) {
    world.ensure_agents();
    let is_first = world.cluster.options().proxy == ProxyMode::Nftables;
    let wanted = if is_first || world.long { ALL } else { AGAIN };
    let failures = wanted.failures(&run(world, wanted));
    assert!(failures.is_empty(), "{} failures:\n  {}", failures.len(), failures.join("\n  "));
}

/// Where nothing enforces policies the tests fail: those that pass say something.
pub(crate) fn without_an_agent(world: &World) {
    let specs = run(world, CANARY);
    let states: Vec<&str> = specs.iter().map(|spec| spec.state.as_str()).collect();
    assert_eq!(states, ["failed"], "{specs:?}");
}

fn run(world: &World, wanted: Wanted<'_>) -> Vec<Spec> {
    let begun = Instant::now();
    let upstream = Upstream::find(world.cluster.layout()).unwrap();
    let specs = upstream.run(&world.cluster, wanted).unwrap();
    for Spec { name, state, seconds, .. } in &specs {
        println!("  {state:7} {seconds:3} s  {name}");
    }
    println!("  {} tests in {:.0} s", specs.len(), begun.elapsed().as_secs_f64());
    specs
}
