//! Wrong readings of the API, one mistake each: what the comparison must be able to find.

use enforcer_reference::Cluster;
use k8s_openapi::{
    api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

/// A mistake in words, and the objects as who makes it reads them.
pub(crate) type Misreading = (&'static str, fn(&mut Cluster));

/// Every mistake.
pub(crate) const MISREADINGS: &[Misreading] = &[
    ("endPort is not read", |cluster| ports(cluster, |port| port.end_port = None)),
    ("a range ends one port early", |cluster| {
        ports(cluster, |port| port.end_port = port.end_port.map(|last| last - 1));
    }),
    ("a missing protocol means UDP", |cluster| {
        ports(cluster, |port| {
            port.protocol.get_or_insert("UDP".to_owned());
        });
    }),
    ("a name of a port means any number", |cluster| {
        ports(cluster, |port| {
            if matches!(port.port, Some(IntOrString::String(_))) {
                port.port = None;
            }
        });
    }),
    ("except is not read", |cluster| {
        peers(cluster, |peer| {
            peer.ip_block.iter_mut().for_each(|block| block.except = None);
        });
    }),
    ("a namespaceSelector beside a podSelector is not read", |cluster| {
        peers(cluster, |peer| {
            if peer.pod_selector.is_some() {
                peer.namespace_selector = None;
            }
        });
    }),
    ("NotIn wants the label to be there", |cluster| {
        selectors(cluster, |selector| {
            let mut present = Vec::new();
            for one in selector.match_expressions.iter().flatten() {
                if one.operator == "NotIn" {
                    let mut exists = one.clone();
                    "Exists".clone_into(&mut exists.operator);
                    exists.values = None;
                    present.push(exists);
                }
            }
            selector.match_expressions.iter_mut().for_each(|list| list.append(&mut present));
        });
    }),
    ("egress rules isolate only where policyTypes say so", |cluster| {
        specs(cluster, |spec| {
            spec.policy_types.get_or_insert_with(|| vec!["Ingress".to_owned()]);
        });
    }),
    ("an empty list of peers means nobody", |cluster| {
        specs(cluster, |spec| {
            let nobody = || vec![NetworkPolicyPeer::default()];
            for rule in spec.ingress.iter_mut().flatten() {
                rule.from.iter_mut().filter(|list| list.is_empty()).for_each(|l| *l = nobody());
            }
            for rule in spec.egress.iter_mut().flatten() {
                rule.to.iter_mut().filter(|list| list.is_empty()).for_each(|l| *l = nobody());
            }
        });
    }),
    ("a finished pod keeps its address", |cluster| {
        cluster.pods.iter_mut().for_each(|pod| pod.finished = false);
    }),
    ("a pod that is being deleted counts like any", |cluster| {
        cluster.pods.iter_mut().for_each(|pod| pod.terminating = false);
    }),
    ("a namespace has the labels of its object only", |cluster| {
        cluster.namespaces.iter_mut().for_each(|namespace| {
            namespace.labels.remove("kubernetes.io/metadata.name");
        });
    }),
];

fn specs(cluster: &mut Cluster, edit: impl Fn(&mut NetworkPolicySpec)) {
    cluster.policies.iter_mut().filter_map(|policy| policy.spec.as_mut()).for_each(edit);
}

fn ports(cluster: &mut Cluster, edit: impl Fn(&mut NetworkPolicyPort)) {
    specs(cluster, |spec| {
        let ingress = spec.ingress.iter_mut().flatten().map(|rule| &mut rule.ports);
        let egress = spec.egress.iter_mut().flatten().map(|rule| &mut rule.ports);
        ingress.chain(egress).flat_map(|list| list.iter_mut().flatten()).for_each(&edit);
    });
}

fn peers(cluster: &mut Cluster, edit: impl Fn(&mut NetworkPolicyPeer)) {
    specs(cluster, |spec| {
        let ingress = spec.ingress.iter_mut().flatten().map(|rule| &mut rule.from);
        let egress = spec.egress.iter_mut().flatten().map(|rule| &mut rule.to);
        ingress.chain(egress).flat_map(|list| list.iter_mut().flatten()).for_each(&edit);
    });
}

fn selectors(cluster: &mut Cluster, edit: impl Fn(&mut LabelSelector)) {
    specs(cluster, |spec| spec.pod_selector.iter_mut().for_each(&edit));
    peers(cluster, |peer| {
        peer.pod_selector.iter_mut().chain(&mut peer.namespace_selector).for_each(&edit);
    });
}
