//! The program on interfaces that are no pods', from agent to agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use enforcer::{
    cluster::plan::{EndpointPlan, Plan},
    dataplane::{
        AttachMode, Cover, Kernel,
        netlink::tc::{self, Parent},
    },
};

use crate::{
    interrupted::{BOTH, Node, begin, ip, links},
    lab::{IFINDEX, TABLE, endpoint},
};

const OUTLET: u32 = 98;
const PIN: &str = "98-node";

fn outlet() -> BTreeMap<u32, Arc<str>> {
    ip(&["link", "add", "outlet", "index", "98", "type", "bridge"]);
    BTreeMap::from([(OUTLET, Arc::from("outlet"))])
}

fn cover(agent: &mut Kernel, outlets: &BTreeMap<u32, Arc<str>>, cover: Cover<'_>) {
    let told = agent.cover(outlets, cover);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn what_may_be_a_pods_keeps_the_program_of_the_agent_before() {
    let node = Node::new();
    let outlets = outlet();
    let pinned = || links(&node).contains(&PIN.to_owned());
    cover(&mut node.agent(), &outlets, Cover::Changed);
    assert!(pinned());

    let mut agent = node.agent();
    cover(&mut agent, &outlets, Cover::Except(&BTreeSet::from([OUTLET])));
    assert!(pinned(), "nobody knows yet that it is a pod's");
    cover(&mut agent, &outlets, Cover::Changed);
    // What this agent attached stays as well.
    cover(&mut agent, &outlets, Cover::Except(&BTreeSet::from([OUTLET])));
    assert!(pinned());
    drop(agent);

    cover(&mut node.agent(), &BTreeMap::new(), Cover::Changed);
    assert!(!pinned(), "the set was whole, and it is not in it");
}

#[test]
fn what_the_node_takes_in_is_judged_from_agent_to_agent_and_again_if_taken_away() {
    let node = Node::new();
    let inputs = || -> Vec<String> {
        links(&node).into_iter().filter(|name| name.starts_with("input")).collect()
    };
    let both = ["input-v4", "input-v6"];
    let none = BTreeMap::new();
    for _ in 0..2 {
        let mut agent = node.agent();
        cover(&mut agent, &none, Cover::Changed);
        assert_eq!(agent.input_missing(), None);
        assert_eq!(inputs(), both);
        std::fs::remove_file(node.links().join("input-v6")).unwrap();
        cover(&mut agent, &none, Cover::Changed);
        assert_eq!(inputs(), ["input-v4"], "nobody has looked");
        cover(&mut agent, &none, Cover::Displaced);
        assert_eq!(inputs(), both);
    }
}

fn programs(ifindex: u32, parent: Parent) -> BTreeSet<u32> {
    tc::filters(ifindex, parent).unwrap().iter().filter_map(|filter| filter.program_id).collect()
}

#[test]
fn a_pods_filter_is_not_replaced_by_that_of_an_outlet_but_replaces_it() {
    let node = Node::new();
    let mut agent = node.agent_with(AttachMode::Clsact);
    begin(&mut agent, &Node::desired(true));
    drop(agent);
    let pods = programs(IFINDEX, Parent::Egress);
    assert_eq!(pods.len(), 1);

    // An agent that does not know yet that it is a pod's.
    let mut agent = node.agent_with(AttachMode::Clsact);
    cover(&mut agent, &BTreeMap::from([(IFINDEX, Arc::from("lo"))]), Cover::Changed);
    assert!(programs(IFINDEX, Parent::Egress).is_superset(&pods), "the pod is open");

    let outlets = outlet();
    cover(&mut agent, &outlets, Cover::Changed);
    let before = programs(OUTLET, Parent::Egress);
    drop(agent);
    let mut agent = node.agent_with(AttachMode::Clsact);
    cover(&mut agent, &outlets, Cover::Changed);
    let after = programs(OUTLET, Parent::Egress);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert!(after.is_disjoint(&before), "an outlet's is replaced in place");
    let pod = EndpointPlan {
        ifindex: OUTLET,
        interface: "outlet".into(),
        ..endpoint(TABLE, BOTH, false)
    };
    let applied = agent.apply(&Plan { endpoints_set: vec![pod], ..Plan::default() });
    assert_eq!(applied.failures, Vec::<String>::new());
    let pods = programs(OUTLET, Parent::Egress);
    assert!(pods.len() == 1 && pods.is_disjoint(&after), "the pod's takes its place");
}

#[test]
fn a_qdisc_that_was_made_for_an_outlet_goes_and_so_does_its_note() {
    let node = Node::new();
    let notes = tempfile::tempdir().unwrap();
    let agent = || node.agent_noting(AttachMode::Clsact, Some(notes.path()));
    let noted = || notes.path().join("clsact").join(OUTLET.to_string()).exists();
    let outlets = outlet();
    let none = BTreeMap::new();
    let mut first = agent();

    // It is no outlet any more.
    cover(&mut first, &outlets, Cover::Changed);
    assert!(noted() && tc::has_clsact(OUTLET).unwrap());
    cover(&mut first, &none, Cover::Changed);
    assert!(!noted() && !tc::has_clsact(OUTLET).unwrap());

    // It has become a pod's, which needs it.
    cover(&mut first, &outlets, Cover::Changed);
    let pod = EndpointPlan {
        ifindex: OUTLET,
        interface: "outlet".into(),
        ..endpoint(TABLE, BOTH, false)
    };
    let set = Plan { endpoints_set: vec![pod], ..Plan::default() };
    assert_eq!(first.apply(&set).failures, Vec::<String>::new());
    cover(&mut first, &outlets, Cover::Changed);
    assert!(noted() && tc::has_clsact(OUTLET).unwrap());
    first.apply(&Plan { endpoints_removed: vec![OUTLET], ..Plan::default() });
    ip(&["link", "del", "outlet"]);
    assert!(!noted());

    // It has gone, while an agent ran and while none did.
    let outlets = outlet();
    cover(&mut first, &outlets, Cover::Changed);
    assert!(noted());
    ip(&["link", "del", "outlet"]);
    cover(&mut first, &none, Cover::Changed);
    assert!(!noted());
    let outlets = outlet();
    cover(&mut first, &outlets, Cover::Changed);
    assert!(noted());
    drop(first);
    ip(&["link", "del", "outlet"]);
    cover(&mut agent(), &none, Cover::Changed);
    assert!(!noted());

    // Another's is left alone.
    let outlets = outlet();
    ip(&["link", "set", "outlet", "up"]);
    let mut make = std::process::Command::new("tc");
    let made = make.args(["qdisc", "add", "dev", "outlet", "clsact"]).status().unwrap();
    assert!(made.success());
    let mut last = agent();
    cover(&mut last, &outlets, Cover::Changed);
    cover(&mut last, &none, Cover::Changed);
    assert!(tc::has_clsact(OUTLET).unwrap() && programs(OUTLET, Parent::Egress).is_empty());
}
