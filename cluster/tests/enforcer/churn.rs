//! Pods come and go, and nothing of them stays.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::{
    namespace::{Namespace, PodSpec},
    poll,
    world::World,
};

/// What a node holds for its pods.
#[derive(Clone, Debug, PartialEq)]
struct Footprint {
    /// Entries by map, as the agent counts: those that pods bring.
    maps: BTreeMap<String, u64>,
    /// Pinned links, two for each pod.
    links: usize,
}

/// Maps of the node's own addresses and of the cluster's Services: pods bring nothing to them, but the
/// network plugin gives the node one for its first pod, and a Service that is gone lingers.
const NOT_OF_PODS: [&str; 2] = ["NODE_ADDRS", "SERVICES"];

/// How much more memory an agent may have afterwards, in KiB: what allocators keep.
const SLACK: u64 = 8 * 1024;

/// Entries by map, of those that pods bring and of the others.
fn entries(world: &World, node: &str) -> [BTreeMap<String, u64>; 2] {
    let status = world.status(&world.agent(node), &[]);
    let maps = status.json["report"]["maps"].as_array().unwrap().iter();
    let (others, of_pods) = maps
        .map(|map| (map["name"].as_str().unwrap().to_owned(), map["entries"].as_u64().unwrap()))
        .partition(|(name, _)| NOT_OF_PODS.contains(&name.as_str()));
    [of_pods, others]
}

fn footprint(world: &World, node: &str) -> Footprint {
    let [maps, _] = entries(world, node);
    // Where packets leave there is one, and one for what the node itself receives of each family,
    // whatever the pods.
    let words = ["find", "/sys/fs/bpf/enforcer", "-path", "*/links/*", "-not", "-name", "*-node"];
    let words = [&words[..], &["-not", "-name", "input-*"]].concat();
    let links = world.cluster.run_in(node, &words).unwrap().lines().count();
    Footprint { maps, links }
}

/// Resident memory of a node's agent, in KiB.
fn memory(world: &World, node: &str) -> u64 {
    let field = world.process_field(&world.agent(node).container, "VmRSS");
    field.trim_end_matches(" kB").parse().unwrap()
}

/// Makes pods with policies and connections, and removes them all.
fn round(world: &World, number: usize, pods: usize) -> usize {
    let space = Namespace::new(world, &format!("churn-{number}"), &[]);
    let own = json!({"podSelector": {"matchLabels": {"app": "server"}}});
    let range = json!({"ipBlock": {"cidr": format!("10.{number}.0.0/16")}});
    let spec = json!({"podSelector": {}, "ingress": [{"from": [own, range]}]});
    space.policy("churn", spec);
    let names: Vec<String> = (0..pods).map(|pod| format!("pod-{pod}")).collect();
    let specs: Vec<PodSpec> = names
        .iter()
        .zip(world.cluster.nodes().iter().cycle())
        .map(|(name, node)| PodSpec::server(name, node))
        .collect();
    space.pods(&specs);
    world.barrier();
    let most = world.cluster.nodes().iter().map(|node| footprint(world, node).links).sum();
    space.ask(&["delete", "pods", "--all", "--wait=true"]);
    space.ask(&["delete", "networkpolicy", "churn"]);
    world.cluster.ask(&["delete", "namespace", &space.name]).unwrap();
    world.barrier();
    most
}

/// Maps, links and the agents' memory are afterwards as they were.
pub(crate) fn churn(world: &World) {
    world.ensure_agents();
    let nodes = world.cluster.nodes();
    let settle = |before: &[Footprint]| {
        poll::until("the end of all that the pods had", Duration::from_secs(90), || {
            let now: Vec<_> = nodes.iter().map(|node| footprint(world, node)).collect();
            poll::holds(now == before, || format!("{now:?}, not {before:?}"))
        });
    };
    // Other tests' pods are gone, and what is made once is made.
    poll::until("the end of other tests' pods", Duration::from_secs(90), || {
        let pods = world.objects(&["get", "pods", "-A"]);
        poll::holds(pods.len() == nodes.len(), || format!("{} pods", pods.len()))
    });
    let (pods, rounds) = (world.amount(20, 100), world.amount(3, 10));
    poll::until("interfaces of no pod", Duration::from_secs(90), || {
        let links: Vec<_> = nodes.iter().map(|node| footprint(world, node).links).collect();
        poll::holds(links.iter().all(|links| *links == 0), || format!("{links:?}"))
    });
    let before: Vec<Footprint> = nodes.iter().map(|node| footprint(world, node)).collect();
    round(world, 0, pods);
    settle(&before);
    let others =
        || -> Vec<_> { nodes.iter().map(|node| entries(world, node)[1].clone()).collect() };
    let others_before = others();
    let memory_before: Vec<u64> = nodes.iter().map(|node| memory(world, node)).collect();
    for number in 1..=rounds {
        // Two programs a pod: the count sees what it is to see.
        assert_eq!(round(world, number, pods), 2 * pods);
    }
    settle(&before);
    for (before, after) in others_before.iter().zip(others()) {
        assert!(after.iter().all(|(map, now)| *now <= before[map]), "{after:?}, {before:?} before");
    }
    let memory_after: Vec<u64> = nodes.iter().map(|node| memory(world, node)).collect();
    for (node, (before, after)) in nodes.iter().zip(memory_before.iter().zip(&memory_after)) {
        println!("  the agent of {node}: {before} KiB before, {after} KiB after");
        assert!(*after <= before + SLACK, "{rounds} rounds of {pods} pods stay in memory");
    }
}
