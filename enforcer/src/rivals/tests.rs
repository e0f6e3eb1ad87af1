//! A look at a real namespace with real rules.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::dataplane::netlink::testing::{Namespace, drop_all, keep_only_net_admin, sh};

fn look_in(namespace: &Namespace, prepare: &'static str, bpf: &TempDir) -> Look {
    let bpf = bpf.path().to_owned();
    namespace.run(move || {
        sh(prepare);
        keep_only_net_admin();
        look(Places { bpf: &bpf, cni: None })
    })
}

#[test]
fn rules_of_others_are_found_with_net_admin_alone() {
    let bpf = TempDir::new().unwrap();
    fs::create_dir_all(bpf.path().join("tc/globals/cilium_policy_v2_00042")).unwrap();
    let rules = "nft 'add table ip filter; add chain ip filter KUBE-NWPLCY-ABC; \
                 add chain ip filter KUBE-SERVICES; add table ip6 filter; \
                 add chain ip6 filter cali-tw-x; add table inet kube-network-policies'
                 ip link add antrea-gw0 type veth peer name other0";
    let Look { rivals, unseen } = look_in(&Namespace::new(), rules, &bpf);
    assert_eq!(unseen, Vec::<String>::new());
    let found: Vec<_> = rivals.iter().map(|rival| (rival.name, rival.enforces)).collect();
    let all = ["kube-router", "Calico", "Cilium", "Antrea", "kube-network-policies"];
    assert_eq!(found, all.map(|name| (name, true)));
    let evidence: Vec<_> = rivals.iter().flat_map(|rival| &rival.evidence).collect();
    assert_eq!(
        evidence,
        [
            "chain ip filter KUBE-NWPLCY-ABC",
            "chain ip6 filter cali-tw-x",
            "pin tc/globals/cilium_policy_v2_00042",
            "interface antrea-gw0",
            "nftables table inet kube-network-policies",
        ]
    );
}

#[test]
fn a_node_of_our_own_has_no_rival() {
    let rules = "nft 'add table inet mine; add chain inet mine forward'";
    let look = look_in(&Namespace::new(), rules, &TempDir::new().unwrap());
    assert_eq!(look, Look::default());
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let look = Namespace::new().run(|| {
        drop_all();
        look(Places { bpf: Path::new("/nonexistent"), cni: None })
    });
    assert_eq!(look.rivals, []);
    let about = |what: &str| look.unseen.iter().any(|sentence| sentence.contains(what));
    assert!(about("list the tables of nftables"), "{:?}", look.unseen);
}
