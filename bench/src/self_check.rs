//! What `--self-check` costs while it is on: time of its thread for a verdict and for a change, and
//! memory for the objects that it keeps for itself, in clusters of two sizes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use enforcer::{
    check::{Checked, Checker, Sample},
    cluster::event::{Event, Labels, Namespace, ObjectKey, Pod},
};
use enforcer_common::{abi::Direction, reason::Reason, verdict::proto::TCP};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::{
    BenchError,
    table::{Row, Samples},
};

/// Clusters, in pods.
const CLUSTERS: [u32; 2] = [1_000, 10_000];
/// Pods of a namespace, and policies.
const IN_NAMESPACE: u32 = 50;
const POLICIES: u32 = 10;
/// Verdicts of a round: as many as may wait.
const VERDICTS: u32 = 1_000;
const MS: u64 = 1_000_000;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// How often everything is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: u32,
}

/// Runs the benchmark. It needs no rights and makes nothing.
pub(crate) fn run(size: Size) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for pods in CLUSTERS {
        let measured = measure(pods, size)
            .map_err(|source| BenchError { what: "measure what a check costs", source })?;
        rows.extend(measured);
    }
    Ok(rows)
}

fn measure(pods: u32, size: Size) -> Result<Vec<Row>, AnyError> {
    // They stay: what is freed would be used again unseen. The agent shares their names, too.
    let events = objects(pods)?;
    let before = resident()?;
    let mut checker = Checker::default();
    for event in &events {
        checker.changes(event);
    }
    let memory = resident()? - before;
    let (mut verdicts, mut changes) = (Samples::new(), Samples::new());
    // Each round is a second later.
    for round in 1..=u64::from(size.rounds) {
        let now = round * 1_000 * MS;
        checker.settles(now, true);
        let samples: Vec<Sample> =
            (0..VERDICTS).map(|number| sample(number, pods, now + u64::from(number) + 1)).collect();
        verdicts.push(of_each(VERDICTS, || check(&mut checker, samples, now + 500 * MS))?);
        let changed: Vec<Event> =
            (0..VERDICTS).map(|number| Event::PodApplied(pod(number))).collect();
        changes.push(of_each(VERDICTS, || {
            // As the owning task tells them: each a copy.
            changed.iter().for_each(|event| checker.changes(&event.clone()));
            Ok(())
        })?);
    }
    let name =
        |what: &str| format!("{what}, {pods} pods, {} policies", pods / IN_NAMESPACE * POLICIES);
    Ok(vec![
        Row::new(&name("a verdict"), "ns of its thread", &verdicts, None),
        Row::new(&name("a pod's change"), "ns", &changes, None),
        Row::new(&name("its objects, in MiB"), "MiB", &Samples::of(memory), None),
    ])
}

/// Gives verdicts to the checker and has it judge them. All are right.
fn check(checker: &mut Checker, samples: Vec<Sample>, now: u64) -> Result<(), AnyError> {
    for sample in samples {
        if checker.take(sample).is_some() {
            return Err("there was no room for a verdict".into());
        }
    }
    let mut agree = 0;
    while let Some(checked) = checker.check(now) {
        match checked {
            Checked::Agrees => agree += 1,
            Checked::Differs(difference) => return Err(difference.to_string().into()),
            Checked::PassedOver => return Err("a verdict was passed over".into()),
        }
    }
    if agree == VERDICTS { Ok(()) } else { Err(format!("{agree} verdicts were checked").into()) }
}

/// Time of this thread on its processor for each, ns.
fn of_each(number: u32, work: impl FnOnce() -> Result<(), AnyError>) -> Result<f64, AnyError> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = now()?;
    work()?;
    Ok(now()?.saturating_sub(before).as_nanos() as f64 / f64::from(number))
}

/// Memory of this process, MiB.
fn resident() -> Result<f64, AnyError> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).ok_or("no second number in statm")?.parse()?;
    Ok(pages * 4096.0 / f64::from(1 << 20))
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn namespace(number: u32) -> Arc<str> {
    format!("team-{}", number / IN_NAMESPACE).into()
}

/// Whether policies let a pod in: every other one.
const fn is_client(number: u32) -> bool {
    number.is_multiple_of(2)
}

fn pod(number: u32) -> Pod {
    let mut labels: Labels =
        (0..8).map(|label| (format!("example.org/label-{label}"), "value")).collect();
    if is_client(number) {
        labels = labels.with("role", "client");
    }
    Pod {
        key: ObjectKey {
            namespace: namespace(number),
            name: format!("web-5d9f7c6b4d-{number}").into(),
        },
        uid: format!("{number:036}").into(),
        labels,
        addresses: vec![address(number)],
        host_network: false,
        finished: false,
        terminating: false,
        started: 1,
        containers_started: Some(2),
        ports: Vec::new(),
        node: Some("w1".into()),
        workload: None,
    }
}

/// The objects of a cluster: in each namespace ten policies for all of its pods, of which one lets
/// clients in.
fn objects(pods: u32) -> Result<Vec<Event>, AnyError> {
    let mut events = Vec::new();
    for first in (0..pods).step_by(IN_NAMESPACE as usize) {
        let name = namespace(first);
        events.push(Event::NamespaceApplied(Namespace {
            name: Arc::clone(&name),
            labels: Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_string())]),
        }));
        for policy in 0..POLICIES {
            let role =
                if policy + 1 == POLICIES { "client".to_owned() } else { format!("r{policy}") };
            let object = json!({
                "metadata": {"namespace": &*name, "name": format!("policy-{policy}")},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"role": role}}}],
                    "ports": [{"port": 443, "protocol": "TCP"}],
                }]},
            });
            events.push(Event::PolicyApplied(Box::new(serde_json::from_value(object)?)));
        }
    }
    events.extend((0..pods).map(|number| Event::PodApplied(pod(number))));
    Ok(events)
}

/// A verdict at a pod about another one of its namespace.
fn sample(number: u32, pods: u32, time: u64) -> Sample {
    let own = number.wrapping_mul(7919) % pods;
    let first = own - own % IN_NAMESPACE;
    let peer = first + number % IN_NAMESPACE;
    let (subject, other) = (pod(own), pod(peer));
    Sample {
        time,
        subject: subject.key,
        uid: subject.uid.to_string(),
        peer: Some(other.key),
        direction: Direction::Ingress,
        source: address(peer),
        destination: address(own),
        protocol: TCP,
        port: 443,
        reason: if is_client(peer) { Reason::Allowed } else { Reason::PolicyDenied },
        rule: None,
    }
}
