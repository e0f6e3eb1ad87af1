//! What a node's programs are told: the configurations of kubelet, kube-proxy, containerd and the
//! CNI plugins. JSON where YAML is asked for, since JSON is YAML.

use serde_json::{Value, json};

use crate::plan::{NodePlan, Options};

/// Where the files are in a node.
pub(crate) const FOLDER: &str = "/etc/kubernetes";

/// The node as the API knows it from the start: with the ranges of its pods, so that no controller
/// has to choose them.
pub(crate) fn object(node: NodePlan) -> Value {
    let ranges = node.pod_ranges();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name(), "labels": {"kubernetes.io/hostname": node.name()}},
        "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
    })
}

/// kubelet's configuration.
pub(crate) fn kubelet(node: NodePlan) -> Value {
    let certificate = |kind: &str| format!("{FOLDER}/{}.{kind}", node.name());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{FOLDER}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate("crt"),
        "tlsPrivateKeyFile": certificate("key"),
        "clusterDomain": "cluster.local",
        "resolvConf": format!("{FOLDER}/resolv.conf"),
        // No systemd in the nodes, and all nodes share the machine's hierarchy.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.netns()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "nodeStatusUpdateFrequency": "5s",
        // How much the machine has left is no matter of a test.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%",
        },
    })
}

/// kube-proxy's configuration.
pub(crate) fn proxy(node: NodePlan, options: Options) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": options.proxy.name(),
        "hostnameOverride": node.name(),
        "clusterCIDR": options.pod_ranges(),
        "clientConnection": {"kubeconfig": format!("{FOLDER}/proxy.kubeconfig")},
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
        // The limit of connections is the machine's, not a node's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
}

/// The bridge plugin's configuration, with a range of addresses a family.
pub(crate) fn network(node: NodePlan) -> Value {
    let ranges: Vec<Value> =
        node.pod_ranges().iter().map(|range| json!([{"subnet": range}])).collect();
    let routes: Vec<Value> = node
        .families
        .choose("0.0.0.0/0", "::/0")
        .into_iter()
        .map(|destination| json!({"dst": destination}))
        .collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "enforcer",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// containerd's configuration. What is not said here is as containerd has it, NRI for example.
pub(crate) const CONTAINERD: &str = r#"version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/workload:1"

[plugins.'io.containerd.cri.v1.runtime']
  # The machine's profiles are not the node's.
  disable_apparmor = true
  # Machines that lend their root no right to lower a score would start no container otherwise.
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Families, ProxyMode};

    #[test]
    fn every_family_has_a_range_and_a_route() {
        let dual = network(NodePlan { number: 1, families: Families::Dual });
        let ipam = &dual["plugins"][0]["ipam"];
        assert_eq!(ipam["ranges"][1][0]["subnet"], "fd4e:f0ce:1:1::/64");
        assert_eq!(ipam["routes"][1]["dst"], "::/0");
        let single = network(NodePlan { number: 1, families: Families::V4 });
        assert_eq!(single["plugins"][0]["ipam"]["ranges"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn proxy_and_node_say_what_was_asked_for() {
        let options = Options { proxy: ProxyMode::Iptables, ..Options::default() };
        let node = NodePlan { number: 1, families: Families::V4 };
        assert_eq!(proxy(node, options)["mode"], "iptables");
        assert_eq!(object(node)["spec"]["podCIDR"], "10.212.1.0/24");
    }
}
