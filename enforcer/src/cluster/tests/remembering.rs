//! What is asked of the index for a reboot, and for who holds a pod's sandbox.

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, key, namespace, pod, policy, veth,
};
use crate::cluster::{
    Index, IndexConfig, Remembered, SandboxState,
    event::{Event, Interface, Pod, Sandbox, Service, StartPolicy},
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

fn on(node: &str, pod: Pod) -> Pod {
    let uid = format!("u-{}", pod.key.name).into();
    Pod { node: Some(node.into()), uid, ..pod }
}

fn names(pods: &[std::sync::Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| &*pod.key.name).collect()
}

#[test]
fn a_pod_of_this_node_without_an_interface_is_told_apart() {
    let mut index = index();
    for (name, address) in [("a/veth", "10.0.0.1"), ("a/child", "10.0.0.2")] {
        apply_pod(&mut index, on("here", pod(name, "", address)));
    }
    apply_pod(&mut index, on("there", pod("a/remote", "", "10.0.1.1")));
    for (name, of) in [
        ("a/done", Pod { finished: true, ..pod("a/done", "", "10.0.0.3") }),
        ("a/node", Pod { host_network: true, ..pod("a/node", "", "192.0.2.1") }),
        ("a/ends", Pod { terminating: true, ..pod("a/ends", "", "10.0.0.4") }),
        ("a/starts", pod("a/starts", "", "")),
    ] {
        assert_eq!(format!("a/{}", of.key.name), name);
        apply_pod(&mut index, on("here", of));
    }
    apply_veth(&mut index, 7, "10.0.0.1");
    drain(&mut index);
    let covered = |index: &Index| {
        let mut all: Vec<_> =
            index.covered().map(|(pod, covered)| (pod.key.name.to_string(), covered)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(covered(&index), [("child".to_owned(), false), ("veth".to_owned(), true)]);
    index.apply(Event::PodDeleted(key("a", "child")));
    assert_eq!(covered(&index), [("veth".to_owned(), true)]);
    index.apply(Event::InterfaceLost(7));
    assert_eq!(covered(&index), [("veth".to_owned(), false)]);
}

#[test]
fn what_this_nodes_policies_depend_on_is_remembered_and_nothing_else() {
    let mut index = index();
    for name in ["b", "a"] {
        index.apply(Event::NamespaceApplied(namespace(name, "team=red")));
    }
    apply_pod(&mut index, on("here", pod("a/q", "", "10.0.0.2")));
    apply_pod(&mut index, on("here", pod("a/p", "app=p", "10.0.0.1")));
    let done = Pod { finished: true, ..pod("a/done", "", "10.0.0.3") };
    apply_pod(&mut index, on("here", done));
    apply_pod(&mut index, on("there", pod("b/friend", "app=friend", "10.0.1.1")));
    apply_pod(&mut index, on("there", pod("b/stranger", "", "10.0.1.2")));
    // Its namespace's labels are not known.
    apply_pod(&mut index, on("there", pod("c/friend", "app=friend", "10.0.1.3")));
    let headless = Service { headless: true, ..Service::at(key("a", "none"), Vec::new()) };
    let service = Service::at(key("a", "s"), vec![address("10.96.0.1")]);
    for service in [headless, service.clone()] {
        index.apply(Event::ServiceApplied(Box::new(service)));
    }
    apply_veth(&mut index, 7, "10.0.0.1");
    let spec = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, \
                podSelector: {matchLabels: {app: friend}}}]}]";
    apply_policy(&mut index, policy("a/in", spec));
    drain(&mut index);

    let Remembered { namespaces, local, remote, services, slices } = index.remembered("here");
    let known: Vec<_> = namespaces.iter().map(|(name, of)| (&**name, of.get("team"))).collect();
    assert_eq!(known, [("a", Some("red")), ("b", Some("red"))]);
    assert_eq!(names(&local), ["p", "q"], "those that have not finished");
    assert_eq!(names(&remote), ["friend"]);
    assert_eq!(remote[0].key.namespace, "b".into());
    assert_eq!((services, slices), (vec![service], Vec::new()));
    // What no policy asks for any more is not.
    index.apply(Event::PolicyDeleted(key("a", "in")));
    drain(&mut index);
    assert_eq!(names(&index.remembered("here").remote), Vec::<&str>::new());
    // On the other node it is the other way round.
    assert_eq!(names(&index.remembered("there").local), ["friend", "stranger", "friend"]);
}

#[test]
fn a_pod_is_found_by_its_address_its_interface_and_its_name() {
    let mut index = index();
    apply_pod(&mut index, on("here", pod("a/p", "", "10.0.0.1")));
    apply_veth(&mut index, 7, "10.0.0.1");
    apply_veth(&mut index, 8, "10.0.0.8");
    drain(&mut index);
    let name = |pod: Option<&std::sync::Arc<Pod>>| pod.map(|pod| pod.key.name.to_string());
    let found = Some("p".to_owned());
    assert_eq!(name(index.pod_at(address("10.0.0.1"))), found);
    assert_eq!(name(index.pod_at(address("10.0.0.8"))), None);
    assert_eq!(name(index.pod_behind(7)), found);
    assert_eq!([name(index.pod_behind(8)), name(index.pod_behind(9))], [None, None]);
    assert_eq!(name(index.pod(&key("a", "p"))), found);
    assert_eq!(index.pod_uid(&key("a", "p")).as_deref(), Some("u-p"));
    assert_eq!(index.pod_uid(&key("a", "q")), None);
}

#[test]
fn a_sandbox_is_as_far_as_the_last_of_its_interfaces() {
    let mut index = index();
    let pod = on("here", pod("a/p", "", "10.0.0.1"));
    let sandbox = Sandbox {
        id: "box".into(),
        pod: pod.key.clone(),
        uid: pod.uid.clone(),
        interfaces: ["veth7", "veth8", "veth9"].map(Into::into).into(),
        addresses: vec![address("10.0.0.1")],
        told: 1,
    };
    let state = |index: &mut Index| {
        drain(index);
        assert_eq!(index.sandbox_state("u-q"), (SandboxState::Unknown, Vec::new()));
        index.sandbox_state("u-p")
    };
    index.apply(Event::SandboxFound(sandbox));
    assert_eq!(state(&mut index), (SandboxState::Unknown, Vec::new()));
    index.apply(Event::InterfaceAppeared(veth(7, "10.0.0.1")));
    assert_eq!(state(&mut index), (SandboxState::Starting, vec![7]));
    apply_pod(&mut index, pod);
    assert_eq!(state(&mut index), (SandboxState::Bound, vec![7]));
    let other = Interface { kind: "netkit".into(), ..veth(9, "") };
    index.apply(Event::InterfaceAppeared(other));
    let (worst, interfaces) = state(&mut index);
    assert!(
        matches!(&worst, SandboxState::Unenforceable(reason) if reason.contains("netkit")),
        "{worst:?}"
    );
    assert_eq!(interfaces, [7, 9]);
    index.apply(Event::InterfaceLost(9));
    assert_eq!(state(&mut index), (SandboxState::Bound, vec![7]));
}
