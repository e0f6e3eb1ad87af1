//! Names, addresses and sandboxes that come back with another owner.

use std::net::IpAddr;

use enforcer_common::abi::Direction;

use super::{
    address, apply_pod, apply_policy, drain,
    kernel::{self, Probe},
    pod, policy, veth,
};
use crate::cluster::{
    Index, IndexConfig, InterfaceState,
    event::{AdoptedInterface, Event, Pod, Sandbox, StartPolicy},
};

fn index() -> Index {
    Index::new(IndexConfig {
        class_key: [1, 2],
        first_table: 1,
        node: Some("here".into()),
        start: StartPolicy::Closed,
        ..IndexConfig::default()
    })
}

fn local(name: &str, uid: &str, labels: &str, addresses: &str) -> Pod {
    let mut pod = pod(name, labels, addresses);
    pod.uid = uid.into();
    pod.node = Some("here".into());
    pod
}

fn appears(index: &mut Index, ifindex: u32, addresses: &str) {
    index.apply(Event::InterfaceAppeared(veth(ifindex, addresses)));
}

/// The runtime tells of a pod's sandbox at a time; `interface` may be empty.
fn told(index: &mut Index, of: &Pod, interface: &str, given: &str, at: i64) {
    index.apply(Event::SandboxFound(Sandbox {
        id: format!("box-{}-{at}", of.uid).into(),
        pod: of.key.clone(),
        uid: of.uid.clone(),
        interfaces: interface.split(',').filter(|i| !i.is_empty()).map(Into::into).collect(),
        addresses: vec![address(given)],
        told: at,
    }));
}

/// The pod of an interface and the addresses it may use, or what the interface is instead.
fn of(index: &mut Index, ifindex: u32) -> Result<(String, Vec<IpAddr>), InterfaceState> {
    drain(index);
    let status = index.status();
    if let Some(other) = status.interfaces.iter().find(|i| i.ifindex == ifindex) {
        return Err(other.state);
    }
    let found = status.endpoints.iter().find(|e| e.ifindex == ifindex).expect("an endpoint");
    Ok((found.pod.name.clone(), found.addresses.clone()))
}

fn is(name: &str, addresses: &str) -> Result<(String, Vec<IpAddr>), InterfaceState> {
    Ok((name.to_owned(), vec![address(addresses)]))
}

/// After a boot of the node its pods have other addresses, and the objects say so much later.
#[test]
fn what_the_runtime_gave_counts_more_than_what_objects_still_say() {
    for client_started in [1, 3] {
        let mut index = index();
        apply_policy(
            &mut index,
            policy(
                "a/in",
                "podSelector: {matchLabels: {k: s}}, \
                 ingress: [{from: [{podSelector: {matchLabels: {k: c}}}]}]",
            ),
        );
        apply_pod(&mut index, local("a/server", "s", "k=s", "10.0.0.9"));
        index.apply(Event::InterfaceFound(veth(9, "10.0.0.9")));
        let client = local("a/client", "c", "k=c", "10.0.0.1");
        let client = Pod { started: client_started, ..client };
        let other = Pod { started: 2, ..local("a/other", "o", "", "10.0.0.2") };
        apply_pod(&mut index, client.clone());
        apply_pod(&mut index, other.clone());
        appears(&mut index, 7, "10.0.0.2");
        appears(&mut index, 8, "10.0.0.1");
        told(&mut index, &client, "veth7", "10.0.0.2", 1);
        told(&mut index, &other, "veth8", "10.0.0.1", 2);
        drain(&mut index);
        let allows = |from: &str| {
            let (direction, other) = (Direction::Ingress, address(from));
            let probe = Probe { ifindex: 9, direction, other, protocol: 6, port: 80 };
            kernel::verdict(&index.snapshot(), &probe).expect("an endpoint")
        };
        assert!(allows("10.0.0.2"), "the client has it now");
        assert!(!allows("10.0.0.1"), "the other pod has it now");
    }
}

/// Without the plugins' cache: what the gate told of a pod that has finished, or got another
/// sandbox since, is still known when its address is another pod's.
#[test]
fn a_word_about_an_address_ends_with_a_later_one() {
    for finished in [true, false] {
        let mut index = index();
        let before = local("a/before", "b", "", "10.0.0.1");
        apply_pod(&mut index, before.clone());
        appears(&mut index, 7, "10.0.0.1");
        told(&mut index, &before, "", "10.0.0.1", 1);
        assert_eq!(of(&mut index, 7), is("before", "10.0.0.1"));
        index.apply(Event::InterfaceLost(7));
        apply_pod(&mut index, Pod { finished, ..before });
        let next = local("a/next", "n", "", "");
        apply_pod(&mut index, next.clone());
        appears(&mut index, 8, "10.0.0.1");
        drain(&mut index);
        told(&mut index, &next, "", "10.0.0.1", 2);
        assert_eq!(of(&mut index, 8), is("next", "10.0.0.1"), "finished: {finished}");
    }
}

/// Some plugins name an interface after its pod.
#[test]
fn a_sandbox_made_anew_has_its_own_addresses() {
    let mut index = index();
    let pod = local("a/p", "u", "", "10.0.0.1");
    apply_pod(&mut index, pod.clone());
    told(&mut index, &pod, "veth7", "10.0.0.1", 1);
    appears(&mut index, 7, "10.0.0.2");
    drain(&mut index);
    told(&mut index, &pod, "veth7", "10.0.0.2", 2);
    assert_eq!(of(&mut index, 7), is("p", "10.0.0.2"));
    index.apply(Event::SandboxLost("box-u-1".into()));
    assert_eq!(of(&mut index, 7), is("p", "10.0.0.2"));
    // The end of the sandbox is no word about the interface.
    index.apply(Event::SandboxLost("box-u-2".into()));
    assert_eq!(of(&mut index, 7), is("p", "10.0.0.2"));
}

#[test]
fn a_pod_made_anew_under_its_name_waits_for_its_own_object() {
    let mut index = index();
    let (old, new) = (local("a/p", "1", "", ""), local("a/p", "2", "", ""));
    apply_pod(&mut index, old.clone());
    told(&mut index, &old, "veth7", "10.0.0.1", 1);
    told(&mut index, &new, "veth7", "10.0.0.2", 2);
    appears(&mut index, 7, "10.0.0.2");
    assert_eq!(of(&mut index, 7), Err(InterfaceState::Starting));
    apply_policy(&mut index, policy("a/deny", "podSelector: {matchLabels: {k: new}}"));
    apply_pod(&mut index, local("a/p", "2", "k=new", ""));
    assert_eq!(of(&mut index, 7), is("p", "10.0.0.2"));
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, false], "its own labels");
}

#[test]
fn a_pod_does_not_become_another_by_its_addresses() {
    let mut index = index();
    let victim = local("a/victim", "v", "", "");
    apply_pod(&mut index, local("a/thief", "t", "", "10.0.0.1"));
    index.apply(Event::InterfaceFound(veth(7, "10.0.0.1")));
    assert_eq!(of(&mut index, 7), is("thief", "10.0.0.1"));
    apply_pod(&mut index, victim.clone());
    appears(&mut index, 8, "10.0.0.2");
    told(&mut index, &victim, "", "10.0.0.2", 1);
    index.apply(Event::InterfaceFound(veth(7, "10.0.0.2")));
    assert_eq!(of(&mut index, 7), is("thief", "10.0.0.1"));
    assert_eq!(of(&mut index, 8), is("victim", "10.0.0.2"));
}

#[test]
fn what_the_runtime_knows_as_one_pods_is_no_other_pods() {
    let mut index = index();
    let gone = local("a/gone", "g", "", "");
    told(&mut index, &gone, "veth7", "10.0.0.1", 1);
    index.apply(Event::InterfaceAdopted(AdoptedInterface {
        interface: veth(7, "10.0.0.1"),
        bound_addresses: vec![address("10.0.0.1")],
    }));
    // Its address has been given to another pod, whose interface comes in a moment.
    apply_pod(&mut index, local("a/next", "n", "", "10.0.0.1"));
    assert_eq!(of(&mut index, 7), Err(InterfaceState::Ambiguous));
}

/// Of a pod that another node has made anew, the one on its way out speaks for the address no more.
#[test]
fn a_terminating_pod_has_an_address_last() {
    for started in [1, 3] {
        let mut index = index();
        let there = |name: &str, uid: &str, node: &str| Pod {
            node: Some(node.into()),
            ..local(name, uid, "", "10.0.0.5")
        };
        let leaving = Pod { started, terminating: true, ..there("a/leaving", "l", "w2") };
        apply_pod(&mut index, leaving.clone());
        assert_eq!(index.pod_at(address("10.0.0.5")).map(|pod| &*pod.uid), Some("l"));
        apply_pod(&mut index, Pod { started: 2, ..there("a/next", "n", "w3") });
        apply_pod(&mut index, leaving);
        assert_eq!(index.pod_at(address("10.0.0.5")).map(|pod| &*pod.uid), Some("n"), "{started}");
    }
}

/// A file of a sandbox that died, written by a clock that has been set back since.
#[test]
fn a_word_from_the_future_about_other_addresses_keeps_nobody_closed() {
    let mut index = index();
    let (old, new) = (local("a/p", "1", "", ""), local("a/p", "2", "", ""));
    told(&mut index, &old, "veth7", "10.0.0.1", 9);
    apply_pod(&mut index, new.clone());
    appears(&mut index, 7, "10.0.0.2");
    told(&mut index, &new, "veth7", "10.0.0.2", 2);
    assert_eq!(of(&mut index, 7), is("p", "10.0.0.2"));
}
