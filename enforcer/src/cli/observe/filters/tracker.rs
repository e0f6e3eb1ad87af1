//! Flags of one list, gathered into one filter or two.
//!
//! A flag about either end needs two filters, since the fields of one must all match: `left` has it
//! for the source, `right` for the destination. All other flags go into both, and where both are
//! the same one is enough.

use enforcer_hubble::flow::{FlowFilter, NetworkInterface, Workload, flow_filter::Experimental};

use super::{
    FilterError,
    flags::{End, Flag, OfEnd, OfFlow, Subject, Takes},
    values,
};

/// Flags of one list.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    given: Vec<&'static Flag>,
    left: Half,
    right: Half,
}

/// One filter in the making.
#[derive(Debug, Default)]
struct Half {
    filter: FlowFilter,
    source: Names,
    destination: Names,
}

/// Names that are completed by namespaces, whichever came first.
#[derive(Debug, Default)]
struct Names {
    namespaces: Vec<String>,
    pods: Vec<String>,
    services: Vec<String>,
}

impl Tracker {
    /// Takes one flag in.
    pub(super) fn add(&mut self, flag: &'static Flag, value: &str) -> Result<(), FilterError> {
        if let Some(other) = self.given.iter().find(|other| excludes(flag, other)) {
            return Err(FilterError::Together { one: other.name, other: flag.name });
        }
        self.given.push(flag);
        let subject = match flag.takes {
            Takes::Value(_, subject) | Takes::Given(subject) => subject,
            Takes::Not => return Ok(()),
        };
        match subject {
            Subject::Flow(about) => {
                for half in [&mut self.left, &mut self.right] {
                    of_flow(&mut half.filter, about, value)
                        .map_err(|reason| wrong(flag, value, reason))?;
                }
            }
            Subject::End(end, about) => {
                let (left, right) = (&mut self.left, &mut self.right);
                let places = match end {
                    End::Either => [(left, Side::Source), (right, Side::Destination)],
                    End::From => [(left, Side::Source), (right, Side::Source)],
                    End::To => [(left, Side::Destination), (right, Side::Destination)],
                };
                for (half, side) in places {
                    half.add(side, about, value).map_err(|reason| wrong(flag, value, reason))?;
                    half.names(side).check()?;
                }
            }
        }
        Ok(())
    }

    /// The filters.
    pub(super) fn finish(self) -> Vec<FlowFilter> {
        if self.given.is_empty() {
            return Vec::new();
        }
        let (left, right) = (self.left.finish(), self.right.finish());
        if left == right { vec![left] } else { vec![left, right] }
    }
}

fn wrong(flag: &'static Flag, value: &str, reason: String) -> FilterError {
    FilterError::Value { flag: flag.name, value: value.to_owned(), reason }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Half {
    fn names(&mut self, side: Side) -> &mut Names {
        match side {
            Side::Source => &mut self.source,
            Side::Destination => &mut self.destination,
        }
    }

    fn add(&mut self, side: Side, about: OfEnd, value: &str) -> Result<(), String> {
        let text = value.to_owned();
        let filter = &mut self.filter;
        macro_rules! end {
            ($source:ident, $destination:ident) => {
                match side {
                    Side::Source => &mut filter.$source,
                    Side::Destination => &mut filter.$destination,
                }
            };
        }
        match about {
            OfEnd::Cluster => end!(source_cluster_name, destination_cluster_name).push(text),
            OfEnd::Fqdn => end!(source_fqdn, destination_fqdn).push(text),
            OfEnd::Identity => {
                end!(source_identity, destination_identity).push(values::identity(value)?);
            }
            OfEnd::Ip => end!(source_ip, destination_ip).push(text),
            OfEnd::Label => end!(source_label, destination_label).push(text),
            OfEnd::Port => end!(source_port, destination_port).push(text),
            OfEnd::Workload => {
                let of: &mut Vec<Workload> = end!(source_workload, destination_workload);
                of.push(values::workload(value));
            }
            OfEnd::AllNamespaces => self.names(side).namespaces.push(String::new()),
            OfEnd::Namespace => self.names(side).namespaces.push(text),
            OfEnd::Pod => self.names(side).pods.push(text),
            OfEnd::Service => self.names(side).services.push(text),
        }
        Ok(())
    }

    fn finish(self) -> FlowFilter {
        let Self { mut filter, source, destination } = self;
        (filter.source_pod, filter.source_service) = source.finish();
        (filter.destination_pod, filter.destination_service) = destination.finish();
        filter
    }
}

impl Names {
    /// A name that has a namespace must have one of those asked for: all of them, as there is
    /// nothing that could be in two.
    fn check(&self) -> Result<(), FilterError> {
        for name in self.pods.iter().chain(&self.services) {
            let Some((of, _)) = name.split_once('/') else { continue };
            let other = self.namespaces.iter().find(|namespace| !of.is_empty() && *namespace != of);
            if let Some(namespace) = other {
                let (name, namespace) = (name.clone(), namespace.clone());
                return Err(FilterError::Namespace { name, namespace });
            }
        }
        // Of a flow's end with both, the Service is one of the pod's own namespace.
        let pods = self.pods.iter().filter_map(|pod| Some(pod.split_once('/')?.0));
        for namespace in pods.filter(|namespace| !namespace.is_empty()) {
            let of = |service: &str| service.split_once('/').is_some_and(|s| s.0 == namespace);
            if let Some(name) = self.services.iter().find(|service| !of(service)) {
                let (name, namespace) = (name.clone(), namespace.to_owned());
                return Err(FilterError::Namespace { name, namespace });
            }
        }
        Ok(())
    }

    /// Pods and services.
    fn finish(self) -> (Vec<String>, Vec<String>) {
        let Self { namespaces, pods, services } = self;
        if pods.is_empty() && services.is_empty() {
            let all = namespaces.into_iter().map(|namespace| format!("{namespace}/"));
            return (all.collect(), Vec::new());
        }
        let complete = |names: Vec<String>| -> Vec<String> {
            let mut out = Vec::new();
            for name in names {
                if namespaces.is_empty() || name.contains('/') {
                    out.push(name);
                } else {
                    out.extend(namespaces.iter().map(|namespace| format!("{namespace}/{name}")));
                }
            }
            out
        };
        (complete(pods), complete(services))
    }
}

fn of_flow(filter: &mut FlowFilter, about: OfFlow, value: &str) -> Result<(), String> {
    let text = value.to_owned();
    match about {
        OfFlow::Cel => {
            let experimental = filter.experimental.get_or_insert_with(Experimental::default);
            experimental.cel_expression.push(text);
        }
        OfFlow::DropReason => filter.drop_reason_desc.push(values::drop_reason(value)?),
        OfFlow::Encrypted => filter.encrypted.push(true),
        OfFlow::Unencrypted => filter.encrypted.push(false),
        OfFlow::HttpHeader => filter.http_header.push(values::http_header(value)?),
        OfFlow::HttpMethod => filter.http_method.push(text),
        OfFlow::HttpPath => filter.http_path.push(text),
        OfFlow::HttpStatus => filter.http_status_code.push(text),
        OfFlow::HttpUrl => filter.http_url.push(text),
        OfFlow::Interface => filter.interface.push(NetworkInterface { index: 0, name: text }),
        OfFlow::IpTraceId => filter.ip_trace_id.push(values::ip_trace_id(value)?),
        OfFlow::IpVersion => filter.ip_version.push(values::ip_version(value)?),
        OfFlow::Ipv4 => filter.ip_version.push(values::ip_version("v4")?),
        OfFlow::Ipv6 => filter.ip_version.push(values::ip_version("v6")?),
        OfFlow::NodeLabel => filter.node_labels.push(text),
        OfFlow::NodeName => filter.node_name.push(text),
        OfFlow::Protocol => filter.protocol.push(text),
        OfFlow::SnatIp => filter.source_ip_xlated.push(text),
        OfFlow::TcpFlags => filter.tcp_flags.push(values::tcp_flags(value)?),
        OfFlow::TraceId => filter.trace_id.push(text),
        OfFlow::Direction => filter.traffic_direction.push(values::direction(value)?),
        OfFlow::Type => filter.event_type.push(values::event_type(value)?),
        OfFlow::Uuid => filter.uuid.push(text),
        OfFlow::Verdict => filter.verdict.push(values::verdict(value)?),
    }
    Ok(())
}

/// Whether Hubble's client refuses to combine two flags.
fn excludes(one: &Flag, other: &Flag) -> bool {
    let subject = |flag: &Flag| match flag.takes {
        Takes::Value(_, subject) | Takes::Given(subject) => Some(subject),
        Takes::Not => None,
    };
    match (subject(one), subject(other)) {
        (Some(Subject::Flow(a)), Some(Subject::Flow(b))) => {
            matches!(
                (a, b),
                (OfFlow::Encrypted, OfFlow::Unencrypted) | (OfFlow::Unencrypted, OfFlow::Encrypted)
            )
        }
        (Some(Subject::End(a, of_a)), Some(Subject::End(b, of_b))) => {
            ends_exclude((a, of_a), (b, of_b)) || ends_exclude((b, of_b), (a, of_a))
        }
        _ => false,
    }
}

fn ends_exclude((a, of_a): (End, OfEnd), (b, of_b): (End, OfEnd)) -> bool {
    use OfEnd::{AllNamespaces, Cluster, Fqdn, Ip, Namespace, Pod, Service};
    // The sender's and the receiver's never meet.
    if a != b && a != End::Either && b != End::Either {
        return false;
    }
    match (of_a, of_b) {
        (Namespace, AllNamespaces) => true,
        // Names and addresses say who it is, each in another way.
        (Fqdn | Ip, Fqdn | Ip | Pod | Namespace | AllNamespaces) if of_a != of_b => true,
        // The namespace of either end completes the name of either end only.
        (Namespace | AllNamespaces, Pod | Service) => a == End::Either && b != End::Either,
        (same, as_well) => same == as_well && a != b && same != Cluster,
    }
}
