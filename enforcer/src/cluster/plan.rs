//! What must change in the kernel, in an order that is right at every instant.
//!
//! Applied strictly in the order of [`Plan`]'s fields. Why no packet ever sees a wrong verdict in
//! between: a row is a pure function of its table's rules and its class's members, rows are added
//! before anything refers to them, an address changes class by one atomic write, an endpoint
//! changes table by one store, and what nothing refers to any more goes only after every program
//! that could still read it has returned (an RCU grace period).

use std::{net::IpAddr, sync::Arc};

use enforcer_common::abi::{ClassId, Interval, RowKey, RuleId, Service, ServiceKey, TableId};
use ipnet::IpNet;

use super::event::{Labels, NamedPort, ObjectKey, Workload};
use crate::policy::rule::Isolating;

/// A change of the kernel's state. Empty vectors mean no change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Counts plans; status says which one is in force.
    pub revision: u64,
    /// Names for numbers, before events can carry them.
    pub names: Vec<NameChange>,
    /// New rows. A row that is in force is never overwritten.
    pub rows_added: Vec<(RowKey, Arc<[Interval]>)>,
    /// New or changed prefixes.
    pub cidrs_set: Vec<(IpNet, ClassId)>,
    /// New or changed pod addresses.
    pub peers_set: Vec<(IpAddr, ClassId)>,
    /// Addresses that are no pod's any more.
    pub peers_removed: Vec<IpAddr>,
    /// New or changed virtual addresses of Services.
    pub services_set: Vec<(ServiceKey, Service)>,
    /// Endpoints that are new or whose word changes.
    pub endpoints_set: Vec<EndpointPlan>,
    /// Host-side interface indices whose interface is gone.
    pub endpoints_removed: Vec<u32>,
    /// After the grace period: prefixes that no policy names any more.
    pub cidrs_removed: Vec<IpNet>,
    /// After the grace period: virtual addresses that no Service has any more.
    pub services_removed: Vec<ServiceKey>,
    /// After the grace period: rows that no endpoint and no address can reach any more.
    pub rows_removed: Vec<RowKey>,
}

impl Plan {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            revision: _,
            names,
            rows_added,
            cidrs_set,
            peers_set,
            peers_removed,
            services_set,
            endpoints_set,
            endpoints_removed,
            cidrs_removed,
            services_removed,
            rows_removed,
        } = self;
        names.is_empty()
            && rows_added.is_empty()
            && cidrs_set.is_empty()
            && peers_set.is_empty()
            && peers_removed.is_empty()
            && services_set.is_empty()
            && endpoints_set.is_empty()
            && endpoints_removed.is_empty()
            && cidrs_removed.is_empty()
            && services_removed.is_empty()
            && rows_removed.is_empty()
    }
}

/// What one endpoint's word must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// Host-side interface index.
    pub ifindex: u32,
    /// Host-side interface name.
    pub interface: Arc<str>,
    /// The pod's addresses: the only sources it may use.
    pub addresses: Vec<IpAddr>,
    /// Verdict table.
    pub table: TableId,
    /// Isolated for ingress, for egress.
    pub isolated: [bool; 2],
    /// Nothing is dropped: what would be is counted and told.
    pub audit: bool,
    /// Something may have turned an allow into a deny: flows are judged once more.
    pub rejudge: bool,
    /// Its pod's policy is not known yet: this is only what may pass at the start.
    pub starting: bool,
}

/// A name for a number that events carry, at the time of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameChange {
    /// An address is this pod's.
    Address(IpAddr, Arc<PodIdentity>),
    /// An address is no pod's any more.
    AddressGone(IpAddr),
    /// A rule number means this rule.
    Rule(RuleId, Arc<RuleIdentity>),
    /// A rule number is out of use (events on their way may still carry it).
    RuleGone(RuleId),
    /// The interface of this index and name is this pod's, isolated by these policies (ingress,
    /// egress).
    Endpoint(u32, Arc<str>, Arc<PodIdentity>, [Isolating; 2]),
    /// An interface is gone.
    EndpointGone(u32),
    /// An address is this node's.
    Node(IpAddr, Arc<str>),
    /// An address is no node's any more.
    NodeGone(IpAddr),
    /// An address is this Service's.
    Service(IpAddr, Arc<ObjectKey>),
    /// An address is no Service's any more.
    ServiceGone(IpAddr),
}

/// Who a pod is, in flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID, may be empty.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// Labels of its namespace.
    pub namespace_labels: Arc<Labels>,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// Node that the object names.
    pub node: Option<Arc<str>>,
    /// What it is part of; `None` while its object is not known.
    pub workload: Option<Workload>,
}

/// Which rule a number means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleIdentity {
    /// Kind of the policy object, `NetworkPolicy`.
    pub kind: &'static str,
    /// The policy object.
    pub policy: ObjectKey,
    /// `ingress` or `egress` by number, see `enforcer_common::abi::Direction`.
    pub direction: enforcer_common::abi::Direction,
    /// Place in `spec.ingress` or `spec.egress`, from 0.
    pub index: u32,
    /// What it asks for.
    pub scope: crate::policy::rule::Scope,
}
