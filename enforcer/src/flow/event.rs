//! One flow with its names: small, because many thousands are kept.

use std::{net::IpAddr, sync::Arc, time::Duration};

use enforcer_common::abi::{Direction, rule};

use super::{
    decode::{EventKind, RawFlow},
    directory::{Directory, Place},
    pending::Told,
};
use crate::{
    cluster::{
        event::ObjectKey,
        plan::{PodIdentity, RuleIdentity},
    },
    policy::rule::Isolating,
};

/// What decided, as far as it belongs to policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// Nothing that a policy says: not isolated, the node itself, a malformed packet.
    Nothing,
    /// A rule of a policy.
    Rule(Arc<RuleIdentity>),
    /// No rule: these policies isolate the pod. See [`Flow::nearest_miss`].
    Isolation(Isolating),
}

/// What became of a flow's packet, as Hubble names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Forwarded,
    /// It was dropped.
    Dropped,
    /// It passed because the pod is only audited, or enforcement is switched off.
    Audit,
}

impl Verdict {
    /// Hubble's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
        }
    }
}

/// A named flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// What the kernel told.
    pub raw: RawFlow,
    /// Wall clock, ns since the epoch.
    pub time: i64,
    /// The pod that sent it.
    pub source: Option<Arc<PodIdentity>>,
    /// The pod that it is for.
    pub destination: Option<Arc<PodIdentity>>,
    /// What the source is if it is no pod.
    pub source_place: Option<Place>,
    /// What the destination is if it is no pod.
    pub destination_place: Option<Place>,
    /// The Service that it was sent to, where the destination is its backend.
    pub service: Option<Arc<ObjectKey>>,
    /// What decided.
    pub decided_by: DecidedBy,
    /// The name of the host-side interface, if that is a pod's.
    pub interface: Option<Arc<str>>,
}

/// Gives a flow its names. `wall_offset` is wall clock less `CLOCK_MONOTONIC`.
#[must_use]
pub fn enrich(told: Told, directory: &Directory, wall_offset: Duration) -> Flow {
    let Told { raw, service } = told;
    let endpoint = directory.endpoint(raw.ifindex);
    let by_address = |address: Option<IpAddr>| directory.address(address?).cloned();
    // The interface says who its pod is; the address may be forged.
    let own = endpoint.map(|e| Arc::clone(&e.pod));
    let (source, destination) = match raw.direction {
        Some(Direction::Egress) => (own.or_else(|| by_address(raw.src)), by_address(raw.dst)),
        Some(Direction::Ingress) => (by_address(raw.src), own.or_else(|| by_address(raw.dst))),
        None => (by_address(raw.src), by_address(raw.dst)),
    };
    let decided_by = if raw.rule == rule::DEFAULT_DENY {
        let policies = endpoint.zip(connection_direction(&raw));
        policies.map_or(DecidedBy::Nothing, |(e, direction)| {
            DecidedBy::Isolation(e.isolating[direction as usize].clone())
        })
    } else {
        let rule = directory.rule(raw.rule).filter(|_| raw.rule >= rule::FIRST_DYNAMIC);
        rule.map_or(DecidedBy::Nothing, |rule| DecidedBy::Rule(Arc::clone(rule)))
    };
    let time = u64::try_from(wall_offset.as_nanos()).unwrap_or(u64::MAX).saturating_add(raw.time);
    let time = i64::try_from(time).unwrap_or(i64::MAX);
    let place = |pod: &Option<_>, address: Option<IpAddr>| match pod {
        Some(_) => None,
        None => directory.place(address?),
    };
    let source_place = place(&source, raw.src);
    let destination_place = place(&destination, raw.dst);
    let service = match service.and_then(|address| directory.place(address)) {
        Some(Place::Service(key)) => Some(key),
        _ => None,
    };
    let interface = endpoint.map(|endpoint| Arc::clone(&endpoint.interface));
    Flow {
        raw,
        time,
        source,
        destination,
        source_place,
        destination_place,
        service,
        decided_by,
        interface,
    }
}

/// Direction of the connection as seen from the pod: a reply goes against it.
#[must_use]
pub fn connection_direction(raw: &RawFlow) -> Option<Direction> {
    raw.direction.map(|direction| if raw.reply { direction.reverse() } else { direction })
}

impl Flow {
    /// What became of the packet.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Self { raw, .. } = self;
        match raw.spared {
            Some(_) => Verdict::Audit,
            None if raw.reason.is_drop() || raw.kind == EventKind::Drop => Verdict::Dropped,
            None => Verdict::Forwarded,
        }
    }

    /// Whether the packet was dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.verdict() == Verdict::Dropped
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use enforcer_common::{
        abi::{Event, event_kind},
        reason::Reason,
    };

    use super::*;
    use crate::{
        cluster::{event::Labels, plan::NameChange},
        flow::decode::{decode, tests::image},
        policy::{
            compile,
            rule::{Policy, PortScope, Scope},
        },
    };

    pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn pod(namespace: &str, name: &str) -> Arc<PodIdentity> {
        Arc::new(PodIdentity {
            key: key(namespace, name),
            uid: "".into(),
            labels: Labels::from([("app", name)]),
            namespace_labels: Arc::default(),
            ports: Vec::new(),
            node: Some("w1".into()),
            workload: None,
        })
    }

    /// A policy of this spec.
    pub(crate) fn policy(namespace: &str, name: &str, spec: &str) -> Arc<Policy> {
        let yaml =
            format!("{{metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}");
        Arc::new(compile::network_policy(&serde_norway::from_str(&yaml).unwrap()))
    }

    /// Policies without rules.
    pub(crate) fn isolating(namespace: &str, names: &[&str]) -> Isolating {
        let spec = "podSelector: {}, policyTypes: [Ingress, Egress]";
        names.iter().map(|name| policy(namespace, name, spec)).collect()
    }

    pub(crate) fn rule(namespace: &str, policy: &str, index: u32) -> Arc<RuleIdentity> {
        Arc::new(RuleIdentity {
            kind: "NetworkPolicy",
            policy: key(namespace, policy),
            direction: Direction::Ingress,
            index,
            scope: Scope { peers: true, ports: PortScope::Listed([false; 3]) },
        })
    }

    /// `shop/web` 10.0.0.1 on interface 5 (isolated by `shop/deny`), `shop/db` 10.0.0.2 on 6, rule
    /// 16 `shop/db-in` `spec.ingress[1]`, node `w2` 10.0.0.7 and Service `shop/front` 10.0.0.8.
    pub(crate) fn directory() -> Directory {
        let mut d = Directory::default();
        let now = Instant::now();
        let isolating = [isolating("shop", &["deny", "zone"]), isolating("shop", &["out"])];
        d.apply(&NameChange::Address([10, 0, 0, 1].into(), pod("shop", "web-1")), now);
        d.apply(&NameChange::Address([10, 0, 0, 2].into(), pod("shop", "db-0")), now);
        d.apply(
            &NameChange::Endpoint(5, "veth5".into(), pod("shop", "web-1"), isolating.clone()),
            now,
        );
        d.apply(&NameChange::Endpoint(6, "veth6".into(), pod("shop", "db-0"), isolating), now);
        d.apply(&NameChange::Rule(16, rule("shop", "db-in", 1)), now);
        d.apply(&NameChange::Node([10, 0, 0, 7].into(), "w2".into()), now);
        d.apply(&NameChange::Service([10, 0, 0, 8].into(), key("shop", "front").into()), now);
        d
    }

    pub(crate) fn addr(last: u8) -> enforcer_common::abi::Addr {
        enforcer_common::abi::Addr::v4(u32::from_ne_bytes([10, 0, 0, last]))
    }

    /// web to db, TCP SYN to 5432, allowed at db by rule 16.
    pub(crate) fn allowed() -> Event {
        Event {
            time: 1_500_000_000,
            src: addr(1),
            dst: addr(2),
            ifindex: 6,
            rule: 16,
            len: 60,
            src_port: 40_000,
            dst_port: 5432,
            kind: event_kind::VERDICT,
            reason: Reason::Allowed as u8,
            direction: Direction::Ingress as u8,
            proto: 6,
            tcp_flags: 2,
            ..Event::default()
        }
    }

    /// The same, denied by default.
    pub(crate) fn denied() -> Event {
        Event { rule: rule::DEFAULT_DENY, reason: Reason::PolicyDenied as u8, ..allowed() }
    }

    pub(crate) fn flow(event: &Event) -> Flow {
        let raw = decode(&image(event)).unwrap();
        enrich(Told { raw, service: None }, &directory(), Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn both_ends_and_the_rule_are_named() {
        let flow = flow(&allowed());
        assert_eq!(flow.source.map(|p| p.key.clone()), Some(key("shop", "web-1")));
        assert_eq!(flow.destination.map(|p| p.key.clone()), Some(key("shop", "db-0")));
        assert_eq!(flow.decided_by, DecidedBy::Rule(rule("shop", "db-in", 1)));
        assert_eq!(flow.time, 1_700_000_001_500_000_000);
    }

    #[test]
    fn a_default_deny_names_the_isolating_policies_of_its_direction() {
        let ingress = isolating("shop", &["deny", "zone"]);
        assert_eq!(flow(&denied()).decided_by, DecidedBy::Isolation(ingress));
        let egress = isolating("shop", &["out"]);
        let event = Event { direction: Direction::Egress as u8, ..denied() };
        assert_eq!(flow(&event).decided_by, DecidedBy::Isolation(egress));
    }

    #[test]
    fn a_forged_source_is_named_by_its_interface() {
        let event = Event {
            ifindex: 5,
            src: addr(2),
            dst: addr(9),
            direction: Direction::Egress as u8,
            kind: event_kind::DROP,
            reason: Reason::SpoofedSource as u8,
            rule: 0,
            ..allowed()
        };
        let flow = flow(&event);
        assert_eq!(flow.source.as_ref().map(|p| &*p.key.name), Some("web-1"));
        assert_eq!((&flow.destination, &flow.decided_by), (&None, &DecidedBy::Nothing));
        assert!(flow.is_dropped());
    }

    #[test]
    fn small_rule_numbers_and_times_beyond_the_clock_do_no_harm() {
        let event = Event { rule: 1, time: u64::MAX, direction: 9, ifindex: 77, ..allowed() };
        let flow = flow(&event);
        assert_eq!((flow.decided_by, flow.time), (DecidedBy::Nothing, i64::MAX));
    }
}
