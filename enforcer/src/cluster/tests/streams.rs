//! Random streams of events. After each: the maps say what the API says, the index is what a
//! fresh one would be, and no store on the way was wrong.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_common::{
    abi::{Direction, ServiceKey},
    verdict::proto::{ICMP, SCTP, TCP, UDP},
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::prelude::*;

use super::{
    address,
    kernel::{self, Probe, Stage, judge, meaning, verdict},
    random::{self, NAMESPACES, OUTSIDE, POD_ADDRESSES, PODS},
    reference::{self, World},
    services::{self, SERVICES, SLICES},
    veth,
};
use crate::cluster::{
    Index, IndexConfig, KernelState,
    binding::Binding,
    event::{AdoptedInterface, EndpointSlice, Event, Namespace, ObjectKey, Pod, Service},
    plan::Plan,
};

const POLICIES: usize = 5;

/// What happens, by place.
#[derive(Clone, Debug)]
enum Step {
    Pod(usize, Option<Pod>),
    Namespace(usize, Option<Namespace>),
    Policy(usize, Box<Option<NetworkPolicy>>),
    Interface(usize, bool),
    Service(usize, Box<Option<Service>>),
    Slice(usize, Option<EndpointSlice>),
    Own(Vec<IpAddr>),
    Time,
    /// Several changes of pods and policies that arrive as one list.
    List(Vec<(usize, Option<Pod>)>, Vec<(usize, Option<NetworkPolicy>)>),
}

fn change<T: Clone + std::fmt::Debug, S: Strategy<Value = T>>(
    places: usize,
    make: impl Fn(usize) -> S + Copy + 'static,
) -> impl Strategy<Value = (usize, Option<T>)> {
    (0..places).prop_flat_map(move |at| (Just(at), prop::option::weighted(0.8, make(at))))
}

fn step() -> impl Strategy<Value = Step> {
    let pod = || change(PODS, random::pod);
    let policy = || change(POLICIES, random::policy);
    let service = || change(SERVICES, services::random_service);
    let slice = || change(SLICES, services::random_slice);
    let list = (prop::collection::vec(pod(), 0..4), prop::collection::vec(policy(), 0..3));
    prop_oneof![
        5 => pod().prop_map(|(at, pod)| Step::Pod(at, pod)),
        2 => change(NAMESPACES.len(), random::namespace).prop_map(|(at, n)| Step::Namespace(at, n)),
        6 => policy().prop_map(|(at, policy)| Step::Policy(at, Box::new(policy))),
        3 => (0..PODS, prop::bool::weighted(0.8)).prop_map(|(at, is)| Step::Interface(at, is)),
        2 => service().prop_map(|(at, service)| Step::Service(at, Box::new(service))),
        2 => slice().prop_map(|(at, slice)| Step::Slice(at, slice)),
        1 => services::random_own().prop_map(Step::Own),
        1 => Just(Step::Time),
        1 => list.prop_map(|(pods, policies)| Step::List(pods, policies)),
    ]
}

/// What the stream has made of the cluster.
#[derive(Default)]
struct Cluster {
    pods: BTreeMap<usize, Pod>,
    namespaces: BTreeMap<usize, Namespace>,
    policies: BTreeMap<usize, NetworkPolicy>,
    services: BTreeMap<usize, Service>,
    slices: BTreeMap<usize, EndpointSlice>,
    own: Vec<IpAddr>,
}

fn set<T: Clone>(map: &mut BTreeMap<usize, T>, at: usize, value: Option<&T>) -> Option<T> {
    match value {
        Some(value) => map.insert(at, value.clone()),
        None => map.remove(&at),
    }
}

impl Cluster {
    /// The events of a step.
    fn step(&mut self, step: &Step) -> Option<Event> {
        match step {
            Step::Pod(at, pod) => {
                let old = set(&mut self.pods, *at, pod.as_ref());
                match pod {
                    Some(pod) => Some(Event::PodApplied(pod.clone())),
                    None => old.map(|old| Event::PodDeleted(old.key)),
                }
            }
            Step::Namespace(at, namespace) => {
                set(&mut self.namespaces, *at, namespace.as_ref());
                Some(match namespace {
                    Some(namespace) => Event::NamespaceApplied(namespace.clone()),
                    None => Event::NamespaceDeleted(NAMESPACES[*at].into()),
                })
            }
            Step::Policy(at, policy) => {
                let old = set(&mut self.policies, *at, Option::as_ref(policy));
                match &**policy {
                    Some(policy) => Some(Event::PolicyApplied(Box::new(policy.clone()))),
                    None => old.map(|old| Event::PolicyDeleted(crate::policy::compile::key(&old))),
                }
            }
            Step::Interface(at, true) => {
                Some(Event::InterfaceFound(veth(ifindex(*at), &POD_ADDRESSES[*at].join(","))))
            }
            Step::Interface(at, false) => Some(Event::InterfaceLost(ifindex(*at))),
            Step::Service(at, service) => {
                let old = set(&mut self.services, *at, Option::as_ref(service));
                match &**service {
                    Some(service) => Some(Event::ServiceApplied(Box::new(service.clone()))),
                    None => old.map(|old| Event::ServiceDeleted(old.key)),
                }
            }
            Step::Slice(at, slice) => {
                let old = set(&mut self.slices, *at, slice.as_ref());
                match slice {
                    Some(slice) => Some(Event::SliceApplied(slice.clone())),
                    None => old.map(|old| Event::SliceDeleted(old.key)),
                }
            }
            Step::Own(own) => {
                self.own.clone_from(own);
                Some(Event::NodeAddressesFound(own.clone()))
            }
            Step::Time => Some(Event::ProxiesHadTime),
            Step::List(pods, policies) => {
                for (at, pod) in pods {
                    set(&mut self.pods, *at, pod.as_ref());
                }
                for (at, policy) in policies {
                    set(&mut self.policies, *at, policy.as_ref());
                }
                Some(self.list())
            }
        }
    }

    fn services(&self) -> services::Objects {
        services::Objects {
            services: self.services.values().cloned().collect(),
            slices: self.slices.values().cloned().collect(),
            own: self.own.clone(),
        }
    }

    fn world(&self) -> World {
        World {
            pods: self.pods.values().cloned().collect(),
            namespaces: self.namespaces.values().cloned().collect(),
            policies: self.policies.values().cloned().collect(),
        }
    }

    fn list(&self) -> Event {
        let World { pods, namespaces, policies } = self.world();
        Event::Relist { pods, namespaces, policies }
    }
}

fn ifindex(at: usize) -> u32 {
    100 + u32::try_from(at).unwrap()
}

fn probes() -> Vec<Probe> {
    let others: Vec<_> =
        POD_ADDRESSES.iter().flatten().chain(&OUTSIDE).map(|text| address(text)).collect();
    let mut probes = Vec::new();
    for at in 0..PODS {
        for direction in Direction::BOTH {
            for other in &others {
                for (protocol, port) in
                    [(ICMP, 0), (TCP, 80), (TCP, 81), (TCP, 8080), (UDP, 80), (SCTP, 7)]
                {
                    let ifindex = ifindex(at);
                    probes.push(Probe { ifindex, direction, other: *other, protocol, port });
                }
            }
        }
    }
    probes
}

/// The pod of a bound interface, and whether it is one that is closed.
fn bound(index: &Index, ifindex: u32) -> Option<&Pod> {
    match &index.interfaces.entries.get(&ifindex)?.binding {
        Binding::Bound { pod, .. } => Some(pod),
        Binding::Waiting
        | Binding::Starting { .. }
        | Binding::Closed { .. }
        | Binding::Unenforceable { .. } => None,
    }
}

fn check_against_the_api(index: &Index, state: &KernelState, world: &World, probes: &[Probe]) {
    let cluster = world.reference();
    for probe in probes {
        let Probe { ifindex, direction, other, protocol, port } = *probe;
        let found = verdict(state, probe);
        match bound(index, ifindex) {
            Some(pod) => {
                let subject = reference::pod(pod);
                let expected =
                    reference::allows(&cluster, &subject, direction, other, (protocol, port));
                assert_eq!(found, Some(expected), "{probe:?} at {:?}\n{world:#?}", pod.key);
            }
            None => assert_ne!(found, Some(true), "{probe:?} passes an interface of no pod"),
        }
    }
}

/// An index that is told only what is so now; bindings, which depend on the past, are given.
fn fresh(index: &Index, cluster: &Cluster) -> Index {
    let mut fresh =
        Index::new(IndexConfig { class_key: [1, 2], first_table: 1000, ..IndexConfig::default() });
    for entry in index.interfaces.entries.values() {
        let Binding::Bound { pod, addresses, .. } = &entry.binding else { continue };
        let mut then = Pod::clone(pod);
        (then.finished, then.host_network) = (false, false);
        then.addresses.clone_from(addresses);
        fresh.apply(Event::PodApplied(then));
        fresh.apply(Event::InterfaceAdopted(AdoptedInterface {
            interface: entry.interface.clone(),
            bound_addresses: entry.deciding.clone(),
        }));
        fresh.apply(Event::PodApplied(Pod::clone(pod)));
        fresh.apply(Event::PodDeleted(pod.key.clone()));
    }
    for (ifindex, entry) in &index.interfaces.entries {
        if bound(index, *ifindex).is_none() {
            fresh.apply(Event::InterfaceFound(entry.interface.clone()));
        }
    }
    fresh.apply(cluster.list());
    let left_over = services::left_over(&cluster.services(), &index.snapshot());
    fresh.apply(Event::ServicesFound(left_over));
    let services::Objects { services, slices, own } = cluster.services();
    fresh.apply(Event::NodeAddressesFound(own));
    slices.into_iter().for_each(|slice| fresh.apply(Event::SliceApplied(slice)));
    let services = services.into_iter().map(Box::new);
    services.for_each(|service| fresh.apply(Event::ServiceApplied(service)));
    super::drain(&mut fresh);
    fresh
}

fn check_against_a_fresh_one(index: &Index, cluster: &Cluster) {
    let fresh = fresh(index, cluster);
    let (mut now, mut anew) = (meaning(&index.snapshot()), meaning(&fresh.snapshot()));
    // Closed interfaces stay closed until they are some pod's, which a fresh index cannot know.
    now.endpoints.retain(|ifindex, _| bound(index, *ifindex).is_some());
    anew.endpoints.retain(|ifindex, _| bound(&fresh, *ifindex).is_some());
    // A family that the pod's object adds to a binding depends on who claimed the address then.
    for (ifindex, (plan, _)) in &mut anew.endpoints {
        let Some((before, _)) = now.endpoints.get_mut(ifindex) else { continue };
        let both: Vec<_> = before.addresses.clone();
        let both: Vec<_> = both.into_iter().filter(|ip| plan.addresses.contains(ip)).collect();
        if both.len() == before.addresses.len().min(plan.addresses.len()) {
            (before.addresses, plan.addresses) = (both.clone(), both);
        }
    }
    assert_eq!(now, anew);
    let (mut now, mut anew) = (index.status().counts, fresh.status().counts);
    (now.tables, now.rows, anew.tables, anew.rows) = (0, 0, 0, 0);
    assert_eq!(now, anew);
}

/// Applies a plan and checks every store of it. `single` is whether one event made it: of several
/// a packet may find what a part of them says.
fn check_plan(state: &mut KernelState, plan: &Plan, probes: &[Probe], single: bool) {
    let before = state.clone();
    let mut after = before.clone();
    kernel::apply(&mut after, plan, |_, _| {});
    let pairs: Vec<_> = probes
        .iter()
        .map(|probe| (probe, verdict(&before, probe), verdict(&after, probe)))
        .collect();
    for (probe, old, new) in &pairs {
        let rejudged = |set: &&_| {
            let crate::cluster::plan::EndpointPlan { ifindex, rejudge, .. } = set;
            *ifindex == probe.ifindex && *rejudge
        };
        if (*old, *new) == (Some(true), Some(false)) {
            assert!(
                plan.endpoints_set.iter().any(|e| rejudged(&e)),
                "{probe:?} is not judged anew"
            );
        }
    }
    kernel::apply(state, plan, |stage, now| {
        for (probe, old, new) in &pairs {
            let (Some(old), Some(new)) = (old, new) else { continue };
            let found = verdict(now, probe).unwrap();
            match stage {
                Stage::Removing => assert_eq!(found, *new, "{probe:?} after the switch"),
                Stage::Before | Stage::Switching if single && old == new => {
                    assert_eq!(found, *new, "{probe:?} in {stage:?}");
                    // A program that read the endpoint before the switch, and is still running.
                    let late = judge(now, &before.endpoints[&probe.ifindex], probe);
                    assert_eq!(late, *new, "{probe:?} late in {stage:?}");
                }
                Stage::Before | Stage::Switching => {}
            }
        }
    });
    assert_eq!(*state, after);
}

/// In a plan for one event, what the maps say of a new flow to a Service changes only where it says
/// something else after the plan. `own` is the pod that the event is about: at its interface table
/// and class may change at once.
fn check_services(before: &KernelState, plan: &Plan, own: &[u32]) {
    let mut after = before.clone();
    kernel::apply(&mut after, plan, |_, _| {});
    let pairs = before.services.keys().flat_map(|key| {
        let endpoints = before.endpoints.keys().filter(|ifindex| !own.contains(ifindex));
        endpoints.map(move |ifindex| (*key, *ifindex))
    });
    let ask = |state: &KernelState, (key, ifindex): &(ServiceKey, u32)| {
        kernel::ask(state, state.endpoints.get(ifindex)?, key)
    };
    let same: Vec<_> = pairs
        .filter_map(|pair| {
            let was = ask(before, &pair)?;
            (ask(&after, &pair).as_ref() == Some(&was)).then_some((pair, was))
        })
        .collect();
    let mut state = before.clone();
    kernel::apply(&mut state, plan, |stage, now| {
        for ((key, ifindex), was) in &same {
            assert_eq!(ask(now, &(*key, *ifindex)).as_ref(), Some(was), "{key:?} in {stage:?}");
            if stage != Stage::Removing {
                let late = kernel::ask(now, &before.endpoints[ifindex], key);
                assert_eq!(late.as_ref(), Some(was), "{key:?} late in {stage:?}");
            }
        }
    });
}

fn owner_key(index: &Index, address: IpAddr) -> Option<ObjectKey> {
    Some(index.objects.owner(&address)?.key.clone())
}

/// Probes without those between a pod and itself: a pod event changes both of its sides, and the
/// programs let a pod reach itself before they ask the maps.
fn foreign(
    index: &Index,
    old: &BTreeMap<IpAddr, Option<ObjectKey>>,
    probes: &[Probe],
) -> Vec<Probe> {
    let is_own = |probe: &&Probe| {
        let pod = bound(index, probe.ifindex).map(|pod| &pod.key);
        let before = old.get(&probe.other).and_then(Option::as_ref);
        pod.is_some() && (pod == before || pod == owner_key(index, probe.other).as_ref())
    };
    probes.iter().filter(|probe| !is_own(probe)).copied().collect()
}

fn run(steps: &[Step]) {
    let probes = probes();
    let mut cluster = Cluster::default();
    let mut index = super::index();
    let mut state = KernelState::default();
    for step in steps {
        let Some(event) = cluster.step(step) else { continue };
        let single = !matches!(event, Event::Relist { .. });
        let old = index.objects.addresses.keys().map(|at| (*at, owner_key(&index, *at))).collect();
        let pod = match &event {
            Event::PodApplied(pod) => Some(pod.key.clone()),
            Event::PodDeleted(key) => Some(key.clone()),
            _ => None,
        };
        let all: Vec<u32> = (0..PODS).map(ifindex).collect();
        let is_own = |index: &Index, ifindex: &u32| {
            pod.is_some() && bound(index, *ifindex).map(|pod| &pod.key) == pod.as_ref()
        };
        let mut own: Vec<u32> = all.iter().filter(|i| is_own(&index, i)).copied().collect();
        index.apply(event);
        own.extend(all.iter().filter(|i| is_own(&index, i)));
        let plans = super::drain(&mut index);
        for (number, plan) in plans.iter().enumerate() {
            let was = state.clone();
            if single {
                check_services(&state, plan, &own);
            }
            check_plan(&mut state, plan, &foreign(&index, &old, &probes), single);
            if number > 0 {
                assert!(plan.endpoints_set.is_empty(), "what follows a plan only forgets");
                for probe in &probes {
                    assert_eq!(verdict(&was, probe), verdict(&state, probe));
                }
            }
        }
        assert_eq!(state, index.snapshot());
        check_against_the_api(&index, &state, &cluster.world(), &probes);
        services::check(&cluster.services(), &state);
        check_against_a_fresh_one(&index, &cluster);
    }
}

/// Several events a plan, and no waiting for the plan that only forgets.
fn run_in_batches(steps: &[Step], size: usize) {
    let probes = probes();
    let mut cluster = Cluster::default();
    let mut index = super::index();
    let mut state = KernelState::default();
    for batch in steps.chunks(size) {
        batch.iter().filter_map(|step| cluster.step(step)).for_each(|event| index.apply(event));
        let plan = index.take_plan();
        check_plan(&mut state, &plan, &probes, false);
        assert_eq!(state, index.snapshot());
        check_against_the_api(&index, &state, &cluster.world(), &probes);
        services::check(&cluster.services(), &state);
    }
    for plan in super::drain(&mut index) {
        check_plan(&mut state, &plan, &probes, false);
    }
    check_against_a_fresh_one(&index, &cluster);
}

/// Pods, policies, Services and interfaces to begin with, so that streams meet something.
fn beginning() -> impl Strategy<Value = Vec<Step>> {
    let pods: Vec<_> = (0..PODS).map(random::pod).collect();
    let policies: Vec<_> = (0..3).map(random::policy).collect();
    let services: Vec<_> = (0..SERVICES).map(services::random_service).collect();
    let slices: Vec<_> = (0..SLICES).map(services::random_slice).collect();
    (pods, policies, services, slices).prop_map(|(pods, policies, services, slices)| {
        let pods = pods.into_iter().enumerate().map(|(at, pod)| (at, Some(pod))).collect();
        let policies = policies.into_iter().enumerate().map(|(at, p)| (at, Some(p))).collect();
        let interfaces = (0..4).map(|at| Step::Interface(at, true));
        let services = services.into_iter().enumerate();
        let services = services.map(|(at, service)| Step::Service(at, Box::new(Some(service))));
        let slices = slices.into_iter().enumerate();
        let slices = slices.map(|(at, slice)| Step::Slice(at, Some(slice)));
        let list = Step::List(pods, policies);
        interfaces.chain(services).chain(slices).chain([list]).collect()
    })
}

fn stream() -> impl Strategy<Value = Vec<Step>> {
    (beginning(), prop::collection::vec(step(), 0..12))
        .prop_map(|(beginning, steps)| beginning.into_iter().chain(steps).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_event_leaves_what_the_api_says_and_no_store_is_wrong(steps in stream()) {
        run(&steps);
    }

    #[test]
    fn several_events_make_one_plan(steps in stream(), size in 1..6usize) {
        run_in_batches(&steps, size);
    }
}
