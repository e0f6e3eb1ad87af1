//! The table of filter flags.

/// Which end of a flow a flag is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One of them.
    Either,
    /// The sender.
    From,
    /// The receiver.
    To,
}

/// What a flag is about, of one end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfEnd {
    /// `--all-namespaces`
    AllNamespaces,
    /// `--cluster`
    Cluster,
    /// `--fqdn`
    Fqdn,
    /// `--identity`
    Identity,
    /// `--ip`
    Ip,
    /// `--label`
    Label,
    /// `--namespace`
    Namespace,
    /// `--pod`
    Pod,
    /// `--port`
    Port,
    /// `--service`
    Service,
    /// `--workload`
    Workload,
}

/// What a flag is about, of the whole flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfFlow {
    /// `--cel-expression`
    Cel,
    /// `--drop-reason-desc`
    DropReason,
    /// `--encrypted`
    Encrypted,
    /// `--unencrypted`
    Unencrypted,
    /// `--http-header`
    HttpHeader,
    /// `--http-method`
    HttpMethod,
    /// `--http-path`
    HttpPath,
    /// `--http-status`
    HttpStatus,
    /// `--http-url`
    HttpUrl,
    /// `--interface`
    Interface,
    /// `--ip-trace-id`
    IpTraceId,
    /// `--ip-version`
    IpVersion,
    /// `-4`
    Ipv4,
    /// `-6`
    Ipv6,
    /// `--node-label`
    NodeLabel,
    /// `--node-name`
    NodeName,
    /// `--protocol`
    Protocol,
    /// `--snat-ip`
    SnatIp,
    /// `--tcp-flags`
    TcpFlags,
    /// `--trace-id`
    TraceId,
    /// `--traffic-direction`
    Direction,
    /// `--type`
    Type,
    /// `--uuid`
    Uuid,
    /// `--verdict`
    Verdict,
}

/// What a flag is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// One end.
    End(End, OfEnd),
    /// The flow.
    Flow(OfFlow),
}

/// What stands behind a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// A value, by this name in the help.
    Value(&'static str, Subject),
    /// Nothing.
    Given(Subject),
    /// Nothing: `--not`.
    Not,
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes: Takes,
    pub(super) help: &'static str,
}

const fn of_flow(
    name: &'static str,
    value: &'static str,
    about: OfFlow,
    help: &'static str,
) -> Flag {
    Flag { name, short: None, takes: Takes::Value(value, Subject::Flow(about)), help }
}

const fn of_end(
    name: &'static str,
    value: &'static str,
    end: End,
    about: OfEnd,
    help: &'static str,
) -> Flag {
    Flag { name, short: None, takes: Takes::Value(value, Subject::End(end, about)), help }
}

const fn given(name: &'static str, subject: Subject, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Given(subject), help }
}

impl Flag {
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
}

use End::{Either, From, To};
use OfEnd::Workload;
use OfEnd::{AllNamespaces, Cluster, Fqdn, Identity, Ip, Label, Namespace, Pod, Port, Service};

/// All of them, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "not",
        short: None,
        takes: Takes::Not,
        help: "Leave out what the next filter matches",
    },
    of_end(
        "pod",
        "POD",
        Either,
        Pod,
        "Pod on either end, by [NAMESPACE/]PREFIX; without a \
        namespace `default`",
    ),
    of_end("from-pod", "POD", From, Pod, "Pod that sends"),
    of_end("to-pod", "POD", To, Pod, "Pod that receives"),
    of_end("namespace", "NS", Either, Namespace, "Namespace on either end").short('n'),
    of_end("from-namespace", "NS", From, Namespace, "Namespace of the sender"),
    of_end("to-namespace", "NS", To, Namespace, "Namespace of the receiver"),
    given("all-namespaces", Subject::End(Either, AllNamespaces), "Any namespace on either end")
        .short('A'),
    given("from-all-namespaces", Subject::End(From, AllNamespaces), "Any namespace of the sender"),
    given("to-all-namespaces", Subject::End(To, AllNamespaces), "Any namespace of the receiver"),
    of_end("workload", "[KIND/]NAME", Either, Workload, "Workload on either end"),
    of_end("from-workload", "[KIND/]NAME", From, Workload, "Workload that sends"),
    of_end("to-workload", "[KIND/]NAME", To, Workload, "Workload that receives"),
    of_end("service", "SERVICE", Either, Service, "Service on either end, by [NAMESPACE/]PREFIX"),
    of_end("from-service", "SERVICE", From, Service, "Service that sends"),
    of_end("to-service", "SERVICE", To, Service, "Service that receives"),
    of_end(
        "label",
        "SELECTOR",
        Either,
        Label,
        "Labels on either end: app=web, app in (a,b), \
        reserved:world",
    )
    .short('l'),
    of_end("from-label", "SELECTOR", From, Label, "Labels of the sender"),
    of_end("to-label", "SELECTOR", To, Label, "Labels of the receiver"),
    of_end(
        "identity",
        "ID",
        Either,
        Identity,
        "Security identity on either end: a number, \
        or world, host, remote-node, kube-apiserver, …",
    ),
    of_end("from-identity", "ID", From, Identity, "Security identity of the sender"),
    of_end("to-identity", "ID", To, Identity, "Security identity of the receiver"),
    of_end("ip", "IP", Either, Ip, "Address or CIDR on either end"),
    of_end("from-ip", "IP", From, Ip, "Source address or CIDR"),
    of_end("to-ip", "IP", To, Ip, "Destination address or CIDR"),
    of_flow("snat-ip", "IP", OfFlow::SnatIp, "Address or CIDR that the source was translated to"),
    of_end("fqdn", "NAME", Either, Fqdn, "DNS name on either end; * for any characters"),
    of_end("from-fqdn", "NAME", From, Fqdn, "DNS name of the sender"),
    of_end("to-fqdn", "NAME", To, Fqdn, "DNS name of the receiver"),
    of_end("port", "PORT", Either, Port, "Port on either end"),
    of_end("from-port", "PORT", From, Port, "Source port"),
    of_end("to-port", "PORT", To, Port, "Destination port"),
    of_end("cluster", "NAME", Either, Cluster, "Cluster on either end; * for any characters"),
    of_end("from-cluster", "NAME", From, Cluster, "Cluster of the sender"),
    of_end("to-cluster", "NAME", To, Cluster, "Cluster of the receiver"),
    of_flow(
        "verdict",
        "VERDICT",
        OfFlow::Verdict,
        "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, \
        TRACED or TRANSLATED",
    ),
    of_flow("drop-reason-desc", "REASON", OfFlow::DropReason, "Reason of a drop: POLICY_DENIED, …"),
    of_flow(
        "type",
        "TYPE[:SUB]",
        OfFlow::Type,
        "drop, policy-verdict, trace (also with a point: \
        trace:to-endpoint), l7, capture or trace-sock",
    )
    .short('t'),
    of_flow(
        "traffic-direction",
        "DIRECTION",
        OfFlow::Direction,
        "ingress or egress, seen from \
        the pod",
    ),
    of_flow("protocol", "PROTOCOL", OfFlow::Protocol, "tcp, udp, sctp, icmp, icmpv4, icmpv6, …"),
    of_flow("tcp-flags", "FLAGS", OfFlow::TcpFlags, "Flags that are all set: syn,ack"),
    of_flow("ip-version", "VERSION", OfFlow::IpVersion, "v4, v6 or none"),
    given("ipv4", Subject::Flow(OfFlow::Ipv4), "IPv4 only").short('4'),
    given("ipv6", Subject::Flow(OfFlow::Ipv6), "IPv6 only").short('6'),
    given("encrypted", Subject::Flow(OfFlow::Encrypted), "Encrypted between nodes"),
    given("unencrypted", Subject::Flow(OfFlow::Unencrypted), "Not encrypted between nodes"),
    of_flow("interface", "NAME", OfFlow::Interface, "Interface where it was seen"),
    of_flow(
        "node-name",
        "NAME",
        OfFlow::NodeName,
        "Node that tells it: [CLUSTER/]NAME; * for any \
        characters",
    ),
    of_flow("node-label", "SELECTOR", OfFlow::NodeLabel, "Labels of the node that tells it"),
    of_flow("uuid", "UUID", OfFlow::Uuid, "The one flow with this UUID"),
    of_flow("trace-id", "ID", OfFlow::TraceId, "Trace context of a request"),
    of_flow("ip-trace-id", "N", OfFlow::IpTraceId, "Trace number in an IP option"),
    of_flow("http-status", "CODE", OfFlow::HttpStatus, "Status: 404, 5+"),
    of_flow("http-method", "METHOD", OfFlow::HttpMethod, "Method of a request"),
    of_flow("http-path", "REGEX", OfFlow::HttpPath, "Path of a request"),
    of_flow("http-url", "REGEX", OfFlow::HttpUrl, "URL of a request"),
    of_flow("http-header", "KEY:VALUE", OfFlow::HttpHeader, "Header of a request"),
    of_flow("cel-expression", "CEL", OfFlow::Cel, "CEL expression, where the server knows them"),
];
