//! A tunnel between the node and the outside, as an overlay network has it.

use crate::{Lab, LabError, ip, plan};

/// Name of the interface on both sides.
pub const INTERFACE: &str = "vxlan0";
/// Ends of the tunnel inside: the node's, the other's.
const ENDS: [[&str; 2]; 2] = [["192.168.77.1", "fd77::1"], ["192.168.77.2", "fd77::2"]];

impl Lab {
    /// Makes a VXLAN to the outside, and routes to these prefixes through it.
    ///
    /// # Errors
    /// If a link or a route cannot be made.
    pub fn add_tunnel(&self, prefixes: &[&str]) -> Result<(), LabError> {
        let [node, outside] = ENDS;
        let link = |local: &str, remote: &str, device: &str, own: [&str; 2]| {
            vec![
                format!(
                    "link add {INTERFACE} type vxlan id 7 dstport 4789 local {local} remote {remote} dev {device}"
                ),
                format!("addr add {}/24 dev {INTERFACE}", own[0]),
                format!("addr add {}/64 dev {INTERFACE} nodad", own[1]),
                format!("link set {INTERFACE} up"),
            ]
        };
        let (here, there) = (plan::NODE[0], plan::ROUTER[0]);
        ip::batch(Some(self.outside()), &link(there, here, "eth0", outside))?;
        let mut lines = link(here, there, "uplink0", node);
        lines.extend(prefixes.iter().map(|prefix| {
            let gateway = outside[usize::from(prefix.contains(':'))];
            format!("route add {prefix} via {gateway} dev {INTERFACE}")
        }));
        ip::batch(Some(self.node()), &lines)
    }
}
