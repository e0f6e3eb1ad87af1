//! Where a pod may ask for names before its policy is in force (`--start=closed-except-dns`).

use std::net::IpAddr;

use crate::cluster::{event::ObjectKey, services::Services};

/// Where the cluster's DNS is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterDns {
    /// Its Service.
    pub(super) service: ObjectKey,
    /// The address of a cache on every node.
    pub(super) node_local: Option<IpAddr>,
}

impl ClusterDns {
    /// The Service's addresses, those of its backends, and the cache's; each once, in order.
    pub(super) fn addresses(&self, services: &Services) -> Vec<IpAddr> {
        let service = services.service(&self.service).into_iter();
        let virtual_addresses = service.flat_map(|service| service.cluster_ips.iter().copied());
        let endpoints = services.slices_of(&self.service).flat_map(|slice| &slice.endpoints);
        let backends = endpoints.filter_map(|endpoint| endpoint.addresses.first().copied());
        let mut all: Vec<_> = virtual_addresses
            .chain(backends)
            .chain(self.node_local)
            .map(|a| a.to_canonical())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        Index, IndexConfig,
        event::{Endpoint, EndpointSlice, Event, Service},
    };

    #[test]
    fn the_service_its_backends_and_the_cache() {
        let key = |name: &str| ObjectKey { namespace: "kube-system".into(), name: name.into() };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let dns = ClusterDns { service: key("kube-dns"), node_local: Some(ip("169.254.20.10")) };
        let mut index =
            Index::new(IndexConfig { class_key: [0, 0], first_table: 1, ..IndexConfig::default() });
        assert_eq!(dns.addresses(index.services()), [ip("169.254.20.10")]);
        for (name, cluster_ip) in [("kube-dns", "10.96.0.10"), ("other", "10.96.0.11")] {
            let service = Service::at(key(name), vec![ip(cluster_ip)]);
            index.apply(Event::ServiceApplied(Box::new(service)));
            let endpoint = |address: &str| Endpoint {
                addresses: vec![ip(address)],
                ready: false,
                serving: true,
                terminating: false,
                node: None,
                pod: None,
            };
            index.apply(Event::SliceApplied(EndpointSlice {
                key: key(&format!("{name}-x")),
                service: Some(name.into()),
                ports: Vec::new(),
                endpoints: vec![endpoint(&cluster_ip.replace("10.96", "10.244"))],
            }));
        }
        let expected = ["10.96.0.10", "10.244.0.10", "169.254.20.10"].map(ip);
        assert_eq!(dns.addresses(index.services()), expected);
    }
}
