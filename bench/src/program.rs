//! What one packet costs in the programs, by the kernel's own run statistics, next to an empty
//! program and to programs that parse and look up or insert once. Variants take turns, round by
//! round, so that a noisy machine is noisy for all of them.

use std::{net::IpAddr, os::fd::OwnedFd, panic::resume_unwind, thread};

use aya::{
    Ebpf,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    sys::{Stats, enable_stats},
};
use enforcer::{
    cluster::plan::{EndpointPlan, Plan},
    dataplane::{AttachMode, FlowEvents, Kernel, KernelConfig, RingMaps},
};
use enforcer_common::abi::{ACTION_ALLOW, Direction, Interval, RowKey, rule};
use nix::sched::{CloneFlags, unshare};

use crate::{
    BenchError,
    table::{Row, Samples},
};

pub(crate) static BASELINE: &[u8] =
    aya::include_bytes_aligned!(env!("ENFORCER_BASELINE_OBJECT_PATH"));

const POD: [u8; 4] = [10, 0, 0, 1];
const FRIEND: [u8; 4] = [10, 0, 0, 2];
const STRANGER: [u8; 4] = [10, 0, 0, 3];
const CLASS: u64 = 7;

/// What is measured, in the order of the table.
const VARIANTS: [&str; 7] = [
    "empty program",
    "parse + one LRU look-up",
    "parse + look-up + insert",
    "established packet",
    "new flow, allowed",
    "new flow, denied",
    "established packet, events off",
];

/// The variant in which the kernel tells nothing.
const EVENTS_OFF: usize = 6;

/// Rounds, and packets of each variant in one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rounds: u32,
    pub(crate) packets: u16,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Bench {
    kernel: Kernel,
    rings: RingMaps,
    baseline: Ebpf,
    _stats: OwnedFd,
}

fn failed(what: &'static str) -> impl Fn(AnyError) -> BenchError {
    move |source| BenchError { what, source }
}

/// Runs the benchmark, on a thread in a network namespace of its own.
pub(crate) fn run(size: Size) -> Result<Vec<Row>, BenchError> {
    let work = move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|e| failed("make a network namespace")(e.into()))?;
        measure(size)
    };
    thread::spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn measure(size: Size) -> Result<Vec<Row>, BenchError> {
    let mut bench = Bench::new().map_err(failed("set up the programs"))?;
    let mut samples = VARIANTS.map(|_| Samples::default());
    let syn = |round: u32, n: u16, peer| tcp(peer, port(round, n), 0x02);
    for round in 0..size.rounds + 1 {
        let mut measured = [0.0; VARIANTS.len()];
        for (variant, mean) in measured.iter_mut().enumerate() {
            let packets: Vec<Vec<u8>> = (0..size.packets)
                .map(|n| match variant {
                    0 | 1 => tcp(FRIEND, 1, 0x10),
                    2 | 4 => syn(round, n, FRIEND),
                    3 | EVENTS_OFF => tcp(FRIEND, 1, 0x10),
                    _ => syn(round, n, STRANGER),
                })
                .collect();
            *mean = bench.measure(variant, &packets).map_err(failed("run the programs"))?;
        }
        // The first round warms up.
        if round > 0 {
            for (samples, mean) in samples.iter_mut().zip(measured) {
                samples.push(mean);
            }
        }
    }
    let look_up = samples[1].median();
    let insert = samples[2].median();
    let established = samples[3].median();
    Ok(VARIANTS
        .into_iter()
        .zip(&samples)
        .enumerate()
        .map(|(n, (name, samples))| {
            let against = match n {
                3 => Some(("parse + one LRU look-up", look_up)),
                EVENTS_OFF => Some(("established packet", established)),
                4 | 5 => Some(("parse + look-up + insert", insert)),
                _ => None,
            };
            Row::new(name, "ns a packet", samples, against)
        })
        .collect())
}

/// A source port that no other packet of the run has.
fn port(round: u32, n: u16) -> u16 {
    let at = round * 500 + u32::from(n);
    u16::try_from(2 + at % 65_000).unwrap_or(2)
}

impl Bench {
    pub(crate) fn new() -> Result<Self, AnyError> {
        let (kernel, rings) = Kernel::open(&KernelConfig {
            bpf_dir: None,
            state_dir: None,
            attach: AttachMode::Auto,
            // The agent's default. A sixteenth of it is for one pod's half-open flows, which
            // bounds the size of a run.
            conntrack_entries: 262_144,
            service_entries: 1024,
            class_key: [1, 2],
        })?;
        let mut baseline = Ebpf::load(BASELINE)?;
        for name in ["empty", "look_up", "insert"] {
            program(&mut baseline, name)?.load()?;
        }
        let stats = enable_stats(Stats::RunTime)?;
        let mut bench = Self { kernel, rings, baseline, _stats: stats };
        bench.policy()?;
        // The flow that established packets belong to, in both.
        for (variant, flags) in [(4, 0x02), (2, 0x10)] {
            bench.measure(variant, &[tcp(FRIEND, 1, flags)])?;
        }
        bench.send(Direction::Egress, &reply(1, 0x12))?;
        bench.send(Direction::Ingress, &tcp(FRIEND, 1, 0x10))?;
        Ok(bench)
    }

    /// One isolated pod, one allowed class, one open port: what a rule of a policy compiles to.
    fn policy(&mut self) -> Result<(), AnyError> {
        let deny = Interval { rule: rule::DEFAULT_DENY, ..Interval::default() };
        let allow = Interval { start: (1 << 16) + 80, rule: 99, action: ACTION_ALLOW, ..deny };
        let after = Interval { start: (1 << 16) + 81, ..deny };
        let key = |class| RowKey { class, table: 1, direction: Direction::Ingress as u32 };
        let applied = self.kernel.apply(&Plan {
            rows_added: vec![(key(0), [deny].into()), (key(CLASS), [deny, allow, after].into())],
            peers_set: vec![(IpAddr::from(FRIEND), CLASS)],
            ..Plan::default()
        });
        match applied.failures.into_iter().next() {
            Some(failure) => Err(failure.into()),
            None => self.endpoint([true, true]),
        }
    }

    /// The pod, isolated for ingress and egress or not.
    fn endpoint(&mut self, isolated: [bool; 2]) -> Result<(), AnyError> {
        let endpoint = EndpointPlan {
            starting: false,
            ifindex: 1,
            interface: "lo".into(),
            addresses: vec![IpAddr::from(POD)],
            table: 1,
            isolated,
            audit: false,
            rejudge: false,
        };
        let plan = Plan { endpoints_set: vec![endpoint], ..Plan::default() };
        let applied = self.kernel.apply(&plan);
        match applied.failures.into_iter().next() {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Has no policy isolate the pod: whatever comes is a flow, and told.
    pub(crate) fn open(&mut self) -> Result<(), AnyError> {
        self.endpoint([false, false])
    }

    /// Sends packets that pass, each of a flow of its own. What is dropped would be told together.
    pub(crate) fn send_new(&mut self, round: u32, packets: u32) -> Result<(), AnyError> {
        for number in 0..packets {
            let at = round.wrapping_mul(packets).wrapping_add(number);
            let [_, a, b, c] = at.to_be_bytes();
            let packet = frame([10, a | 0x80, b, c], POD, 40_000, 443, 0x02);
            if self.send(Direction::Ingress, &packet)? != -1 {
                return Err("a packet that must pass is dropped".into());
            }
        }
        Ok(())
    }

    /// Where the programs tell.
    pub(crate) fn rings(&mut self) -> &mut RingMaps {
        &mut self.rings
    }

    fn send(&mut self, direction: Direction, packet: &[u8]) -> Result<i32, AnyError> {
        let context = context();
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.kernel.program(direction)?.test_run(options)?;
        Ok(i32::from_ne_bytes(result.return_value.to_ne_bytes()))
    }

    /// Mean time of a run over `packets`, by the kernel's statistics, ns.
    fn measure(&mut self, variant: usize, packets: &[Vec<u8>]) -> Result<f64, AnyError> {
        let expected = if variant == 5 { 2 } else { -1 };
        let context = context();
        let Self { kernel, rings, baseline, .. } = self;
        let events = if variant == EVENTS_OFF { FlowEvents::None } else { FlowEvents::All };
        kernel.tell_flows(events, 1);
        let program = match variant {
            0 => program(baseline, "empty")?,
            1 => program(baseline, "look_up")?,
            2 => program(baseline, "insert")?,
            _ => kernel.program(Direction::Ingress)?,
        };
        let before = program.info()?;
        for packet in packets {
            let options = TestRunOptions {
                data_in: Some(packet),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            };
            let code = program.test_run(options)?.return_value;
            if i32::from_ne_bytes(code.to_ne_bytes()) != expected {
                return Err(format!("{}: a packet got {code}", VARIANTS[variant]).into());
            }
        }
        let after = program.info()?;
        while rings.drain(|_| {}) > 0 {}
        let time = after.run_time().saturating_sub(before.run_time());
        let runs = after.run_count().saturating_sub(before.run_count()).max(1);
        Ok(time.as_nanos() as f64 / runs as f64)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, AnyError> {
    Ok(ebpf.program_mut(name).ok_or("no such program")?.try_into()?)
}

/// A context that says: came in by interface 2, is on interface 1.
fn context() -> [u8; 192] {
    let mut context = [0; 192];
    context[36] = 2;
    context[40] = 1;
    context
}

fn tcp(src: [u8; 4], src_port: u16, flags: u8) -> Vec<u8> {
    frame(src, POD, src_port, 80, flags)
}

fn reply(dst_port: u16, flags: u8) -> Vec<u8> {
    frame(POD, FRIEND, 80, dst_port, flags)
}

fn frame(src: [u8; 4], dst: [u8; 4], src_port: u16, dst_port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend(src_port.to_be_bytes());
    frame.extend(dst_port.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
