//! What arrives at a backend, counted in its own namespace: whether a client gets an answer does not
//! say whether its packet got there.

use std::net::IpAddr;

use serde_json::Value;

use crate::{Backend, Lab, LabError, Place, netns::Netns, world::must};

/// The counter of one backend, by one of its addresses.
pub(crate) struct Witness<'a> {
    netns: &'a Netns,
    pub(crate) address: IpAddr,
    port: u16,
    before: u64,
}

impl<'a> Witness<'a> {
    /// Counts from now on.
    #[track_caller]
    pub(crate) fn place(lab: &'a Lab, backend: &Backend, address: IpAddr) -> Self {
        let v6 = address.is_ipv6();
        let place = backend.place_of(address);
        let (netns, _) = must(lab.locate(&place, v6));
        // What is for the node's processes comes translated only here, after whoever judges it.
        let hook = match place {
            Place::NodeAddress(_) => "input priority 1000",
            _ => "prerouting priority raw",
        };
        let port = backend.port;
        let (family, name) = (if v6 { "ip6" } else { "ip" }, counter(address, port));
        let before = Self { netns, address, port, before: 0 };
        if before.count().is_some() {
            return Self { before: before.count().unwrap_or(0), ..before };
        }
        let rules = format!(
            "add table inet lab_witness
            add counter inet lab_witness {name}
            add chain inet lab_witness arrive {{ type filter hook {hook}; }}
            add rule inet lab_witness arrive {family} daddr {address} th dport {port} \
             meta l4proto {{ tcp, udp }} counter name {name}\n"
        );
        let path = lab.dir().join("witness.nft");
        must(std::fs::write(&path, rules).map_err(LabError::io("write witness.nft")));
        must(netns.command("nft", &["-f", &path.to_string_lossy()]));
        before
    }

    /// Packets since it is there; `None` if it is not.
    fn count(&self) -> Option<u64> {
        let name = counter(self.address, self.port);
        let args = ["-j", "list", "counter", "inet", "lab_witness", &name];
        let listed: Value = serde_json::from_str(&self.netns.command("nft", &args).ok()?).ok()?;
        listed["nftables"].as_array()?.iter().find_map(|one| one["counter"]["packets"].as_u64())
    }

    /// Packets since then.
    #[track_caller]
    pub(crate) fn arrived(&self) -> u64 {
        self.count().expect("the counter is there") - self.before
    }
}

fn counter(address: IpAddr, port: u16) -> String {
    format!("at_{}_{port}", address.to_string().replace(['.', ':'], "_"))
}
