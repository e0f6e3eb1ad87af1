//! Kubernetes' own tests of network policy, of the cluster's version, against the agent. They try
//! every pod with every other by the address of a Service.

use std::time::Instant;

use enforcer_cluster::{ProxyMode, Spec, Upstream, Wanted};

use crate::{install, world::World};

/// All that the kernel of a test machine can run: connections of SCTP need one that has it. (That
/// SCTP in a policy means nothing to TCP is among them.) Another version of Kubernetes may have
/// another number of tests: it is changed with a look at what they are.
const ALL: Wanted<'_> =
    Wanted { group: "Netpol", left_out: "[Feature:SCTPConnectivity]", parts: &[""], count: 47 };
/// Those that are tried again where kube-proxy works otherwise: the sender's policy decides, which
/// needs the pod and the port behind the Service.
const AGAIN: Wanted<'_> = Wanted {
    parts: &[
        "should allow egress access on one named port",
        "should allow egress access to server in CIDR block",
        "should enforce egress policy allowing traffic to a server in a different namespace",
        "should enforce except clause while egress access to server in CIDR block",
        "NamespaceSelector with MatchExpressions using default ns label",
        "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
        "should support denying of egress traffic on the client side",
        "should work with Ingress, Egress specified together",
    ],
    count: 8,
    ..ALL
};
/// One that no cluster passes in which nothing enforces policies.
const CANARY: Wanted<'_> =
    Wanted { parts: &["should deny egress from pods based on PodSelector"], count: 1, ..ALL };

/// All of them with nftables, and in the long run with iptables too, twice.
pub(crate) fn network_policy(world: &World) {
    world.ensure_agents();
    let is_first = world.cluster.options().proxy == ProxyMode::Nftables;
    let wanted = if is_first || world.long { ALL } else { AGAIN };
    let failures: Vec<String> =
        (0..world.amount(1, 2)).flat_map(|_round| wanted.failures(&run(world, wanted))).collect();
    assert!(failures.is_empty(), "{} failures:\n  {}", failures.len(), failures.join("\n  "));
}

/// Where nothing enforces policies the tests fail: those that pass say something.
pub(crate) fn without_an_agent(world: &World) {
    install::take_away(world);
    install::forget(world);
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
