//! A real agent's start in a large cluster, which it reads from an API server or from manifests:
//! how long until policy is in force, and how much memory and processor time it needs for that.

use std::{
    fs,
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
    server::{Lists, Server},
};
use crate::table::{Row, Samples};

/// After the start, until nothing of it goes on any more.
const SETTLE: Duration = Duration::from_secs(3);
/// The kernel counts processor time in so many parts of a second, on all that it runs on.
const TICKS: f64 = 100.0;
/// The node of [`Cluster::local`].
const NODE: &str = "node-0";
/// A file of a manifests folder is to be well below what is read.
const LARGEST: usize = 8 << 20;

/// Where an agent reads the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum From {
    /// An API server that sends lists as streams.
    Streams,
    /// One that sends them whole.
    Lists,
    Manifests,
}

impl From {
    pub(super) const ALL: [Self; 3] = [Self::Streams, Self::Lists, Self::Manifests];

    const fn name(self) -> &'static str {
        match self {
            Self::Streams => "an API server",
            Self::Lists => "an API server without streams",
            Self::Manifests => "manifests",
        }
    }
}

/// What a start came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Start {
    pub(super) from: From,
    pub(super) pods: u32,
    /// Until `status --wait` has ended, s.
    pub(super) ready: f64,
    /// Processor time until then, s.
    pub(super) processor: f64,
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
            single(
                format!("{} pods from {}, to readiness", self.pods, self.from.name()),
                "s",
                self.ready,
            ),
            single("  processor time".into(), "s", self.processor),
            single("  resident at most".into(), "MiB", self.peak),
            single("  resident when settled".into(), "MiB", self.settled),
        ]
    }
}

/// Starts an agent.
pub(super) fn start(binary: &Path, pods: u32, from: From) -> Result<Start, AnyError> {
    let cluster = Cluster::new(Shape::of(pods));
    let mut lab = Lab::new(Mode::PointToPoint)?;
    let specs: Vec<PodSpec> = cluster
        .local()
        .map(|pod| PodSpec::new(&format!("{}/{}", pod.namespace, pod.name), &[pod.address]))
        .collect();
    lab.add_pods(&specs)?;
    let manifests = Manifests::new(lab.dir())?;
    let server = match from {
        From::Streams => Some(Server::start(&lab, pods, Lists::Streamed)?),
        From::Lists => Some(Server::start(&lab, pods, Lists::Whole)?),
        From::Manifests => {
            write(&manifests, &cluster)?;
            None
        }
    };
    drop(cluster);
    let options = AgentOptions {
        binary: Some(binary.to_owned()),
        kubeconfig: server.as_ref().map(|server| server.kubeconfig.clone()),
        flags: vec![format!("--node-name={NODE}")],
        ..AgentOptions::default()
    };
    let began = Instant::now();
    let agent = Agent::start(&lab, &manifests, options)?;
    let ready = began.elapsed().as_secs_f64();
    let line = |name| -> Result<f64, AnyError> {
        let text = agent.process_status(name)?;
        Ok(text.split(' ').next().unwrap_or_default().parse()?)
    };
    let processor = processor(line("Pid")?)?;
    thread::sleep(SETTLE);
    let (peak, settled) = (line("VmHWM")? / 1024.0, line("VmRSS")? / 1024.0);
    Ok(Start { from, pods, ready, processor, peak, settled })
}

/// Processor time of a process, s.
fn processor(pid: f64) -> Result<f64, AnyError> {
    let stat = fs::read_to_string(format!("/proc/{pid:.0}/stat"))?;
    used(&stat).ok_or_else(|| "no processor time of the agent".into())
}

/// Of a line of `/proc/PID/stat`: fields 14 and 15, of which the second is a name with anything in
/// it.
fn used(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(used(stat), Some(3.0));
        assert_eq!(used("7 (a"), None);
        assert!(processor(f64::from(std::process::id())).is_ok_and(|time| time < 1e6));
    }
}
