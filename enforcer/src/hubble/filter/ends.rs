//! Fields over one end of the flow: names, addresses, ports, numbers.

use std::net::IpAddr;

use enforcer_hubble::flow::{FlowFilter, Workload};
use ipnet::IpNet;

use super::{FilterError, One, plain::has_addresses};
use crate::{
    cluster::{event::ObjectKey, plan::PodIdentity},
    flow::{event::Flow, names::proto},
    hubble::{
        convert::{self, Side, Who, who},
        origin::Origin,
    },
};

/// The fields of one end.
struct Fields<'a> {
    side: Side,
    ip: (&'static str, &'a [String]),
    pod: (&'static str, &'a [String]),
    service: (&'static str, &'a [String]),
    port: (&'static str, &'a [String]),
    cluster: (&'static str, &'a [String]),
    identity: &'a [u32],
    workload: &'a [Workload],
}

pub(super) fn add(one: &mut One, filter: &FlowFilter, origin: &Origin) -> Result<(), FilterError> {
    for fields in [
        Fields {
            side: Side::Source,
            ip: ("source_ip", &filter.source_ip),
            pod: ("source_pod", &filter.source_pod),
            service: ("source_service", &filter.source_service),
            port: ("source_port", &filter.source_port),
            cluster: ("source_cluster_name", &filter.source_cluster_name),
            identity: &filter.source_identity,
            workload: &filter.source_workload,
        },
        Fields {
            side: Side::Destination,
            ip: ("destination_ip", &filter.destination_ip),
            pod: ("destination_pod", &filter.destination_pod),
            service: ("destination_service", &filter.destination_service),
            port: ("destination_port", &filter.destination_port),
            cluster: ("destination_cluster_name", &filter.destination_cluster_name),
            identity: &filter.destination_identity,
            workload: &filter.destination_workload,
        },
    ] {
        end(one, &fields, origin)?;
    }
    // Which address a source was translated to is not told: a filter for it matches nothing.
    nets("source_ip_xlated", &filter.source_ip_xlated)?;
    one.add(&filter.source_ip_xlated, |_| false);
    Ok(())
}

fn end(one: &mut One, fields: &Fields<'_>, origin: &Origin) -> Result<(), FilterError> {
    let side = fields.side;
    let nets = nets(fields.ip.0, fields.ip.1)?;
    one.add(fields.ip.1, move |flow| {
        let address = match side {
            Side::Source => flow.raw.src,
            Side::Destination => flow.raw.dst,
        };
        address.is_some_and(|address| nets.iter().any(|net| net.contains(&address)))
    });
    let pods = names(fields.pod.0, fields.pod.1)?;
    one.add(fields.pod.1, move |flow| {
        pod(flow, side).is_some_and(|pod| pods.iter().any(|name| name.matches(&pod.key)))
    });
    let services = names(fields.service.0, fields.service.1)?;
    one.add(fields.service.1, move |flow| {
        let service = convert::service(flow, side);
        service.is_some_and(|key| services.iter().any(|name| name.matches(key)))
    });
    let ports = ports(fields.port.0, fields.port.1)?;
    one.add(fields.port.1, move |flow| {
        let raw = &flow.raw;
        // The type and code of ICMP stand in the ports' place.
        let has_ports = matches!(raw.proto, proto::TCP | proto::UDP | proto::SCTP);
        let port = match side {
            Side::Source => raw.src_port,
            Side::Destination => raw.dst_port,
        };
        has_ports && has_addresses(raw) && ports.contains(&port)
    });
    let (field, clusters) = fields.cluster;
    if clusters.iter().any(String::is_empty) {
        return Err(FilterError::value(field, "", "is no name"));
    }
    let here = clusters.iter().any(|cluster| cluster == origin.cluster());
    one.add(clusters, move |flow| here && pod(flow, side).is_some());
    let (identities, node) = (fields.identity.to_vec(), origin.node().to_owned());
    one.add(fields.identity, move |flow| {
        who(flow, side, &node).identity().is_some_and(|number| identities.contains(&number))
    });
    // Whose workload a pod is of is not told: a filter for it matches nothing.
    one.add(fields.workload, |_| false);
    Ok(())
}

fn pod(flow: &Flow, side: Side) -> Option<&PodIdentity> {
    match who(flow, side, "") {
        Who::Pod(pod) => Some(pod),
        Who::Nobody | Who::Reserved(_) => None,
    }
}

fn nets(field: &'static str, values: &[String]) -> Result<Vec<IpNet>, FilterError> {
    let one = |value: &String| {
        let address = value.parse::<IpAddr>().ok().map(IpNet::from);
        let net = address.or_else(|| value.parse().ok());
        net.ok_or_else(|| FilterError::value(field, value, "is no address and no CIDR"))
    };
    values.iter().map(one).collect()
}

fn ports(field: &'static str, values: &[String]) -> Result<Vec<u16>, FilterError> {
    let one = |value: &String| {
        value.parse().ok().ok_or_else(|| FilterError::value(field, value, "is no port, 0 to 65535"))
    };
    values.iter().map(one).collect()
}

/// `[namespace/]prefix`.
struct Name {
    /// `None` for any.
    namespace: Option<String>,
    prefix: String,
}

impl Name {
    fn matches(&self, key: &ObjectKey) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| *namespace == *key.namespace)
            && key.name.starts_with(&self.prefix)
    }
}

fn names(field: &'static str, values: &[String]) -> Result<Vec<Name>, FilterError> {
    let one = |value: &String| match value.split_once('/') {
        _ if value.is_empty() => Err(FilterError::value(field, "", "is no [namespace/]name")),
        Some((_, prefix)) if prefix.contains('/') => {
            Err(FilterError::value(field, value, "has more than one slash"))
        }
        Some((namespace, prefix)) => Ok(Name {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            prefix: prefix.to_owned(),
        }),
        // As Hubble does.
        None => Ok(Name { namespace: Some("default".to_owned()), prefix: value.clone() }),
    };
    values.iter().map(one).collect()
}
