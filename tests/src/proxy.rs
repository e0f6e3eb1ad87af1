//! What kube-proxy does on a node, as nftables rules: destinations translated to a backend by
//! chance, masquerade where it must be, refusal where nobody is.
//!
//! The rules know nothing of the manifests: a test lets one be ahead of the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::SocketAddr,
};

use serde_json::Value;

use crate::{
    Lab, LabError,
    service::{Backend, Condition, Service},
    sockets,
};

/// The tables' name, one for each family.
const TABLE: &str = "lab_proxy";
/// The mark of what is to be masqueraded, kube-proxy's.
const MARK: &str = "0x4000";

/// What the node's address hides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// Only a pod that reaches itself.
    #[default]
    Hairpin,
    /// Everything to a Service.
    All,
    /// Everything to a Service, with ports by chance.
    AllRandom,
}

/// The translation of some Services.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// What is translated.
    pub services: Vec<Service>,
    /// Whose source is hidden.
    pub masquerade: Masquerade,
}

impl Proxy {
    /// Replaces the node's rules by these, in one step.
    ///
    /// # Errors
    /// If nftables refuses them.
    pub fn apply(&self, lab: &Lab) -> Result<(), LabError> {
        let path = lab.dir().join("proxy.nft");
        fs::write(&path, self.rules())
            .map_err(LabError::io(format!("write {}", path.display())))?;
        lab.node().command("nft", &["-f", &path.to_string_lossy()]).map(|_| ())
    }

    fn rules(&self) -> String {
        [Family::V4, Family::V6].map(|family| self.table(family)).concat()
    }

    fn table(&self, family: Family) -> String {
        let name = format!("{} {TABLE}", family.name());
        // The sets stay: what was chosen before is not forgotten.
        let mut text = format!("table {name}\nflush table {name}\ntable {name} {{\n");
        let random = if self.masquerade == Masquerade::AllRandom { " fully-random" } else { "" };
        let mut endpoints: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut services = String::new();
        let mut refused = String::new();
        let mut chains = String::new();
        for (number, service) in self.services.iter().enumerate() {
            let of_family = |backend: &Backend| {
                let ip = backend.addresses.iter().find(|ip| ip.is_ipv6() == family.is_v6())?;
                Some(SocketAddr::new(*ip, backend.port))
            };
            let ready = service.backends.iter().filter(|one| one.condition == Condition::Ready);
            let ready: Vec<SocketAddr> = ready.filter_map(of_family).collect();
            endpoints.extend(&ready);
            chains.push_str(&self.choice(number, &ready));
            for matched in frontends(service, family) {
                if ready.is_empty() {
                    refuse(&mut refused, &matched);
                } else {
                    line(&mut services, &format!("{matched} goto service_{number}"));
                }
            }
        }
        for endpoint in endpoints {
            text.push_str(&target(endpoint, family));
        }
        text.push_str(&chains);
        let masquerade = format!(
            "meta mark & {MARK} == {MARK} meta mark set meta mark ^ {MARK} masquerade{random}"
        );
        for (chain, rules) in [
            ("services", services.as_str()),
            ("prerouting", "type nat hook prerouting priority dstnat; jump services;\n"),
            ("output", "type nat hook output priority -100; jump services;\n"),
            ("postrouting", &format!("type nat hook postrouting priority srcnat; {masquerade};\n")),
            ("forward", &format!("type filter hook forward priority filter;\n{refused}")),
            ("leave", &format!("type filter hook output priority filter;\n{refused}")),
            ("arrive", &format!("type filter hook input priority filter;\n{refused}")),
        ] {
            text.push_str(&chain_of(chain, rules));
        }
        text.push_str("}\n");
        text
    }

    /// The chain that chooses a backend of a Service.
    fn choice(&self, number: usize, ready: &[SocketAddr]) -> String {
        if ready.is_empty() {
            return String::new();
        }
        let mut rules = String::new();
        if self.masquerade != Masquerade::Hairpin {
            line(&mut rules, &format!("meta mark set meta mark | {MARK}"));
        }
        let targets: Vec<String> = ready
            .iter()
            .enumerate()
            .map(|(index, endpoint)| format!("{index} : goto to_{}", word(*endpoint)))
            .collect();
        let count = ready.len();
        line(&mut rules, &format!("numgen random mod {count} vmap {{ {} }}", targets.join(", ")));
        chain_of(&format!("service_{number}"), &rules)
    }

    /// Source ports of the connections that got each backend, by its address and target port.
    ///
    /// # Errors
    /// If nftables does not say.
    pub fn chosen(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<u16>>, LabError> {
        let text = lab.node().command("nft", &["-j", "list", "sets"])?;
        let listed: Value = serde_json::from_str(&text).map_err(|error| LabError::Failed {
            command: "nft -j list sets".to_owned(),
            message: error.to_string(),
        })?;
        let mut chosen = BTreeMap::new();
        for object in listed["nftables"].as_array().into_iter().flatten() {
            let set = &object["set"];
            if set["table"] != TABLE {
                continue;
            }
            let ports = set["elem"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            let ports = ports.filter_map(|port| u16::try_from(port).ok()).collect();
            chosen.insert(set["name"].as_str().unwrap_or_default().to_owned(), ports);
        }
        Ok(chosen)
    }

    /// The key of a backend in [`Self::chosen`].
    #[must_use]
    pub fn key(backend: &Backend, v6: bool) -> String {
        let ip = backend.addresses.iter().find(|ip| ip.is_ipv6() == v6);
        ip.map_or_else(String::new, |ip| set_name(SocketAddr::new(*ip, backend.port)))
    }
}

impl Lab {
    /// Empties the node's connection tracking, as kube-proxy does for datagrams whose backend went.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forget_connections(&self) -> Result<(), LabError> {
        let forgotten = self.node().run(sockets::forget_connections)?;
        forgotten.map_err(LabError::io("empty the node's connection tracking"))
    }

    /// Lets frames on the bridge go back by the port that they came from, as a CNI's `hairpinMode`
    /// does; nothing to do in point-to-point mode.
    ///
    /// # Errors
    /// If a port cannot be set up.
    pub fn allow_hairpin(&self) -> Result<(), LabError> {
        if self.mode() == crate::Mode::PointToPoint {
            return Ok(());
        }
        let lines: Vec<String> = self
            .pods()
            .map(|pod| format!("link set {} type bridge_slave hairpin on", pod.host_interface()))
            .collect();
        crate::ip::batch(Some(self.node()), &lines)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn is_v6(self) -> bool {
        self == Self::V6
    }
}

fn line(text: &mut String, rule: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "{rule};").ok();
}

fn chain_of(name: &str, rules: &str) -> String {
    format!("chain {name} {{\n{rules}}}\n")
}

fn word(endpoint: SocketAddr) -> String {
    endpoint.to_string().replace(['.', ':', '[', ']'], "_")
}

fn set_name(endpoint: SocketAddr) -> String {
    format!("chosen_{}", word(endpoint))
}

/// The chain that translates to one backend, and the set of those who got it.
fn target(endpoint: SocketAddr, family: Family) -> String {
    let (set, ip) = (set_name(endpoint), endpoint.ip());
    let family = family.name();
    let mut rules = String::new();
    line(&mut rules, &format!("{family} saddr {ip} meta mark set meta mark | {MARK}"));
    line(&mut rules, &format!("add @{set} {{ th sport }}"));
    line(&mut rules, &format!("meta l4proto {{ tcp, udp }} dnat to {endpoint}"));
    let set = format!("set {set} {{ type inet_service; flags dynamic; size 65535; }}\n");
    set + &chain_of(&format!("to_{}", word(endpoint)), &rules)
}

/// What matches the addresses and ports of a Service.
fn frontends(service: &Service, family: Family) -> Vec<String> {
    let mut matches = Vec::new();
    for port in &service.ports {
        let protocol = port.protocol.to_string().to_lowercase();
        for ip in service.addresses().filter(|ip| ip.is_ipv6() == family.is_v6()) {
            matches.push(format!("{} daddr {ip} {protocol} dport {}", family.name(), port.number));
        }
        if let Some(number) = port.node_port {
            matches.push(format!("fib daddr type local {protocol} dport {number}"));
        }
    }
    matches
}

fn refuse(rules: &mut String, matched: &str) {
    line(rules, &format!("{matched} ct state new reject"));
}
