//! What is left of Services that are gone, and Services that do not all have room.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_common::abi::{
    self, ClassPort, NodeBackend, REST_OF_SERVICES, SVC_NODE_MANY, SVC_OTHERS, ServiceKey,
};

use super::{
    address, drain, key,
    services::{addr, apply_service, cluster, front, list, service, slice, words},
};
use crate::cluster::{
    Index, IndexConfig,
    event::{Event, ServicePort},
    plan::Plan,
};

/// An index for a map of so many entries.
fn room(entries: u32) -> Index {
    let config = IndexConfig { service_entries: Some(entries), ..IndexConfig::default() };
    let mut index = Index::new(config);
    index.apply(Event::NodeAddressesFound(list("192.0.2.7,192.0.2.8,192.0.2.9")));
    drain(&mut index);
    index
}

/// A Service with so many ports from 1 on.
fn wide(name: &str, cluster: &str, ports: u16) -> crate::cluster::event::Service {
    let one = service(name, cluster, "p:1");
    let port = |number: u16| ServicePort {
        name: format!("p{number}").into(),
        port: number,
        ..one.ports[0].clone()
    };
    crate::cluster::event::Service { ports: (1..=ports).map(port).collect(), ..one.clone() }
}

fn keys(index: &Index) -> Vec<ServiceKey> {
    index.snapshot().services.into_keys().collect()
}

fn rest(index: &Index) -> Option<abi::Service> {
    index.snapshot().services.get(&REST_OF_SERVICES).copied()
}

fn take(index: &mut Index) -> Plan {
    let plan = index.take_plan();
    assert!(index.take_plan().is_empty());
    let set: Vec<_> = plan.services_set.iter().map(|(key, _)| key).collect();
    assert!(plan.services_removed.iter().all(|key| !set.contains(&key)), "{plan:?}");
    plan
}

fn time(index: &mut Index) {
    index.apply(Event::ProxiesHadTime);
    drain(index);
}

#[test]
fn a_port_an_address_and_a_node_port_linger_like_a_whole_service() {
    let fronts = ["10.96.0.1:80", "10.96.0.1:81", "10.96.0.2:80", ":30080"];
    for (ports, external, gone) in [
        (":80,b:81+30080", "10.96.0.2", &[][..]),
        (":80,b:81", "10.96.0.2", &[3]),
        ("b:81+30080", "", &[0, 2]),
        ("", "10.96.0.2", &[0, 1, 2, 3]),
    ] {
        let mut index = cluster();
        let of = |ports: &str, external: &str| crate::cluster::event::Service {
            external_ips: list(external),
            ..service("n/s", "10.96.0.1", ports)
        };
        apply_service(&mut index, of(":80,b:81+30080", "10.96.0.2"));
        index.apply(Event::SliceApplied(slice("n/x", "s", ":1,b:2", "10.0.0.1,192.0.2.7")));
        drain(&mut index);
        let before: Vec<_> = fronts.iter().map(|front| words(&index, front)).collect();
        apply_service(&mut index, of(ports, external));
        assert!(!index.services().lingers());
        drain(&mut index);
        assert_eq!(index.services().lingers(), !gone.is_empty());
        for (at, front) in fronts.iter().enumerate() {
            let now = words(&index, front).expect("it is there");
            if gone.contains(&at) {
                // Classes are not known any more; that a process of the node is there is.
                let port = if before[at].as_ref().unwrap().contains("a:1") { 1 } else { 2 };
                assert_eq!(now, format!("node 192.0.2.7:{port} many"), "{front} of {ports}");
            } else {
                assert_eq!(Some(now), before[at], "{front} of {ports}");
            }
        }
        time(&mut index);
        assert!(gone.iter().all(|at| words(&index, fronts[*at]).is_some()));
        time(&mut index);
        for (at, front) in fronts.iter().enumerate() {
            assert_eq!(words(&index, front).is_none(), gone.contains(&at), "{front}");
        }
        assert!(!index.services().lingers());
    }
}

#[test]
fn a_new_service_has_a_lingering_address_at_once() {
    let mut index = cluster();
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80"));
    index.apply(Event::SliceApplied(slice("n/x", "s", ":1", "192.0.2.7")));
    drain(&mut index);
    index.apply(Event::ServiceDeleted(key("n", "s")));
    drain(&mut index);
    apply_service(&mut index, service("n/t", "10.96.0.1", ":80"));
    index.apply(Event::SliceApplied(slice("n/y", "t", ":2", "10.0.0.1")));
    drain(&mut index);
    assert_eq!(words(&index, "10.96.0.1:80").as_deref(), Some("a:2"));
    // And what was left of the other does not take it away.
    (0..3).for_each(|_| time(&mut index));
    assert_eq!(words(&index, "10.96.0.1:80").as_deref(), Some("a:2"));
    // It lingers for as long as if it were the first.
    index.apply(Event::ServiceDeleted(key("n", "t")));
    drain(&mut index);
    time(&mut index);
    assert_eq!(words(&index, "10.96.0.1:80").as_deref(), Some("many"));
}

/// An entry as an agent before this one wrote it, with a backend on this node.
fn left(front_text: &str, node: Option<&str>) -> (ServiceKey, abi::Service) {
    let key = front(front_text);
    let mut entry = abi::Service { key, flags: SVC_OTHERS, pair_count: 1, ..Default::default() };
    entry.pairs[0] = ClassPort { class: 77, port: 8080, ..ClassPort::default() };
    if let Some(node) = node {
        entry.node[0] = NodeBackend { addr: addr(address(node)), port: 6443, _pad: 0 };
        entry.node_count = 1;
    }
    (key, entry)
}

#[test]
fn what_an_agent_before_left_stays_until_it_is_known_to_be_nobodys() {
    let mut index = cluster();
    let found = ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.3:80"];
    let entries: BTreeMap<_, _> = found
        .iter()
        .map(|front| left(front, Some("192.0.2.7")))
        .chain([left(":80", None)])
        .collect();
    // The first is known already, the others are not.
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80"));
    index.apply(Event::SliceApplied(slice("n/x", "s", ":1", "10.0.0.1")));
    index.apply(Event::ServicesFound(entries.clone()));
    drain(&mut index);
    // Slices that were saved, or have not come yet, may not name a process of this node.
    assert_eq!(words(&index, found[0]).as_deref(), Some("a:1 node 192.0.2.7:6443"));
    assert_eq!(words(&index, found[1]).as_deref(), Some("node 192.0.2.7:6443 many"));
    assert_eq!(words(&index, ":80").as_deref(), Some("many"));
    apply_service(&mut index, service("n/t", "10.96.0.2", ":80"));
    drain(&mut index);
    assert_eq!(words(&index, found[1]).as_deref(), Some(""), "this comes after");
    time(&mut index);
    time(&mut index);
    assert_eq!(words(&index, found[0]).as_deref(), Some("a:1"));
    assert_eq!((words(&index, found[2]), words(&index, ":80")), (None, None));
}

#[test]
fn who_takes_too_much_does_not_take_it_from_others() {
    // 64 less 4 that are kept free, less one for the rest.
    let mut index = room(64);
    apply_service(&mut index, wide("small/s", "10.96.0.1,10.96.0.2", 4));
    apply_service(&mut index, wide("large/s", "10.96.1.1", 51));
    let plan = take(&mut index);
    assert_eq!((plan.services_set.len(), rest(&index)), (59, None));
    assert!(index.service_problems().is_empty());
    // One more than there is.
    apply_service(&mut index, wide("small/t", "10.96.0.3", 1));
    let plan = take(&mut index);
    // What was the large one's lingers as far as there is room.
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (2 + 50, 1));
    let problems = index.service_problems();
    assert_eq!(problems.len(), 1);
    assert_eq!((&*problems[0].service.namespace, problems[0].problems.len()), ("large", 1));
    assert!(problems[0].problems[0].contains("its 51 addresses and ports"), "{problems:?}");
    let of_small = |index: &Index| {
        let small = ["10.96.0.1", "10.96.0.2", "10.96.0.3"].map(|at| addr(address(at)));
        keys(index).iter().filter(|key| small.contains(&key.addr)).count()
    };
    assert_eq!(of_small(&index), 9);
    // And a hundred times as much changes nothing more.
    let external: Vec<String> = (0..250).map(|at| format!("198.51.100.{at}")).collect();
    let huge = crate::cluster::event::Service {
        external_ips: list(&external.join(",")),
        ..wide("large/s", "10.96.1.1", 65_535)
    };
    apply_service(&mut index, huge);
    let plan = take(&mut index);
    assert!(
        plan.services_set.len() + plan.services_removed.len() <= 64,
        "{}",
        plan.services_set.len()
    );
    assert_eq!(of_small(&index), 9);
    assert!(keys(&index).len() <= 60);
    // It asks for less: it is back, and the rest goes after a while.
    apply_service(&mut index, wide("large/s", "10.96.1.1", 2));
    take(&mut index);
    assert!(words(&index, "10.96.1.1:2").is_some() && rest(&index).is_some());
    assert!(index.service_problems().is_empty());
    time(&mut index);
    time(&mut index);
    assert_eq!((rest(&index), keys(&index).len()), (None, 11));
}

#[test]
fn the_rest_knows_the_processes_of_this_node_and_no_classes() {
    let mut index = room(64);
    apply_service(&mut index, wide("n/s", "10.96.0.1", 1000));
    index.apply(Event::SliceApplied(slice("n/x", "s", "p1:8080", "10.0.0.1")));
    let plan = take(&mut index);
    assert_eq!(plan.services_set.len(), 1);
    let now = rest(&index).unwrap();
    assert_eq!((now.key, now.flags, now.pair_count), (REST_OF_SERVICES, SVC_OTHERS, 0));
    assert_eq!(now.node_count, 0);
    let mut step = |endpoints: &str| {
        index.apply(Event::SliceApplied(slice("n/x", "s", "p1:8080", endpoints)));
        drain(&mut index);
        let now = rest(&index).unwrap();
        assert_eq!(now.pair_count, 0);
        let node = now.node.iter().take(now.node_count.into());
        let at = |one: &NodeBackend| IpAddr::from(one.addr.octets()).to_canonical().to_string();
        (node.map(at).collect::<Vec<_>>().join(","), now.flags & SVC_NODE_MANY != 0)
    };
    assert_eq!(step("10.0.0.1,192.0.2.7"), ("192.0.2.7".into(), false));
    assert_eq!(step("192.0.2.7,192.0.2.8,192.0.2.9"), ("192.0.2.7,192.0.2.8".into(), true));
    assert_eq!(step(""), (String::new(), false));
    // What it knew when its last Service went is not forgotten at once.
    step("192.0.2.9");
    index.apply(Event::ServiceDeleted(key("n", "s")));
    drain(&mut index);
    assert_eq!(rest(&index).unwrap().node_count, 1);
    time(&mut index);
    time(&mut index);
    assert_eq!(rest(&index), None);
}

#[test]
fn more_targets_than_there_is_memory_for_are_not_made() {
    let mut index = room(1 << 24);
    apply_service(&mut index, wide("n/s", "10.96.0.1", 65_535));
    drain(&mut index);
    assert_eq!(keys(&index).len(), 65_535);
    let endpoints: Vec<String> = (1..=5).map(|at| format!("10.0.0.{at}")).collect();
    index.apply(Event::SliceApplied(slice("n/x", "s", "p1:1", &endpoints.join(","))));
    drain(&mut index);
    assert!(rest(&index).is_some());
    let problems = index.service_problems();
    assert!(problems[0].problems[0].contains("too many ports"), "{problems:?}");
}

#[test]
fn what_lingers_makes_room_for_what_is_there() {
    let mut index = room(64);
    let all = |names: &str| {
        let names = names.split(',').enumerate();
        names.map(|(at, name)| wide(name, &format!("10.96.{at}.{}", name.len()), 15)).collect()
    };
    let first: Vec<_> = all("n/a,n/b,n/c");
    first.iter().cloned().for_each(|service| apply_service(&mut index, service));
    drain(&mut index);
    first.iter().for_each(|one| index.apply(Event::ServiceDeleted(one.key.clone())));
    drain(&mut index);
    assert_eq!((keys(&index).len(), rest(&index)), (45, None));
    // Only what does not fit with the new ones goes to the rest, which lingers in its stead.
    let second: Vec<_> = all("m/long-a,m/long-b");
    second.iter().cloned().for_each(|service| apply_service(&mut index, service));
    let plan = take(&mut index);
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (31, 16));
    assert!(rest(&index).is_some());
    // 59 for all, and the rest.
    assert_eq!(keys(&index).len(), 60);
    for service in &second {
        let of = |key: &&ServiceKey| key.addr == addr(service.cluster_ips[0]);
        assert_eq!(keys(&index).iter().filter(of).count(), 15);
    }
    time(&mut index);
    time(&mut index);
    assert_eq!((keys(&index).len(), rest(&index)), (30, None));
}
