//! One node with its pods and what lies outside, made of network namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    LabError, Place, PodSpec, Protocol,
    cleanup::{self, making},
    echo::Echo,
    ip,
    netns::Netns,
    plan, sockets,
};

/// How pods are connected to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A route to each pod's interface; the pod's gateway is a link-local address.
    PointToPoint,
    /// One bridge for all pods, its traffic seen by the node's packet filter (br_netfilter).
    Bridge,
    /// One bridge, its traffic not seen by the packet filter.
    PlainBridge,
}

impl Mode {
    /// A word for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PointToPoint => "point-to-point",
            Self::Bridge => "bridge",
            Self::PlainBridge => "bridge without br_netfilter",
        }
    }
}

/// A pod in the laboratory.
#[derive(Debug)]
pub struct Pod {
    spec: PodSpec,
    netns: Netns,
    number: u32,
    host: String,
}

impl Pod {
    /// What it was made from.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Its network namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Name of its host-side interface in the node's namespace.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.host
    }

    /// Hardware address of its own interface.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        plan::pod_mac(self.number)
    }

    /// Its first address of a family.
    ///
    /// # Errors
    /// If it has none.
    pub fn address(&self, v6: bool) -> Result<IpAddr, LabError> {
        self.spec.addresses.iter().find(|ip| ip.is_ipv6() == v6).copied().ok_or_else(|| {
            let family = if v6 { "IPv6" } else { "IPv4" };
            LabError::NoSuchPlace(format!("{family} address of pod {}", self.spec.name))
        })
    }
}

/// A socket that answers: where, and how.
type Answering = (String, SocketAddr, Protocol);

/// A node, its pods and the outside. Everything is removed when it is dropped.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    mode: Mode,
    // Before the namespaces: an open socket would keep its namespace alive.
    echo: Echo,
    answering: Mutex<BTreeSet<Answering>>,
    node: Netns,
    outside: Netns,
    external: BTreeSet<IpAddr>,
    pods: BTreeMap<String, Pod>,
    next: u32,
    dir: PathBuf,
}

impl Lab {
    /// A node without pods.
    ///
    /// # Errors
    /// Without root, or if namespaces and links cannot be made.
    pub fn new(mode: Mode) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        cleanup::clean_up_on_signals()?;
        cleanup::sweep();
        let prefix = cleanup::new_prefix();
        Self::build(mode, &prefix).inspect_err(|_| cleanup::remove_prefix(&format!("{prefix}-")))
    }

    fn build(mode: Mode, prefix: &str) -> Result<Self, LabError> {
        let dir = std::env::temp_dir().join(format!("{prefix}-files"));
        {
            let _guard = making()?;
            fs::create_dir(&dir).map_err(LabError::io(format!("create {}", dir.display())))?;
        }
        let [node, outside] = ["node", "outside"].map(|name| format!("{prefix}-{name}"));
        ip::batch(None, &[format!("netns add {node}"), format!("netns add {outside}")])?;
        let (node, outside) = (Netns::open(node)?, Netns::open(outside)?);
        node.settings(plan::SETTINGS)?;
        node.settings(plan::NODE_SETTINGS)?;
        outside.settings(plan::SETTINGS)?;
        ip::batch(Some(&node), &plan::node_lines(mode, outside.name()))?;
        ip::batch(Some(&outside), &plan::outside_lines())?;
        match mode {
            Mode::PointToPoint => {}
            Mode::Bridge => node.settings(&bridge_filter("1"))?,
            Mode::PlainBridge => node.settings(&bridge_filter("0"))?,
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            mode,
            echo: Echo::start()?,
            answering: Mutex::default(),
            node,
            outside,
            external: BTreeSet::new(),
            pods: BTreeMap::new(),
            next: 1,
            dir,
        })
    }

    /// How pods are connected.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// First part of the names of all that belongs to this laboratory.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A folder that is removed with the laboratory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's namespace.
    #[must_use]
    pub fn node(&self) -> &Netns {
        &self.node
    }

    /// The namespace with everything that is not this node.
    #[must_use]
    pub fn outside(&self) -> &Netns {
        &self.outside
    }

    /// The node's own address.
    #[must_use]
    pub fn node_address(&self, v6: bool) -> IpAddr {
        constant(plan::NODE[usize::from(v6)])
    }

    /// An address outside that is always there: the router's.
    #[must_use]
    pub fn router_address(&self, v6: bool) -> IpAddr {
        constant(plan::ROUTER[usize::from(v6)])
    }

    /// A pod by `namespace/name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn pod(&self, name: &str) -> Result<&Pod, LabError> {
        self.pods.get(name).ok_or_else(|| LabError::NoSuchPlace(format!("pod {name}")))
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Hardware address that a pod must send to so that the node forwards it.
    #[must_use]
    pub fn gateway_mac(&self) -> [u8; 6] {
        plan::GATEWAY_MAC
    }

    /// Gives addresses to the outside.
    ///
    /// # Errors
    /// If they cannot be added.
    pub fn add_outside(&mut self, addresses: &[IpAddr]) -> Result<(), LabError> {
        let new: Vec<IpAddr> =
            addresses.iter().copied().filter(|ip| self.external.insert(*ip)).collect();
        let lines: Vec<String> = new
            .iter()
            .map(|ip| match ip {
                IpAddr::V4(_) => format!("addr add {ip}/32 dev lo"),
                IpAddr::V6(_) => format!("addr add {ip}/128 dev lo nodad"),
            })
            .collect();
        ip::batch(Some(&self.outside), &lines)
    }

    /// Gives the node one more address, on its loopback interface.
    ///
    /// # Errors
    /// If it cannot be added.
    pub fn add_node_address(&self, address: IpAddr) -> Result<(), LabError> {
        let suffix = if address.is_ipv4() { "/32 dev lo" } else { "/128 dev lo nodad" };
        ip::batch(Some(&self.node), &[format!("addr add {address}{suffix}")])
    }

    /// Makes pods.
    ///
    /// # Errors
    /// If namespaces and links cannot be made.
    pub fn add_pods(&mut self, specs: &[PodSpec]) -> Result<(), LabError> {
        let numbers: Vec<u32> = (self.next..).take(specs.len()).collect();
        self.next += u32::try_from(specs.len()).unwrap_or(u32::MAX);
        let names: Vec<String> =
            numbers.iter().map(|number| format!("{}-pod{number}", self.prefix)).collect();
        let lines: Vec<String> = names.iter().map(|name| format!("netns add {name}")).collect();
        ip::batch(None, &lines)?;
        let mut added = Vec::new();
        for ((spec, number), name) in specs.iter().zip(numbers).zip(names) {
            let netns = Netns::open(name)?;
            netns.settings(plan::SETTINGS)?;
            added.push(Pod { spec: spec.clone(), netns, number, host: format!("veth{number}") });
        }
        self.wire(&added)?;
        self.pods.extend(added.into_iter().map(|pod| (pod.spec.name.clone(), pod)));
        Ok(())
    }

    /// Makes the links of these pods.
    fn wire(&self, pods: &[Pod]) -> Result<(), LabError> {
        let lines: Vec<String> = pods
            .iter()
            .flat_map(|pod| {
                let name = pod.netns.name();
                plan::pod_node_lines(self.mode, &pod.spec, &pod.host, pod.number, name)
            })
            .collect();
        ip::batch(Some(&self.node), &lines)?;
        if self.mode == Mode::PointToPoint {
            let paths: Vec<(String, &str)> = pods
                .iter()
                .flat_map(|pod| {
                    [
                        (format!("ipv4/conf/{}/proxy_arp", pod.host), "1"),
                        // Else the kernel waits for up to 0.8 s before it answers.
                        (format!("ipv4/neigh/{}/proxy_delay", pod.host), "0"),
                    ]
                })
                .collect();
            let settings: Vec<(&str, &str)> =
                paths.iter().map(|(path, value)| (path.as_str(), *value)).collect();
            self.node.settings(&settings)?;
        }
        for pod in pods {
            ip::batch(Some(&pod.netns), &plan::pod_lines(self.mode, &pod.spec)?)?;
        }
        Ok(())
    }

    /// Removes a pod with its interface.
    ///
    /// # Errors
    /// If there is none of that name, or it cannot be removed.
    pub fn remove_pod(&mut self, name: &str) -> Result<(), LabError> {
        let pod =
            self.pods.remove(name).ok_or_else(|| LabError::NoSuchPlace(format!("pod {name}")))?;
        self.stop_answering(pod.netns.name());
        ip::batch(Some(&self.node), &[format!("link del {}", pod.host)])?;
        ip::batch(None, &[format!("netns del {}", pod.netns.name())])
    }

    /// Takes a pod's interface away and gives it a new one with the same addresses.
    ///
    /// # Errors
    /// If there is no such pod, or a link cannot be changed.
    pub fn replace_interface(&mut self, name: &str) -> Result<(), LabError> {
        let mut pod =
            self.pods.remove(name).ok_or_else(|| LabError::NoSuchPlace(format!("pod {name}")))?;
        self.stop_answering(pod.netns.name());
        ip::batch(Some(&self.node), &[format!("link del {}", pod.host)])?;
        pod.number = self.next;
        pod.host = format!("veth{}", self.next);
        self.next += 1;
        let pods = [pod];
        self.wire(&pods)?;
        self.pods.extend(pods.into_iter().map(|pod| (pod.spec.name.clone(), pod)));
        Ok(())
    }

    /// The namespace and the address of a place, in the wanted family.
    ///
    /// # Errors
    /// If there is no such pod or address.
    pub fn locate(&self, place: &Place, v6: bool) -> Result<(&Netns, IpAddr), LabError> {
        match place {
            Place::Pod(name) => {
                let pod = self.pod(name)?;
                Ok((&pod.netns, pod.address(v6)?))
            }
            Place::Node => Ok((&self.node, self.node_address(v6))),
            Place::NodeAddress(ip) => Ok((&self.node, *ip)),
            Place::Outside(ip) if self.external.contains(ip) => Ok((&self.outside, *ip)),
            Place::Outside(ip) => Err(LabError::NoSuchPlace(format!("address {ip} outside"))),
            Place::Virtual(ip) => Err(LabError::NoSuchPlace(format!("place with address {ip}"))),
        }
    }

    /// Makes `place` answer at that port: what comes is sent back. Nobody listens at a virtual one.
    ///
    /// # Errors
    /// If there is no such place, or the port is taken.
    pub fn answer(
        &self,
        place: &Place,
        v6: bool,
        port: u16,
        protocol: Protocol,
    ) -> Result<SocketAddr, LabError> {
        if let Place::Virtual(ip) = place {
            return Ok(SocketAddr::new(*ip, port));
        }
        let (netns, ip) = self.locate(place, v6)?;
        let address = SocketAddr::new(ip, port);
        let key = (netns.name().to_owned(), address, protocol);
        let mut answering = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        if !answering.contains(&key) {
            let socket = netns.run(|| sockets::listen(address, protocol))??;
            self.echo.add(netns.name(), socket);
            answering.insert(key);
        }
        Ok(address)
    }

    /// Closes all that answers in a namespace, so that it can go.
    fn stop_answering(&self, netns: &str) {
        self.echo.remove(netns);
        self.answering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(name, _, _)| name != netns);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.echo.stop();
        cleanup::remove_prefix(&format!("{}-", self.prefix));
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn bridge_filter(value: &str) -> [(&str, &str); 2] {
    [("bridge/bridge-nf-call-iptables", value), ("bridge/bridge-nf-call-ip6tables", value)]
}

fn constant(text: &str) -> IpAddr {
    // The constants are addresses, see the test below.
    text.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_addresses() {
        for text in plan::NODE.iter().chain(&plan::ROUTER) {
            assert!(!constant(text).is_unspecified(), "{text}");
        }
    }
}
