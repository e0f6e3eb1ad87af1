//! How long a pod takes to start, with and without an agent on its node.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::{
    namespace::{Namespace, PodSpec},
    network::Tries,
    poll,
    proxy::{Body, Proxy},
    world::{PATIENCE, World},
};

/// Pods a node and measurement; medians of fewer are chance.
const PODS: usize = 21;
/// How much later a pod may start because of the agent, beside the spread of the same run.
const MOST: f64 = 50.0;
/// On a busy machine one measurement says little; an agent that is slow is slow in all of them.
const ROUNDS: usize = 3;

/// Milliseconds of the epoch, as the workload writes them.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

/// From creation to first act, in milliseconds.
#[derive(Clone, Copy)]
struct Times {
    median: f64,
    /// From the median to the upper quartile: what the machine's other work does to a start.
    spread: f64,
}

/// From a pod's creation to its first act: one pod a node, in turns, so that what
/// else goes on meets both nodes alike.
fn measure(world: &World, proxy: &Proxy, round: &str) -> [Times; 2] {
    let space = Namespace::new(world, &format!("latency-{round}"), &[]);
    space.policy("some", json!({"podSelector": {}, "ingress": []}));
    let nodes = world.cluster.nodes();
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..PODS {
        // Each node comes first as often as the other.
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let node = &nodes[at];
            let name = format!("{node}-{number}");
            // Its own port: refused at once, and nobody else takes part.
            let words = "connect 127.0.0.1:9 --first-act --for 0.1";
            let spec = PodSpec::new(&name, node, words).once();
            let begun = now();
            let path = format!("/api/v1/namespaces/{}/pods", space.name);
            proxy.send("POST", &path, Body::Object(&space.object(&spec)));
            let tries = poll::until(&format!("the first act of {name}"), PATIENCE, || {
                let logs = world.cluster.ask(&["logs", &name, "-n", &space.name]);
                let logs = logs.map_err(|error| error.to_string())?;
                poll::holds(logs.contains("summary"), || logs.clone())?;
                Ok(Tries::read(&logs))
            });
            times[at].push(tries.lines[0]["at"].as_f64().unwrap() - begun);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        Times { median, spread: times[times.len() * 3 / 4] - median }
    })
}

/// Leaves the agent on node1 alone, and compares the nodes.
pub(crate) fn start(world: &World) {
    world.import_image();
    let proxy = Proxy::start(world);
    for (gate, manifest) in [("none", "enforcer.yaml"), ("nri", "enforcer-gate.yaml")] {
        world.roll_out(&World::manifest(manifest));
        world.keep_agent_on("node1");
        let mut least = f64::INFINITY;
        for round in 0..ROUNDS {
            let [with, without] = measure(world, &proxy, &format!("{gate}-{round}"));
            let more = with.median - without.median;
            println!(
                "  gate {gate}: from creation to the first act {:.0} ms with an agent, {:.0} ms \
                 without (medians of {PODS}; upper quartile {:.0} ms later): {more:+.0} ms",
                with.median, without.median, without.spread
            );
            least = least.min(more - without.spread);
            if least <= MOST {
                break;
            }
        }
        world.let_agents_back();
        assert!(least <= MOST, "an agent makes pods start {least:.0} ms later, beyond the spread");
    }
    world.roll_out(&World::manifest("enforcer.yaml"));
}
