//! Random orders of what is told of starting pods: no interface is ever open before its pod is
//! known, and in the end all are whose they are, as if it had been told in the best order.

use std::collections::BTreeMap;

use enforcer_common::abi::Direction;
use proptest::prelude::*;

use super::{
    address, apply_pod, apply_policy,
    kernel::{self, Probe, Stage, meaning, verdict},
    policy, veth,
};
use crate::cluster::{
    Index, IndexConfig, KernelState,
    event::{Event, Interface, Labels, Pod, Sandbox, StartPolicy},
};

const PODS: u32 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The object, with an address of its own or without.
    Object(u32, bool),
    /// An object of that name with another UID: the one before it.
    Earlier(u32),
    ObjectGone(u32),
    /// The interface, with its addresses or before it has them.
    Interface(u32, bool),
    InterfaceGone(u32),
    /// What the plugins tell, with the interface's name or without.
    Sandbox(u32, bool),
    SandboxGone(u32),
    /// A file that an earlier boot left: this pod's, with the next one's address.
    Stale(u32),
    List,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..PODS;
    prop_oneof![
        4 => (at(), any::<bool>()).prop_map(|(at, whole)| Step::Object(at, whole)),
        1 => at().prop_map(Step::Earlier),
        1 => at().prop_map(Step::ObjectGone),
        4 => (at(), any::<bool>()).prop_map(|(at, whole)| Step::Interface(at, whole)),
        1 => at().prop_map(Step::InterfaceGone),
        4 => (at(), any::<bool>()).prop_map(|(at, named)| Step::Sandbox(at, named)),
        1 => at().prop_map(Step::SandboxGone),
        1 => at().prop_map(Step::Stale),
        1 => Just(Step::List),
    ]
}

fn text(at: u32) -> String {
    format!("10.0.0.{},fd00::{}", at + 1, at + 1)
}

fn object(at: u32, uid: &str, whole: bool) -> Pod {
    let label = if at.is_multiple_of(2) { "k=even" } else { "k=odd" };
    let addresses = if whole { text(at) } else { String::new() };
    let mut pod = super::pod(&format!("a/p{at}"), label, &addresses);
    pod.uid = uid.into();
    pod.node = Some("here".into());
    pod
}

fn interface(at: u32, whole: bool) -> Interface {
    veth(100 + at, &if whole { text(at) } else { String::new() })
}

fn sandbox(at: u32, named: bool) -> Sandbox {
    let pod = object(at, "now", true);
    Sandbox {
        id: format!("box{at}").into(),
        pod: pod.key,
        uid: pod.uid,
        interfaces: if named { vec![interface(at, true).name] } else { Vec::new() },
        addresses: pod.addresses,
        told: 2,
    }
}

/// What was told last.
#[derive(Default)]
struct Told {
    pods: BTreeMap<u32, Pod>,
}

impl Told {
    fn event(&mut self, step: Step) -> Event {
        match step {
            Step::Object(at, whole) => {
                let pod = object(at, "now", whole);
                self.pods.insert(at, pod.clone());
                Event::PodApplied(pod)
            }
            Step::Earlier(at) => {
                // Its labels would free the pod.
                let mut pod = object(at, "before", false);
                pod.labels = Labels::new();
                self.pods.insert(at, pod.clone());
                Event::PodApplied(pod)
            }
            Step::ObjectGone(at) => {
                self.pods.remove(&at);
                Event::PodDeleted(object(at, "", false).key)
            }
            Step::Interface(at, whole) => Event::InterfaceAppeared(interface(at, whole)),
            Step::InterfaceGone(at) => Event::InterfaceLost(100 + at),
            Step::Sandbox(at, named) => Event::SandboxFound(sandbox(at, named)),
            Step::SandboxGone(at) => Event::SandboxLost(sandbox(at, true).id),
            Step::Stale(at) => Event::SandboxFound(Sandbox {
                id: format!("stale{at}").into(),
                interfaces: vec!["gone".into()],
                addresses: object((at + 1) % PODS, "", true).addresses,
                told: 1,
                ..sandbox(at, true)
            }),
            Step::List => Event::Relist {
                pods: self.pods.values().cloned().collect(),
                namespaces: Vec::new(),
                policies: policies().collect(),
            },
        }
    }
}

fn policies() -> impl Iterator<Item = k8s_openapi::api::networking::v1::NetworkPolicy> {
    let peers = "from: [{podSelector: {matchLabels: {k: even}}}]";
    let odd = format!("podSelector: {{matchLabels: {{k: odd}}}}, ingress: [{{{peers}}}]");
    let block = "podSelector: {matchLabels: {k: even}}, \
                 egress: [{to: [{ipBlock: {cidr: 10.0.0.0/30}}]}], policyTypes: [Egress]";
    [policy("a/odd", &odd), policy("a/even", block)].into_iter()
}

fn index() -> Index {
    let mut index = Index::new(IndexConfig {
        class_key: [1, 2],
        first_table: 1,
        node: Some("here".into()),
        start: StartPolicy::Closed,
        ..IndexConfig::default()
    });
    policies().for_each(|policy| apply_policy(&mut index, policy));
    index
}

/// Whether a pod's policy allows a flow, told by hand.
fn allowed(at: u32, direction: Direction, other: u32) -> bool {
    match direction {
        Direction::Ingress => at.is_multiple_of(2) || other.is_multiple_of(2),
        // 10.0.0.0/30 has the addresses of the first three.
        Direction::Egress => !at.is_multiple_of(2) || other < 3,
    }
}

/// No probe passes that the pod's policy denies, whatever is known at this moment.
fn check(state: &KernelState) {
    for at in 0..PODS {
        for direction in Direction::BOTH {
            for other in 0..PODS {
                let other_address = address(&format!("10.0.0.{}", other + 1));
                let (ifindex, protocol, port) = (100 + at, 6, 80);
                let probe = Probe { ifindex, direction, other: other_address, protocol, port };
                if verdict(state, &probe) == Some(true) {
                    assert!(allowed(at, direction, other), "{probe:?}");
                }
            }
        }
    }
}

fn settle(index: &mut Index, state: &mut KernelState) {
    loop {
        let plan = index.take_plan();
        if plan.is_empty() {
            break;
        }
        kernel::apply(state, &plan, |stage, state| {
            if stage != Stage::Removing {
                check(state);
            }
        });
    }
    assert_eq!(meaning(state), meaning(&index.snapshot()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_the_order_nothing_passes_early_and_all_end_as_they_should(
        steps in prop::collection::vec(step(), 1..24),
        names in prop::collection::vec(any::<bool>(), PODS as usize),
    ) {
        let (mut index, mut told) = (index(), Told::default());
        let mut state = KernelState::default();
        for step in steps {
            index.apply(told.event(step));
            settle(&mut index, &mut state);
            for at in 0..PODS {
                let entry = index.interfaces.entries.get(&(100 + at));
                // Every interface that is there is armed.
                prop_assert_eq!(entry.is_some(), state.endpoints.contains_key(&(100 + at)));
            }
        }
        let mut best = self::index();
        let mut fresh = KernelState::default();
        for at in 0..PODS {
            let named = names[at as usize];
            for event in [
                Event::SandboxFound(sandbox(at, named)),
                Event::PodApplied(object(at, "now", true)),
                Event::InterfaceAppeared(interface(at, true)),
            ] {
                best.apply(event);
            }
        }
        settle(&mut best, &mut fresh);
        for at in 0..PODS {
            index.apply(Event::InterfaceAppeared(interface(at, true)));
            apply_pod(&mut index, object(at, "now", true));
            index.apply(Event::SandboxFound(sandbox(at, names[at as usize])));
            settle(&mut index, &mut state);
        }
        prop_assert_eq!(meaning(&state), meaning(&fresh));
    }
}
