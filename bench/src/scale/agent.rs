//! A real agent's start in a large cluster, which it reads from manifests: how long until policy is
//! in force, and how much memory it needs for that.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{Agent, AgentOptions, Lab, Manifests, Mode, PodSpec};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    AnyError,
    cluster::{Cluster, Shape},
};
use crate::table::{Row, Samples};

/// After the start, until nothing of it goes on any more.
const SETTLE: Duration = Duration::from_secs(3);
/// A file of a manifests folder is to be well below what is read.
const LARGEST: usize = 8 << 20;

/// What a start came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Start {
    pub(super) pods: u32,
    /// Until `status --wait` has ended, s.
    pub(super) ready: f64,
    /// Resident memory at its most, MiB.
    pub(super) peak: f64,
    /// Resident memory when it has settled, MiB.
    pub(super) settled: f64,
}

impl Start {
    pub(super) fn rows(&self) -> Vec<Row> {
        let single = |name: String, unit, value| {
            Row::new(&format!("{name}, {unit}"), unit, &Samples::of(value), None)
        };
        vec![
            single(format!("an agent with {} pods, to readiness", self.pods), "s", self.ready),
            single("  resident at most".into(), "MiB", self.peak),
            single("  resident when settled".into(), "MiB", self.settled),
        ]
    }
}

/// Starts an agent.
pub(super) fn start(binary: &Path, pods: u32) -> Result<Start, AnyError> {
    let cluster = Cluster::new(Shape::of(pods));
    let mut lab = Lab::new(Mode::PointToPoint)?;
    let specs: Vec<PodSpec> = cluster
        .local()
        .map(|pod| PodSpec::new(&format!("{}/{}", pod.namespace, pod.name), &[pod.address]))
        .collect();
    lab.add_pods(&specs)?;
    let manifests = Manifests::new(lab.dir())?;
    write(&manifests, &cluster)?;
    drop(cluster);
    let options = AgentOptions { binary: Some(binary.to_owned()), ..AgentOptions::default() };
    let began = Instant::now();
    let agent = Agent::start(&lab, &manifests, options)?;
    let ready = began.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    let memory = |line| -> Result<f64, AnyError> {
        let text = agent.process_status(line)?;
        let number = text.split(' ').next().unwrap_or_default();
        Ok(number.parse::<f64>()? / 1024.0)
    };
    Ok(Start { pods, ready, peak: memory("VmHWM")?, settled: memory("VmRSS")? })
}

/// Writes everything as lists, in files of a few mebibytes.
fn write(manifests: &Manifests, cluster: &Cluster) -> Result<(), AnyError> {
    let objects = (cluster.namespaces.iter().map(|of| of.manifest()))
        .chain(cluster.pods.iter().map(|of| of.manifest()))
        .chain(cluster.services.iter().flat_map(|of| of.manifests()))
        .chain(cluster.policies.iter().cloned());
    let (mut items, mut size, mut number) = (Vec::<Value>::new(), 0, 0);
    let list = |items: &mut Vec<Value>| {
        json!({"apiVersion": "v1", "kind": "List", "items": std::mem::take(items)}).to_string()
    };
    for object in objects {
        size += object.to_string().len();
        items.push(object);
        if size > LARGEST {
            manifests.write(&format!("{number}.json"), &list(&mut items))?;
            (size, number) = (0, number + 1);
        }
    }
    Ok(manifests.write(&format!("{number}.json"), &list(&mut items))?)
}
