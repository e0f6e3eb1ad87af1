//! When flows are judged anew, what is shared and kept, and what a restart finds.

use std::collections::BTreeMap;

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, index,
    kernel::{self, Probe, meaning, verdict},
    key, labels, named_port, namespace, pod, policy,
};
use crate::cluster::{
    Index, IndexConfig,
    event::{Event, Protocol},
    plan::{NameChange, Plan},
};

const CLIENTS: &str =
    "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]";

/// A server behind interface 7 that takes clients only, and one client.
fn cluster() -> Index {
    let mut index = index();
    apply_pod(&mut index, pod("a/server", "app=server", "10.0.0.1"));
    apply_pod(&mut index, pod("a/client", "app=client", "10.0.0.2"));
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_policy(&mut index, policy("a/p", CLIENTS));
    drain(&mut index);
    index
}

/// Whether the event's plan judges the flows of interface 7 anew.
fn rejudges(index: &mut Index, event: Event) -> bool {
    index.apply(event);
    let plans = drain(index);
    plans.iter().flat_map(|plan| &plan.endpoints_set).any(|set| set.ifindex == 7 && set.rejudge)
}

fn policy_event(name: &str, spec: &str) -> Event {
    Event::PolicyApplied(Box::new(policy(name, spec)))
}

#[test]
fn additions_judge_nothing_anew() {
    let mut index = cluster();
    for event in [
        Event::PodApplied(pod("a/client2", "app=client", "10.0.0.3")),
        Event::PodApplied(pod("a/other", "", "10.0.0.4")),
        Event::PodApplied(pod("a/other", "app=client", "10.0.0.4")),
        Event::NamespaceApplied(namespace("b", "")),
        // One allow rule more, with a selector and a block that were not in use.
        policy_event(
            "a/q",
            "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, \
             {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/16]}}]}]",
        ),
        policy_event("b/r", "podSelector: {}"),
        Event::PolicyDeleted(key("b", "r")),
    ] {
        let text = format!("{event:?}");
        assert!(!rejudges(&mut index, event), "{text}");
    }
}

#[test]
fn a_first_endpoint_has_nothing_to_judge_anew() {
    let mut index = index();
    apply_policy(&mut index, policy("a/p", CLIENTS));
    apply_pod(&mut index, pod("a/server", "app=server", "10.0.0.1"));
    assert!(!rejudges(&mut index, Event::InterfaceFound(super::veth(7, "10.0.0.1"))));
    assert_eq!(index.snapshot().endpoints.len(), 1);
}

#[test]
fn whatever_may_deny_judges_anew() {
    for (event, expected) in [
        (Event::PodApplied(pod("a/client", "app=none", "10.0.0.2")), true),
        (Event::PodApplied(pod("a/client", "app=client,more=1", "10.0.0.2")), false),
        (Event::PodDeleted(key("a", "client")), true),
        (Event::PodApplied(pod("a/client", "app=client", "10.0.0.3")), true),
        (policy_event("a/p", "podSelector: {}"), true),
        (policy_event("a/p", "podSelector: {}, ingress: [{}]"), false),
        (policy_event("a/out", "podSelector: {}, policyTypes: [Egress]"), true),
        (Event::PolicyDeleted(key("a", "p")), false),
        (Event::PolicyDeleted(key("a", "none")), false),
    ] {
        let text = format!("{event:?}");
        assert_eq!(rejudges(&mut cluster(), event), expected, "{text}");
    }
}

#[test]
fn an_address_that_another_pod_takes_over_judges_anew() {
    let mut index = cluster();
    let mut other = pod("a/client2", "app=client", "10.0.0.2");
    other.started = 9;
    assert!(rejudges(&mut index, Event::PodApplied(other)));
    // One that reached nothing before has nothing to lose.
    let mut index = cluster();
    apply_pod(&mut index, pod("a/x", "", "10.0.0.9"));
    drain(&mut index);
    let mut other = pod("a/y", "", "10.0.0.9");
    other.started = 9;
    assert!(!rejudges(&mut index, Event::PodApplied(other)));
}

#[test]
fn a_namespace_that_loses_its_label_judges_anew() {
    let mut index = cluster();
    let spec = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {t: x}}}]}]";
    apply_policy(&mut index, policy("a/q", spec));
    index.apply(Event::NamespaceApplied(namespace("b", "t=x")));
    apply_pod(&mut index, pod("b/peer", "", "10.0.1.1"));
    drain(&mut index);
    assert!(!rejudges(&mut index, Event::NamespaceApplied(namespace("b", "t=x,u=y"))));
    assert!(rejudges(&mut index, Event::NamespaceApplied(namespace("b", "t=z"))));
    assert!(!rejudges(&mut index, Event::NamespaceApplied(namespace("b", "t=x"))));
    assert!(rejudges(&mut index, Event::NamespaceDeleted("b".into())));
}

#[test]
fn a_destination_that_moves_its_named_port_judges_anew() {
    let mut index = cluster();
    let spec = "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]";
    apply_policy(&mut index, policy("a/q", spec));
    drain(&mut index);
    let with_port = |number| {
        let mut client = pod("a/client", "app=client", "10.0.0.2");
        client.ports = vec![named_port("web", Protocol::Tcp, number)];
        Event::PodApplied(client)
    };
    assert!(!rejudges(&mut index, with_port(80)));
    assert!(rejudges(&mut index, with_port(81)));
}

#[test]
fn labels_that_no_policy_looks_at_change_nothing_but_names() {
    let mut index = cluster();
    apply_pod(&mut index, pod("a/client", "app=client,version=2", "10.0.0.2"));
    let plan = index.take_plan();
    let [NameChange::Address(_, identity)] = &plan.names[..] else { panic!("{:?}", plan.names) };
    assert_eq!(identity.labels, labels("app=client,version=2"));
    assert_eq!(Plan { names: vec![], revision: 0, ..plan }, Plan::default());
    apply_pod(&mut index, pod("a/client", "app=client,version=2", "10.0.0.2"));
    assert!(index.take_plan().is_empty(), "nothing has changed");
}

#[test]
fn equal_policies_share_a_table() {
    let mut index = cluster();
    apply_pod(&mut index, pod("a/server2", "app=server", "10.0.0.8"));
    apply_veth(&mut index, 8, "10.0.0.8");
    let plan = index.take_plan();
    assert!(plan.rows_added.is_empty(), "the table is there");
    let state = index.snapshot();
    assert_eq!(state.endpoints[&7].table, state.endpoints[&8].table);
    let was = state.endpoints[&7].table;
    apply_policy(
        &mut index,
        policy("a/q", "podSelector: {matchLabels: {app: server}}, ingress: [{}]"),
    );
    drain(&mut index);
    let state = index.snapshot();
    assert_eq!(state.endpoints[&7].table, state.endpoints[&8].table);
    assert!(state.endpoints[&7].table > was, "numbers in use are not written over");
}

#[test]
fn rule_names_come_before_and_go_after() {
    let mut index = cluster();
    index.apply(policy_event("a/p", "podSelector: {}"));
    let plans = drain(&mut index);
    let gone = |plan: &Plan| plan.names.iter().any(|name| matches!(name, NameChange::RuleGone(_)));
    assert_eq!(plans.iter().map(gone).collect::<Vec<_>>(), [false, true]);
}

/// Objects in another order, as a restart lists them.
fn restarted(first_table: u32) -> Index {
    let mut index =
        Index::new(IndexConfig { class_key: [1, 2], first_table, ..IndexConfig::default() });
    apply_veth(&mut index, 7, "10.0.0.1");
    index.apply(Event::Relist {
        pods: vec![
            pod("a/client", "app=client", "10.0.0.2"),
            pod("a/server", "app=server", "10.0.0.1"),
        ],
        namespaces: vec![],
        policies: vec![policy("a/p", CLIENTS)],
    });
    drain(&mut index);
    index
}

#[test]
fn a_restart_finds_the_same_numbers_and_takes_over_tables() {
    let before = cluster();
    let mut after = restarted(500);
    assert_eq!(meaning(&before.snapshot()), meaning(&after.snapshot()));
    let (old, new) = (before.snapshot().endpoints[&7].table, after.snapshot().endpoints[&7].table);
    assert_eq!(new, 500);
    after.rename_tables(&BTreeMap::from([(new, old)]));
    assert_eq!(before.snapshot(), after.snapshot());
    // Changes go on from there.
    apply_policy(&mut after, policy("a/q", "podSelector: {}, policyTypes: [Egress]"));
    let plan = after.take_plan();
    assert_eq!(plan.endpoints_set[0].table, 501);
    assert!(!plan.rows_removed.is_empty() && plan.rows_removed.iter().all(|row| row.table == old));
}

#[test]
fn a_rename_never_merges_tables() {
    let mut index = cluster();
    apply_pod(&mut index, pod("b/p", "", "10.0.1.1"));
    apply_veth(&mut index, 8, "10.0.1.1");
    drain(&mut index);
    let state = index.snapshot();
    let (a, b) = (state.endpoints[&7].table, state.endpoints[&8].table);
    index.rename_tables(&BTreeMap::from([(a, b)]));
    assert_eq!(index.snapshot(), state);
    index.rename_tables(&BTreeMap::from([(a, b), (b, a)]));
    assert_eq!(index.snapshot().endpoints[&7].table, b);
    assert_eq!(meaning(&index.snapshot()), meaning(&state));
}

#[test]
fn a_list_deletes_what_it_does_not_name() {
    let mut index = cluster();
    index.apply(Event::NamespaceApplied(namespace("b", "t=x")));
    drain(&mut index);
    index.apply(Event::Relist { pods: vec![], namespaces: vec![], policies: vec![] });
    drain(&mut index);
    let counts = index.status().counts;
    assert_eq!((counts.pods, counts.namespaces, counts.policies), (0, 0, 0));
    assert_eq!(index.snapshot().endpoints[&7].isolated, [false, false]);
    assert!(index.objects.namespaces.is_empty() && index.objects.addresses.is_empty());
}

#[test]
fn a_loss_beside_a_wider_policy_is_still_a_loss() {
    let mut index = cluster();
    // In one plan the client leaves the rule's selector and the policy takes one rule more.
    apply_pod(&mut index, pod("a/client", "app=none", "10.0.0.2"));
    let wider = "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}, \
                 {from: [{podSelector: {matchLabels: {app: other}}}]}]";
    assert!(rejudges(&mut index, policy_event("a/p", wider)));
}

#[test]
fn what_is_taken_up_again_before_it_is_forgotten_stays() {
    let mut index = cluster();
    let before = index.snapshot();
    index.apply(Event::PolicyDeleted(key("a", "p")));
    index.take_plan();
    apply_policy(&mut index, policy("a/p", CLIENTS));
    let plan = index.take_plan();
    assert!(plan.peers_set.is_empty() && plan.peers_removed.is_empty());
    assert!(!plan.names.iter().any(|name| matches!(name, NameChange::RuleGone(_))));
    assert!(index.take_plan().is_empty());
    assert_eq!(meaning(&before), meaning(&index.snapshot()));
}

#[test]
fn a_prefix_on_its_way_out_says_what_is_around_it() {
    let from =
        |cidr| format!("podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]");
    let mut index = cluster();
    index.apply(policy_event("a/p", &from("10.9.0.0/16")));
    drain(&mut index);
    index.apply(policy_event("a/p", "podSelector: {}, ingress: [{}]"));
    index.take_plan();
    // The narrow block goes in the plan that brings the wide one.
    index.apply(policy_event("a/p", &from("10.0.0.0/8")));
    let mut state = index.snapshot();
    let plan = index.take_plan();
    assert_eq!(plan.cidrs_removed, ["10.9.0.0/16".parse().unwrap()]);
    let probe = Probe {
        ifindex: 7,
        direction: enforcer_common::abi::Direction::Ingress,
        other: address("10.9.1.1"),
        protocol: 6,
        port: 80,
    };
    kernel::apply(&mut state, &plan, |stage, now| {
        assert_eq!(verdict(now, &probe), Some(true), "{stage:?}");
    });
}

#[test]
fn a_row_like_the_fallback_is_not_written() {
    let mut index = cluster();
    let rows = |index: &Index| index.snapshot().rows.len();
    assert_eq!(rows(&index), 2, "the fallback, and the clients'");
    apply_policy(&mut index, policy("a/a", "podSelector: {}, ingress: [{}]"));
    drain(&mut index);
    assert_eq!(rows(&index), 1, "the first rule decides for everyone");
}
