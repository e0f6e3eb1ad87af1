//! Samples against objects, in the order in which an agent tells them.

use enforcer_common::abi::{self, Event as Record, event_kind};

use super::*;
use crate::{
    cluster::event::{Labels, NamedPort, Namespace, Pod, Protocol, Service},
    flow::event::tests::{addr, allowed, denied, flow, key},
};

const MS: u64 = 1_000_000;
/// The moment of the flows of these tests.
const AT: u64 = 1500 * MS;
/// When they may be checked.
const DUE: u64 = AT + 250 * MS;

/// `shop/db-0` at 10.0.0.2, `shop/web-1` at 10.0.0.1.
fn pod(name: &str, last: u8) -> Pod {
    Pod {
        key: key("shop", name),
        uid: "".into(),
        labels: Labels::from([("app".to_owned(), name.to_owned())]),
        addresses: vec![[10, 0, 0, last].into()],
        host_network: false,
        finished: false,
        terminating: false,
        started: 0,
        containers_started: None,
        ports: vec![NamedPort { name: "sql".into(), protocol: Protocol::Tcp, number: 5432 }],
        node: Some("w1".into()),
        workload: None,
    }
}

/// The second rule of `shop/db-in` lets `from` in to the port.
fn policy(from: &str, port: &str) -> Event {
    let yaml = format!(
        "{{metadata: {{namespace: shop, name: db-in}}, spec: {{podSelector: {{matchLabels: {{app: \
         db-0}}}}, ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.0/24}}}}]}}, {{from: \
         [{{podSelector: {{matchLabels: {{app: {from}}}}}}}], ports: [{{port: {port}}}]}}]}}}}"
    );
    Event::PolicyApplied(Box::new(serde_norway::from_str(&yaml).unwrap()))
}

/// A checker that knows both pods and these, in force since before the flows.
fn checker(more: &[Event]) -> Checker {
    let mut checker = Checker::default();
    let namespace = Namespace { name: "shop".into(), labels: Labels::new() };
    checker.changes(&Event::NamespaceApplied(namespace));
    checker.changes(&Event::PodApplied(pod("db-0", 2)));
    checker.changes(&Event::PodApplied(pod("web-1", 1)));
    more.iter().for_each(|event| checker.changes(event));
    checker.settles(AT - MS, true);
    checker
}

fn sample(record: &Record) -> Sample {
    Sample::of(&flow(record)).expect("one that policy decided about")
}

/// What becomes of a sample.
fn checked(mut checker: Checker, record: &Record) -> Checked {
    assert_eq!(checker.take(sample(record)), None);
    assert_eq!(checker.check(DUE - 1), None, "it waits");
    let checked = checker.check(DUE).expect("it is due");
    assert_eq!(checker.check(DUE + 1), None, "there was one");
    checked
}

fn not_isolated() -> Record {
    Record { rule: 0, reason: Reason::NotIsolated as u8, ..allowed() }
}

#[test]
fn verdicts_that_policy_says_agree() {
    for port in ["5432", "sql"] {
        assert_eq!(checked(checker(&[policy("web-1", port)]), &allowed()), Checked::Agrees);
    }
    assert_eq!(checked(checker(&[policy("web-1", "80")]), &denied()), Checked::Agrees);
    assert_eq!(checked(checker(&[policy("other", "sql")]), &denied()), Checked::Agrees);
    assert_eq!(checked(checker(&[]), &not_isolated()), Checked::Agrees);
}

#[test]
fn any_other_verdict_differs_and_says_why() {
    let wrong = [
        (vec![policy("other", "5432")], allowed()),
        (vec![policy("web-1", "80")], allowed()),
        (vec![], allowed()),
        (vec![policy("web-1", "5432")], denied()),
        (vec![], denied()),
        (vec![policy("other", "5432")], not_isolated()),
        (vec![policy("web-1", "5432")], not_isolated()),
    ];
    for (objects, record) in wrong {
        let checked = checked(checker(&objects), &record);
        assert!(matches!(checked, Checked::Differs(_)), "{checked:?}: {objects:?}");
    }
    let Checked::Differs(difference) = checked(checker(&[policy("web-1", "80")]), &allowed())
    else {
        panic!("it differs")
    };
    assert_eq!(
        difference.to_string(),
        "packet to shop/db-0, 10.0.0.1 -> 10.0.0.2, protocol 6, port 5432: the kernel says Allowed \
         by shop/db-in rule 1; by the objects it is denied, isolated by shop/db-in"
    );
}

#[test]
fn a_rule_that_does_not_allow_it_differs_though_another_one_does() {
    let yaml = "{metadata: {namespace: shop, name: more}, spec: {podSelector: {}, ingress: [{}]}}";
    let more = Event::PolicyApplied(Box::new(serde_norway::from_str(yaml).unwrap()));
    let checked = checked(checker(&[policy("web-1", "80"), more]), &allowed());
    assert!(matches!(checked, Checked::Differs(_)), "{checked:?}");
}

#[test]
fn what_changed_about_its_time_is_passed_over() {
    // In force only after it.
    let mut late = checker(&[]);
    late.changes(&policy("other", "5432"));
    late.settles(AT, true);
    assert_eq!(checked(late, &allowed()), Checked::PassedOver);
    // Not in force yet.
    let mut pending = checker(&[]);
    pending.changes(&policy("other", "5432"));
    assert_eq!(checked(pending, &allowed()), Checked::PassedOver);
    // Not wholly written.
    let mut partly = checker(&[policy("other", "5432")]);
    partly.settles(AT - MS, false);
    assert_eq!(checked(partly, &allowed()), Checked::PassedOver);
    // While it waited.
    let mut between = checker(&[policy("web-1", "5432")]);
    assert_eq!(between.take(sample(&allowed())), None);
    between.changes(&policy("other", "5432"));
    between.settles(AT + MS, true);
    assert_eq!(between.check(DUE), Some(Checked::PassedOver));
    // What no verdict depends on is no change.
    let mut quiet = checker(&[policy("web-1", "5432")]);
    quiet.changes(&Event::InterfaceLost(7));
    assert_eq!(checked(quiet, &allowed()), Checked::Agrees);
}

#[test]
fn a_pod_that_is_another_one_by_now_is_passed_over() {
    let gone = checker(&[Event::PodDeleted(key("shop", "db-0"))]);
    assert_eq!(checked(gone, &allowed()), Checked::PassedOver);
    let anew = Pod { uid: "2".into(), ..pod("db-0", 2) };
    assert_eq!(checked(checker(&[Event::PodApplied(anew)]), &allowed()), Checked::PassedOver);
    // The other end as well: its address is another pod's, or nobody's.
    let moved = Event::PodApplied(pod("web-1", 9));
    assert_eq!(checked(checker(std::slice::from_ref(&moved)), &denied()), Checked::PassedOver);
    let other = Event::PodApplied(pod("other", 1));
    assert_eq!(checked(checker(&[moved, other]), &denied()), Checked::PassedOver);
}

#[test]
fn what_policy_did_not_decide_alone_is_no_sample() {
    let none = |record: Record| assert_eq!(Sample::of(&flow(&record)), None, "{record:?}");
    none(Record { reason: Reason::FromNode as u8, rule: 0, ..allowed() });
    none(Record { reason: Reason::SpoofedSource as u8, kind: event_kind::DROP, ..denied() });
    none(Record { kind: event_kind::TRACE, ..allowed() });
    none(Record { ifindex: 77, ..allowed() });
    for flag in [
        abi::EVENT_REPLY,
        abi::EVENT_REVOKED,
        abi::EVENT_TRANSLATED,
        abi::EVENT_MASQUERADED,
        abi::EVENT_AUDIT,
    ] {
        none(Record { flags: flag, ..allowed() });
    }
    // To a Service's address, to a node's: the backend decides.
    let egress = Record { direction: abi::Direction::Egress as u8, ifindex: 5, ..denied() };
    none(Record { dst: addr(8), ..egress });
    none(Record { dst: addr(7), ..egress });
    assert!(Sample::of(&flow(&egress)).is_some());
}

#[test]
fn too_many_samples_push_the_oldest_aside() {
    let mut checker = checker(&[policy("web-1", "5432")]);
    let mut aside = 0;
    for n in 0..MOST as u64 + 3 {
        let oldest = checker.take(Sample { time: AT + n, ..sample(&allowed()) });
        aside += u64::from(oldest.is_some_and(|oldest| oldest.time == AT + aside));
    }
    assert_eq!(aside, 3);
}

#[test]
fn a_relist_leaves_nothing_of_before() {
    let relist = Event::Relist {
        pods: vec![pod("db-0", 2), pod("web-1", 1)],
        namespaces: Vec::new(),
        policies: Vec::new(),
    };
    let checker = checker(&[policy("web-1", "80"), relist]);
    assert_eq!(checked(checker, &not_isolated()), Checked::Agrees);
}

#[test]
fn what_goes_to_a_services_address_is_passed_over_while_any_service_has_it() {
    let egress = Record { direction: abi::Direction::Egress as u8, ifindex: 5, ..not_isolated() };
    let virtual_address = Record { dst: addr(99), ..egress };
    let at = |name: &str, last: u8| {
        let service = Service::at(key("shop", name), vec![[10, 0, 0, last].into()]);
        Event::ServiceApplied(Box::new(service))
    };
    let gone = |name: &str| Event::ServiceDeleted(key("shop", name));
    let after = |events: &[Event]| checked(checker(events), &virtual_address);
    assert_eq!(after(&[]), Checked::Agrees, "nobody's address is one outside");
    assert_eq!(after(&[at("a", 99)]), Checked::PassedOver);
    assert_eq!(after(&[at("a", 99), at("b", 99), gone("a")]), Checked::PassedOver);
    assert_eq!(after(&[at("a", 99), at("a", 99), gone("a")]), Checked::Agrees);
    assert_eq!(after(&[at("a", 99), at("b", 99), gone("a"), gone("b")]), Checked::Agrees);
    assert_eq!(after(&[at("a", 99), at("a", 98)]), Checked::Agrees, "it has moved");
    assert_eq!(after(&[gone("a"), at("a", 99), gone("b")]), Checked::PassedOver);
}
