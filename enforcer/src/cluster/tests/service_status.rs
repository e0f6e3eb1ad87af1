//! What status says of Services, and of policies that mean their addresses.

use super::{
    address, apply_pod, apply_policy, apply_veth, drain, index, pod, policy,
    services::{service, slice},
};
use crate::cluster::{
    Index,
    event::{Event, Node, Service},
};

fn apply_service(index: &mut Index, service: Service) {
    index.apply(Event::ServiceApplied(Box::new(service)));
}

fn problems(index: &Index) -> Vec<String> {
    let problems = index.service_problems().into_iter();
    problems.map(|one| format!("{}: {}", one.service.name, one.problems.join(" & "))).collect()
}

#[test]
fn addresses_that_are_not_one_services_alone_are_named() {
    let mut index = index();
    apply_service(&mut index, service("n/s", "10.96.0.1", ":80+30080"));
    apply_service(&mut index, service("n/u", "10.96.0.2,10.0.0.1", ":80,:81"));
    drain(&mut index);
    assert!(problems(&index).is_empty());
    apply_service(&mut index, service("n/t", "10.96.0.1", ":80,:81+30080"));
    apply_pod(&mut index, pod("n/a", "", "10.0.0.1"));
    drain(&mut index);
    assert_eq!(
        problems(&index),
        [
            "s: node port 30080/TCP is also of n/t: the backends of all of them count; give each \
             its own & 10.96.0.1 port 80/TCP is also of n/t: the backends of all of them count; give \
             each its own",
            "t: node port 30080/TCP is also of n/s: the backends of all of them count; give each \
             its own & 10.96.0.1 port 80/TCP is also of n/s: the backends of all of them count; give \
             each its own",
            "u: 10.0.0.1 is also the address of the pod n/a: packets to it are judged as the \
             Service's on the Service's ports; give one of the two another",
        ]
    );
}

#[test]
fn a_service_that_a_backend_on_this_node_closes_is_named_with_the_pods() {
    let closed = "10.96.0.1 port 443/TCP is closed to 1 of this node's pods (n/c): its backend \
                  192.0.2.7 port 6443 is a process of this node that their policies do not allow, \
                  and only others are; allow it with an ipBlock";
    for (egress, expected) in [
        // Everything, only the other one, both, neither.
        ("{}", None),
        ("{to: [{ipBlock: {cidr: 192.0.2.8/32}}]}", Some(closed)),
        ("{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}", None),
        ("{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}", None),
    ] {
        let mut index = index();
        apply_pod(&mut index, pod("n/c", "app=c", "10.0.0.3"));
        apply_pod(&mut index, pod("n/d", "app=d", "10.0.0.4"));
        apply_veth(&mut index, 7, "10.0.0.3");
        apply_veth(&mut index, 8, "10.0.0.4");
        let spec = format!(
            "podSelector: {{matchLabels: {{app: c}}}}, policyTypes: [Egress], egress: [{egress}]"
        );
        apply_policy(&mut index, policy("n/p", &spec));
        index.apply(Event::NodeAddressesFound(vec![address("192.0.2.7")]));
        apply_service(&mut index, service("n/s", "10.96.0.1", ":443"));
        index.apply(Event::SliceApplied(slice("n/x", "s", ":6443", "192.0.2.7,192.0.2.8")));
        drain(&mut index);
        let expected: Vec<_> = expected.map(|text| format!("s: {text}")).into_iter().collect();
        assert_eq!(problems(&index), expected, "{egress}");
    }
}

#[test]
fn ip_blocks_that_are_meant_for_services_are_named() {
    for (cidr, except, named) in [
        ("10.96.0.0/12", "", true),
        ("10.96.0.1/32", "", true),
        ("10.96.0.0/24", "", true),
        ("10.96.0.0/24", "10.96.0.0/28", false),
        // An external address alone, and in its network.
        ("198.51.100.1/32", "", true),
        ("198.51.100.0/24", "", false),
        // Networks.
        ("0.0.0.0/0", "", false),
        ("10.0.0.0/8", "", false),
        ("::/0", "", false),
        // Where pods or nodes are too, or no Service is.
        ("10.96.0.0/16", "", false),
        ("10.100.0.0/16", "", false),
        ("fd96::/108", "", true),
        ("fd96::/16", "", false),
    ] {
        let mut index = index();
        let external = vec![address("198.51.100.1")];
        let of = service("n/s", "10.96.0.1,fd96::1", ":80");
        apply_service(&mut index, Service { external_ips: external, ..of });
        if cidr == "10.96.0.0/16" {
            apply_pod(&mut index, pod("n/a", "", "10.96.200.1"));
        }
        let node =
            Node { name: "w1".into(), addresses: vec![address("10.97.0.1")], primary: Vec::new() };
        if cidr != "10.96.0.0/12" {
            index.apply(Event::NodeApplied(node));
        }
        let except =
            if except.is_empty() { String::new() } else { format!(", except: [{except}]") };
        let spec = format!(
            "podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: \
             \"{cidr}\"{except}}}}}]}}]"
        );
        apply_policy(&mut index, policy("n/p", &spec));
        drain(&mut index);
        let found = index.blocks_for_services();
        let blocks: Vec<_> = found.iter().flat_map(|one| one.blocks.clone()).collect();
        let expected: Vec<_> = named.then(|| cidr.to_owned()).into_iter().collect();
        assert_eq!(blocks, expected, "{cidr} {except}");
        assert!(found.iter().all(|one| one.policy.name == "p"));
    }
}
