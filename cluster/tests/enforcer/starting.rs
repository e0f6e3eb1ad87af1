//! Pods that connect as their first act: those that may not never do, and under the gate those that
//! may do at once.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe, Tries,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::World,
};

/// A pod that connects as soon as it starts.
#[derive(Debug)]
pub(crate) struct Starts {
    name: String,
    node: String,
}

impl Starts {
    /// A pod of this name on a node.
    pub(crate) fn new(name: &str, node: &str) -> Self {
        Self { name: name.to_owned(), node: node.to_owned() }
    }

    /// It tries for four seconds; `app` is its label.
    pub(crate) fn connect(&self, target: &str, app: &str) -> PodSpec {
        let words = format!("connect {target} --first-act --rate 10 --for 4 --timeout 0.5");
        PodSpec::new(&self.name, &self.node, &words).once().label("app", app)
    }
}

/// Waits until these pods have ended; gives what their tries came to, by name.
pub(crate) fn finished(space: &Namespace<'_>, names: &[String]) -> Vec<(String, Tries)> {
    let phases = || -> BTreeMap<String, Value> {
        let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        space.objects().iter().map(|pod| (name(pod), pod["status"]["phase"].clone())).collect()
    };
    poll::until("the end of the pods that connect", Duration::from_secs(180), || {
        let phases = phases();
        let unfinished = names
            .iter()
            .find(|name| !matches!(phases[*name].as_str(), Some("Succeeded" | "Failed")));
        unfinished.map_or(Ok(()), |name| Err(format!("{name} is {}", phases[name])))
    });
    names.iter().map(|name| (name.clone(), Tries::read(&space.ask(&["logs", name])))).collect()
}

/// What came of pods that may connect, or may not.
#[derive(Debug, Default)]
struct Counts {
    pods: usize,
    /// Their first try was answered.
    at_once: usize,
    /// Some try was answered.
    ever: usize,
    /// How long the slowest took to come through, in milliseconds.
    slowest: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pods, at_once, ever, slowest } = self;
        write!(f, "{ever} of {pods} came through, {at_once} at once, all within {slowest} ms")
    }
}

fn count(all: &[(String, Tries)], prefix: &str) -> Counts {
    let mut counts = Counts::default();
    for (_, tries) in all.iter().filter(|(name, _)| name.starts_with(prefix)) {
        counts.pods += 1;
        let first = &tries.lines[0];
        assert_eq!(first["first"], true, "{first}");
        counts.at_once += usize::from(first["ok"] == true);
        let at = |line: &Value| line["at"].as_u64().unwrap();
        if let Some(through) = tries.lines.iter().find(|line| line["ok"] == true) {
            counts.ever += 1;
            counts.slowest = counts.slowest.max(at(through) - at(first));
        }
    }
    counts
}

/// Starts pods of both kinds on both nodes, a few at a time.
fn start(world: &World, name: &str, pods: usize) -> (Counts, Counts) {
    let space = Namespace::new(world, name, &[]);
    let server = space.pod(&PodSpec::server("server", "node2"));
    let deny = json!({"podSelector": {"matchLabels": {"app": "shut"}}, "policyTypes": ["Egress"]});
    space.policy("shut", deny);
    let to_server = json!({"podSelector": {"matchLabels": {"app": "server"}}});
    let allow = json!({
        "podSelector": {"matchLabels": {"app": "allowed"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [to_server]}],
    });
    space.policy("allowed", allow);
    let target = server.port(80).to_string();
    let mut all = Vec::new();
    for batch in (0..pods).collect::<Vec<_>>().chunks(10) {
        let kinds = ["shut", "allowed"];
        let name = |kind: &str, number: usize| format!("{kind}-{number}");
        let specs: Vec<PodSpec> = batch
            .iter()
            .flat_map(|number| {
                let node = world.cluster.nodes()[number % 2].clone();
                kinds.map(|kind| Starts::new(&name(kind, *number), &node).connect(&target, kind))
            })
            .collect();
        space.create(&specs);
        let names: Vec<String> =
            batch.iter().flat_map(|number| kinds.map(|kind| name(kind, *number))).collect();
        all.extend(finished(&space, &names));
    }
    (count(&all, "shut"), count(&all, "allowed"))
}

/// Without the gate: closed until policy is in force.
pub(crate) fn closed(world: &World) {
    world.ensure_agents();
    let pods = world.amount(20, 200);
    let (shut, allowed) = start(world, "starting-closed", pods);
    println!("  without gate, denied: {shut}\n  without gate, allowed: {allowed}");
    assert_eq!((shut.pods, shut.ever), (pods, 0));
    assert_eq!((allowed.pods, allowed.ever), (pods, pods));
}

/// With the gate the runtime waits: the first connection of a pod is judged by its policy.
pub(crate) fn gate(world: &World) {
    world.import_image();
    world.roll_out(&World::manifest("enforcer-gate.yaml"));
    let pods = world.amount(20, 200);
    let (shut, allowed) = start(world, "starting-gate", pods);
    println!("  with gate, denied: {shut}\n  with gate, allowed: {allowed}");
    world.roll_out(&World::manifest("enforcer.yaml"));
    assert_eq!((shut.pods, shut.ever), (pods, 0));
    assert_eq!((allowed.pods, allowed.at_once), (pods, pods));
}

/// Without an agent on its node a pod starts unguarded, and those that are there stay guarded. The
/// agent that comes back guards both, and says which one it was.
pub(crate) fn unguarded(world: &World) {
    world.ensure_agents();
    let space = Namespace::new(world, "unguarded", &[]);
    let shut = |name| PodSpec::client(name, "node2").label("app", "shut");
    let pods = space.pods(&[PodSpec::server("server", "node1"), shut("early")]);
    let [server, early] = &pods[..] else { panic!("{pods:?}") };
    let deny = json!({"podSelector": {"matchLabels": {"app": "shut"}}, "policyTypes": ["Egress"]});
    space.policy("shut", deny);
    world.keep_agent_on("node1");
    let late = space.pod(&shut("late"));
    world.expect(
        "without an agent",
        &[Probe::tcp(early, server, 80, Denied), Probe::tcp(&late, server, 80, Allowed)],
    );
    world.let_agents_back();
    world.barrier();
    world.expect(
        "with an agent again",
        &[Probe::tcp(early, server, 80, Denied), Probe::tcp(&late, server, 80, Denied)],
    );
    let status = world.status(&world.agent("node2"), &[]);
    assert_eq!(status.json["report"]["unguarded"], json!(["unguarded/late"]), "{}", status.json);
}
