//! What flows say about a pod beyond one verdict: the shape of a port scan, many denied peers, first
//! contacts, and addresses that few pods have any business with.
//!
//! Pure: flows go in, [`Insight`]s come out, and the time is that of the flows. What is kept is
//! bounded in every dimension; where a bound is reached, the oldest knowledge goes, which can make
//! an insight be told again but never hides one of another pod.

mod config;
mod contacts;
mod spread;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use enforcer_common::packet::tcp;

pub use self::config::{InsightConfig, Rate};
pub(crate) use self::contacts::Contacts;
use self::spread::Spreads;
use crate::{
    cluster::{
        event::{ObjectKey, Workload},
        plan::PodIdentity,
    },
    flow::{
        decode::EventKind,
        directory::Place,
        event::{Flow, Verdict},
        names::proto,
    },
};

/// What a cloud's machines learn about themselves from; credentials among it.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// The Service of the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One source tried many ports of one destination, in vain.
    PortScan,
    /// One pod was denied many peers.
    DeniedPeers,
    /// A workload's first flow to an address outside the cluster.
    FirstOutside,
    /// A pod asked the address where clouds serve credentials.
    Metadata,
    /// A workload's first flow to the API server.
    FirstApiServer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PortScan,
        Self::DeniedPeers,
        Self::FirstOutside,
        Self::Metadata,
        Self::FirstApiServer,
    ];

    /// The name in events, metrics and flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortScan => "PortScan",
            Self::DeniedPeers => "DeniedPeers",
            Self::FirstOutside => "FirstOutsideContact",
            Self::Metadata => "MetadataAccess",
            Self::FirstApiServer => "FirstApiServerContact",
        }
    }
}

/// Who it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod.
    Pod(Arc<PodIdentity>),
    /// An address that is no pod's.
    Address(IpAddr),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => write!(f, "{}/{}", pod.key.namespace, pod.key.name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Something that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insight {
    /// What.
    pub kind: Kind,
    /// About whom.
    pub subject: Subject,
    /// When (ns since the epoch): the flow that made it known.
    pub time: i64,
    /// One sentence.
    pub text: String,
}

/// Looks at flows.
#[derive(Debug)]
pub struct Insights {
    config: InsightConfig,
    /// The first flow's time: what is learned starts then.
    began: Option<i64>,
    scans: Spreads<(Source, IpAddr), u16>,
    denied: Spreads<Source, IpAddr>,
    outside: Contacts<Party, IpAddr>,
    sensitive: Contacts<Party, Kind>,
}

/// A namespace and a workload in it: pods that are made anew have the contacts of those before.
type Party = (Arc<str>, Workload);

/// A source as a key: a pod keeps it for its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Pod(ObjectKey, Arc<str>),
    Address(IpAddr),
}

impl Source {
    fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Pod(pod) => Self::Pod(pod.key.clone(), Arc::clone(&pod.uid)),
            Subject::Address(address) => Self::Address(*address),
        }
    }
}

/// One end's attempt to reach another.
struct Attempt<'a> {
    from: Subject,
    to: IpAddr,
    /// Ports exist, and this is the destination's.
    port: Option<u16>,
    flow: &'a Flow,
}

impl Insights {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(config: InsightConfig) -> Self {
        Self {
            scans: Spreads::new(config.port_scan),
            denied: Spreads::new(config.denied_peers),
            outside: Contacts::default(),
            sensitive: Contacts::default(),
            began: None,
            config,
        }
    }

    /// Takes a flow in and hands what it makes known to `tell`.
    pub fn look(&mut self, flow: &Flow, tell: &mut impl FnMut(Insight)) {
        let began = *self.began.get_or_insert(flow.time);
        if let Some(refused) = refused(flow) {
            self.scan(&refused, tell);
            return;
        }
        let opens = !flow.raw.reply
            && matches!(flow.raw.kind, EventKind::Verdict | EventKind::Pending | EventKind::Drop);
        let Some(attempt) = opens.then(|| attempt(flow)).flatten() else { return };
        if flow.verdict() != Verdict::Forwarded {
            self.scan(&attempt, tell);
            self.denied_peer(&attempt, tell);
        }
        self.metadata(&attempt, tell);
        let learning = flow.time.saturating_sub(began) < self.config.learning_ns();
        if flow.verdict() != Verdict::Dropped {
            self.first_outside(&attempt, learning, tell);
            self.first_api_server(&attempt, learning, tell);
        }
    }

    fn scan(&mut self, attempt: &Attempt<'_>, tell: &mut impl FnMut(Insight)) {
        let Some(port) = attempt.port else { return };
        let key = (Source::of(&attempt.from), attempt.to);
        if let Some(count) = self.scans.add(key, port, attempt.flow.time) {
            let (to, within) = (target(attempt), self.config.port_scan);
            let text = format!("tried {count} ports of {to} in vain within {within}");
            tell(attempt.insight(Kind::PortScan, text));
        }
    }

    fn denied_peer(&mut self, attempt: &Attempt<'_>, tell: &mut impl FnMut(Insight)) {
        if !matches!(attempt.from, Subject::Pod(_)) {
            // Whoever knocks from outside, at many doors: that is the internet.
            return;
        }
        let key = Source::of(&attempt.from);
        if let Some(count) = self.denied.add(key, attempt.to, attempt.flow.time) {
            let within = self.config.denied_peers;
            let text =
                format!("was denied {count} peers within {within}, {} last", target(attempt));
            tell(attempt.insight(Kind::DeniedPeers, text));
        }
    }

    fn metadata(&mut self, attempt: &Attempt<'_>, tell: &mut impl FnMut(Insight)) {
        if !self.config.metadata || !METADATA.contains(&attempt.to) {
            return;
        }
        let Some(workload) = attempt.workload() else { return };
        if self.sensitive.is_new(workload, Kind::Metadata, attempt.flow.time) {
            let what = match attempt.flow.verdict() {
                Verdict::Dropped => "tried to reach",
                Verdict::Forwarded | Verdict::Audit => "reached",
            };
            let text = format!("{what} the cloud's metadata address {}", attempt.to);
            tell(attempt.insight(Kind::Metadata, text));
        }
    }

    fn first_outside(
        &mut self,
        attempt: &Attempt<'_>,
        learning: bool,
        tell: &mut impl FnMut(Insight),
    ) {
        let flow = attempt.flow;
        let outside = flow.destination.is_none()
            && flow.destination_place.is_none()
            && flow.service.is_none()
            && is_global_unicast(attempt.to);
        let Some(workload) = attempt.workload().filter(|_| self.config.first_outside && outside)
        else {
            return;
        };
        if self.outside.is_new(workload, attempt.to, flow.time) && !learning {
            let text = format!("first contact with {} outside the cluster", target(attempt));
            tell(attempt.insight(Kind::FirstOutside, text));
        }
    }

    fn first_api_server(
        &mut self,
        attempt: &Attempt<'_>,
        learning: bool,
        tell: &mut impl FnMut(Insight),
    ) {
        let flow = attempt.flow;
        let by_address = match &flow.destination_place {
            Some(Place::Service(key)) => Some(key),
            _ => None,
        };
        let is_server = by_address
            .or(flow.service.as_ref())
            .is_some_and(|key| (&*key.namespace, &*key.name) == API_SERVER);
        let Some(workload) =
            attempt.workload().filter(|_| self.config.first_api_server && is_server)
        else {
            return;
        };
        if self.sensitive.is_new(workload, Kind::FirstApiServer, flow.time) && !learning {
            let text = format!("first contact with the API server, {}", target(attempt));
            tell(attempt.insight(Kind::FirstApiServer, text));
        }
    }
}

impl Attempt<'_> {
    fn insight(&self, kind: Kind, text: String) -> Insight {
        Insight { kind, subject: self.from.clone(), time: self.flow.time, text }
    }

    /// Who has contacts; a pod by itself until it is known what it is part of.
    fn workload(&self) -> Option<Party> {
        let Subject::Pod(pod) = &self.from else { return None };
        let alone = || Workload { kind: "Pod".into(), name: Arc::clone(&pod.key.name) };
        let workload = pod.workload.clone().unwrap_or_else(alone);
        Some((Arc::clone(&pod.key.namespace), workload))
    }
}

/// Who tried to reach whom, with the flow of a packet that opens it.
fn attempt(flow: &Flow) -> Option<Attempt<'_>> {
    let raw = &flow.raw;
    let ports = matches!(raw.proto, proto::TCP | proto::UDP | proto::SCTP);
    Some(Attempt {
        from: subject(flow.source.as_ref(), raw.src?),
        to: raw.dst?,
        port: ports.then_some(raw.dst_port),
        flow,
    })
}

/// The same of a connection that was let through and refused by the other side: it ended with its
/// first answer.
fn refused(flow: &Flow) -> Option<Attempt<'_>> {
    let raw = &flow.raw;
    let refused = raw.kind == EventKind::Close
        && raw.proto == proto::TCP
        && raw.tcp_flags & tcp::RST != 0
        && raw.totals.is_some_and(|totals| totals.reply.packets == 1);
    refused.then(|| attempt(flow)).flatten()
}

fn subject(pod: Option<&Arc<PodIdentity>>, address: IpAddr) -> Subject {
    pod.map_or(Subject::Address(address), |pod| Subject::Pod(Arc::clone(pod)))
}

/// The other end, as well as it is known.
fn target(attempt: &Attempt<'_>) -> String {
    match attempt.port {
        Some(port) if attempt.to.is_ipv6() => format!("[{}]:{port}", attempt.to),
        Some(port) => format!("{}:{port}", attempt.to),
        None => attempt.to.to_string(),
    }
}

/// Neither group, link nor loopback addresses: those lead nowhere outside.
fn is_global_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_link_local()
                || v4.is_loopback()
                || v4.is_unspecified())
        }
        IpAddr::V6(v6) => {
            !(v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_loopback()
                || v6.is_unspecified())
        }
    }
}
