//! The map of Services: what plans write to it, what the next agent finds there, and what happens
//! when it is full.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use enforcer::{
    cluster::{KernelState, NodeAddress, plan::Plan},
    dataplane::{AttachMode, Kernel, KernelConfig, remove},
};
use enforcer_common::{
    abi::{
        ABI_VERSION, Addr, ClassPort, NODE_ADDRESSES, NodeBackend, SVC_OTHERS, Service, ServiceKey,
    },
    verdict::proto::TCP,
};

use crate::lab::{IFINDEX, TABLE, endpoint};

/// Entries that the map has room for.
const ROOM: u32 = 4;

struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> Self {
        // SAFETY: takes flags only, and changes nothing but the calling thread's namespace.
        let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "a network namespace: this test needs root");
        Self(Path::new("/sys/fs/bpf").join(format!("enforcer-{name}-{}", std::process::id())))
    }

    fn agent(&self) -> Kernel {
        self.agent_for(ROOM)
    }

    fn agent_for(&self, service_entries: u32) -> Kernel {
        let (kernel, _rings) = Kernel::open(&KernelConfig {
            bpf_dir: Some(self.0.clone()),
            state_dir: None,
            attach: AttachMode::Auto,
            conntrack_entries: 4096,
            service_entries,
            class_key: [1, 2],
        })
        .unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        kernel
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        remove(&self.0, Path::new("/nonexistent")).unwrap();
        // What is left are folders.
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn key(last: u8) -> ServiceKey {
    let addr = Addr::v4(u32::from_ne_bytes([10, 96, 0, last]));
    ServiceKey { addr, port: 80, proto: TCP, _pad: 0 }
}

/// One of several things that an entry can say.
fn service(last: u8, class: u64) -> (ServiceKey, Service) {
    let mut service = Service { key: key(last), flags: SVC_OTHERS, ..Service::default() };
    service.pairs[0] = ClassPort { class, port: 8080, ..ClassPort::default() };
    service.pair_count = 1;
    service.node[0] = NodeBackend { port: 6443, ..NodeBackend::default() };
    service.node_count = 1;
    (key(last), service)
}

fn services(all: &[(u8, u64)]) -> BTreeMap<ServiceKey, Service> {
    all.iter().map(|(last, class)| service(*last, *class)).collect()
}

fn write(agent: &mut Kernel, plan: &Plan) {
    let applied = agent.apply(plan);
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
}

#[test]
fn the_map_says_what_plans_say_and_the_next_agent_writes_only_the_difference() {
    let pins = Pins::new("services");
    let mut agent = pins.agent();
    write(
        &mut agent,
        &Plan { services_set: vec![service(1, 7), service(2, 7)], ..Plan::default() },
    );
    assert_eq!(agent.services().unwrap(), services(&[(1, 7), (2, 7)]));
    write(
        &mut agent,
        &Plan {
            services_set: vec![service(2, 8), service(3, 7)],
            services_removed: vec![key(1)],
            ..Plan::default()
        },
    );
    assert_eq!(agent.services().unwrap(), services(&[(2, 8), (3, 7)]));
    drop(agent);
    let mut agent = pins.agent();
    let desired =
        KernelState { services: services(&[(2, 8), (3, 9), (4, 7)]), ..KernelState::default() };
    let plan = agent.difference(&desired).unwrap();
    assert_eq!(plan.services_set, [service(3, 9), service(4, 7)]);
    assert!(plan.services_removed.is_empty());
    write(&mut agent, &plan);
    assert_eq!(agent.services().unwrap(), desired.services);
    let plan = agent.difference(&desired).unwrap();
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (0, 0));
    let plan = agent.difference(&KernelState::default()).unwrap();
    assert_eq!(plan.services_removed, [key(2), key(3), key(4)]);
}

#[test]
fn what_does_not_fit_closes_who_is_isolated_for_egress_until_it_does() {
    let pins = Pins::new("full");
    for isolated in [[true, true], [false, true], [true, false], [false, false]] {
        let mut agent = pins.agent();
        write(
            &mut agent,
            &Plan {
                services_set: (1..=4).map(|last| service(last, 7)).collect(),
                endpoints_set: vec![endpoint(TABLE, isolated, false)],
                ..Plan::default()
            },
        );
        assert!(!agent.locked(IFINDEX));
        let more = vec![service(5, 7), service(6, 7)];
        let applied = agent.apply(&Plan { services_set: more, ..Plan::default() });
        assert_eq!(applied.failures.len(), 1, "one reason, told once: {:?}", applied.failures);
        assert!(applied.failures[0].contains("SERVICES"), "{:?}", applied.failures);
        assert!(applied.failures[0].contains("2 addresses"), "{:?}", applied.failures);
        assert!(agent.incomplete());
        assert_eq!(agent.locked(IFINDEX), isolated[1], "{isolated:?}");
        // One that comes to be isolated meanwhile, too.
        let set = |isolated, rejudge| Plan {
            endpoints_set: vec![endpoint(TABLE, isolated, rejudge)],
            ..Plan::default()
        };
        write(&mut agent, &set([false, true], true));
        assert!(agent.locked(IFINDEX));
        // Room for one is not enough; and what is in the map is changed in place.
        let one = Plan {
            services_set: vec![service(2, 9)],
            services_removed: vec![key(1)],
            ..Plan::default()
        };
        assert_eq!(agent.apply(&one).failures.len(), 1);
        assert!(agent.incomplete() && agent.locked(IFINDEX));
        assert_eq!(agent.retry().failures.len(), 1);
        // What was missing is not wanted any more, or there is room: at once.
        write(&mut agent, &Plan { services_removed: vec![key(3)], ..Plan::default() });
        assert!(!agent.incomplete() && !agent.locked(IFINDEX));
        let all = services(&[(2, 9), (4, 7), (5, 7), (6, 7)]);
        assert_eq!(agent.services().unwrap(), all);
        let gone = Plan {
            services_removed: all.into_keys().collect(),
            endpoints_removed: vec![IFINDEX],
            ..Plan::default()
        };
        write(&mut agent, &gone);
        assert!(agent.services().unwrap().is_empty());
    }
}

#[test]
fn another_number_of_entries_is_in_force_with_the_next_agent_and_nothing_is_lost() {
    let pins = Pins::new("resized");
    let all: Vec<_> = (1..=4).map(|last| service(last, 7)).collect();
    let mut agent = pins.agent();
    write(&mut agent, &Plan { services_set: all, ..Plan::default() });
    drop(agent);
    // What an agent left that died over it is no obstacle.
    let pinned = |name: &str| pins.0.join(format!("v{ABI_VERSION}/maps/{name}"));
    let draft = pinned("SERVICES-new");
    fs::hard_link(pinned("META"), &draft).unwrap();
    for (entries, has) in [(8, 8), (8, 8), (3, 8), (5, 5), (4, 4)] {
        let mut agent = pins.agent_for(entries);
        assert_eq!(agent.service_entries(), has, "{entries}");
        assert_eq!(agent.services().unwrap(), services(&[(1, 7), (2, 7), (3, 7), (4, 7)]));
        assert!(!draft.exists());
        // So many it has, and no more.
        let more = |last| Plan { services_set: vec![service(last, 7)], ..Plan::default() };
        for last in 5..=4 + (has - 4) as u8 {
            write(&mut agent, &more(last));
        }
        assert_eq!(agent.apply(&more(99)).failures.len(), 1);
        let gone = Plan { services_removed: (5..=99).map(key).collect(), ..Plan::default() };
        write(&mut agent, &gone);
    }
}

#[test]
fn node_addresses_without_room_close_the_isolated_until_there_is_and_end_nothing() {
    let pins = Pins::new("node-addresses");
    let mut agent = pins.agent();
    let set = |isolated| Plan {
        endpoints_set: vec![endpoint(TABLE, isolated, false)],
        ..Plan::default()
    };
    write(&mut agent, &set([true, false]));
    let addresses = |count: u32| -> BTreeMap<IpAddr, NodeAddress> {
        let at = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
        (0..count).map(|number| (at(number), NodeAddress::Plain)).collect()
    };
    assert!(agent.set_node_addresses(addresses(NODE_ADDRESSES)).failures.is_empty());
    assert!(!agent.locked(IFINDEX) && !agent.incomplete());
    let applied = agent.set_node_addresses(addresses(NODE_ADDRESSES + 2));
    assert_eq!(applied.failures.len(), 1, "told once: {:?}", applied.failures);
    assert!(applied.failures[0].contains("NODE_ADDRS"), "{:?}", applied.failures);
    assert!(applied.failures[0].contains("2 of the node's own 65538"), "{:?}", applied.failures);
    assert!(agent.locked(IFINDEX) && agent.incomplete());
    assert_eq!(agent.retry().failures.len(), 1);
    // One that comes to be isolated meanwhile, too.
    write(&mut agent, &set([false, true]));
    assert!(agent.locked(IFINDEX));
    assert!(agent.set_node_addresses(addresses(3)).failures.is_empty());
    assert!(!agent.locked(IFINDEX) && !agent.incomplete());
    assert_eq!(agent.node_addresses().unwrap(), addresses(3));
}

#[test]
fn the_nodes_addresses_say_what_they_are_for_and_are_found_again() {
    let pins = Pins::new("addresses");
    let at = |last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    let mut agent = pins.agent();
    let first = BTreeMap::from([(at(1), NodeAddress::NodePorts), (at(2), NodeAddress::Plain)]);
    assert!(agent.set_node_addresses(first.clone()).failures.is_empty());
    assert_eq!(agent.node_addresses().unwrap(), first);
    drop(agent);
    let mut agent = pins.agent();
    assert_eq!(agent.node_addresses().unwrap(), first);
    let second = BTreeMap::from([(at(2), NodeAddress::NodePorts), (at(3), NodeAddress::Plain)]);
    assert!(agent.set_node_addresses(second.clone()).failures.is_empty());
    assert_eq!(agent.node_addresses().unwrap(), second);
}
