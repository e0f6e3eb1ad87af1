//! The wires between host, control plane and nodes: a bridge in the control plane's network
//! namespace, to which the host and every node has a link.
//!
//! On the host itself there is one link with one address, and nothing is routed or translated.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    ClusterError,
    plan::{
        API_ADDRESS, BRIDGE, CONTROL, CONTROL_V6, Families, HOST_ADDRESS, HOST_LINK, NODE_NET_BITS,
        NODE_PREFIX, NodePlan,
    },
    program,
};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";

/// The bridge's own address, a locally administered one.
const BRIDGE_MAC: &str = "02:e4:f0:ce:00:01";

/// The file of a named namespace.
pub(crate) fn path(netns: &str) -> PathBuf {
    Path::new(NAMES).join(netns)
}

/// Device and inode of a named namespace; two names with the same are the same namespace.
pub(crate) fn identity(netns: &str) -> Option<(u64, u64)> {
    identity_of(&path(netns))
}

/// Device and inode of a namespace's file.
pub(crate) fn identity_of(file: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The cluster's namespaces that exist.
pub(crate) fn namespaces() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(NAMES)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(NODE_PREFIX))
        .collect();
    // Nodes first: the control plane has the other ends of their links.
    names.sort_unstable_by_key(|name| (name == CONTROL, name.clone()));
    names
}

/// Makes the control plane's namespace with the bridge, and the host's link to it.
pub(crate) fn make_control(families: Families) -> Result<(), ClusterError> {
    let (bits4, bits6) = NODE_NET_BITS;
    batch(None, &[format!("netns add {CONTROL}")])?;
    // Forwarding first: setting it later would clear what router advertisements have set.
    forward(CONTROL)?;
    let mut lines = vec![
        "link set lo up".to_owned(),
        // Without an address of its own a bridge takes the lowest of its ports', and changes it
        // when that port goes: the API server would be out of reach until neighbours notice.
        format!("link add {BRIDGE} address {BRIDGE_MAC} type bridge"),
        format!("link set {BRIDGE} up"),
        format!("addr add {API_ADDRESS}/{bits4} dev {BRIDGE}"),
        format!("link add host type veth peer name {HOST_LINK} netns 1"),
        format!("link set host master {BRIDGE} up"),
    ];
    if families == Families::Dual {
        lines.push(format!("addr add {CONTROL_V6}/{bits6} dev {BRIDGE} nodad"));
    }
    // The namespace of the process that runs this, which need not be that of process 1.
    let own = std::process::id();
    for line in &mut lines {
        *line = line.replace("netns 1", &format!("netns {own}"));
    }
    batch(Some(CONTROL), &lines)?;
    batch(
        None,
        &[
            format!("addr add {HOST_ADDRESS}/{bits4} dev {HOST_LINK}"),
            format!("link set {HOST_LINK} up"),
        ],
    )
}

/// Makes a node's namespace, its link to the bridge, and the routes to other nodes' pods.
pub(crate) fn make_node(node: NodePlan, all: &[NodePlan]) -> Result<(), ClusterError> {
    let (netns, port) = (node.netns(), node.port());
    batch(None, &[format!("netns add {netns}")])?;
    forward(&netns)?;
    batch(
        Some(CONTROL),
        &[
            format!("link add {port} type veth peer name eth0 netns {netns}"),
            format!("link set {port} master {BRIDGE} up"),
        ],
    )?;
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    for address in node.addresses() {
        let (bits, gateway) = if address.is_ipv4() {
            (format!("{}", NODE_NET_BITS.0), API_ADDRESS.to_string())
        } else {
            (format!("{} nodad", NODE_NET_BITS.1), CONTROL_V6.to_string())
        };
        let (bits, nodad) = bits.split_once(' ').unwrap_or((&bits, ""));
        lines.push(format!("addr add {address}/{bits} dev eth0 {nodad}"));
        lines.push(format!("route add default via {gateway}"));
    }
    for other in all.iter().filter(|other| other.number != node.number) {
        lines.extend(pod_routes(*other));
    }
    batch(Some(&netns), &lines)?;
    batch(Some(CONTROL), &pod_routes(node))
}

/// `ip route` lines towards the pods of a node.
fn pod_routes(node: NodePlan) -> Vec<String> {
    node.pod_ranges()
        .iter()
        .zip(node.addresses())
        .map(|(range, via)| format!("route replace {range} via {via}"))
        .collect()
}

/// Removes a namespace and with it its links; its processes must have ended.
pub(crate) fn remove(netns: &str) -> Result<(), ClusterError> {
    if identity(netns).is_none() && !path(netns).exists() {
        return Ok(());
    }
    batch(None, &[format!("netns del {netns}")])
}

/// Removes a node's link to the bridge. It goes with the node's namespace, but that is removed in
/// the background, and the node may be started again before.
pub(crate) fn unplug(node: NodePlan) -> Result<(), ClusterError> {
    let port = node.port();
    let removed = batch(Some(CONTROL), &[format!("link del {port}")]);
    let mut look = Command::new("ip");
    let is_there = program::capture(look.args(["-n", CONTROL, "link", "show", &port]), "ip link");
    if is_there.is_ok() { removed } else { Ok(()) }
}

/// Removes a link that the host still has; normally it goes with its other end.
pub(crate) fn remove_host_link() -> Result<(), ClusterError> {
    if Path::new("/sys/class/net").join(HOST_LINK).exists() {
        // It may go by itself in between, since namespaces are removed in the background.
        let removed = batch(None, &[format!("link del {HOST_LINK}")]);
        if Path::new("/sys/class/net").join(HOST_LINK).exists() {
            return removed;
        }
    }
    Ok(())
}

/// The words before a command that runs it in a network namespace.
pub(crate) fn enter(netns: &str) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net={}", path(netns).display())]
}

/// Makes a namespace forward packets.
fn forward(netns: &str) -> Result<(), ClusterError> {
    let [nsenter, net] = enter(netns);
    let script = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                  echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    program::capture(
        Command::new(nsenter).args([&net, "sh", "-ec", script]),
        &format!("switching on forwarding in {netns}"),
    )
    .map(drop)
}

/// Runs `ip` with these lines, in a namespace or this process's own.
fn batch(netns: Option<&str>, lines: &[String]) -> Result<(), ClusterError> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let input = lines.join("\n") + "\n";
    let what = format!("ip -batch in {} with `{}`", netns.unwrap_or("the host"), lines.join("; "));
    program::feed(command.args(["-batch", "-"]), &input, &what).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_a_nodes_pods_has_a_route_through_the_node() {
        let node = NodePlan { number: 3, families: Families::Dual };
        assert_eq!(
            pod_routes(node),
            [
                "route replace 10.212.3.0/24 via 10.211.0.13",
                "route replace fd4e:f0ce:1:3::/64 via fd4e:f0ce::d"
            ]
        );
    }
}
