//! Interfaces that are younger than the agent, and what the runtime says of them.

use enforcer_common::abi::Direction;

use super::{
    address, apply_pod, apply_policy, drain,
    kernel::{self, Probe},
    key, pod, policy, veth,
};
use crate::cluster::{
    Index, IndexConfig, InterfaceState,
    event::{AdoptedInterface, Event, Pod, Sandbox, StartPolicy},
    plan::NameChange,
};

fn index(start: StartPolicy) -> Index {
    Index::new(IndexConfig {
        class_key: [1, 2],
        first_table: 1,
        node: Some("here".into()),
        start,
        ..IndexConfig::default()
    })
}

fn appears(index: &mut Index, ifindex: u32, addresses: &str) {
    index.apply(Event::InterfaceAppeared(veth(ifindex, addresses)));
}

/// `a/p` with UID `u-p`, on this node.
fn local(name: &str, labels: &str, addresses: &str) -> Pod {
    let mut pod = pod(name, labels, addresses);
    pod.uid = format!("u-{}", pod.key.name).into();
    pod.node = Some("here".into());
    pod
}

fn sandbox(of: &Pod, interface: &str, addresses: &str) -> Sandbox {
    Sandbox {
        id: format!("box-{}-{interface}", of.key.name).into(),
        pod: of.key.clone(),
        uid: of.uid.clone(),
        interfaces: interface.split(',').filter(|i| !i.is_empty()).map(Into::into).collect(),
        addresses: addresses.split(',').filter(|a| !a.is_empty()).map(address).collect(),
        told: 1,
    }
}

/// Whether a packet from the pod behind an interface passes.
fn passes(index: &Index, ifindex: u32, to: &str, protocol: u8, port: u16) -> bool {
    let direction = Direction::Egress;
    let probe = Probe { ifindex, direction, other: address(to), protocol, port };
    kernel::verdict(&index.snapshot(), &probe).unwrap_or(true)
}

fn of(index: &Index, ifindex: u32) -> Result<String, InterfaceState> {
    let status = index.status();
    if let Some(other) = status.interfaces.iter().find(|i| i.ifindex == ifindex) {
        return Err(other.state);
    }
    let found = status.endpoints.iter().find(|e| e.ifindex == ifindex);
    Ok(found.expect("an endpoint").pod.name.clone())
}

const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn what_is_younger_than_the_agent_is_closed_until_its_pod_is_known() {
    let mut index = index(StartPolicy::Closed);
    appears(&mut index, 7, "");
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
    assert_eq!(index.snapshot().endpoints[&7].isolated, [true, true]);
    assert!(index.snapshot().endpoints[&7].addresses.is_empty());
    appears(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(
        index.snapshot().endpoints[&7].addresses,
        [address("10.0.0.1")],
        "the node's way in"
    );
    assert!(!passes(&index, 7, "10.0.0.53", UDP, 53) && !passes(&index, 7, "1.1.1.1", TCP, 443));
    apply_pod(&mut index, local("a/p", "", "10.0.0.1"));
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("p".to_owned()));
    assert_eq!(index.snapshot().endpoints[&7].isolated, [false, false]);
}

#[test]
fn what_is_older_is_left_alone_and_so_is_all_when_the_start_is_open() {
    let mut closed = index(StartPolicy::Closed);
    closed.apply(Event::InterfaceFound(veth(7, "10.0.0.1")));
    let mut open = index(StartPolicy::Open);
    appears(&mut open, 7, "10.0.0.1");
    for mut index in [closed, open] {
        drain(&mut index);
        assert_eq!(of(&index, 7), Err(InterfaceState::Unbound));
        assert!(index.snapshot().endpoints.is_empty());
    }
}

#[test]
fn names_may_be_asked_for_at_the_start_where_that_is_the_choice() {
    let dns = vec![address("10.96.0.10"), address("10.0.0.53"), address("fd00::10")];
    let mut index = index(StartPolicy::ClosedExceptDns(dns));
    appears(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    for (to, protocol, port, expected) in [
        ("10.96.0.10", UDP, 53, true),
        ("10.0.0.53", TCP, 53, true),
        ("fd00::10", UDP, 53, true),
        ("10.0.0.53", TCP, 54, false),
        ("10.0.0.54", UDP, 53, false),
    ] {
        assert_eq!(passes(&index, 7, to, protocol, port), expected, "{to} {port}");
    }
    // The Service moved.
    let moved = StartPolicy::ClosedExceptDns(vec![address("10.0.0.54")]);
    index.apply(Event::StartPolicyChanged(moved));
    drain(&mut index);
    assert!(passes(&index, 7, "10.0.0.54", UDP, 53) && !passes(&index, 7, "10.0.0.53", UDP, 53));
    // A backend that policies look at all the same.
    apply_policy(
        &mut index,
        policy("a/to", "podSelector: {}, egress: [{to: [{podSelector: {matchLabels: {k: d}}}]}]"),
    );
    apply_pod(&mut index, local("a/dns", "k=d", "10.0.0.54"));
    apply_pod(&mut index, local("a/q", "", "10.0.0.2"));
    appears(&mut index, 8, "10.0.0.2");
    drain(&mut index);
    assert!(passes(&index, 7, "10.0.0.54", UDP, 53) && !passes(&index, 7, "10.0.0.54", TCP, 80));
    assert!(passes(&index, 8, "10.0.0.54", TCP, 80), "its policy is in force");
}

#[test]
fn the_runtime_binds_before_the_object_has_an_address() {
    let mut index = index(StartPolicy::Closed);
    apply_policy(
        &mut index,
        policy(
            "a/in",
            "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {k: c}}}]}]",
        ),
    );
    apply_pod(&mut index, local("a/server", "", "10.0.0.2"));
    index.apply(Event::InterfaceFound(veth(8, "10.0.0.2")));
    let client = local("a/client", "k=c", "");
    apply_pod(&mut index, client.clone());
    appears(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
    index.apply(Event::SandboxFound(sandbox(&client, "veth7", "10.0.0.1")));
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("client".to_owned()));
    let allows = |index: &Index| {
        let (direction, other) = (Direction::Ingress, address("10.0.0.1"));
        let probe = Probe { ifindex: 8, direction, other, protocol: TCP, port: 80 };
        kernel::verdict(&index.snapshot(), &probe).expect("an endpoint")
    };
    assert!(allows(&index), "the server knows its client before the API does");
    // The API confirms: nothing changes in the kernel.
    let before = index.snapshot();
    apply_pod(&mut index, local("a/client", "k=c", "10.0.0.1"));
    drain(&mut index);
    assert_eq!(index.snapshot(), before);
    // The interface goes, the object without an address: the address is nobody's.
    apply_pod(&mut index, client);
    index.apply(Event::InterfaceLost(7));
    drain(&mut index);
    assert!(!allows(&index));
}

#[test]
fn the_object_may_come_last() {
    let mut index = index(StartPolicy::Closed);
    let pod = local("a/p", "", "");
    appears(&mut index, 7, "10.0.0.1");
    index.apply(Event::SandboxFound(sandbox(&pod, "veth7", "10.0.0.1")));
    let plans = drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
    assert!(plans.iter().flat_map(|plan| &plan.names).any(
        |name| matches!(name, NameChange::Endpoint(7, _, who, _) if who.key == key("a", "p"))
    ));
    // Another pod of that name is not the one.
    let mut other = pod.clone();
    other.uid = "another".into();
    apply_pod(&mut index, other);
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
    apply_pod(&mut index, pod);
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("p".to_owned()));
}

#[test]
fn plugins_that_name_no_interface_are_matched_by_all_addresses() {
    let mut index = index(StartPolicy::Closed);
    let pod = local("a/p", "", "");
    apply_pod(&mut index, pod.clone());
    index.apply(Event::SandboxFound(sandbox(&pod, "", "10.0.0.1,fd00::1")));
    appears(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting), "only one of the two yet");
    appears(&mut index, 7, "fd00::1,10.0.0.1");
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("p".to_owned()));
}

#[test]
fn what_a_file_says_of_an_interface_that_is_not_there_means_nothing() {
    let mut index = index(StartPolicy::Closed);
    apply_policy(
        &mut index,
        policy("a/out", "podSelector: {}, egress: [{to: [{podSelector: {matchLabels: {k: v}}}]}]"),
    );
    // Of an earlier boot: the pod has the same UID, its address is another's now.
    let kept = local("a/kept", "k=v", "10.0.0.9");
    apply_pod(&mut index, kept.clone());
    index.apply(Event::SandboxFound(sandbox(&kept, "vethold", "10.0.0.1")));
    apply_pod(&mut index, local("a/new", "", ""));
    let new = local("a/new", "", "");
    appears(&mut index, 7, "10.0.0.1");
    index.apply(Event::SandboxFound(sandbox(&new, "veth7", "10.0.0.1")));
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("new".to_owned()));
    assert!(!passes(&index, 7, "10.0.0.1", TCP, 80), "10.0.0.1 has not the label k=v");
}

#[test]
fn the_word_of_the_runtime_counts_more_than_addresses() {
    let mut index = index(StartPolicy::Closed);
    let honest = local("a/honest", "", "10.0.0.2");
    let thief = local("a/thief", "", "");
    apply_pod(&mut index, honest.clone());
    apply_pod(&mut index, thief.clone());
    // The thief has given itself the other's address.
    appears(&mut index, 7, "10.0.0.1,10.0.0.2");
    index.apply(Event::SandboxFound(sandbox(&thief, "veth7", "10.0.0.1")));
    appears(&mut index, 8, "10.0.0.2");
    index.apply(Event::SandboxFound(sandbox(&honest, "veth8", "10.0.0.2")));
    drain(&mut index);
    assert_eq!((of(&index, 7), of(&index, 8)), (Ok("thief".to_owned()), Ok("honest".to_owned())));
    assert_eq!(index.snapshot().endpoints[&7].addresses, [address("10.0.0.1")]);
}

#[test]
fn a_pod_of_another_node_has_no_interface_here() {
    let mut index = index(StartPolicy::Closed);
    let mut remote = local("a/remote", "", "10.0.0.1");
    remote.node = Some("there".into());
    apply_pod(&mut index, remote.clone());
    appears(&mut index, 7, "10.0.0.1");
    index.apply(Event::SandboxFound(sandbox(&remote, "veth7", "10.0.0.1")));
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
}

#[test]
fn what_was_closed_at_the_start_is_decided_by_the_next_agent() {
    let mut index = index(StartPolicy::Closed);
    for (ifindex, bound) in [(7, ""), (8, "10.0.0.2")] {
        let addresses = format!("10.0.0.{}", ifindex - 6);
        index.apply(Event::InterfaceAdopted(AdoptedInterface {
            interface: veth(ifindex, &addresses),
            bound_addresses: bound.split(',').filter(|a| !a.is_empty()).map(address).collect(),
        }));
    }
    drain(&mut index);
    assert_eq!(of(&index, 7), Err(InterfaceState::Starting));
    assert_eq!(of(&index, 8), Err(InterfaceState::Ambiguous), "closed");
    apply_pod(&mut index, local("a/p", "", "10.0.0.1"));
    apply_pod(&mut index, local("a/q", "", "10.0.0.2"));
    drain(&mut index);
    assert_eq!((of(&index, 7), of(&index, 8)), (Ok("p".to_owned()), Ok("q".to_owned())));
}

#[test]
fn of_two_files_the_one_whose_pod_is_there_counts_then_the_later() {
    let mut index = index(StartPolicy::Closed);
    let (old, new) = (local("a/old", "", ""), local("a/new", "", ""));
    let mut first = sandbox(&old, "veth7", "10.0.0.1");
    first.told = 5;
    index.apply(Event::SandboxFound(first.clone()));
    index.apply(Event::SandboxFound(sandbox(&new, "veth7", "10.0.0.1")));
    apply_pod(&mut index, new);
    appears(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    assert_eq!(of(&index, 7), Ok("new".to_owned()), "no object speaks for the other");

    let (a, b) = (local("a/a", "", ""), local("a/b", "", ""));
    apply_pod(&mut index, a.clone());
    apply_pod(&mut index, b.clone());
    index.apply(Event::SandboxFound(sandbox(&a, "veth8", "10.0.0.3")));
    index.apply(Event::SandboxFound(sandbox(&b, "veth8", "10.0.0.3")));
    appears(&mut index, 8, "10.0.0.3");
    drain(&mut index);
    assert_eq!(of(&index, 8), Err(InterfaceState::Ambiguous), "told at one time: nobody's");
    let mut later = sandbox(&b, "veth8", "10.0.0.3");
    later.told = 2;
    index.apply(Event::SandboxFound(later));
    drain(&mut index);
    assert_eq!(of(&index, 8), Ok("b".to_owned()));
}
