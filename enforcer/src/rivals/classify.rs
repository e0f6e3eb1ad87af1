//! What signs mean. A table of rules: who leaves what, and what that says.

use super::{Rival, Signs};

/// Where a sign is found.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A table of nftables with exactly this name.
    Table,
    /// A chain whose name has this in it: an enforcer's own prefix may have the hook's before it.
    Chain,
    /// An interface whose name begins so.
    Interface,
    /// A pin whose path begins so.
    Pin,
    /// A CNI configuration whose name has this in it.
    CniFile,
}

/// What a sign says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Its maker judges packets by policy.
    Enforces,
    /// Its maker is there.
    Present,
}

use Place::{Chain, CniFile, Interface, Pin, Table};
use Says::{Enforces, Present};

const KUBE_ROUTER: &str = "kube-router";
const CALICO: &str = "Calico";
const CILIUM: &str = "Cilium";
const ANTREA: &str = "Antrea";
const KUBE_NETWORK_POLICIES: &str = "kube-network-policies";
const AWS: &str = "AWS network policy agent";

/// Who leaves what.
const RULES: [(&str, Place, &str, Says); 27] = [
    // k3s and RKE2 run kube-router's policy part inside their own process: the chains tell alike.
    (KUBE_ROUTER, Chain, "KUBE-NWPLCY-", Enforces),
    (KUBE_ROUTER, Chain, "KUBE-POD-FW-", Enforces),
    // The policy part's hooks. KUBE-ROUTER-SERVICES is the proxy's and says nothing of policy.
    (KUBE_ROUTER, Chain, "KUBE-ROUTER-INPUT", Enforces),
    (KUBE_ROUTER, Chain, "KUBE-ROUTER-FORWARD", Enforces),
    (KUBE_ROUTER, Chain, "KUBE-ROUTER-OUTPUT", Enforces),
    (KUBE_ROUTER, Chain, "KUBE-ROUTER-SERVICES", Present),
    (KUBE_ROUTER, Interface, "kube-bridge", Present),
    (KUBE_ROUTER, CniFile, "kuberouter", Present),
    // Chains of policies, and of pods: the latter are there for every pod that Felix judges.
    (CALICO, Chain, "cali-pi-", Enforces),
    (CALICO, Chain, "cali-po-", Enforces),
    (CALICO, Chain, "cali-tw-", Enforces),
    (CALICO, Chain, "cali-fw-", Enforces),
    (CALICO, Pin, "tc/globals/cali_v", Enforces),
    (CALICO, Chain, "cali-FORWARD", Present),
    (CALICO, Interface, "cali", Present),
    (CALICO, CniFile, "calico", Present),
    // A policy map for each endpoint; it has them in whatever mode.
    (CILIUM, Pin, "tc/globals/cilium_policy", Enforces),
    (CILIUM, Chain, "CILIUM_", Present),
    (CILIUM, Interface, "cilium_", Present),
    (CILIUM, CniFile, "cilium", Present),
    // Its policy is in Open vSwitch's flows, which cannot be seen, and cannot be turned off.
    (ANTREA, Interface, "antrea-gw", Enforces),
    (ANTREA, Chain, "ANTREA-", Present),
    (ANTREA, CniFile, "antrea", Present),
    (KUBE_NETWORK_POLICIES, Table, "kube-network-policies", Enforces),
    (AWS, Pin, "globals/aws/programs/", Enforces),
    (AWS, Chain, "AWS-SNAT-CHAIN", Present),
    (AWS, CniFile, "10-aws.conflist", Present),
];

/// Who is there, those that enforce first, with the evidence for it.
#[must_use]
pub fn classify(signs: &Signs) -> Vec<Rival> {
    let mut rivals: Vec<Rival> = Vec::new();
    for (name, place, pattern, says) in RULES {
        let Some(evidence) = evidence(signs, place, pattern) else { continue };
        let enforces = says == Enforces;
        match rivals.iter_mut().find(|rival| rival.name == name) {
            Some(rival) => {
                rival.enforces |= enforces;
                rival.evidence.push(evidence);
            }
            None => rivals.push(Rival { name, enforces, evidence: vec![evidence] }),
        }
    }
    // Stable: within each half they stay in the order of the rules.
    rivals.sort_by_key(|rival| !rival.enforces);
    rivals
}

/// What there is of a sign: how many, and one of them.
fn evidence(signs: &Signs, place: Place, pattern: &str) -> Option<String> {
    let Signs { tables, chains, interfaces, pins, cni_files } = signs;
    match place {
        Table => some(
            "nftables table",
            tables
                .iter()
                .filter(|table| table.name == pattern)
                .map(|table| format!("{} {}", table.family, table.name)),
        ),
        Chain => some(
            "chain",
            chains
                .iter()
                .filter(|chain| chain.name.contains(pattern))
                .map(|chain| format!("{} {} {}", chain.table.family, chain.table.name, chain.name)),
        ),
        Interface => {
            some("interface", interfaces.iter().filter(|name| name.starts_with(pattern)).cloned())
        }
        Pin => some("pin", pins.iter().filter(|pin| pin.starts_with(pattern)).cloned()),
        CniFile => some(
            "CNI configuration",
            cni_files.iter().filter(|name| name.to_ascii_lowercase().contains(pattern)).cloned(),
        ),
    }
}

fn some(what: &str, mut found: impl Iterator<Item = String>) -> Option<String> {
    let first = found.next()?;
    Some(match found.count() {
        0 => format!("{what} {first}"),
        more => format!("{what} {first} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::netlink::nftables;

    fn chains(names: &[&str]) -> Signs {
        let table = nftables::Table { family: "ip", name: "filter".to_owned() };
        let chain =
            |name: &&str| nftables::Chain { table: table.clone(), name: (*name).to_owned() };
        Signs { chains: names.iter().map(chain).collect(), ..Signs::default() }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn found(signs: &Signs) -> Vec<(&'static str, bool)> {
        classify(signs).iter().map(|rival| (rival.name, rival.enforces)).collect()
    }

    #[test]
    fn a_node_with_kube_proxy_and_flannel_has_no_rival() {
        let mut signs = chains(&[
            "INPUT",
            "FORWARD",
            "KUBE-SERVICES",
            "KUBE-FORWARD",
            "KUBE-FIREWALL",
            "KUBE-ROUTER",
            "CNI-ADMIN",
            "FLANNEL-FWD",
            "DOCKER-USER",
        ]);
        signs.interfaces = owned(&["lo", "eth0", "cni0", "flannel.1", "veth1234", "local-cali"]);
        signs.pins = owned(&["enforcer", "ip", "tc/globals/other"]);
        signs.cni_files = owned(&["10-flannel.conflist", "87-podman-bridge.conflist"]);
        assert_eq!(found(&signs), []);
    }

    #[test]
    fn each_enforcer_is_known_by_its_chains() {
        for (chain, name) in [
            ("KUBE-NWPLCY-3XFLBZ", KUBE_ROUTER),
            ("KUBE-POD-FW-ABC", KUBE_ROUTER),
            ("KUBE-ROUTER-FORWARD", KUBE_ROUTER),
            ("cali-pi-_abc", CALICO),
            ("cali-tw-cali123", CALICO),
            // In nftables mode the hook's name comes first.
            ("filter-cali-po-_abc", CALICO),
        ] {
            assert_eq!(found(&chains(&[chain])), [(name, true)], "{chain}");
        }
    }

    #[test]
    fn a_network_plugin_alone_does_not_enforce() {
        for chain in ["KUBE-ROUTER-SERVICES", "cali-FORWARD", "CILIUM_FORWARD", "AWS-SNAT-CHAIN-0"]
        {
            let [(_, false)] = found(&chains(&[chain]))[..] else { panic!("{chain}") };
        }
        let interfaces = |names: &[&str]| Signs { interfaces: owned(names), ..Signs::default() };
        assert_eq!(found(&interfaces(&["cali0a1b", "eth0"])), [(CALICO, false)]);
        assert_eq!(found(&interfaces(&["cilium_host", "cilium_net"])), [(CILIUM, false)]);
        assert_eq!(found(&interfaces(&["kube-bridge"])), [(KUBE_ROUTER, false)]);
        assert_eq!(found(&interfaces(&["antrea-gw0"])), [(ANTREA, true)]);
        let files = owned(&["10-calico.conflist", "10-kuberouter.conflist"]);
        let files = Signs { cni_files: files, ..Signs::default() };
        assert_eq!(found(&files), [(KUBE_ROUTER, false), (CALICO, false)]);
    }

    #[test]
    fn pins_and_tables_tell_those_without_chains() {
        let pins = |names: &[&str]| Signs { pins: owned(names), ..Signs::default() };
        assert_eq!(found(&pins(&["tc/globals/cilium_policy_v2_00123"])), [(CILIUM, true)]);
        assert_eq!(found(&pins(&["tc/globals/cilium_ipcache_v2"])), []);
        assert_eq!(found(&pins(&["tc/globals/cali_v4_ct3"])), [(CALICO, true)]);
        let aws = pins(&["globals/aws/programs/x_handle_ingress"]);
        assert_eq!(found(&aws), [(AWS, true)]);
        let table = |name: &str| nftables::Table { family: "inet", name: name.to_owned() };
        let tables = |name| Signs { tables: vec![table(name)], ..Signs::default() };
        assert_eq!(found(&tables("kube-network-policies")), [(KUBE_NETWORK_POLICIES, true)]);
        assert_eq!(found(&tables("kube-network-policies-2")), []);
    }

    #[test]
    fn those_that_enforce_come_first_and_evidence_is_counted() {
        let mut signs = chains(&["cali-pi-a", "cali-pi-b", "cali-pi-c", "KUBE-ROUTER-SERVICES"]);
        signs.interfaces = owned(&["calix"]);
        let rivals = classify(&signs);
        assert_eq!(
            rivals,
            [
                Rival {
                    name: CALICO,
                    enforces: true,
                    evidence: owned(&["chain ip filter cali-pi-a and 2 more", "interface calix"]),
                },
                Rival {
                    name: KUBE_ROUTER,
                    enforces: false,
                    evidence: owned(&["chain ip filter KUBE-ROUTER-SERVICES"]),
                },
            ]
        );
    }
}
