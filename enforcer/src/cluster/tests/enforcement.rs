//! Who is audited: the node's default, a namespace's label, and its change.

use super::*;
use crate::cluster::event::{Sandbox, StartPolicy};

fn audited_at_start(enforcement: Enforcement) -> Index {
    Index::new(IndexConfig {
        class_key: [1, 2],
        first_table: 1,
        enforcement,
        ..IndexConfig::default()
    })
}

/// Interface 5 of shop/web, and the plans so far.
fn with_pod(mut index: Index) -> Index {
    apply_pod(&mut index, pod("shop/web", "app=web", "10.0.0.1"));
    apply_veth(&mut index, 5, "10.0.0.1");
    drain(&mut index);
    index
}

fn label(index: &mut Index, value: &str) {
    let of = if value.is_empty() { String::new() } else { format!("{ENFORCEMENT_LABEL}={value}") };
    index.apply(Event::NamespaceApplied(namespace("shop", &of)));
}

fn audit(index: &Index) -> bool {
    index.snapshot().endpoints[&5].audit
}

#[test]
fn the_node_decides_where_the_namespace_does_not() {
    assert!(!audit(&with_pod(audited_at_start(Enforcement::Enforce))));
    assert!(audit(&with_pod(audited_at_start(Enforcement::Audit))));
}

#[test]
fn a_label_overrides_the_node_and_its_change_is_one_store_without_a_new_generation() {
    let mut index = with_pod(audited_at_start(Enforcement::Enforce));
    for (value, expected) in [("audit", true), ("enforce", false), ("audit", true), ("", false)] {
        label(&mut index, value);
        let plans = drain(&mut index);
        let set: Vec<_> = plans.iter().flat_map(|plan| &plan.endpoints_set).collect();
        assert_eq!(set.len(), 1, "{value}: {plans:?}");
        assert_eq!((set[0].ifindex, set[0].audit, set[0].rejudge), (5, expected, false), "{value}");
        assert_eq!(audit(&index), expected);
        assert_eq!(index.status().endpoints[0].audit, expected);
    }
    let mut index = with_pod(audited_at_start(Enforcement::Audit));
    label(&mut index, "enforce");
    drain(&mut index);
    assert!(!audit(&index));
}

#[test]
fn a_label_that_means_nothing_enforces_and_is_reported() {
    let mut index = with_pod(audited_at_start(Enforcement::Audit));
    label(&mut index, "Audit");
    drain(&mut index);
    assert!(!audit(&index));
    let bad = BadEnforcement { namespace: "shop".into(), value: "Audit".into() };
    assert_eq!(index.bad_enforcement(), [bad]);
    label(&mut index, "audit");
    assert_eq!(index.bad_enforcement(), []);
}

#[test]
fn a_label_of_another_namespace_or_another_key_changes_nothing() {
    let mut index = with_pod(audited_at_start(Enforcement::Enforce));
    let audit = format!("{ENFORCEMENT_LABEL}=audit");
    index.apply(Event::NamespaceApplied(namespace("other", &audit)));
    index.apply(Event::NamespaceApplied(namespace("shop", "enforcement=audit")));
    assert!(drain(&mut index).iter().all(|plan| plan.endpoints_set.is_empty()));
}

#[test]
fn an_interface_that_two_pods_claim_follows_the_node() {
    let mut index = audited_at_start(Enforcement::Audit);
    apply_pod(&mut index, pod("shop/web", "", "10.0.0.1"));
    apply_pod(&mut index, pod("shop/db", "", "10.0.0.2"));
    label(&mut index, "enforce");
    apply_veth(&mut index, 5, "10.0.0.1,10.0.0.2");
    drain(&mut index);
    assert!(audit(&index));
}

#[test]
fn a_pod_that_starts_follows_its_namespace_as_soon_as_the_runtime_names_it_and_the_node_before() {
    let mut index = Index::new(IndexConfig {
        class_key: [1, 2],
        first_table: 1,
        node: Some("here".into()),
        start: StartPolicy::Closed,
        ..IndexConfig::default()
    });
    label(&mut index, "audit");
    index.apply(Event::InterfaceAppeared(veth(5, "10.0.0.1")));
    drain(&mut index);
    assert!(!audit(&index), "nobody knows whose it is");
    index.apply(Event::SandboxFound(Sandbox {
        id: "box".into(),
        pod: key("shop", "web"),
        uid: "u".into(),
        interfaces: vec!["veth5".into()],
        addresses: vec![address("10.0.0.1")],
        told: 1,
    }));
    drain(&mut index);
    assert!(audit(&index));
    label(&mut index, "enforce");
    drain(&mut index);
    assert!(!audit(&index));
}
