//! Services to the entries of their map: by examples, and what every entry must say by the words of
//! the API, for the random streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use enforcer_common::{
    abi::{
        self, ANY_NODE_ADDRESS, Addr, ClassPort, NodeBackend, SVC_NODE_MANY, SVC_OTHERS, ServiceKey,
    },
    verdict::proto,
};
use proptest::{option, prelude::*, sample::select};

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, index, key, namespace, pod, policy,
    random::{OUTSIDE, POD_ADDRESSES},
};
use crate::cluster::{
    Index, IndexConfig, KernelState, NodeAddress, NodePortAddresses,
    event::{
        Endpoint, EndpointSlice, EndpointsFrom, Event, Node, ObjectKey, Protocol, Service,
        ServicePort, SessionAffinity, SlicePort, TargetPort, TrafficPolicy,
    },
    plan::Plan,
};

/// A Service with ports such as `web:80`, `dns:53/udp` or `:80+30080`.
pub(super) fn service(name: &str, cluster: &str, ports: &str) -> Service {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Service {
        key: key(namespace, name),
        cluster_ips: list(cluster),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: ports.split(',').filter(|text| !text.is_empty()).map(service_port).collect(),
        endpoints_from: EndpointsFrom::Selector,
        headless: false,
        affinity: SessionAffinity::None,
        external_traffic: TrafficPolicy::Cluster,
        internal_traffic: TrafficPolicy::Local,
    }
}

pub(super) fn list(text: &str) -> Vec<IpAddr> {
    text.split(',').filter(|text| !text.is_empty()).map(address).collect()
}

fn protocol(text: &str) -> (Protocol, &str) {
    match text.split_once('/') {
        Some((rest, "udp")) => (Protocol::Udp, rest),
        Some((rest, "sctp")) => (Protocol::Sctp, rest),
        _ => (Protocol::Tcp, text),
    }
}

fn service_port(text: &str) -> ServicePort {
    let (protocol, text) = protocol(text);
    let (name, numbers) = text.split_once(':').expect("name:port");
    let (port, node_port) = match numbers.split_once('+') {
        Some((port, node)) => (port, Some(node.parse().unwrap())),
        None => (numbers, None),
    };
    let port = port.parse().unwrap();
    ServicePort { name: name.into(), protocol, port, target: TargetPort::Number(port), node_port }
}

/// A slice of a Service: ports such as `web:8080` or `all:`, endpoints by their addresses.
pub(super) fn slice(name: &str, of: &str, ports: &str, endpoints: &str) -> EndpointSlice {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let port = |text: &str| {
        let (protocol, text) = protocol(text);
        let (name, number) = text.split_once(':').expect("name:port");
        SlicePort { name: name.into(), protocol, port: number.parse().ok() }
    };
    let endpoint = |address| Endpoint {
        addresses: vec![address],
        ready: false,
        serving: false,
        terminating: true,
        node: None,
        pod: None,
    };
    EndpointSlice {
        key: key(namespace, name),
        service: (!of.is_empty()).then(|| of.into()),
        ports: ports.split(',').filter(|text| !text.is_empty()).map(port).collect(),
        endpoints: list(endpoints).into_iter().map(endpoint).collect(),
    }
}

pub(super) fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(v4) => Addr::v4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => Addr::from_octets(v6.octets()),
    }
}

/// The objects that entries follow from.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) own: Vec<IpAddr>,
}

/// What the map must hold: entry by entry, each from everything, over the classes in `state`.
pub(super) fn expected(
    objects: &Objects,
    state: &KernelState,
) -> BTreeMap<ServiceKey, abi::Service> {
    let mut backends: BTreeMap<ServiceKey, BTreeSet<(IpAddr, u16)>> = BTreeMap::new();
    for service in objects.services.iter().filter(|service| !service.headless) {
        let Service { cluster_ips, external_ips, load_balancer_ips, .. } = service;
        let serves = |ip: &IpAddr| {
            cluster_ips.is_empty() || cluster_ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4())
        };
        for port in &service.ports {
            let proto = match port.protocol {
                Protocol::Tcp => proto::TCP,
                Protocol::Udp => proto::UDP,
                Protocol::Sctp => proto::SCTP,
            };
            let mut fronts: Vec<(Option<IpAddr>, u16)> = cluster_ips
                .iter()
                .chain(external_ips)
                .chain(load_balancer_ips)
                .filter(|ip| serves(ip))
                .map(|ip| (Some(*ip), port.port))
                .collect();
            fronts.extend(port.node_port.map(|number| (None, number)));
            for (front, number) in fronts {
                let addr = front.map_or(ANY_NODE_ADDRESS, addr);
                let of = backends.entry(ServiceKey { addr, port: number, proto, _pad: 0 });
                let of = of.or_default();
                for slice in &objects.slices {
                    let is_its = slice.key.namespace == service.key.namespace
                        && slice.service.as_ref() == Some(&service.key.name);
                    for slice_port in slice.ports.iter().filter(|_| is_its) {
                        if (&slice_port.name, slice_port.protocol) != (&port.name, port.protocol) {
                            continue;
                        }
                        for endpoint in &slice.endpoints {
                            let Some(backend) = endpoint.addresses.first() else { continue };
                            let fits = match front {
                                Some(front) => front.is_ipv4() == backend.is_ipv4(),
                                None => serves(backend),
                            };
                            if fits {
                                of.insert((*backend, slice_port.port.unwrap_or(port.port)));
                            }
                        }
                    }
                }
            }
        }
    }
    backends.into_iter().map(|(key, all)| (key, entry(key, &all, &objects.own, state))).collect()
}

fn entry(
    key: ServiceKey,
    backends: &BTreeSet<(IpAddr, u16)>,
    own: &[IpAddr],
    state: &KernelState,
) -> abi::Service {
    let (node, others): (Vec<_>, Vec<_>) = backends.iter().partition(|(ip, _)| own.contains(ip));
    let pairs: BTreeSet<_> = others.iter().map(|(ip, port)| (state.class(*ip), *port)).collect();
    let mut entry = abi::Service { key, ..abi::Service::default() };
    if !pairs.is_empty() {
        entry.flags |= SVC_OTHERS;
    }
    if node.len() > 2 {
        entry.flags |= SVC_NODE_MANY;
    }
    if pairs.len() <= 4 {
        entry.pair_count = pairs.len().try_into().unwrap();
        for (at, (class, port)) in pairs.into_iter().enumerate() {
            entry.pairs[at] = ClassPort { class, port, ..ClassPort::default() };
        }
    }
    for (at, (ip, port)) in node.into_iter().take(2).enumerate() {
        entry.node[at] = NodeBackend { addr: addr(ip), port, ..NodeBackend::default() };
        entry.node_count += 1;
    }
    entry
}

/// What the map holds besides: what is left of Services that are gone.
pub(super) fn left_over(
    objects: &Objects,
    state: &KernelState,
) -> BTreeMap<ServiceKey, abi::Service> {
    let expected = expected(objects, state);
    let entries = state.services.iter().filter(|(key, _)| !expected.contains_key(*key));
    entries.map(|(key, service)| (*key, *service)).collect()
}

/// Checks every entry.
pub(super) fn check(objects: &Objects, state: &KernelState) {
    let mut expected = expected(objects, state);
    for (key, service) in left_over(objects, state) {
        assert_eq!((service.pair_count, service.pairs), (0, Default::default()), "{key:?}");
        expected.insert(key, service);
    }
    assert_eq!(state.services, expected);
}

/// Virtual addresses in streams; some are those of pods and nodes.
const VIRTUAL: [&str; 5] = ["10.96.0.1", "10.96.0.2", "fd96::1", "10.0.0.2", "192.0.2.7"];
/// This node's addresses in streams.
const OWN: [&str; 4] = ["192.0.2.7", "192.0.2.8", "10.0.1.1", "fd00::2"];
/// Places for Services, and for slices of each.
pub(super) const SERVICES: usize = 3;
pub(super) const SLICES: usize = 4;

fn service_name(at: usize) -> (&'static str, String) {
    (["a", "a", "b"][at], format!("s{at}"))
}

pub(super) fn random_service(at: usize) -> impl Strategy<Value = Service> {
    let port = (select(vec!["", "web", "dns"]), select(vec!["", "/udp"]), option::of(0..2u16))
        .prop_map(|(name, protocol, node)| {
            let node = node.map_or(String::new(), |node| format!("+{}", 30000 + node));
            format!("{name}:80{node}{protocol}")
        });
    let addresses = || prop::collection::vec(select(VIRTUAL.to_vec()), 0..3);
    let ports = prop::collection::vec(port, 0..3);
    (addresses(), addresses(), addresses(), ports, prop::bool::weighted(0.1)).prop_map(
        move |(cluster, external, balancer, ports, headless)| {
            let (namespace, name) = service_name(at);
            let name = format!("{namespace}/{name}");
            Service {
                external_ips: list(&external.join(",")),
                load_balancer_ips: list(&balancer.join(",")),
                headless,
                ..service(&name, &cluster.join(","), &ports.join(","))
            }
        },
    )
}

pub(super) fn random_slice(at: usize) -> impl Strategy<Value = EndpointSlice> {
    let all: Vec<&str> =
        POD_ADDRESSES.iter().flatten().chain(&OUTSIDE).chain(&OWN).copied().collect();
    let ports =
        select(vec!["", ":8080", "web:8080", "web:,dns:53/udp", "web:81,web:8080", "dns:53"]);
    let endpoints = prop::collection::vec(select(all), 0..7);
    let of = prop_oneof![9 => (0..SERVICES).prop_map(Some), 1 => Just(None)];
    // Some name a Service that is in another namespace, so none.
    let namespace = if at == 3 { "b" } else { "a" };
    (ports, endpoints, of).prop_map(move |(ports, endpoints, of)| {
        let of = of.map_or_else(String::new, |of| service_name(of).1);
        slice(&format!("{namespace}/x{at}"), &of, ports, &endpoints.join(","))
    })
}

pub(super) fn random_own() -> impl Strategy<Value = Vec<IpAddr>> {
    prop::sample::subsequence(OWN.to_vec(), 0..=OWN.len())
        .prop_map(|own| own.into_iter().map(address).collect())
}

pub(super) fn apply_service(index: &mut Index, service: Service) {
    index.apply(Event::ServiceApplied(Box::new(service)));
}

/// `10.96.0.1:80` or `:30080` for a node port, with `/udp`.
pub(super) fn front(text: &str) -> ServiceKey {
    let (protocol, text) = protocol(text);
    let (front, port) = text.rsplit_once(':').unwrap();
    let addr = if front.is_empty() { ANY_NODE_ADDRESS } else { addr(address(front)) };
    let proto = if protocol == Protocol::Udp { proto::UDP } else { proto::TCP };
    ServiceKey { addr, port: port.parse().unwrap(), proto, _pad: 0 }
}

/// Class names by what tells them apart, and an entry in words.
pub(super) fn words(index: &Index, front_text: &str) -> Option<String> {
    let state = index.snapshot();
    let entry = state.services.get(&front(front_text))?;
    let name = |class| {
        let known = [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("203.0.113.1", "net")];
        let named = known.iter().find(|(at, _)| state.class(address(at)) == class);
        if class == 0 { "0" } else { named.map_or("?", |(_, name)| name) }
    };
    let pairs = entry.pairs.iter().take(entry.pair_count.into());
    let pairs: BTreeSet<String> =
        pairs.map(|pair| format!("{}:{}", name(pair.class), pair.port)).collect();
    let node = entry.node.iter().take(entry.node_count.into()).map(|backend| {
        format!("node {}:{}", IpAddr::from(backend.addr.octets()).to_canonical(), backend.port)
    });
    let mut words: Vec<String> = pairs.into_iter().chain(node).collect();
    if entry.flags & SVC_OTHERS != 0 && entry.pair_count == 0 {
        words.push("many".into());
    }
    if entry.flags & SVC_NODE_MANY != 0 {
        words.push("more".into());
    }
    Some(words.join(" "))
}

/// Pods `a` and `b` of two classes, and a local one whose policy tells them apart.
pub(super) fn cluster() -> Index {
    let mut index = index();
    index.apply(Event::NamespaceApplied(namespace("n", "")));
    for (name, labels, at) in [
        ("n/a", "app=a", "10.0.0.1,fd00::1"),
        ("n/b", "app=b", "10.0.0.2,fd00::2"),
        ("n/c", "app=c", "10.0.0.3"),
    ] {
        apply_pod(&mut index, pod(name, labels, at));
    }
    apply_veth(&mut index, 7, "10.0.0.3");
    let spec = "podSelector: {matchLabels: {app: c}}, policyTypes: [Egress], egress: [{to: \
                [{podSelector: {matchLabels: {app: a}}}]}, {to: [{podSelector: {matchLabels: {app: \
                b}}}], ports: [{port: 1}]}, {to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: \
                [{port: 2}]}]";
    apply_policy(&mut index, policy("n/p", spec));
    index.apply(Event::NodeAddressesFound(vec![address("192.0.2.7"), address("fd00::7")]));
    drain(&mut index);
    index
}

/// Cluster addresses, ports, slices, and entries in words.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, Option<&'static str>)],
);

#[test]
fn backends_are_classes_and_target_ports() {
    let dual = "10.96.0.1,fd96::1";
    let table: &[Case] = &[
        (dual, ":80", &[], &[("10.96.0.1:80", Some("")), ("fd96::1:80", Some("")), (":80", None)]),
        (
            dual,
            ":80+30080",
            &[(":8080", "10.0.0.1,10.0.0.2,fd00::1,192.0.2.7")],
            &[
                ("10.96.0.1:80", Some("a:8080 b:8080 node 192.0.2.7:8080")),
                ("fd96::1:80", Some("a:8080")),
                (":30080", Some("a:8080 b:8080 node 192.0.2.7:8080")),
            ],
        ),
        // A port is found by name and protocol; no number is the Service's own.
        (
            "10.96.0.1",
            "web:80,dns:53/udp",
            &[("web:8080,dns:53", "10.0.0.1"), ("web:,dns:5353/udp", "10.0.0.2")],
            &[
                ("10.96.0.1:80", Some("a:8080 b:80")),
                ("10.96.0.1:53/udp", Some("b:5353")),
                ("10.96.0.1:53", None),
            ],
        ),
        // Numbers of a name may differ, one of them twice.
        (
            "10.96.0.1",
            ":80",
            &[(":1", "10.0.0.1,203.0.113.1"), (":2", "10.0.0.1,203.0.113.2,198.51.100.1")],
            &[("10.96.0.1:80", Some("many"))],
        ),
        (
            "10.96.0.1",
            ":80",
            &[(":1", "10.0.0.1,203.0.113.1,203.0.113.2,198.51.100.1,198.51.100.2")],
            &[("10.96.0.1:80", Some("0:1 a:1 net:1"))],
        ),
        (
            "10.96.0.1",
            ":80",
            &[(":1,:2,:3", "192.0.2.7")],
            &[("10.96.0.1:80", Some("node 192.0.2.7:1 node 192.0.2.7:2 more"))],
        ),
        // A family without a cluster address is not served.
        (
            "10.96.0.1",
            ":80+30080",
            &[(":1", "fd00::1,10.0.0.2")],
            &[("10.96.0.1:80", Some("b:1")), (":30080", Some("b:1"))],
        ),
    ];
    for (cluster_ips, ports, slices, entries) in table {
        let mut index = cluster();
        apply_service(&mut index, service("n/s", cluster_ips, ports));
        for (at, (ports, endpoints)) in slices.iter().enumerate() {
            let one = slice(&format!("n/x{at}"), "s", ports, endpoints);
            index.apply(Event::SliceApplied(one));
        }
        // Another namespace's slice of the same name means another Service.
        index.apply(Event::SliceApplied(slice("m/x0", "s", ports, "203.0.113.9")));
        drain(&mut index);
        for (front, expected) in *entries {
            let found = words(&index, front);
            assert_eq!(found.as_deref(), *expected, "{cluster_ips} {ports} {slices:?}: {front}");
        }
    }
}

#[test]
fn a_virtual_address_is_what_the_proxy_translates() {
    let base = service("n/s", "10.96.0.1", ":80+30080");
    let all = Service {
        external_ips: list("192.0.2.50,fd00::50,0.0.0.0"),
        load_balancer_ips: list("192.0.2.60,::"),
        ..base.clone()
    };
    let unallocated = Service { cluster_ips: Vec::new(), ..all.clone() };
    let headless = Service { headless: true, ..all.clone() };
    let zero = Service {
        ports: vec![ServicePort { port: 0, node_port: Some(0), ..base.ports[0].clone() }],
        ..base.clone()
    };
    for (service, fronts) in [
        (base, &["10.96.0.1:80", ":30080"][..]),
        (all, &["10.96.0.1:80", "192.0.2.50:80", "192.0.2.60:80", ":30080"]),
        (unallocated, &["192.0.2.50:80", "192.0.2.60:80", "fd00::50:80", ":30080"]),
        (headless, &[]),
        (zero, &[]),
    ] {
        let mut index = cluster();
        apply_service(&mut index, service.clone());
        drain(&mut index);
        let found: BTreeSet<_> = index.snapshot().services.into_keys().collect();
        assert_eq!(found, fronts.iter().map(|text| front(text)).collect(), "{service:?}");
        assert_eq!(index.status().counts.services, fronts.len());
    }
}

#[test]
fn what_is_behind_a_service_follows_every_change() {
    let mut index = cluster();
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80"));
    let slices = |endpoints: &str| Event::SliceApplied(slice("n/x", "s", ":8080", endpoints));
    index.apply(slices("10.0.0.1,198.51.100.1"));
    drain(&mut index);
    let mut step = |event: Event, expected: Option<&str>| {
        let text = format!("{event:?}");
        index.apply(event);
        drain(&mut index);
        assert_eq!(words(&index, "10.96.0.1:80").as_deref(), expected, "{text}");
    };
    step(slices("10.0.0.1"), Some("a:8080"));
    // A pod's labels, its going, a prefix that comes to hold it.
    step(Event::PodApplied(pod("n/a", "app=none", "10.0.0.1")), Some("0:8080"));
    step(Event::PodApplied(pod("n/a", "app=b", "10.0.0.1")), Some("a:8080"));
    step(Event::PodDeleted(key("n", "a")), Some("0:8080"));
    let spec = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: \
                10.0.0.0/24}}]}]";
    step(Event::PolicyApplied(Box::new(policy("n/q", spec))), Some("a:8080"));
    step(Event::PolicyDeleted(key("n", "q")), Some("0:8080"));
    // The node's own address comes and goes.
    let own = |text: &str| Event::NodeAddressesFound(list(text));
    step(own("10.0.0.1,10.0.0.9"), Some("node 10.0.0.1:8080"));
    step(slices("10.0.0.1,10.0.0.2"), Some("b:8080 node 10.0.0.1:8080"));
    step(own(""), Some("0:8080 b:8080"));
    step(Event::SliceDeleted(key("n", "x")), Some(""));
    // Its proxy may go on for a while.
    step(Event::ServiceDeleted(key("n", "s")), Some(""));
    // A slice that was there before.
    step(slices("10.0.0.2"), Some(""));
    let service = Event::ServiceApplied(Box::new(service("n/s", "10.96.0.1", ":80")));
    step(service, Some("b:8080"));
    // Nothing is left of it in the classes.
    step(Event::ServiceDeleted(key("n", "s")), Some("many"));
    step(Event::SliceDeleted(key("n", "x")), Some("many"));
    step(Event::ProxiesHadTime, Some("many"));
    step(Event::ProxiesHadTime, None);
    let mut alone = cluster();
    for event in [Event::PodDeleted(key("n", "a")), own("")] {
        alone.apply(event);
    }
    drain(&mut alone);
    assert_eq!(index.snapshot().rows.len(), alone.snapshot().rows.len());
    assert_eq!(index.status().counts, alone.status().counts);
}

#[test]
fn services_with_one_address_are_united_until_one_goes() {
    let mut index = cluster();
    for (name, at) in [("n/s", "10.0.0.1"), ("n/t", "10.0.0.2")] {
        apply_service(&mut index, service(name, "10.96.0.1", ":80"));
        let (_, of) = name.split_once('/').unwrap();
        index.apply(Event::SliceApplied(slice(&format!("n/{of}-x"), of, ":1", at)));
    }
    drain(&mut index);
    assert_eq!(words(&index, "10.96.0.1:80").as_deref(), Some("a:1 b:1"));
    index.apply(Event::ServiceDeleted(key("n", "s")));
    drain(&mut index);
    assert_eq!(words(&index, "10.96.0.1:80").as_deref(), Some("b:1"));
}

#[test]
fn entries_are_there_before_endpoints_switch_and_go_last() {
    let mut index = cluster();
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80"));
    index.apply(Event::SliceApplied(slice("n/x", "s", ":1", "10.0.0.1")));
    let [plan]: [Plan; 1] = drain(&mut index).try_into().unwrap();
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (1, 0));
    // What is the same is not written again.
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80"));
    index.apply(Event::SliceApplied(slice("n/x", "s", ":1", "10.0.0.1")));
    index.apply(Event::SliceApplied(slice("n/y", "s", ":1", "10.0.0.1")));
    assert!(drain(&mut index).is_empty());
    index.apply(Event::ServiceDeleted(ObjectKey { namespace: "n".into(), name: "s".into() }));
    let [plan]: [Plan; 1] = drain(&mut index).try_into().unwrap();
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (1, 0));
    index.apply(Event::ProxiesHadTime);
    assert!(drain(&mut index).is_empty());
    index.apply(Event::ProxiesHadTime);
    let [plan]: [Plan; 1] = drain(&mut index).try_into().unwrap();
    assert_eq!((plan.services_set.len(), plan.services_removed.len()), (0, 1));
}

#[test]
fn node_ports_are_served_where_the_proxy_serves_them() {
    let own = || vec![address("192.0.2.7"), address("10.0.0.254"), address("fd00::7")];
    let node = |name: &str| Node {
        name: name.into(),
        addresses: list("192.0.2.7,192.0.2.9,fd00::7"),
        primary: list("192.0.2.7,fd00::7"),
    };
    use NodeAddress::{NodePorts, Plain};
    for (named, serving, object, expected) in [
        (None, NodePortAddresses::Primary, "w1", [NodePorts; 3]),
        (Some("w1"), NodePortAddresses::All, "w1", [NodePorts; 3]),
        (Some("w1"), NodePortAddresses::Primary, "w2", [NodePorts; 3]),
        (Some("w1"), NodePortAddresses::Primary, "w1", [Plain, NodePorts, NodePorts]),
    ] {
        let node_name = named.map(Into::into);
        let config = IndexConfig { node: node_name, node_ports: serving, ..IndexConfig::default() };
        let mut index = Index::new(config);
        index.apply(Event::NodeAddressesFound(own()));
        assert!(index.take_node_addresses().is_some());
        index.apply(Event::NodeAddressesFound(own()));
        assert_eq!(index.take_node_addresses(), None, "nothing has changed");
        index.apply(Event::NodeApplied(node(object)));
        // Of another node's object nothing follows.
        assert_eq!(index.take_node_addresses().is_some(), named == Some(object));
        index.apply(Event::NodeAddressesFound(Vec::new()));
        index.apply(Event::NodeAddressesFound(own()));
        let found = index.take_node_addresses().unwrap();
        let mut sorted = own();
        sorted.sort_unstable();
        let expected: BTreeMap<_, _> = sorted.into_iter().zip(expected).collect();
        assert_eq!(found, expected, "{named:?} {serving:?} {object}");
    }
}
