//! A flow in one line for people, after `hubble observe -o compact`.

use enforcer_hubble::{
    flow::{
        DropReason, Endpoint, Flow, Policy, Service, TraceObservationPoint, TrafficDirection,
        Verdict, layer4::Protocol,
    },
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost_types::Timestamp;

use super::terminal::{Style, clean};
use crate::{
    hubble::convert::{Details, TYPE_DROP, TYPE_TRACE, nanoseconds},
    rfc3339,
};

/// The line, without its end.
#[must_use]
pub fn line(response: &GetFlowsResponse, style: Style, policies: bool) -> String {
    match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => flow_line(flow, style, policies),
        Some(ResponseTypes::LostEvents(lost)) => {
            let time = time(response.time.as_ref());
            let text = format!("{} flows lost: read slower than they came", lost.num_events_lost);
            format!("{time}: {}", style.warn(&text))
        }
        Some(ResponseTypes::NodeStatus(status)) => {
            let time = time(response.time.as_ref());
            let nodes = status.node_names.join(", ");
            let state = status.state_change().as_str_name();
            format!(
                "{time}: {}",
                style.warn(&clean(&format!("{nodes}: {state} {}", status.message)))
            )
        }
        None => String::new(),
    }
}

fn flow_line(flow: &Flow, style: Style, policies: bool) -> String {
    let (source_port, destination_port) = ports(flow);
    let details = flow.extensions.as_ref().and_then(Details::from_any).unwrap_or_default();
    let place = |service: &Option<Service>, node: &Option<String>| {
        let service = service.as_ref().map(|of| format!(" (service {}/{})", of.namespace, of.name));
        service.or_else(|| Some(format!(" (node {})", node.as_ref()?))).unwrap_or_default()
    };
    let ip = flow.ip.as_ref();
    let mut source = side(flow.source.as_ref(), ip.map(|ip| &*ip.source), source_port);
    source.push_str(&place(&flow.source_service, &details.source_node));
    let mut destination =
        side(flow.destination.as_ref(), ip.map(|ip| &*ip.destination), destination_port);
    destination.push_str(&place(&flow.destination_service, &details.destination_node));
    // A reply is shown as part of the connection that it answers.
    let (left, arrow, right) = match flow.is_reply {
        Some(false) => (source, "->", destination),
        Some(true) => (destination, "<-", source),
        None => (source, "<>", destination),
    };
    let dropped = flow.verdict() == Verdict::Dropped;
    let audited = flow.verdict() == Verdict::Audit;
    let direction = match flow.traffic_direction() {
        TrafficDirection::Unknown => "UNKNOWN",
        known => known.as_str_name(),
    };
    let (kind, verdict) = match event_kind(flow) {
        TYPE_DROP => (reason(flow, &details), "DROPPED"),
        TYPE_TRACE => {
            let point = match flow.trace_observation_point() {
                TraceObservationPoint::UnknownPoint => "TRACE",
                known => known.as_str_name(),
            };
            (
                point.to_ascii_lowercase().replace('_', "-"),
                if dropped { "DROPPED" } else { "FORWARDED" },
            )
        }
        _ if audited => (format!("policy-verdict {direction}"), "AUDITED"),
        _ => (format!("policy-verdict {direction}"), if dropped { "DENIED" } else { "ALLOWED" }),
    };
    let verdict = match verdict {
        "AUDITED" => style.warn(verdict),
        _ if dropped => style.bad(verdict),
        _ => style.good(verdict),
    };
    let why = why(flow, &details, policies);
    let summary =
        if flow.summary.is_empty() { String::new() } else { format!(" ({})", flow.summary) };
    let (left, right, kind) = (clean(&left), clean(&right), clean(&kind));
    let (why, summary) = (clean(&why), clean(&summary));
    let time = time(flow.time.as_ref());
    format!("{time}: {left} {arrow} {right} {kind} {verdict}{why}{summary}")
}

fn event_kind(flow: &Flow) -> i32 {
    flow.event_type.as_ref().map_or(0, |event| event.r#type)
}

/// Why it was dropped: in our words, or by Hubble's name if another agent tells.
fn reason(flow: &Flow, details: &Details) -> String {
    match flow.drop_reason_desc() {
        DropReason::Unknown if details.reason_text.is_empty() => "unknown reason".to_owned(),
        known if details.reason_text.is_empty() => known.as_str_name().to_owned(),
        _ => details.reason_text.clone(),
    }
}

/// ` BY …` and what else there is to say about the verdict.
fn why(flow: &Flow, details: &Details, policies: bool) -> String {
    let mut out = String::new();
    let allowed = flow.ingress_allowed_by.iter().chain(&flow.egress_allowed_by);
    let denied = flow.ingress_denied_by.iter().chain(&flow.egress_denied_by);
    let by: Vec<String> = allowed.chain(denied).map(name).collect();
    if details.default_deny {
        out.push_str(" (default deny");
        if policies && !by.is_empty() {
            out.push_str(": isolated by ");
            out.push_str(&by.join(", "));
        }
        out.push(')');
    } else if !by.is_empty() {
        if policies {
            out.push_str(" BY ");
            out.push_str(&by.join(", "));
            if let Some(rule) = &details.rule {
                out.push(' ');
                out.push_str(rule);
            }
        }
    } else if !matches!(event_kind(flow), TYPE_DROP | TYPE_TRACE) && !details.reason_text.is_empty()
    {
        out.push_str(&format!(" ({})", details.reason_text));
    }
    if details.revoked {
        out.push_str(" (no longer allowed)");
    }
    if details.disabled {
        out.push_str(" (enforcement is disabled)");
    }
    if details.masqueraded {
        out.push_str(" (source masqueraded)");
    }
    out
}

fn name(policy: &Policy) -> String {
    format!("{}/{}", policy.namespace, policy.name)
}

fn ports(flow: &Flow) -> (Option<u32>, Option<u32>) {
    let (source, destination) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
        Some(Protocol::Udp(udp)) => (udp.source_port, udp.destination_port),
        Some(Protocol::Sctp(sctp)) => (sctp.source_port, sctp.destination_port),
        _ => return (None, None),
    };
    (Some(source), Some(destination))
}

fn side(endpoint: Option<&Endpoint>, address: Option<&str>, port: Option<u32>) -> String {
    let name = match endpoint.filter(|endpoint| !endpoint.pod_name.is_empty()) {
        Some(pod) => format!("{}/{}", pod.namespace, pod.pod_name),
        None => match address {
            // Brackets keep an IPv6 address and its port apart.
            Some(address) if port.is_some() && address.contains(':') => format!("[{address}]"),
            Some(address) => address.to_owned(),
            None => "?".to_owned(),
        },
    };
    match port {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

/// `Nov 14 22:13:21.500` (UTC).
fn time(time: Option<&Timestamp>) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `2023-11-14T22:13:21.500000000Z`
    let text = rfc3339::timestamp(time.map_or(0, nanoseconds));
    let part = |range: std::ops::Range<usize>| text.get(range);
    let month = part(5..7).and_then(|m| m.parse::<usize>().ok());
    let month = month.and_then(|m| MONTHS.get(m.checked_sub(1)?));
    match (month, part(8..10), part(11..23)) {
        (Some(month), Some(day), Some(time)) => format!("{month} {day} {time}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{
        abi::{
            Addr, Direction, EVENT_AUDIT, EVENT_DISABLED, EVENT_MASQUERADED, EVENT_REPLY,
            EVENT_REVOKED, Event, event_kind,
        },
        reason::Reason,
    };

    use super::*;
    use crate::{
        flow::event::tests::{addr, allowed, denied, flow},
        hubble::{
            convert::{Loss, lost, response},
            origin::Origin,
        },
    };
    use enforcer_hubble::flow::LostEventSource;

    const PLAIN: Style = Style { color: false, width: 80 };

    fn origin() -> Origin {
        Origin::new("default", "w1")
    }

    fn of(event: &Event) -> String {
        line(&response(&flow(event), &origin()), PLAIN, true)
    }

    #[test]
    fn lines_are_as_agreed() {
        for (event, expected) in [
            (
                allowed(),
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 ALLOWED BY shop/db-in spec.ingress[1] (TCP Flags: SYN)",
            ),
            (
                denied(),
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 DENIED (default deny: isolated by shop/deny, shop/zone) (TCP Flags: SYN)",
            ),
            (
                Event { flags: EVENT_AUDIT, ..denied() },
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 AUDITED (default deny: isolated by shop/deny, shop/zone) (TCP Flags: SYN)",
            ),
            (
                Event {
                    kind: event_kind::DROP,
                    reason: Reason::SpoofedSource as u8,
                    rule: 0,
                    flags: EVENT_DISABLED,
                    ..allowed()
                },
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 AUDITED (source address is not the pod's) (enforcement is disabled) \
                 (TCP Flags: SYN)",
            ),
            (
                Event { flags: EVENT_REVOKED, ifindex: 99, tcp_flags: 16, ..denied() },
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 DENIED (default deny) (no longer allowed) (TCP Flags: ACK)",
            ),
            (
                Event { rule: 1, reason: Reason::NotIsolated as u8, proto: 17, ..allowed() },
                "Nov 14 22:13:21.500: shop/web-1:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 ALLOWED (no policy isolates the pod in this direction) (UDP)",
            ),
            (
                Event { src: addr(9), flags: EVENT_MASQUERADED, ..allowed() },
                "Nov 14 22:13:21.500: 10.0.0.9:40000 -> shop/db-0:5432 policy-verdict INGRESS \
                 ALLOWED BY shop/db-in spec.ingress[1] (source masqueraded) (TCP Flags: SYN)",
            ),
            (
                Event { src: addr(7), dst: addr(8), ifindex: 0, ..allowed() },
                "Nov 14 22:13:21.500: 10.0.0.7:40000 (node w2) -> 10.0.0.8:5432 (service \
                 shop/front) policy-verdict INGRESS ALLOWED BY shop/db-in spec.ingress[1] (TCP \
                 Flags: SYN)",
            ),
            (
                Event {
                    kind: event_kind::DROP,
                    reason: Reason::SpoofedSource as u8,
                    rule: 0,
                    src: Addr::from_octets([0xfd; 16]),
                    ifindex: 0,
                    ..allowed()
                },
                "Nov 14 22:13:21.500: [fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:40000 <> \
                 shop/db-0:5432 source address is not the pod's DROPPED (TCP Flags: SYN)",
            ),
            (
                Event {
                    kind: event_kind::TRACE,
                    direction: Direction::Egress as u8,
                    flags: EVENT_REPLY,
                    src: addr(2),
                    dst: addr(1),
                    src_port: 5432,
                    dst_port: 40_000,
                    reason: Reason::Established as u8,
                    rule: 0,
                    tcp_flags: 18,
                    ..allowed()
                },
                "Nov 14 22:13:21.500: shop/web-1:40000 <- shop/db-0:5432 from-endpoint FORWARDED \
                 (TCP Flags: SYN, ACK)",
            ),
            (
                Event { proto: 1, src_port: 8, dst_port: 0, ..allowed() },
                "Nov 14 22:13:21.500: shop/web-1 -> shop/db-0 policy-verdict INGRESS ALLOWED BY \
                 shop/db-in spec.ingress[1] (ICMPv4 EchoRequest)",
            ),
        ] {
            assert_eq!(of(&event), expected);
        }
    }

    #[test]
    fn policies_can_be_left_out_and_losses_are_told() {
        let denied = line(&response(&flow(&denied()), &origin()), PLAIN, false);
        assert!(denied.ends_with("DENIED (default deny) (TCP Flags: SYN)"), "{denied}");
        let source = LostEventSource::HubbleRingBuffer;
        let loss = Loss { source, count: 7, first: 0, last: 0 };
        let lost = line(&lost(&loss, &origin()), PLAIN, true);
        assert_eq!(lost, "Jan 01 00:00:00.000: 7 flows lost: read slower than they came");
    }

    #[test]
    fn colours_mark_the_verdict() {
        let style = Style { color: true, ..PLAIN };
        let line = line(&response(&flow(&denied()), &origin()), style, true);
        assert!(line.contains("\u{1b}[31mDENIED\u{1b}[0m (default deny"), "{line}");
    }
}
