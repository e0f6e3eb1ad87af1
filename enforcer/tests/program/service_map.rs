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
    abi::{Addr, ClassPort, NodeBackend, SVC_OTHERS, Service, ServiceKey},
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
        let (kernel, _rings) = Kernel::open(&KernelConfig {
            bpf_dir: Some(self.0.clone()),
            state_dir: None,
            attach: AttachMode::Auto,
            conntrack_entries: 4096,
            service_entries: ROOM,
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
fn services_that_are_not_known_yet_are_kept_until_they_are() {
    let pins = Pins::new("kept");
    let mut agent = pins.agent();
    let all = vec![service(1, 7), service(2, 7), service(3, 7)];
    write(&mut agent, &Plan { services_set: all, ..Plan::default() });
    drop(agent);
    let mut agent = pins.agent();
    let mut plan = agent.difference(&KernelState::default()).unwrap();
    assert!(agent.keep_services(&mut plan).unwrap().failures.is_empty());
    assert!(plan.services_removed.is_empty());
    write(&mut agent, &plan);
    let kept = agent.services().unwrap();
    assert_eq!(kept.len(), 3);
    for service in kept.values() {
        // The classes may be others by now; that there is a backend on this node is not forgotten.
        assert_eq!((service.pair_count, service.node_count, service.flags), (0, 1, SVC_OTHERS));
        assert_eq!(service.pairs, <[ClassPort; 4]>::default());
    }
    write(
        &mut agent,
        &Plan {
            services_set: vec![service(1, 8)],
            services_removed: vec![key(2)],
            ..Plan::default()
        },
    );
    assert!(agent.forget_kept_services().failures.is_empty());
    assert_eq!(agent.services().unwrap(), services(&[(1, 8)]));
}

#[test]
fn the_nodes_addresses_say_what_they_are_for_and_are_found_again() {
    let pins = Pins::new("addresses");
    let at = |last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    let mut agent = pins.agent();
    let first = BTreeMap::from([(at(1), NodeAddress::NodePorts), (at(2), NodeAddress::Plain)]);
    agent.set_node_addresses(first.clone()).unwrap();
    assert_eq!(agent.node_addresses().unwrap(), first);
    drop(agent);
    let mut agent = pins.agent();
    assert_eq!(agent.node_addresses().unwrap(), first);
    let second = BTreeMap::from([(at(2), NodeAddress::NodePorts), (at(3), NodeAddress::Plain)]);
    agent.set_node_addresses(second.clone()).unwrap();
    assert_eq!(agent.node_addresses().unwrap(), second);
}
