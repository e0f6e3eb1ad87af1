//! Which links, addresses and routes a laboratory has, as lines for `ip -batch`.

use std::net::IpAddr;

use crate::{LabError, Mode, PodSpec};

/// The node's own addresses, on its uplink.
pub(crate) const NODE: [&str; 2] = ["172.31.255.2", "fd31:ffff::2"];
/// The router outside.
pub(crate) const ROUTER: [&str; 2] = ["172.31.255.1", "fd31:ffff::1"];
/// The bridge's address, in bridge mode.
const BRIDGE: [&str; 2] = ["10.244.255.254", "fd10:244::fffe"];
/// Hardware address of the gateway as pods see it.
pub(crate) const GATEWAY_MAC: [u8; 6] = [0xee; 6];
/// The gateway's link-local address: [`GATEWAY_MAC`] by RFC 4291, appendix A.
const GATEWAY_LINK_LOCAL: &str = "fe80::ecee:eeff:feee:eeee";
/// The gateway of a point-to-point pod; nobody has it, the node answers for it (proxy ARP).
const GATEWAY_V4: &str = "169.254.1.1";

/// For every namespace, before it has links.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    // Addresses are to be usable at once.
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    // Link-local addresses that can be told from the hardware address.
    ("ipv6/conf/default/addr_gen_mode", "0"),
    // The kernel is not to drop what the agent must drop: a test could not fail.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// For the node.
pub(crate) const NODE_SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
];

/// A hardware address as text.
fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

/// Hardware address of a pod's interface.
pub(crate) fn pod_mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x0a, 0x58, a, b, c, d]
}

/// The uplink and, in bridge mode, the bridge.
pub(crate) fn node_lines(mode: Mode, outside: &str) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add uplink0 type veth peer name eth0 netns {outside}"),
        format!("addr add {}/30 dev uplink0", NODE[0]),
        format!("addr add {}/64 dev uplink0 nodad", NODE[1]),
        "link set uplink0 up".to_owned(),
        format!("route add 0.0.0.0/0 via {}", ROUTER[0]),
        format!("route add ::/0 via {} dev uplink0", ROUTER[1]),
    ];
    if mode != Mode::PointToPoint {
        lines.extend([
            format!("link add cni0 address {} type bridge", mac(GATEWAY_MAC)),
            format!("addr add {}/16 dev cni0", BRIDGE[0]),
            format!("addr add {}/64 dev cni0 nodad", BRIDGE[1]),
            "link set cni0 up".to_owned(),
        ]);
    }
    lines
}

/// The outside's end of the uplink.
pub(crate) fn outside_lines() -> Vec<String> {
    vec![
        "link set lo up".to_owned(),
        format!("addr add {}/30 dev eth0", ROUTER[0]),
        format!("addr add {}/64 dev eth0 nodad", ROUTER[1]),
        "link set eth0 up".to_owned(),
        format!("route add 10.244.0.0/16 via {}", NODE[0]),
        format!("route add fd10:244::/64 via {} dev eth0", NODE[1]),
    ]
}

/// The veth pair of a pod, and what the node needs to reach it.
pub(crate) fn pod_node_lines(
    mode: Mode,
    spec: &PodSpec,
    host: &str,
    number: u32,
    pod: &str,
) -> Vec<String> {
    let pod_mac = mac(pod_mac(number));
    let peer = format!("type veth peer name eth0 address {pod_mac} netns {pod}");
    if mode == Mode::PointToPoint {
        let mut lines = vec![
            format!("link add {host} address {} {peer}", mac(GATEWAY_MAC)),
            format!("link set {host} up"),
        ];
        lines.extend(spec.addresses.iter().map(|ip| format!("route add {ip} dev {host}")));
        lines
    } else {
        vec![
            format!("link add {host} {peer}"),
            format!("link set {host} master cni0"),
            format!("link set {host} up"),
        ]
    }
}

/// The inside of a pod.
pub(crate) fn pod_lines(mode: Mode, spec: &PodSpec) -> Result<Vec<String>, LabError> {
    let mut lines = vec!["link set lo up".to_owned()];
    for ip in &spec.addresses {
        let in_network = match ip {
            IpAddr::V4(ip) => ip.octets()[..2] == [10, 244],
            IpAddr::V6(ip) => ip.segments()[..4] == [0xfd10, 0x244, 0, 0],
        };
        if !in_network {
            return Err(LabError::NotInPodNetwork(*ip));
        }
        let (length, nodad) = match (ip, mode) {
            (IpAddr::V4(_), Mode::PointToPoint) => (32, ""),
            (IpAddr::V6(_), Mode::PointToPoint) => (128, " nodad"),
            (IpAddr::V4(_), _) => (16, ""),
            (IpAddr::V6(_), _) => (64, " nodad"),
        };
        lines.push(format!("addr add {ip}/{length} dev eth0{nodad}"));
    }
    lines.push("link set eth0 up".to_owned());
    if spec.addresses.iter().any(IpAddr::is_ipv4) {
        if mode == Mode::PointToPoint {
            lines.push(format!("route add {GATEWAY_V4}/32 dev eth0 scope link"));
            lines.push(format!("route add 0.0.0.0/0 via {GATEWAY_V4} dev eth0"));
        } else {
            lines.push(format!("route add 0.0.0.0/0 via {} dev eth0", BRIDGE[0]));
        }
    }
    if spec.addresses.iter().any(IpAddr::is_ipv6) {
        let gateway = if mode == Mode::PointToPoint { GATEWAY_LINK_LOCAL } else { BRIDGE[1] };
        lines.push(format!("route add ::/0 via {gateway} dev eth0"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_outside_the_pod_network_is_refused() {
        let pod = PodSpec::new("a/b", &[IpAddr::from([192, 0, 2, 1])]);
        let error = pod_lines(Mode::Bridge, &pod).unwrap_err();
        assert!(matches!(error, LabError::NotInPodNetwork(_)));
    }

    #[test]
    fn a_pod_with_one_family_has_routes_of_that_family_only() {
        let pod = PodSpec::new("a/b", &[IpAddr::from([10, 244, 1, 1])]);
        let lines = pod_lines(Mode::PointToPoint, &pod).unwrap().join("\n");
        assert!(lines.contains("addr add 10.244.1.1/32") && !lines.contains("::/0"));
    }

    #[test]
    fn hardware_addresses_differ() {
        assert_ne!(pod_mac(1), pod_mac(256));
        assert_eq!(mac(pod_mac(258)), "0a:58:00:00:01:02");
    }
}
