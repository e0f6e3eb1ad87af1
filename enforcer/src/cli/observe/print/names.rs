//! Who is at the ends of a flow.

use enforcer_hubble::flow::{Endpoint, Flow, Service, layer4::Protocol};

use crate::cli::observe::filters::IDENTITIES;

/// One end, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Pod, Service, DNS names or address.
    pub(super) name: String,
    pub(super) port: Option<u32>,
    /// `(ID:1234)`, `(world)`
    pub(super) identity: String,
    /// Only where names are wanted and there is a pod or Service: the part before the name.
    pub(super) namespace: String,
    /// Whether an address takes the place of a name.
    pub(super) is_address: bool,
}

impl End {
    /// `shop/web-1`
    pub(super) fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }

    /// `shop/web-1:40000`
    pub(super) fn text(&self) -> String {
        match self.port {
            None => self.full_name(),
            // Brackets keep an IPv6 address and its port apart.
            Some(port) if self.is_address && self.name.contains(':') => {
                format!("[{}]:{port}", self.name)
            }
            Some(port) => format!("{}:{port}", self.full_name()),
        }
    }
}

/// Source and destination.
pub(super) fn ends(flow: &Flow, names: bool) -> (End, End) {
    let (source_port, destination_port) = ports(flow);
    let side = |endpoint: &Option<Endpoint>,
                service: &Option<Service>,
                dns: &[String],
                address: fn(&enforcer_hubble::flow::Ip) -> &str,
                mac: fn(&enforcer_hubble::flow::Ethernet) -> &str,
                port: Option<u32>| {
        let identity = identity(endpoint.as_ref().map_or(0, |endpoint| endpoint.identity));
        let Some(ip) = &flow.ip else {
            let mac = flow.ethernet.as_ref().map_or("", mac).to_owned();
            return End { name: mac, identity, ..End::default() };
        };
        if names {
            let pod = endpoint.as_ref().map(|e| (e.namespace.as_str(), e.pod_name.as_str()));
            let service = service.as_ref().map(|s| (s.namespace.as_str(), s.name.as_str()));
            let named = [pod, service].into_iter().flatten().find(|(_, name)| !name.is_empty());
            let dns = dns.join(",");
            if let Some((namespace, name)) = named.or((!dns.is_empty()).then_some(("", &*dns))) {
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                return End { name, port, identity, namespace, is_address: false };
            }
        }
        let name = address(ip).to_owned();
        End { name, port, identity, namespace: String::new(), is_address: true }
    };
    (
        side(
            &flow.source,
            &flow.source_service,
            &flow.source_names,
            |ip| &ip.source,
            |ethernet| &ethernet.source,
            source_port,
        ),
        side(
            &flow.destination,
            &flow.destination_service,
            &flow.destination_names,
            |ip| &ip.destination,
            |ethernet| &ethernet.destination,
            destination_port,
        ),
    )
}

/// Ports, where there are any.
fn ports(flow: &Flow) -> (Option<u32>, Option<u32>) {
    let (source, destination) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(p)) => (p.source_port, p.destination_port),
        Some(Protocol::Udp(p)) => (p.source_port, p.destination_port),
        Some(Protocol::Sctp(p)) => (p.source_port, p.destination_port),
        _ => (0, 0),
    };
    (Some(source).filter(|p| *p != 0), Some(destination).filter(|p| *p != 0))
}

fn identity(number: u32) -> String {
    let place = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    match place.and_then(|place| IDENTITIES.get(place)) {
        Some(name) => format!("({name})"),
        None if number == 0 => "(unknown)".to_owned(),
        None => format!("(ID:{number})"),
    }
}
