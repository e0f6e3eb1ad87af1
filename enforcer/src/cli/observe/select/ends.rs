//! Fields about the two ends of a flow.

use std::net::IpAddr;

use enforcer_hubble::flow::{Endpoint, Flow, FlowFilter, Service, Workload, layer4::Protocol};
use ipnet::IpNet;

use super::{One, SelectError, wrong};

/// The namespace of a name that has none.
const DEFAULT: &str = "default";

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), SelectError> {
    let source = |flow: &Flow| flow.source.clone();
    let destination = |flow: &Flow| flow.destination.clone();
    addresses(one, "source_ip", &filter.source_ip, |flow| Some(&flow.ip.as_ref()?.source))?;
    addresses(one, "destination_ip", &filter.destination_ip, |flow| {
        Some(&flow.ip.as_ref()?.destination)
    })?;
    addresses(one, "source_ip_xlated", &filter.source_ip_xlated, |flow| {
        Some(&flow.ip.as_ref()?.source_xlated)
    })?;
    ports(one, "source_port", &filter.source_port, |(source, _)| source)?;
    ports(one, "destination_port", &filter.destination_port, |(_, destination)| destination)?;
    pods(one, &filter.source_pod, |flow| flow.source.as_ref());
    pods(one, &filter.destination_pod, |flow| flow.destination.as_ref());
    services(one, &filter.source_service, |flow| flow.source_service.as_ref());
    services(one, &filter.destination_service, |flow| flow.destination_service.as_ref());
    let has = |wanted: &Workload, end: Option<Endpoint>| {
        end.is_some_and(|end| {
            end.workloads.iter().any(|workload| {
                (wanted.name.is_empty() || workload.name == wanted.name)
                    && (wanted.kind.is_empty() || workload.kind == wanted.kind)
            })
        })
    };
    one.any(filter.source_workload.clone(), move |w, flow| has(w, source(flow)));
    one.any(filter.destination_workload.clone(), move |w, flow| has(w, destination(flow)));
    let is = |identity: u32, end: Option<&Endpoint>| end.map_or(0, |end| end.identity) == identity;
    one.any(filter.source_identity.clone(), move |id, flow| is(*id, flow.source.as_ref()));
    one.any(filter.destination_identity.clone(), move |id, flow| {
        is(*id, flow.destination.as_ref())
    });
    Ok(())
}

fn addresses(
    one: &mut One,
    field: &'static str,
    values: &[String],
    of: fn(&Flow) -> Option<&String>,
) -> Result<(), SelectError> {
    let mut blocks = Vec::new();
    for value in values {
        let address = || value.parse::<IpAddr>().ok().map(IpNet::from);
        let block = value.parse().ok().or_else(address);
        blocks.push(block.ok_or_else(|| wrong(field, value, "is no address or CIDR"))?);
    }
    one.any(blocks, move |block: &IpNet, flow| {
        let address = of(flow).and_then(|address| address.parse::<IpAddr>().ok());
        address.is_some_and(|address| block.contains(&address))
    });
    Ok(())
}

fn ports(
    one: &mut One,
    field: &'static str,
    values: &[String],
    which: fn((u32, u32)) -> u32,
) -> Result<(), SelectError> {
    let mut ports = Vec::new();
    for value in values {
        let port = value.parse::<u16>().ok();
        let port = port.ok_or_else(|| wrong(field, value, "is no port, 0 to 65535"))?;
        ports.push(u32::from(port));
    }
    one.any(ports, move |port, flow| {
        let both = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(Protocol::Tcp(p)) => (p.source_port, p.destination_port),
            Some(Protocol::Udp(p)) => (p.source_port, p.destination_port),
            Some(Protocol::Sctp(p)) => (p.source_port, p.destination_port),
            _ => return false,
        };
        which(both) == *port
    });
    Ok(())
}

/// `[namespace/]prefix`; an empty namespace is any.
fn name(value: &str) -> (String, String) {
    let (namespace, prefix) = value.split_once('/').unwrap_or((DEFAULT, value));
    (namespace.to_owned(), prefix.to_owned())
}

fn fits(wanted: &(String, String), namespace: &str, name: &str) -> bool {
    let (of, prefix) = wanted;
    let inside = if of.is_empty() { !namespace.is_empty() } else { namespace == of };
    inside && name.starts_with(prefix.as_str())
}

fn pods(one: &mut One, values: &[String], of: fn(&Flow) -> Option<&Endpoint>) {
    one.any(values.iter().map(|value| name(value)), move |wanted, flow| {
        of(flow).is_some_and(|end| fits(wanted, &end.namespace, &end.pod_name))
    });
}

fn services(one: &mut One, values: &[String], of: fn(&Flow) -> Option<&Service>) {
    one.any(values.iter().map(|value| name(value)), move |wanted, flow| {
        of(flow).is_some_and(|service| fits(wanted, &service.namespace, &service.name))
    });
}
