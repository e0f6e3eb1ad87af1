//! What one flow costs from the kernel's record to the ring of flows: decoded, named, kept, and as
//! the agent does it, with the metrics and insights that are made of each. Time of the thread's own
//! on its processor, so that others on the machine count little.

use std::{
    fs,
    mem::size_of,
    net::{IpAddr, Ipv4Addr},
    panic::resume_unwind,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer::{
    cluster::{
        event::{Labels, ObjectKey, Workload},
        plan::{NameChange, PodIdentity, RuleIdentity},
    },
    dataplane::monotonic,
    flow::{
        decode::decode,
        event::Flow,
        reading::{Exhausted, Onlooker, Reading, Records, Renamed, Turn},
        ring::FlowRing,
    },
    insight::{InsightConfig, Insights},
    metrics::{Metrics, flows::FlowMetricsConfig},
    policy::{
        compile,
        rule::{Isolating, PortScope, Scope},
    },
};
use enforcer_common::{
    abi::{Addr, Direction, EVENT_TRANSLATED, Event, event_kind, lane, rule},
    reason::Reason,
};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};

use crate::{
    BenchError, program,
    table::{Row, Samples},
};

/// What a flow may cost: 500,000 a second on one processor.
const GOAL: f64 = 2_000.0;
/// Flows that are kept: what `--flow-buffer` is by default.
const KEPT: usize = 65_535;
/// Pods that have names, and local ones among them.
const PODS: u32 = 5_000;
const LOCAL: u32 = 100;
/// Records in a round.
const RECORDS: u32 = 100_000;
/// Records that the kernel's ring certainly has room for.
const IN_KERNEL: u32 = 20_000;

/// How often everything is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: u32,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the benchmark, on a thread in a network namespace of its own.
pub(crate) fn run(size: Size) -> Result<Vec<Row>, BenchError> {
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(AnyError::from)?;
        measure(size)
    };
    thread::spawn(work)
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))
        .map_err(|source| BenchError { what: "measure what a flow costs", source })
}

fn measure(size: Size) -> Result<Vec<Row>, AnyError> {
    let mut samples = [const { Samples::new() }; 6];
    let verdicts = images((0..RECORDS).map(verdict));
    // First: what was freed before would be used again unseen.
    let memory = memory(&verdicts)?;
    let services = images((0..RECORDS / 2).flat_map(to_service));
    let mut reading = named();
    let mut service_reading = named();
    let mut real = named();
    let mut seen = seen(named());
    let mut seen_real = self::seen(named());
    let mut programs = program::Bench::new()?;
    programs.open()?;
    // What setting up has told.
    turns(&mut real, programs.rings())?;
    for round in 0..size.rounds + 1 {
        let measured = [
            of_each(RECORDS, || {
                let decoded = verdicts.chunks_exact(size_of::<Event>()).map(decode);
                Ok(u32::try_from(decoded.flatten().filter(|raw| raw.dst_port != 0).count())?)
            })?,
            of_each(RECORDS, || turns(&mut reading, &mut Prepared::new(&verdicts)))?,
            of_each(RECORDS, || turns(&mut service_reading, &mut Prepared::new(&services)))?,
            {
                programs.send_new(2 * round, IN_KERNEL)?;
                of_each(IN_KERNEL, || turns(&mut real, programs.rings()))?
            },
            of_each(RECORDS, || turns(&mut seen, &mut Prepared::new(&verdicts)))?,
            {
                programs.send_new(2 * round + 1, IN_KERNEL)?;
                of_each(IN_KERNEL, || turns(&mut seen_real, programs.rings()))?
            },
        ];
        // The first round warms up, and fills the ring of flows.
        if round > 0 {
            samples.iter_mut().zip(measured).for_each(|(samples, time)| samples.push(time));
        }
    }
    let goal = Some(("what 500,000 a second on one core may cost", GOAL));
    let names = [
        ("decoded", None),
        ("decoded, named and kept", goal),
        ("the same, to Services: two records a flow", goal),
        ("the same from the kernel's ring", goal),
        ("decoded, named, counted, looked at and kept", goal),
        ("the same from the kernel's ring", goal),
    ];
    let rows = names.into_iter().zip(&samples);
    let mut rows: Vec<_> =
        rows.map(|((name, goal), samples)| Row::new(name, "ns a record", samples, goal)).collect();
    let limit = Some(("the limit of 64 MiB", 64.0));
    rows.push(Row::new("65,535 flows kept, in MiB", "MiB", &Samples::of(memory), limit));
    Ok(rows)
}

/// The agent's onlookers: its metrics and its insights, both as they are by default.
fn seen(reading: Reading) -> Reading {
    #[derive(Debug)]
    struct Looking(Insights);

    impl Onlooker for Looking {
        fn look(&mut self, flow: &Flow) {
            self.0.look(flow, &mut |insight| drop(std::hint::black_box(insight)));
        }
    }

    let config = InsightConfig::default();
    let (_metrics, counting) =
        Metrics::with_flows(Instant::now(), &FlowMetricsConfig::default(), "w1", config.learning);
    reading.seen_by(counting).seen_by(Looking(Insights::new(config)))
}

/// By how much the process grows while the ring of flows fills, MiB.
fn memory(verdicts: &[u8]) -> Result<f64, AnyError> {
    let resident = || -> Result<f64, AnyError> {
        let pages: f64 = fs::read_to_string("/proc/self/statm")?
            .split(' ')
            .nth(1)
            .ok_or("no second number in statm")?
            .parse()?;
        Ok(pages * 4096.0 / f64::from(1 << 20))
    };
    let mut reading = named();
    // Names, and what a turn needs for itself.
    turns(&mut reading, &mut Prepared::new(&verdicts[..4096 * size_of::<Event>()]))?;
    let before = resident()?;
    turns(&mut reading, &mut Prepared::new(verdicts))?;
    Ok(resident()? - before)
}

/// Time of this thread on its processor for each of `records`, ns; `work` says how many it did.
fn of_each(records: u32, work: impl FnOnce() -> Result<u32, AnyError>) -> Result<f64, AnyError> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = now()?;
    let done = work()?;
    let took = now()?.saturating_sub(before);
    if done != records {
        return Err(format!("{done} records were read instead of {records}").into());
    }
    Ok(took.as_nanos() as f64 / f64::from(records))
}

/// Reads until there is nothing left.
fn turns(reading: &mut Reading, records: &mut impl Records) -> Result<u32, AnyError> {
    let counts = Arc::clone(reading.counts());
    let read = || counts.records.iter().map(|lane| lane.load(Ordering::Relaxed)).sum::<u64>();
    let before = read();
    while reading.turn(records, monotonic(), || None) != Turn::Idle {}
    Ok(u32::try_from(read() - before)?)
}

/// Records that lie ready, as the kernel would write them.
struct Prepared<'a>(&'a [u8]);

impl<'a> Prepared<'a> {
    const fn new(records: &'a [u8]) -> Self {
        Self(records)
    }
}

impl Records for Prepared<'_> {
    fn read(&mut self, each: &mut dyn FnMut(u32, &[u8])) -> Exhausted {
        let (now, rest) = self.0.split_at(self.0.len().min(4096 * size_of::<Event>()));
        now.chunks_exact(size_of::<Event>()).for_each(|record| each(lane::VERDICT, record));
        self.0 = rest;
        [self.0.is_empty(), true]
    }
}

fn images(events: impl Iterator<Item = Event>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        let (at, len) = (std::ptr::from_ref(&event).cast::<u8>(), size_of::<Event>());
        // SAFETY: the layout has no padding (`no_padding!`), so each of its bytes is initialised.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(at, len) });
    }
    bytes
}

fn pod_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 + number)
}

fn addr(address: Ipv4Addr) -> Addr {
    Addr::v4(u32::from_ne_bytes(address.octets()))
}

/// A verdict at a local pod: every third denied, every fifth about an address outside.
fn verdict(number: u32) -> Event {
    let own = number % LOCAL;
    let other = match number % 5 {
        0 => Ipv4Addr::from_bits(0xc633_6400 + number % 256),
        _ => pod_address(number.wrapping_mul(7919) % PODS),
    };
    let denied = number.is_multiple_of(3);
    Event {
        time: u64::from(number),
        src: addr(other),
        dst: addr(pod_address(own)),
        ifindex: own + 1,
        rule: if denied { rule::DEFAULT_DENY } else { rule::FIRST_DYNAMIC + number % 50 },
        len: 60,
        src_port: 30_000 + (number % 30_000) as u16,
        dst_port: 443,
        slot: own as u16,
        kind: event_kind::VERDICT,
        reason: if denied { Reason::PolicyDenied as u8 } else { Reason::Allowed as u8 },
        direction: Direction::Ingress as u8,
        proto: 6,
        tcp_flags: 2,
        ..Event::default()
    }
}

/// A flow to a Service, and its verdict behind the translation.
fn to_service(number: u32) -> [Event; 2] {
    let judged = verdict(number);
    let own = addr(pod_address(number % LOCAL));
    let egress = Event { src: own, direction: Direction::Egress as u8, ..judged };
    let service = addr(Ipv4Addr::from_bits(0x0b00_0000 + number % 200));
    let kind = event_kind::PENDING;
    [
        Event { dst: service, kind, reason: Reason::Pending as u8, ..egress },
        Event { dst: judged.src, flags: EVENT_TRANSLATED, ..egress },
    ]
}

/// Reading with the names of a cluster.
fn named() -> Reading {
    let mut reading = Reading::new(FlowRing::new(KEPT), Duration::ZERO);
    let isolating = Isolating::from_iter([Arc::new(compile::network_policy(&Default::default()))]);
    let mut changes = Vec::new();
    for number in 0..PODS {
        let pod = Arc::new(pod(number));
        changes.push(NameChange::Address(IpAddr::V4(pod_address(number)), Arc::clone(&pod)));
        if number < LOCAL {
            let isolating = [isolating.clone(), isolating.clone()];
            changes.push(NameChange::Endpoint(number + 1, "veth".into(), pod, isolating));
        }
    }
    for number in 0..50 {
        let identity = RuleIdentity {
            kind: "NetworkPolicy",
            policy: key(&format!("policy-{number}")),
            direction: Direction::Ingress,
            index: number,
            scope: Scope { peers: true, ports: PortScope::Listed([false; 3]) },
        };
        changes.push(NameChange::Rule(rule::FIRST_DYNAMIC + number, Arc::new(identity)));
    }
    for number in 0..200 {
        let address = Ipv4Addr::from_bits(0x0b00_0000 + number);
        changes.push(NameChange::Service(address.into(), key(&format!("svc-{number}")).into()));
    }
    reading.rename(Renamed { at: 0, changes });
    reading
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "bench".into(), name: name.into() }
}

fn pod(number: u32) -> PodIdentity {
    PodIdentity {
        key: key(&format!("web-5d9f7c6b4d-{number}")),
        uid: format!("{number:036}").into(),
        labels: (0..8).map(|label| (format!("example.org/label-{label}"), "value")).collect(),
        namespace_labels: Arc::new(Labels::new()),
        ports: Vec::new(),
        node: Some("w1".into()),
        workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
    }
}
