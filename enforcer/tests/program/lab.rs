//! A loaded object with one endpoint on the loopback interface of a fresh network namespace.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use aya::programs::{TestRun as _, TestRunOptions};
use enforcer::{
    cluster::{
        NodeAddress,
        plan::{EndpointPlan, Plan},
    },
    dataplane::{AttachMode, Kernel, KernelConfig, RingMaps, monotonic},
};
use enforcer_common::{
    abi::{
        ACTION_ALLOW, Closed, Direction, EVENT_AUDIT, EVENT_DISABLED, Event, Interval, RowKey,
        Spared, counter_index, event_kind, rule,
    },
    conntrack::SECOND,
    reason::Reason,
    verdict::PORT_KEYS,
};

/// The endpoint's interface: loopback is what test runs without a device use.
pub(crate) const IFINDEX: u32 = 1;
/// The pod's addresses.
pub(crate) const POD4: [u8; 4] = [10, 0, 0, 1];
/// The pod's IPv6 address.
pub(crate) const POD6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// A peer in class [`FRIENDS`].
pub(crate) const FRIEND4: [u8; 4] = [10, 0, 0, 2];
/// Its IPv6 address.
pub(crate) const FRIEND6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// An address in no class.
pub(crate) const STRANGER4: [u8; 4] = [10, 0, 0, 3];
/// Its IPv6 address.
pub(crate) const STRANGER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
/// The node's address.
pub(crate) const NODE4: [u8; 4] = [10, 0, 0, 254];
/// The rule that allows [`FRIENDS`].
pub(crate) const RULE: u32 = 77;
/// Class of the friends' addresses.
pub(crate) const FRIENDS: u64 = 0xf00d;
pub(crate) const TABLE: u32 = 5;
/// Return code of a packet that passes.
pub(crate) const PASS: i32 = -1;
/// Return code of a packet that is dropped.
pub(crate) const DROP: i32 = 2;

/// A loaded object.
pub(crate) struct Lab {
    pub(crate) kernel: Kernel,
    /// None once somebody else reads them.
    rings: Option<RingMaps>,
    counters: Vec<u64>,
    /// What the table of drops takes for the time, once it was swept.
    sweeping: u64,
}

/// What one packet did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// Every counter that moved, by reason and direction.
    pub(crate) counted: Vec<(Reason, Direction, u64)>,
    /// Every counter of packets that passed and would have been dropped.
    pub(crate) spared: Vec<(Spared, Reason, Direction, u64)>,
    /// Events told: kind, reason, rule.
    pub(crate) told: Vec<(u8, Reason, u32)>,
    /// Flags of those events.
    pub(crate) flags: Vec<u8>,
    /// Flows that were told to be over.
    pub(crate) closed: Vec<Closed>,
}

/// The `__sk_buff` of a packet on the endpoint's interface that came in by another one.
pub(crate) fn context(came_in_by: u32) -> [u8; 192] {
    let mut context = [0_u8; 192];
    context[36..40].copy_from_slice(&came_in_by.to_ne_bytes());
    context[40..44].copy_from_slice(&IFINDEX.to_ne_bytes());
    context
}

/// A row that allows `keys` by [`RULE`] and denies the rest.
pub(crate) fn row(keys: std::ops::Range<u32>) -> Arc<[Interval]> {
    let deny = Interval { rule: rule::DEFAULT_DENY, ..Interval::default() };
    let mut row = vec![deny];
    if keys.start > 0 {
        row.push(Interval { start: keys.start, ..deny });
        row.remove(0);
        row.insert(0, deny);
    }
    row.retain(|interval| interval.start < keys.start);
    row.push(Interval { start: keys.start, rule: RULE, action: ACTION_ALLOW, ..deny });
    if keys.end < PORT_KEYS {
        row.push(Interval { start: keys.end, ..deny });
    }
    row.into()
}

/// TCP port 80 to 89 only.
pub(crate) fn http() -> Arc<[Interval]> {
    row((1 << 16) + 80..(1 << 16) + 90)
}

/// Everything.
pub(crate) fn all() -> Arc<[Interval]> {
    row(0..PORT_KEYS)
}

impl Lab {
    /// Isolated in `isolated` (ingress, egress); friends may do what `rows` says.
    pub(crate) fn new(isolated: [bool; 2], rows: [Arc<[Interval]>; 2]) -> Self {
        Self::sized(isolated, rows, 4096)
    }

    /// The same with room for so many flows.
    pub(crate) fn sized(
        isolated: [bool; 2],
        rows: [Arc<[Interval]>; 2],
        conntrack_entries: u32,
    ) -> Self {
        // Without a name it goes with the thread, even if that is killed.
        // SAFETY: takes flags only, and changes nothing but the calling thread's namespace.
        let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "a network namespace: this test needs root");
        let (kernel, rings) = Kernel::open(&KernelConfig {
            bpf_dir: None,
            state_dir: None,
            attach: AttachMode::Auto,
            conntrack_entries,
            service_entries: 1024,
            class_key: [1, 2],
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        let mut lab = Self { kernel, rings: Some(rings), counters: Vec::new(), sweeping: 0 };
        let node = [(IpAddr::from(NODE4), NodeAddress::NodePorts)].into();
        assert!(lab.kernel.set_node_addresses(node).failures.is_empty());
        lab.counters = lab.kernel.counters().unwrap();
        let [ingress, egress] = rows;
        lab.plan(Plan {
            rows_added: vec![
                (key(0, Direction::Ingress), deny()),
                (key(0, Direction::Egress), deny()),
                (key(FRIENDS, Direction::Ingress), ingress),
                (key(FRIENDS, Direction::Egress), egress),
            ],
            peers_set: vec![(IpAddr::from(FRIEND4), FRIENDS), (IpAddr::from(FRIEND6), FRIENDS)],
            endpoints_set: vec![endpoint(TABLE, isolated, false)],
            ..Plan::default()
        });
        lab
    }

    /// Isolated both ways; friends may use TCP 80 to 89 both ways.
    pub(crate) fn strict() -> Self {
        Self::new([true, true], [http(), http()])
    }

    pub(crate) fn plan(&mut self, plan: Plan) {
        let applied = self.kernel.apply(&plan);
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    }

    /// Takes the friends' addresses out of their class, and moves the generation.
    pub(crate) fn lose_friends(&mut self, isolated: [bool; 2]) {
        self.plan(Plan {
            peers_removed: vec![IpAddr::from(FRIEND4), IpAddr::from(FRIEND6)],
            endpoints_set: vec![endpoint(TABLE, isolated, true)],
            ..Plan::default()
        });
    }

    /// Has the interface go and come again: its flows go with it, and everybody is who he was.
    pub(crate) fn start_over(&mut self, isolated: [bool; 2]) {
        self.plan(Plan { endpoints_removed: vec![IFINDEX], ..Plan::default() });
        self.find_friends();
        self.plan(Plan {
            endpoints_set: vec![endpoint(TABLE, isolated, false)],
            ..Plan::default()
        });
        self.drain();
    }

    /// Has the endpoint audited, or enforced again.
    pub(crate) fn audit(&mut self, isolated: [bool; 2], audit: bool) {
        let endpoint = EndpointPlan { audit, ..endpoint(TABLE, isolated, false) };
        self.plan(Plan { endpoints_set: vec![endpoint], ..Plan::default() });
    }

    /// Gives the friends' addresses their class again, and moves no generation.
    pub(crate) fn find_friends(&mut self) {
        self.plan(Plan {
            peers_set: vec![(IpAddr::from(FRIEND4), FRIENDS), (IpAddr::from(FRIEND6), FRIENDS)],
            ..Plan::default()
        });
    }

    /// Runs one packet that came in by another interface.
    pub(crate) fn run(&mut self, direction: Direction, packet: &[u8]) -> Outcome {
        self.run_from(direction, packet, 2)
    }

    /// Runs one packet; `came_in_by` 0 means that the node made it.
    pub(crate) fn run_from(
        &mut self,
        direction: Direction,
        packet: &[u8],
        came_in_by: u32,
    ) -> Outcome {
        let code = self.send(direction, packet, came_in_by);
        let counters = self.kernel.counters().unwrap();
        let (mut counted, mut spared) = (Vec::new(), Vec::new());
        for reason in Reason::ALL {
            for direction in Direction::BOTH {
                let index = counter_index(*reason as u8, direction) as usize;
                let moved = counters[index] - self.counters[index];
                if moved > 0 {
                    counted.push((*reason, direction, moved));
                }
                for why in Spared::ALL {
                    let index = why.counter_index(*reason as u8, direction) as usize;
                    let moved = counters[index] - self.counters[index];
                    if moved > 0 {
                        spared.push((why, *reason, direction, moved));
                    }
                }
            }
        }
        self.counters = counters;
        let (mut told, mut flags) = (Vec::new(), Vec::new());
        let Records { events, closed } = self.drain();
        for event in events {
            told.push((event.kind, Reason::from_u8(event.reason).unwrap(), event.rule));
            flags.push(event.flags);
        }
        if counted.iter().any(|(reason, ..)| reason.is_drop()) {
            self.forget_drops();
        }
        Outcome { code, counted, spared, told, flags, closed }
    }

    /// Has each packet that is run alone told like the first of its tuple.
    fn forget_drops(&mut self) {
        self.sweeping = self.sweeping.max(monotonic() + SECOND);
        // One sweep tells, one takes the slot away, one gives it back.
        for _ in 0..3 {
            self.sweeping += SECOND;
            let untold = self.sweep_drops(self.sweeping);
            assert_eq!(untold, [], "one packet is one event");
        }
    }

    /// Runs one packet and looks at nothing else. Returns its code.
    pub(crate) fn send(&mut self, direction: Direction, packet: &[u8], came_in_by: u32) -> i32 {
        let context = context(came_in_by);
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        self.kernel.program(direction).unwrap().test_run(options).unwrap().return_value as i32
    }

    /// What waits in the rings.
    pub(crate) fn drain(&mut self) -> Records {
        let mut records = Records::default();
        while self.rings().drain(|bytes| records.take(bytes)) > 0 {}
        records
    }

    /// What the table of drops has to tell at a time (`CLOCK_MONOTONIC`, ns).
    pub(crate) fn sweep_drops(&mut self, now: u64) -> Vec<Event> {
        let mut records = Records::default();
        self.rings().sweep_drops(now, |bytes| records.take(bytes));
        records.events
    }

    /// Packets counted by this reason since the lab was made.
    pub(crate) fn counted(&self, reason: Reason, direction: Direction) -> u64 {
        self.kernel.counters().unwrap()[counter_index(reason as u8, direction) as usize]
    }

    /// Where the programs tell.
    pub(crate) fn rings(&mut self) -> &mut RingMaps {
        self.rings.as_mut().expect("somebody else reads them")
    }

    /// The same for somebody who reads while packets are sent.
    pub(crate) fn take_rings(&mut self) -> RingMaps {
        self.rings.take().expect("somebody else reads them")
    }

    /// Runs a packet that must pass without a trace: established.
    pub(crate) fn fast(&mut self, direction: Direction, packet: &[u8]) {
        let outcome = self.run(direction, packet);
        assert_eq!(outcome, Outcome { code: PASS, ..Outcome::default() });
    }

    /// Runs a packet that must be counted once under `reason`, and be told or not.
    pub(crate) fn expect(
        &mut self,
        direction: Direction,
        packet: &[u8],
        reason: Reason,
        told: bool,
    ) {
        let outcome = self.run(direction, packet);
        expect(&outcome, direction, reason, told);
    }
}

/// Asserts the whole outcome of a packet that is counted once under `reason`.
pub(crate) fn expect(outcome: &Outcome, direction: Direction, reason: Reason, told: bool) {
    let code = if reason.is_drop() { DROP } else { PASS };
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.counted, vec![(reason, direction, 1)], "{outcome:?}");
    assert_eq!(outcome.spared, vec![], "{outcome:?}");
    let reasons: Vec<_> = outcome.told.iter().map(|(_, reason, _)| *reason).collect();
    assert_eq!(reasons, if told { vec![reason] } else { vec![] }, "{outcome:?}");
    for (kind, _, rule) in &outcome.told {
        if reason == Reason::Allowed {
            assert_eq!((*kind, *rule), (event_kind::VERDICT, RULE));
        }
        if reason == Reason::PolicyDenied {
            assert_eq!((*kind, *rule), (event_kind::VERDICT, rule::DEFAULT_DENY));
        }
    }
}

/// What was told, in order: events, and flows that are over.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) events: Vec<Event>,
    pub(crate) closed: Vec<Closed>,
}

impl Records {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if bytes.len() == size_of::<Closed>() {
            // SAFETY: the length is checked, and every bit pattern is one.
            let closed: Closed = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
            assert_eq!(closed.event.kind, event_kind::CLOSE);
            self.closed.push(closed);
            return;
        }
        assert_eq!(bytes.len(), size_of::<Event>());
        // SAFETY: the length is checked, and every bit pattern is an event.
        let event: Event = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
        assert_ne!(event.kind, event_kind::CLOSE);
        assert!(event.count > 0, "an event about nothing: {event:?}");
        self.events.push(event);
    }
}

/// Asserts that a packet passed, and only because it was spared.
pub(crate) fn expect_spared(
    outcome: &Outcome,
    direction: Direction,
    why: Spared,
    reason: Reason,
    told: bool,
) {
    assert_eq!(outcome.code, PASS, "{outcome:?}");
    assert_eq!(outcome.spared, vec![(why, reason, direction, 1)], "{outcome:?}");
    assert_eq!(outcome.counted, vec![], "{outcome:?}");
    let flag = match why {
        Spared::Audit => EVENT_AUDIT,
        Spared::Disabled => EVENT_DISABLED,
    };
    let verdicts = outcome.told.iter().zip(&outcome.flags).filter(|(told, _)| told.1 == reason);
    let flags: Vec<_> = verdicts.map(|(_, flags)| flags & (EVENT_AUDIT | EVENT_DISABLED)).collect();
    assert_eq!(flags, if told { vec![flag] } else { vec![] }, "{outcome:?}");
}

pub(crate) fn key(class: u64, direction: Direction) -> RowKey {
    RowKey { class, table: TABLE, direction: direction as u32 }
}

fn deny() -> Arc<[Interval]> {
    [Interval { rule: rule::DEFAULT_DENY, ..Interval::default() }].into()
}

pub(crate) fn endpoint(table: u32, isolated: [bool; 2], rejudge: bool) -> EndpointPlan {
    EndpointPlan {
        starting: false,
        ifindex: IFINDEX,
        interface: "lo".into(),
        addresses: vec![IpAddr::from(POD4), IpAddr::from(POD6)],
        table,
        isolated,
        audit: false,
        rejudge,
    }
}

/// All told reasons of many packets, counted.
pub(crate) fn tally(outcomes: &[Outcome]) -> BTreeMap<Reason, u64> {
    let mut tally = BTreeMap::new();
    for (reason, _, count) in outcomes.iter().flat_map(|outcome| &outcome.counted) {
        *tally.entry(*reason).or_default() += count;
    }
    tally
}
