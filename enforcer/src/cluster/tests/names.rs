//! What flows are told of pods: everything that explains a verdict, and only when it changes.

use enforcer_common::abi::Direction;

use super::*;
use crate::{
    cluster::{
        event::Workload,
        plan::{NameChange, PodIdentity},
    },
    policy::rule::Isolating,
};

/// `a/p`, part of a Deployment, at 10.0.0.1 behind interface 7, isolated by a policy.
fn cluster() -> Index {
    let mut index = index();
    index.apply(Event::NamespaceApplied(namespace("a", "team=red")));
    apply_policy(&mut index, policy("a/in", "podSelector: {}, ingress: [{ports: [{port: 80}]}]"));
    apply_pod(&mut index, web());
    apply_veth(&mut index, 7, "10.0.0.1");
    index
}

fn web() -> Pod {
    let workload = Some(Workload { kind: "Deployment".into(), name: "web".into() });
    let ports = vec![named_port("http", Protocol::Tcp, 80)];
    Pod { workload, ports, ..pod("a/p", "app=x", "10.0.0.1") }
}

/// Who an interface's pod is, and what isolates it for ingress.
type Named = (Arc<PodIdentity>, Isolating);

/// Who the address is, and whose the interface is with what isolates it for ingress.
fn told(index: &mut Index) -> (Option<Arc<PodIdentity>>, Option<Named>) {
    let (mut address, mut endpoint) = (None, None);
    for change in drain(index).into_iter().flat_map(|plan| plan.names) {
        match change {
            NameChange::Address(_, pod) => address = Some(pod),
            NameChange::Endpoint(7, _, pod, [ingress, _]) => endpoint = Some((pod, ingress)),
            NameChange::Rule(..) | NameChange::RuleGone(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (address, endpoint)
}

#[test]
fn both_names_of_a_pod_say_what_explains_a_verdict() {
    let (address, endpoint) = told(&mut cluster());
    let (of_interface, isolating) = endpoint.unwrap();
    assert_eq!(address.as_ref(), Some(&of_interface));
    assert_eq!(of_interface.namespace_labels.get("team"), Some("red"));
    let workload = of_interface.workload.as_ref().map(|one| (&*one.kind, &*one.name));
    assert_eq!(workload, Some(("Deployment", "web")));
    assert_eq!(of_interface.ports[0].number, 80);
    assert_eq!(isolating.policies()[0].rules(Direction::Ingress).len(), 1);
}

#[test]
fn what_explains_a_verdict_is_told_anew_when_it_changes() {
    let mut index = cluster();
    told(&mut index);
    let team = |of: &Arc<PodIdentity>| of.namespace_labels.get("team").map(str::to_owned);
    index.apply(Event::NamespaceApplied(namespace("a", "team=blue")));
    let (address, endpoint) = told(&mut index);
    assert_eq!(address.as_ref().and_then(team).as_deref(), Some("blue"));
    assert_eq!(endpoint.as_ref().and_then(|(pod, _)| team(pod)).as_deref(), Some("blue"));
    // The same policy with another rule: the same names, another explanation.
    apply_policy(&mut index, policy("a/in", "podSelector: {}, ingress: [{}, {}]"));
    let (address, endpoint) = told(&mut index);
    assert_eq!(address, None);
    let rules = endpoint.map(|(_, isolating)| isolating.policies()[0].rules[0].len());
    assert_eq!(rules, Some(2));
    let moved = Pod { ports: vec![named_port("http", Protocol::Tcp, 8080)], ..web() };
    apply_pod(&mut index, moved.clone());
    let (address, endpoint) = told(&mut index);
    assert_eq!(address.map(|pod| pod.ports[0].number), Some(8080));
    assert_eq!(endpoint.map(|(pod, _)| pod.ports[0].number), Some(8080));
    // And not when nothing of it does.
    index.apply(Event::NamespaceApplied(namespace("a", "team=blue")));
    index.apply(Event::NamespaceApplied(namespace("b", "team=red")));
    apply_pod(&mut index, Pod { containers_started: Some(7), ..moved });
    assert_eq!(told(&mut index), (None, None));
}
