//! The real object with several pods, each behind a real interface of a fresh network namespace, and
//! the index that feeds it.

use std::{
    collections::BTreeSet,
    ffi::CString,
    net::IpAddr,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use enforcer::{
    cluster::{
        KernelState,
        event::{Event, Interface},
        plan::Plan,
    },
    dataplane::{AttachMode, Kernel, KernelConfig, RingMaps, monotonic},
};
use enforcer_common::{
    abi::{self, Event as Told, event_kind},
    conntrack::SECOND,
};
use enforcer_reference::{Cluster, Direction};

use super::{
    events,
    meaning::Meaning,
    places::{self, LOCAL},
    probe::{Probe, Sameness},
    writer::Writer,
};
use crate::{lab::Records, runner::Runner};

/// Flows that the node can have: an endpoint may have a sixteenth of them half-open.
const FLOWS: u32 = 1 << 20;
/// Source ports of probes; none of them is a port that is probed.
const NUMBERS: std::ops::Range<u16> = 10_000..65_000;
/// Probes after which what the programs tell is read, and the table of drops emptied.
const BATCH: usize = 256;
/// How long a hook may be held by what was taken off it.
const RETRIED: Duration = Duration::from_secs(2);
/// Interface by which packets come in that the node has not made.
const ELSEWHERE: u32 = 1;

/// What the kernel made of a probe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The program's code.
    pub(crate) code: i32,
    /// What it told of it.
    pub(crate) told: Option<Told>,
}

/// The object, its interfaces and the index.
pub(crate) struct Rig {
    pub(crate) kernel: Kernel,
    rings: RingMaps,
    pub(crate) writer: Writer,
    pub(crate) runner: Arc<Runner>,
    /// What the index has been told last.
    pub(crate) cluster: Cluster,
    number: u16,
    /// Flows that there are of protocols without ports: slot, other address, protocol.
    used: BTreeSet<(usize, IpAddr, u8)>,
    sweeping: u64,
}

/// A network namespace of the calling thread's own. Without a name it goes with the thread, even if
/// that is killed.
fn enter_namespace() {
    // SAFETY: takes flags only, and changes nothing but the calling thread's namespace.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "a network namespace: this test needs root");
}

/// Makes the interfaces of the local pods in the calling thread's namespace.
fn make_interfaces() -> Vec<Interface> {
    (0..LOCAL)
        .map(|slot| {
            let (name, peer) = (format!("pod{slot}"), format!("in{slot}"));
            let made = Command::new("ip")
                .args(["link", "add", &name, "type", "veth", "peer", "name", &peer])
                .status()
                .unwrap();
            assert!(made.success(), "ip link add {name}");
            let text = CString::new(name.as_str()).unwrap();
            // SAFETY: a text that ends with 0 and lives until the call returns.
            let ifindex = unsafe { libc::if_nametoindex(text.as_ptr()) };
            assert_ne!(ifindex, 0, "{name}");
            Interface {
                ifindex,
                name: name.into(),
                peer_addresses: places::local(slot),
                kind: "veth".into(),
            }
        })
        .collect()
}

impl Rig {
    /// In a network namespace of the calling thread's own, which goes with it.
    pub(crate) fn new() -> Self {
        Self::pinned(None)
    }

    /// The same with pins in a folder.
    pub(crate) fn pinned(bpf_dir: Option<std::path::PathBuf>) -> Self {
        enter_namespace();
        let interfaces = make_interfaces();
        let (mut kernel, rings) = Kernel::open(&KernelConfig {
            bpf_dir,
            state_dir: None,
            attach: AttachMode::Auto,
            conntrack_entries: FLOWS,
            service_entries: 1024,
            class_key: [1, 2],
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        let runner = Arc::new(Runner::new(&mut kernel));
        let mut rig = Self {
            kernel,
            rings,
            writer: Writer::new(interfaces, 1),
            runner,
            cluster: Cluster::default(),
            number: NUMBERS.start,
            used: BTreeSet::new(),
            sweeping: 0,
        };
        rig.find_interfaces();
        rig
    }

    fn find_interfaces(&mut self) {
        let found =
            self.writer.interfaces.iter().cloned().map(Event::InterfaceFound).collect::<Vec<_>>();
        self.tell(found);
    }

    /// Has the index take events, one plan or several for all of them, and brings these into force.
    pub(crate) fn tell(&mut self, events: Vec<Event>) {
        events.into_iter().for_each(|event| self.writer.index.apply(event));
        while let Some(plan) = self.plan() {
            self.write(&plan);
        }
    }

    /// The next plan, if there is one.
    pub(crate) fn plan(&mut self) -> Option<Plan> {
        if let Some(addresses) = self.writer.index.take_node_addresses() {
            let applied = self.kernel.set_node_addresses(addresses);
            assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        }
        self.writer.plan()
    }

    /// Brings a plan into force.
    pub(crate) fn write(&mut self, plan: &Plan) {
        let mut applied = self.kernel.apply(plan);
        // A link that was closed just now may hold its hook for a moment: a process that another
        // test is starting has its descriptor until it runs its program. An agent tries again, too.
        let until = Instant::now() + RETRIED;
        while self.kernel.unattached() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
            applied = self.kernel.retry();
        }
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    }

    /// Leads to a cluster by these events, which say nothing else.
    pub(crate) fn lead_to(&mut self, cluster: Cluster, events: Vec<Event>) {
        self.tell(events);
        // Addresses that no Service has any more are forgotten, so that the state is the cluster's.
        self.tell(vec![Event::ProxiesHadTime]);
        self.tell(vec![Event::ProxiesHadTime]);
        self.cluster = cluster;
    }

    /// Leads to a cluster by what differs.
    pub(crate) fn become_(&mut self, cluster: Cluster) {
        let events = events::changes(&self.cluster, &cluster);
        self.lead_to(cluster, events.into_iter().flatten().collect());
    }

    /// Has all interfaces go and come again: their flows go with them.
    pub(crate) fn forget_flows(&mut self) {
        let lost =
            self.writer.interfaces.iter().map(|one| Event::InterfaceLost(one.ifindex)).collect();
        self.tell(lost);
        self.find_interfaces();
        self.used.clear();
        self.number = NUMBERS.start;
    }

    /// Takes everything away and builds a cluster with an index that knows nothing else.
    pub(crate) fn rebuild(&mut self, cluster: &Cluster) {
        let lost =
            self.writer.interfaces.iter().map(|one| Event::InterfaceLost(one.ifindex)).collect();
        self.tell(lost);
        self.become_(Cluster::default());
        self.check_empty();
        let interfaces = self.writer.interfaces.clone();
        self.writer = Writer::new(interfaces, self.kernel.first_table());
        self.find_interfaces();
        self.lead_to(cluster.clone(), events::all(cluster));
        self.used.clear();
        self.number = NUMBERS.start;
    }

    fn check_empty(&mut self) {
        let difference = self.kernel.difference(&KernelState::default()).unwrap();
        assert!(difference.is_empty(), "an empty cluster leaves something: {difference:?}");
        assert_eq!(self.kernel.intervals_used(), 0);
    }

    /// That the maps are what an index writes that is told the cluster of now at once.
    pub(crate) fn check_against_a_fresh_one(&mut self) {
        let (_, anew) = Writer::of(&self.writer.interfaces, &self.cluster);
        let now = self.writer.index.snapshot();
        assert_eq!(Meaning::of(&now), Meaning::of(&anew), "not what a fresh build is");
        let mut difference = self.kernel.difference(&now).unwrap();
        difference.endpoints_set.clear();
        assert!(difference.is_empty(), "the maps hold something else: {difference:#?}");
    }

    /// Runs probes, each as a flow of its own. Those that cannot be one are left out.
    pub(crate) fn probe(&mut self, probes: &[Probe]) -> Vec<(Probe, Seen)> {
        let mut seen = Vec::with_capacity(probes.len());
        for batch in probes.chunks(BATCH) {
            if NUMBERS.end - self.number < BATCH as u16 {
                self.forget_flows();
            }
            let mut sent: Vec<(Probe, u16, i32)> = Vec::with_capacity(batch.len());
            let mut told = BTreeSet::new();
            for probe in batch {
                let packet = &probe.packet;
                let is_new = match probe.sameness() {
                    Sameness::Never => true,
                    Sameness::Told => told.insert((probe.slot, packet.direction, packet.other())),
                    // One that answers the other is of its flow, whoever made it.
                    Sameness::Flow => {
                        self.used.insert((probe.slot, packet.other(), packet.protocol))
                    }
                };
                if !is_new {
                    continue;
                }
                sent.push((*probe, self.number, self.send(probe, self.number)));
                self.number += 1;
            }
            seen.extend(self.told(&sent));
        }
        seen
    }

    /// Throws away what the programs have told.
    pub(crate) fn discard(&mut self) {
        while self.rings.drain(|_| {}) > 0 {}
    }

    fn send(&self, probe: &Probe, number: u16) -> i32 {
        let came_in_by = if probe.packet.by_node { 0 } else { ELSEWHERE };
        let ifindex = self.writer.ifindex(probe.slot);
        self.runner.run(of(probe.packet.direction), &probe.frame(number), ifindex, came_in_by)
    }

    /// What was told of packets, in their order.
    fn told(&mut self, sent: &[(Probe, u16, i32)]) -> Vec<(Probe, Seen)> {
        let mut records = Records::default();
        while self.rings.drain(|bytes| records.take(bytes)) > 0 {}
        // Flows that went with their interfaces are told, too.
        let told = records.events.into_iter().filter(|event| event.kind != event_kind::TRACE);
        let mut told = told.peekable();
        let mut seen = Vec::with_capacity(sent.len());
        for (probe, number, code) in sent {
            let ifindex = self.writer.ifindex(probe.slot);
            let event = told.next_if(|event| is_of(event, probe, *number, ifindex));
            seen.push((*probe, Seen { code: *code, told: event }));
        }
        assert_eq!(told.next(), None, "told of no packet");
        self.empty_drops();
        seen
    }

    /// Has each drop told like the first of its tuple.
    fn empty_drops(&mut self) {
        self.sweeping = self.sweeping.max(monotonic() + SECOND);
        // One sweep tells, one takes the slot away, one gives it back.
        for _ in 0..3 {
            self.sweeping += SECOND;
            self.rings.sweep_drops(self.sweeping, |_| panic!("one packet is one event"));
        }
    }
}

/// A direction as the programs know it.
pub(crate) fn of(direction: Direction) -> abi::Direction {
    match direction {
        Direction::Ingress => abi::Direction::Ingress,
        Direction::Egress => abi::Direction::Egress,
    }
}

fn is_of(event: &Told, probe: &Probe, number: u16, ifindex: u32) -> bool {
    let ip = |addr: abi::Addr| IpAddr::from(addr.octets()).to_canonical();
    let packet = &probe.packet;
    event.ifindex == ifindex
        && event.direction == of(packet.direction) as u8
        && (ip(event.src), ip(event.dst)) == (packet.source, packet.destination)
        && event.proto == packet.protocol
        && event.count == 1
        && probe.told_ports(number).is_none_or(|ports| ports == (event.src_port, event.dst_port))
}
