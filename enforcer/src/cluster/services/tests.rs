//! Names of nodes and Services, and slices by their Service.

use super::*;
use crate::cluster::{Index, IndexConfig, event::Event};

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "n".into(), name: name.into() }
}

fn ip(last: u8) -> IpAddr {
    [10, 96, 0, last].into()
}

fn service(name: &str, cluster: &[u8], external: &[u8]) -> Event {
    Event::ServiceApplied(Box::new(Service {
        external_ips: external.iter().map(|last| ip(*last)).collect(),
        ..Service::at(key(name), cluster.iter().map(|last| ip(*last)).collect())
    }))
}

fn slice(name: &str, of: Option<&str>) -> Event {
    Event::SliceApplied(EndpointSlice {
        key: key(name),
        service: of.map(Into::into),
        ports: Vec::new(),
        endpoints: Vec::new(),
    })
}

fn node(name: &str, last: &[u8]) -> Event {
    let addresses = last.iter().map(|last| ip(*last)).collect();
    Event::NodeApplied(Node { name: name.into(), addresses, primary: Vec::new() })
}

fn index() -> Index {
    Index::new(IndexConfig { class_key: [1, 2], first_table: 1, ..IndexConfig::default() })
}

fn names(index: &mut Index, events: impl IntoIterator<Item = Event>) -> Vec<NameChange> {
    events.into_iter().for_each(|event| index.apply(event));
    let plan = index.take_plan();
    assert!(index.take_plan().is_empty());
    plan.names
}

#[test]
fn addresses_are_named_and_what_is_shared_keeps_a_name() {
    let mut index = index();
    let named = names(&mut index, [service("a", &[1], &[9]), service("b", &[2], &[9])]);
    let expected = [(1, "a"), (2, "b"), (9, "a")]
        .map(|(i, name)| NameChange::Service(ip(i), key(name).into()));
    assert_eq!(named, expected);
    let named = names(&mut index, [Event::ServiceDeleted(key("a"))]);
    let expected = [NameChange::ServiceGone(ip(1)), NameChange::Service(ip(9), key("b").into())];
    assert_eq!(named, expected);
    assert!(names(&mut index, [service("b", &[2], &[9])]).is_empty());
}

#[test]
fn a_node_that_changes_its_address_is_named_anew() {
    let mut index = index();
    assert_eq!(names(&mut index, [node("w1", &[1])]), [NameChange::Node(ip(1), "w1".into())]);
    assert_eq!(
        names(&mut index, [node("w1", &[2])]),
        [NameChange::NodeGone(ip(1)), NameChange::Node(ip(2), "w1".into())]
    );
    // What comes and goes between two plans was never there.
    let events = [node("w2", &[3]), Event::NodeDeleted("w2".into())];
    assert!(names(&mut index, events).is_empty());
    assert_eq!(index.services().nodes().count(), 1);
}

#[test]
fn slices_are_found_by_their_service() {
    let mut index = index();
    let events = [slice("a-1", Some("a")), slice("a-2", Some("a")), slice("x", None)];
    names(&mut index, events);
    let of = |index: &Index, service: &str| {
        let key = key(service);
        let found = index.services().slices_of(&key);
        found.map(|slice| slice.key.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(&index, "a"), ["a-1", "a-2"]);
    names(&mut index, [slice("a-1", Some("b")), Event::SliceDeleted(key("a-2"))]);
    assert_eq!((of(&index, "a"), of(&index, "b")), (vec![], vec!["a-1".to_owned()]));
}
