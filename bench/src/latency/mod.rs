//! From a change in the manifests to the first packet judged by it: a real agent that knows many
//! pods and policies, two pods, a datagram every half millisecond, and a label that opens or closes
//! the way, while two other pods open connections one after the other.

mod background;
mod load;
mod way;

use std::{
    net::IpAddr,
    path::Path,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Lab, Manifests, Mode, PodSpec, spec::namespace_manifest,
};

use crate::{
    BenchError,
    table::{Row, Samples},
};
use load::Load;
use way::{STEP, Way};

/// A change that is not in force by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// The way counts as closed after so long without a datagram.
const SILENCE: Duration = Duration::from_millis(150);

/// How much the agent knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Pods that the changes do not concern.
    pub(crate) pods: u32,
    /// Policies that they do not concern.
    pub(crate) policies: u32,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the benchmark with the agent `binary` at each size, `changes` in each direction.
pub(crate) fn run(binary: &Path, sizes: &[Size], changes: u32) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for size in sizes {
        let of_this = measure(binary, *size, changes)
            .map_err(|source| BenchError { what: "measure the latency of a change", source })?;
        rows.extend(of_this);
    }
    Ok(rows)
}

fn measure(binary: &Path, size: Size, changes: u32) -> Result<Vec<Row>, AnyError> {
    let mut lab = Lab::new(Mode::PointToPoint)?;
    let client = PodSpec::numbered("bench/client", 1).label("app", "client");
    let server = PodSpec::numbered("bench/server", 2).label("app", "server");
    let [caller, called] = [("bench/caller", 3), ("bench/called", 4)]
        .map(|(name, number)| PodSpec::numbered(name, number).label("app", "busy"));
    lab.add_pods(&[client.clone(), server.clone(), caller.clone(), called.clone()])?;
    let manifests = Manifests::new(lab.dir())?;
    background::write(&manifests, size)?;
    manifests.write("bench.yaml", &namespace_manifest("bench"))?;
    for (file, pod) in
        [("client", &client), ("server", &server), ("caller", &caller), ("called", &called)]
    {
        manifests.write(&format!("{file}.yaml"), &pod.manifest())?;
    }
    manifests.write("policy.yaml", POLICY)?;
    let options = AgentOptions { binary: Some(binary.to_owned()), ..AgentOptions::default() };
    let agent = Agent::start(&lab, &manifests, options)?;

    let [from, to, caller, called] =
        ["bench/client", "bench/server", "bench/caller", "bench/called"].map(|name| lab.pod(name));
    let (from, to, caller, called) = (from?, to?, caller?, called?);
    let target: IpAddr = to.address(false)?;
    let way = Way::new();
    let load = Load::to(called.address(false)?);
    let samples = thread::scope(|scope| {
        let workers = [
            scope.spawn(|| to.netns().run(|| way.receive(target))),
            scope.spawn(|| from.netns().run(|| way.send(target))),
            scope.spawn(|| called.netns().run(|| load.answer(&way.end))),
            scope.spawn(|| caller.netns().run(|| load.ask(&way.end))),
        ];
        let samples = change(&manifests, &client, &way, changes);
        way.end.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_panic| "a traffic thread panicked")???;
        }
        samples
    });
    drop(agent);
    let [opens, closes] = samples?;
    let rate = load.rate();
    let about = |what: &str| {
        let Size { pods, policies } = size;
        format!("{what} ({pods} pods, {policies} policies)")
    };
    let mut rows = Vec::new();
    for (what, samples) in [("a label opens a way", opens), ("a label closes it", closes)] {
        let unit = "ms to the first packet judged by the change";
        rows.push(Row::new(&about(what), unit, &samples, None));
        for (what, share) in [("  99 %", 0.99), ("  worst", 1.0)] {
            rows.push(Row::new(what, "ms", &Samples::of(samples.quantile(share)), None));
        }
    }
    rows.push(Row::new("  connections beside it", "a second", &Samples::of(rate), None));
    Ok(rows)
}

const POLICY: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: bench}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {access: granted}}}]
    ports: [{protocol: UDP, port: 7777}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: busy, namespace: bench}
spec:
  podSelector: {matchLabels: {app: busy}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: busy}}}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: busy}}}]}]
";

/// Toggles the label; how long each change took, in ms: opening, closing.
fn change(
    manifests: &Manifests,
    client: &PodSpec,
    way: &Way,
    changes: u32,
) -> Result<[Samples; 2], AnyError> {
    let mut samples = [Samples::default(), Samples::default()];
    let granted = client.clone().label("access", "granted").manifest();
    let denied = client.manifest();
    thread::sleep(SILENCE);
    for _ in 0..changes {
        let since = Instant::now();
        manifests.write("client.yaml", &granted)?;
        while way.last() < since {
            if since.elapsed() > PATIENCE {
                return Err("the way did not open".into());
            }
            thread::sleep(STEP / 2);
        }
        samples[0].push((way.last() - since).as_secs_f64() * 1e3);
        // Long enough that the flow is established in every sense.
        thread::sleep(Duration::from_millis(20));
        let since = Instant::now();
        manifests.write("client.yaml", &denied)?;
        while way.last().elapsed() < SILENCE {
            if since.elapsed() > PATIENCE {
                return Err("the way did not close".into());
            }
            thread::sleep(STEP);
        }
        samples[1].push(way.last().saturating_duration_since(since).as_secs_f64() * 1e3);
    }
    Ok(samples)
}
