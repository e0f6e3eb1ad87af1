//! Which flows an observer wants, by the rules of `hubble observe`: values of one filter are
//! alternatives, different filters must all match.

use std::net::IpAddr;

use enforcer_common::{abi::Direction, reason::Reason};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    decode::{EventKind, ReasonCode},
    event::{Flow, Verdict, connection_direction},
    names::{self, proto},
};
use crate::cluster::plan::PodIdentity;

/// A filter that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {value}: {expected}")]
pub struct FilterError {
    /// The flag.
    pub flag: &'static str,
    /// Its value.
    pub value: String,
    /// What it can be.
    pub expected: &'static str,
}

/// One filter for either side, for the source and for the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sides {
    /// The source or the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// The source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// The destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
}

/// The filters as the user wrote them; this is what goes over the socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterSpec {
    /// `[namespace/]name-prefix`; without a namespace `default`, or those of `namespace`.
    pub pod: Sides,
    /// Namespace names.
    pub namespace: Sides,
    /// Port numbers.
    pub port: Sides,
    /// Addresses or CIDRs.
    pub ip: Sides,
    /// `FORWARDED`, `DROPPED`, `AUDIT`.
    pub verdict: Vec<String>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv4`, `icmpv6`.
    pub protocol: Vec<String>,
    /// `ingress`, `egress`.
    pub traffic_direction: Vec<String>,
    /// Reason names, ours or Hubble's.
    pub reason: Vec<String>,
    /// `drop`, `policy-verdict`, `trace`.
    pub kind: Vec<String>,
}

type Test = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

/// Filters, ready to use.
#[derive(Default)]
pub struct Filter {
    tests: Vec<Test>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("tests", &self.tests.len()).finish()
    }
}

impl Filter {
    /// Reads the filters.
    ///
    /// # Errors
    /// The first value that means nothing.
    pub fn new(spec: &FilterSpec) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let namespaces = &spec.namespace;
        filter.sides("pod", &spec.pod, |text| Ok(pod(&text, namespaces)))?;
        filter.sides("namespace", &spec.namespace, |text| Ok(namespace(text)))?;
        filter.sides("port", &spec.port, |text| port(&text))?;
        filter.sides("ip", &spec.ip, |text| net(&text))?;
        filter.any("verdict", &spec.verdict, |text| {
            Ok(match text.to_ascii_uppercase().as_str() {
                "FORWARDED" => |flow: &Flow| flow.verdict() == Verdict::Forwarded,
                "DROPPED" => |flow: &Flow| flow.verdict() == Verdict::Dropped,
                "AUDIT" => |flow: &Flow| flow.verdict() == Verdict::Audit,
                _ => return Err("must be FORWARDED, DROPPED or AUDIT"),
            })
        })?;
        filter.any("protocol", &spec.protocol, |text| {
            let numbers: &[u8] = match text.to_ascii_lowercase().as_str() {
                "tcp" => &[proto::TCP],
                "udp" => &[proto::UDP],
                "sctp" => &[proto::SCTP],
                "icmp" => &[proto::ICMP, proto::ICMPV6],
                "icmpv4" => &[proto::ICMP],
                "icmpv6" => &[proto::ICMPV6],
                _ => return Err("must be tcp, udp, sctp, icmp, icmpv4 or icmpv6"),
            };
            Ok(move |flow: &Flow| flow.raw.src.is_some() && numbers.contains(&flow.raw.proto))
        })?;
        filter.any("traffic-direction", &spec.traffic_direction, |text| {
            let wanted = match text.to_ascii_lowercase().as_str() {
                "ingress" => Direction::Ingress,
                "egress" => Direction::Egress,
                _ => return Err("must be ingress or egress"),
            };
            Ok(move |flow: &Flow| connection_direction(&flow.raw) == Some(wanted))
        })?;
        filter.any("reason", &spec.reason, reason)?;
        filter.any("type", &spec.kind, |text| {
            Ok(match text.to_ascii_lowercase().as_str() {
                // A denied flow is a drop too: Hubble reports it as both.
                "drop" => |flow: &Flow| flow.is_dropped(),
                "policy-verdict" => |flow: &Flow| {
                    matches!(flow.raw.kind, EventKind::Verdict | EventKind::Pending)
                        || flow.verdict() == Verdict::Audit
                },
                "trace" => {
                    |flow: &Flow| matches!(flow.raw.kind, EventKind::Trace | EventKind::Close)
                }
                _ => return Err("must be drop, policy-verdict or trace"),
            })
        })?;
        Ok(filter)
    }

    /// Whether the flow is wanted.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        self.tests.iter().all(|test| test(flow))
    }

    /// Adds a filter over the flow as a whole.
    fn any<T>(
        &mut self,
        flag: &'static str,
        texts: &[String],
        parse: impl Fn(String) -> Result<T, &'static str>,
    ) -> Result<(), FilterError>
    where
        T: Fn(&Flow) -> bool + Send + Sync + 'static,
    {
        let tests = parse_all(flag, texts, parse)?;
        if !tests.is_empty() {
            self.tests.push(Box::new(move |flow| tests.iter().any(|test| test(flow))));
        }
        Ok(())
    }

    /// Adds a filter over one side of the flow, and the same for either side.
    fn sides(
        &mut self,
        flag: &'static str,
        sides: &Sides,
        parse: impl Fn(String) -> Result<SideTest, &'static str>,
    ) -> Result<(), FilterError> {
        for (texts, which) in [
            (&sides.any, &[Side::From, Side::To][..]),
            (&sides.from, &[Side::From]),
            (&sides.to, &[Side::To]),
        ] {
            let tests = parse_all(flag, texts, &parse)?;
            if !tests.is_empty() {
                self.tests.push(Box::new(move |flow| {
                    tests.iter().any(|test| which.iter().any(|side| test(flow, *side)))
                }));
            }
        }
        Ok(())
    }
}

/// An end of a flow.
#[derive(Clone, Copy, Debug)]
enum Side {
    From,
    To,
}

type SideTest = Box<dyn Fn(&Flow, Side) -> bool + Send + Sync>;

fn parse_all<T>(
    flag: &'static str,
    texts: &[String],
    parse: impl Fn(String) -> Result<T, &'static str>,
) -> Result<Vec<T>, FilterError> {
    texts
        .iter()
        .map(|text| {
            parse(text.clone()).map_err(|expected| FilterError {
                flag,
                value: text.clone(),
                expected,
            })
        })
        .collect()
}

fn pod_of(flow: &Flow, side: Side) -> Option<&PodIdentity> {
    match side {
        Side::From => flow.source.as_deref(),
        Side::To => flow.destination.as_deref(),
    }
}

fn pod(text: &str, namespaces: &Sides) -> SideTest {
    let (wanted, prefix) = match text.split_once('/') {
        Some((namespace, prefix)) => (vec![namespace.to_owned()], prefix.to_owned()),
        // With a namespace filter beside it, that says where the pod is.
        None if *namespaces == Sides::default() => (vec!["default".to_owned()], text.to_owned()),
        None => {
            let Sides { any, from, to } = namespaces;
            (any.iter().chain(from).chain(to).cloned().collect(), text.to_owned())
        }
    };
    Box::new(move |flow, side| {
        pod_of(flow, side).is_some_and(|pod| {
            wanted.iter().any(|n| **n == *pod.key.namespace) && pod.key.name.starts_with(&prefix)
        })
    })
}

fn namespace(wanted: String) -> SideTest {
    Box::new(move |flow, side| pod_of(flow, side).is_some_and(|pod| *pod.key.namespace == *wanted))
}

fn port(text: &str) -> Result<SideTest, &'static str> {
    let Ok(wanted) = text.parse::<u16>() else { return Err("must be a port, 0 to 65535") };
    Ok(Box::new(move |flow, side| {
        let raw = &flow.raw;
        // ICMP's type and code stand in the ports' place.
        let ports = matches!(raw.proto, proto::TCP | proto::UDP | proto::SCTP) && raw.src.is_some();
        ports
            && wanted
                == match side {
                    Side::From => raw.src_port,
                    Side::To => raw.dst_port,
                }
    }))
}

fn net(text: &str) -> Result<SideTest, &'static str> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(net) = net else { return Err("must be an address or a CIDR such as 10.0.0.0/8") };
    Ok(Box::new(move |flow, side| {
        let address = match side {
            Side::From => flow.raw.src,
            Side::To => flow.raw.dst,
        };
        address.is_some_and(|address| net.contains(&address))
    }))
}

fn reason(text: String) -> Result<impl Fn(&Flow) -> bool + Send + Sync, &'static str> {
    let named = |reason: &Reason| {
        text.eq_ignore_ascii_case(reason.name())
            || (reason.is_drop()
                && text.eq_ignore_ascii_case(names::drop_reason(reason.hubble_code())))
    };
    let wanted: Vec<Reason> = Reason::ALL.iter().copied().filter(named).collect();
    if wanted.is_empty() {
        return Err(
            "is no reason such as PolicyDenied or SpoofedSource (`observe -o json` names them)",
        );
    }
    Ok(
        move |flow: &Flow| matches!(flow.raw.reason, ReasonCode::Known(reason) if wanted.contains(&reason)),
    )
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::{EVENT_AUDIT, EVENT_DISABLED, Event, event_kind};

    use super::*;
    use crate::flow::event::tests::{addr, allowed, denied, flow};

    fn sides(any: &[&str], from: &[&str], to: &[&str]) -> Sides {
        let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        Sides { any: own(any), from: own(from), to: own(to) }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    fn spec() -> FilterSpec {
        FilterSpec::default()
    }

    /// Which of: web to db allowed, web to db denied, world to db spoofed drop of UDP, db's trace.
    fn chosen(spec: &FilterSpec) -> String {
        let udp = Event {
            src: addr(9),
            proto: 17,
            kind: event_kind::DROP,
            reason: Reason::SpoofedSource as u8,
            ..allowed()
        };
        let trace = Event { kind: event_kind::TRACE, ifindex: 5, direction: 1, ..allowed() };
        let filter = Filter::new(spec).unwrap();
        [("A", allowed()), ("D", denied()), ("U", udp), ("T", trace)]
            .iter()
            .filter(|(_, event)| filter.matches(&flow(event)))
            .map(|(name, _)| *name)
            .collect()
    }

    #[test]
    fn every_filter_chooses() {
        for (spec, expected) in [
            (spec(), "ADUT"),
            (FilterSpec { pod: sides(&["shop/web"], &[], &[]), ..spec() }, "ADT"),
            (FilterSpec { pod: sides(&["web"], &[], &[]), ..spec() }, ""),
            (FilterSpec { pod: sides(&["shop/"], &[], &[]), ..spec() }, "ADUT"),
            (
                FilterSpec {
                    pod: sides(&["web"], &[], &[]),
                    namespace: sides(&["shop"], &[], &[]),
                    ..spec()
                },
                "ADT",
            ),
            (FilterSpec { pod: sides(&[], &["shop/db"], &[]), ..spec() }, ""),
            (FilterSpec { pod: sides(&[], &["shop/web"], &["shop/db"]), ..spec() }, "ADT"),
            (FilterSpec { pod: sides(&[], &["shop/x", "shop/w"], &[]), ..spec() }, "ADT"),
            (FilterSpec { namespace: sides(&[], &["shop"], &[]), ..spec() }, "ADT"),
            (FilterSpec { namespace: sides(&["other"], &[], &[]), ..spec() }, ""),
            (FilterSpec { port: sides(&["5432"], &[], &[]), ..spec() }, "ADUT"),
            (FilterSpec { port: sides(&[], &["5432"], &[]), ..spec() }, ""),
            (FilterSpec { ip: sides(&[], &["10.0.0.9"], &[]), ..spec() }, "U"),
            (FilterSpec { ip: sides(&[], &["10.0.0.0/30"], &[]), ..spec() }, "ADT"),
            (FilterSpec { ip: sides(&["::/0"], &[], &[]), ..spec() }, ""),
            (FilterSpec { verdict: texts(&["dropped"]), ..spec() }, "DU"),
            (FilterSpec { verdict: texts(&["FORWARDED"]), ..spec() }, "AT"),
            (FilterSpec { protocol: texts(&["udp", "icmp"]), ..spec() }, "U"),
            (FilterSpec { traffic_direction: texts(&["egress"]), ..spec() }, "T"),
            (FilterSpec { reason: texts(&["policydenied"]), ..spec() }, "D"),
            (FilterSpec { reason: texts(&["INVALID_SOURCE_IP"]), ..spec() }, "U"),
            (FilterSpec { kind: texts(&["drop"]), ..spec() }, "DU"),
            (FilterSpec { kind: texts(&["policy-verdict"]), ..spec() }, "AD"),
            (FilterSpec { kind: texts(&["trace", "drop"]), ..spec() }, "DUT"),
            (FilterSpec { kind: texts(&["drop"]), protocol: texts(&["tcp"]), ..spec() }, "D"),
        ] {
            assert_eq!(chosen(&spec), expected, "{spec:?}");
        }
    }

    #[test]
    fn what_was_audited_is_neither_forwarded_nor_dropped() {
        let spoofed = Event {
            kind: event_kind::DROP,
            reason: Reason::SpoofedSource as u8,
            flags: EVENT_AUDIT,
            ..allowed()
        };
        let disabled = Event { flags: EVENT_DISABLED, ..denied() };
        for event in [Event { flags: EVENT_AUDIT, ..denied() }, disabled, spoofed] {
            for (verdict, expected) in [("audit", true), ("FORWARDED", false), ("DROPPED", false)] {
                let filter = Filter::new(&FilterSpec { verdict: texts(&[verdict]), ..spec() });
                assert_eq!(filter.unwrap().matches(&flow(&event)), expected, "{verdict}");
            }
            for (kind, expected) in [("policy-verdict", true), ("drop", false), ("trace", false)] {
                let filter = Filter::new(&FilterSpec { kind: texts(&[kind]), ..spec() });
                assert_eq!(filter.unwrap().matches(&flow(&event)), expected, "{kind}");
            }
        }
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (spec, expected) in [
            (
                FilterSpec { port: sides(&["http"], &[], &[]), ..spec() },
                "--port http: must be a port",
            ),
            (
                FilterSpec { ip: sides(&[], &[], &["1.2"]), ..spec() },
                "--ip 1.2: must be an address",
            ),
            (FilterSpec { verdict: texts(&["ok"]), ..spec() }, "--verdict ok: must be FORWARDED"),
            (FilterSpec { protocol: texts(&["x"]), ..spec() }, "--protocol x: must be tcp"),
            (
                FilterSpec { traffic_direction: texts(&["x"]), ..spec() },
                "--traffic-direction x: must be ingress",
            ),
            (FilterSpec { reason: texts(&["x"]), ..spec() }, "--reason x: is no reason"),
            (FilterSpec { kind: texts(&["l7"]), ..spec() }, "--type l7: must be drop"),
        ] {
            let error = Filter::new(&spec).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
