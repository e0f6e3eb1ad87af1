//! Whose an interface is: decided once, for its life.

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, index, key, labels, pod, policy, veth,
};
use crate::cluster::{
    Index, InterfaceState,
    event::{AdoptedInterface, Event, Interface},
    plan::NameChange,
};

/// The pod of an interface by status, or what it is instead.
fn state(index: &mut Index, ifindex: u32) -> Result<String, InterfaceState> {
    drain(index);
    let status = index.status();
    if let Some(found) = status.endpoints.iter().find(|e| e.ifindex == ifindex) {
        return Ok(found.pod.name.clone());
    }
    Err(status.interfaces.iter().find(|i| i.ifindex == ifindex).expect("an interface").state)
}

fn is_closed(index: &Index, ifindex: u32) -> bool {
    let state = index.snapshot();
    state.endpoints.get(&ifindex).is_some_and(|endpoint| {
        let rows = state.rows.iter().filter(|(key, _)| key.table == endpoint.table);
        endpoint.isolated == [true, true]
            && rows.flat_map(|(_, row)| row.iter()).all(|interval| interval.action == 0)
    })
}

use InterfaceState::{Ambiguous, Unbound, Unenforceable};

#[test]
fn either_may_come_first() {
    let mut index = index();
    apply_veth(&mut index, 7, "10.0.0.1");
    assert_eq!(state(&mut index, 7), Err(Unbound));
    assert!(index.snapshot().endpoints.is_empty());
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1,fd00::1"));
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
    let addresses = &index.snapshot().endpoints[&7].addresses;
    assert_eq!(*addresses, [address("10.0.0.1"), address("fd00::1")], "all that the object names");
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    apply_veth(&mut index, 8, "10.0.0.2");
    assert_eq!(state(&mut index, 8), Ok("q".to_owned()));
}

#[test]
fn pods_of_the_node_and_finished_ones_have_no_interface() {
    let mut index = index();
    let mut host = pod("a/host", "", "10.0.0.1");
    host.host_network = true;
    let mut finished = pod("a/job", "", "10.0.0.2");
    finished.finished = true;
    apply_pod(&mut index, host);
    apply_pod(&mut index, finished);
    apply_veth(&mut index, 7, "10.0.0.1,10.0.0.2");
    assert_eq!(state(&mut index, 7), Err(Unbound));
}

#[test]
fn a_binding_holds_whatever_the_peer_does() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    apply_veth(&mut index, 7, "10.0.0.1");
    for now in ["10.0.0.2", "", "10.0.0.1,10.0.0.2"] {
        apply_veth(&mut index, 7, now);
        assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
        assert_eq!(index.snapshot().endpoints[&7].addresses, [address("10.0.0.1")]);
    }
}

#[test]
fn a_terminating_pod_stays_under_its_policy() {
    let mut index = index();
    apply_policy(&mut index, policy("a/deny", "podSelector: {matchLabels: {app: x}}"));
    let mut first = pod("a/p", "app=x", "10.0.0.1");
    first.uid = "1".into();
    apply_pod(&mut index, first.clone());
    apply_veth(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, false]);
    index.apply(Event::PodDeleted(key("a", "p")));
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, false], "the object is gone");
    // A policy of its namespace that comes now is for it too.
    apply_policy(
        &mut index,
        policy("a/more", "podSelector: {matchLabels: {app: x}}, policyTypes: [Egress]"),
    );
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, true]);
    // The same name made anew is another pod.
    let mut second = pod("a/p", "app=y", "10.0.0.9");
    second.uid = "2".into();
    apply_pod(&mut index, second);
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, true]);
    apply_veth(&mut index, 8, "10.0.0.9");
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&8].isolated, [false, false]);
}

#[test]
fn a_relabelled_pod_changes_its_policy() {
    let mut index = index();
    apply_policy(&mut index, policy("a/deny", "podSelector: {matchLabels: {app: x}}"));
    apply_pod(&mut index, pod("a/p", "app=y", "10.0.0.1"));
    apply_veth(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(index.snapshot().endpoints[&7].isolated, [false, false]);
    apply_pod(&mut index, pod("a/p", "app=x", "10.0.0.1"));
    let plan = index.take_plan();
    assert!(plan.endpoints_set[0].rejudge && plan.endpoints_set[0].isolated == [true, false]);
    assert!(
        plan.names.iter().any(|name| matches!(name, NameChange::Endpoint(7, _, pod, isolating)
        if pod.labels == labels("app=x") && isolating[0].iter().eq([&key("a", "deny")])))
    );
}

#[test]
fn an_address_of_two_pods_closes() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    apply_veth(&mut index, 7, "10.0.0.1,10.0.0.2");
    assert_eq!(state(&mut index, 7), Err(Ambiguous));
    assert!(is_closed(&index, 7) && index.snapshot().endpoints[&7].addresses.is_empty());
    // Closed it stays while it is nobody's, and it opens when it is clear whose it is.
    index.apply(Event::Relist { pods: vec![], namespaces: vec![], policies: vec![] });
    assert_eq!(state(&mut index, 7), Err(Ambiguous));
    assert!(is_closed(&index, 7));
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    assert_eq!(state(&mut index, 7), Ok("q".to_owned()));
}

#[test]
fn an_address_behind_two_interfaces_is_the_bound_ones() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_veth(&mut index, 8, "10.0.0.1");
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
    assert_eq!(state(&mut index, 8), Err(Ambiguous));
    assert!(is_closed(&index, 8));
    let reason = index.status().interfaces[0].reason.clone();
    assert!(reason.contains("veth7") && reason.contains("a/p"), "{reason}");
    index.apply(Event::InterfaceLost(7));
    assert_eq!(state(&mut index, 8), Ok("p".to_owned()));
}

#[test]
fn an_address_behind_two_unbound_interfaces_is_neithers() {
    let mut index = index();
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_veth(&mut index, 8, "10.0.0.1");
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    for ifindex in [7, 8] {
        assert_eq!(state(&mut index, ifindex), Err(Ambiguous));
        assert!(is_closed(&index, ifindex));
    }
    index.apply(Event::InterfaceLost(8));
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
}

#[test]
fn two_interfaces_with_an_address_each_are_both_the_pods() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1,fd00::1"));
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_veth(&mut index, 8, "fd00::1");
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
    assert_eq!(state(&mut index, 8), Ok("p".to_owned()));
    let deny = policy("a/deny", "podSelector: {}");
    apply_policy(&mut index, deny);
    drain(&mut index);
    assert_eq!(index.status().policies[0].local_pods, 1, "one pod, not two");
}

#[test]
fn an_adopted_interface_is_bound_by_what_it_was_armed_with() {
    let mut index = index();
    index.apply(Event::InterfaceAdopted(AdoptedInterface {
        interface: veth(7, "10.0.0.2"),
        bound_addresses: vec![address("10.0.0.1")],
    }));
    assert_eq!(state(&mut index, 7), Err(Ambiguous));
    assert!(is_closed(&index, 7), "armed, and nobody knows whose it is");
    assert_eq!(index.snapshot().endpoints[&7].addresses, [address("10.0.0.1")]);
    // One that now has the address is the rival, not the owner.
    apply_veth(&mut index, 8, "10.0.0.1");
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
    assert_eq!(state(&mut index, 8), Err(Ambiguous));
}

#[test]
fn other_kinds_are_reported() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    index.apply(Event::InterfaceFound(Interface { kind: "netkit".into(), ..veth(7, "10.0.0.1") }));
    index.apply(Event::InterfaceFound(Interface { kind: "netkit".into(), ..veth(8, "10.0.0.8") }));
    assert_eq!(state(&mut index, 7), Err(Unenforceable));
    assert_eq!(state(&mut index, 8), Err(Unbound));
    assert!(index.snapshot().endpoints.is_empty());
    assert!(index.status().interfaces[0].reason.contains("netkit"));
}

#[test]
fn a_number_that_comes_back_in_one_plan_is_judged_anew() {
    let mut index = index();
    apply_pod(&mut index, pod("a/p", "", "10.0.0.1"));
    apply_pod(&mut index, pod("a/q", "", "10.0.0.2"));
    apply_veth(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    index.apply(Event::InterfaceLost(7));
    apply_veth(&mut index, 7, "10.0.0.2");
    let plan = index.take_plan();
    assert!(plan.endpoints_removed.is_empty() && plan.endpoints_set[0].rejudge);
    assert_eq!(plan.endpoints_set[0].addresses, [address("10.0.0.2")]);
    index.apply(Event::InterfaceLost(7));
    let plan = index.take_plan();
    assert_eq!(plan.endpoints_removed, [7]);
    assert!(plan.names.contains(&NameChange::EndpointGone(7)));
}

fn with_uid(name: &str, uid: &str, addresses: &str) -> crate::cluster::event::Pod {
    crate::cluster::event::Pod { uid: uid.into(), ..pod(name, "", addresses) }
}

#[test]
fn an_address_family_that_comes_later_is_added_once() {
    let mut index = index();
    let addresses = |index: &mut Index| {
        drain(index);
        index.snapshot().endpoints[&7].addresses.clone()
    };
    let both = [address("10.0.0.1"), address("fd00::1")];
    apply_pod(&mut index, with_uid("a/p", "1", "10.0.0.1"));
    apply_veth(&mut index, 7, "10.0.0.1");
    assert_eq!(state(&mut index, 7), Ok("p".to_owned()));
    // What the pod gives itself is not enough, nor what only its object says, nor what another
    // pod or interface has too, nor what a successor of its name says.
    apply_veth(&mut index, 7, "10.0.0.1,fd00::1");
    assert_eq!(addresses(&mut index), both[..1]);
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_pod(&mut index, with_uid("a/p", "1", "10.0.0.1,fd00::1"));
    assert_eq!(addresses(&mut index), both[..1]);
    apply_pod(&mut index, with_uid("a/q", "2", "fd00::1"));
    apply_veth(&mut index, 7, "10.0.0.1,fd00::1");
    assert_eq!(addresses(&mut index), both[..1]);
    apply_veth(&mut index, 8, "10.0.0.8,fd00::1");
    apply_pod(&mut index, with_uid("a/q", "2", ""));
    apply_veth(&mut index, 7, "10.0.0.1,fd00::1");
    assert_eq!(addresses(&mut index), both[..1]);
    index.apply(Event::InterfaceLost(8));
    apply_pod(&mut index, with_uid("a/p", "3", "10.0.0.9,fd00::1"));
    apply_veth(&mut index, 7, "10.0.0.1,fd00::1");
    assert_eq!(addresses(&mut index), both[..1]);
    apply_pod(&mut index, with_uid("a/p", "1", "10.0.0.1,fd00::1"));
    assert_eq!(addresses(&mut index), both);
    // Once: it stays whatever is said of that family.
    apply_pod(&mut index, with_uid("a/p", "1", "10.0.0.1,fd00::2"));
    apply_veth(&mut index, 7, "10.0.0.1,fd00::2");
    assert_eq!(addresses(&mut index), both);
    // And it decides like the first one.
    apply_pod(&mut index, with_uid("a/q", "2", "10.0.0.8"));
    apply_veth(&mut index, 8, "10.0.0.8,fd00::1");
    assert_eq!(state(&mut index, 8), Err(Ambiguous));
}

/// Without the runtime's word: objects tell of the address's last pod until they tell of its next.
#[test]
fn the_api_corrects_what_rested_on_addresses_only() {
    let mut index = index();
    apply_policy(&mut index, policy("a/deny", "podSelector: {matchLabels: {app: next}}"));
    apply_pod(&mut index, with_uid("a/last", "1", "10.0.0.1"));
    apply_veth(&mut index, 8, "10.0.0.1");
    assert_eq!(state(&mut index, 8), Ok("last".to_owned()));
    index.apply(Event::PodDeleted(key("a", "last")));
    assert_eq!(state(&mut index, 8), Ok("last".to_owned()), "nobody contradicts");
    let next = crate::cluster::event::Pod { started: 2, ..pod("a/next", "app=next", "10.0.0.1") };
    // One without a UID contradicts nobody.
    apply_pod(&mut index, next.clone());
    assert_eq!(state(&mut index, 8), Ok("last".to_owned()));
    apply_pod(&mut index, crate::cluster::event::Pod { uid: "2".into(), ..next });
    let plan = index.take_plan();
    assert!(plan.endpoints_set[0].rejudge, "another policy");
    assert_eq!(state(&mut index, 8), Ok("next".to_owned()));
    assert_eq!(index.snapshot().endpoints[&8].isolated, [true, false]);
}

#[test]
fn the_api_does_not_correct_where_the_next_pod_has_an_interface() {
    let mut index = index();
    apply_pod(&mut index, with_uid("a/last", "1", "10.0.0.1"));
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_veth(&mut index, 8, "10.0.0.1");
    let next = crate::cluster::event::Pod { started: 2, ..with_uid("a/next", "2", "10.0.0.1") };
    apply_pod(&mut index, next);
    assert_eq!(state(&mut index, 7), Ok("last".to_owned()), "terminating, under its policy");
    assert_eq!(state(&mut index, 8), Err(Ambiguous));
    index.apply(Event::InterfaceLost(7));
    assert_eq!(state(&mut index, 8), Ok("next".to_owned()));
}

/// It may not use them, so they are no claim against the pod that has them by the API.
#[test]
fn addresses_beside_its_own_are_no_pods_claim() {
    let mut index = index();
    apply_pod(&mut index, with_uid("a/thief", "1", "10.0.0.1"));
    apply_veth(&mut index, 7, "10.0.0.1,10.0.0.2");
    apply_pod(&mut index, with_uid("a/p", "2", "10.0.0.2"));
    apply_veth(&mut index, 8, "10.0.0.2");
    assert_eq!(state(&mut index, 7), Ok("thief".to_owned()));
    assert_eq!(state(&mut index, 8), Ok("p".to_owned()));
    assert_eq!(index.snapshot().endpoints[&7].addresses, [address("10.0.0.1")]);
    // Its end does not make the thief's interface the other pod's.
    index.apply(Event::PodDeleted(key("a", "thief")));
    index.apply(Event::InterfaceLost(8));
    assert_eq!(state(&mut index, 7), Ok("thief".to_owned()));
}
