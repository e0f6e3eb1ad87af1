//! Fields that are compared as they are.

use enforcer_hubble::{
    flow::{Flow, FlowFilter, TcpFlags, Verdict, layer4::Protocol, layer7::Record},
    near,
};

use super::{One, SelectError, wrong};

/// Protocols that a filter may name.
const PROTOCOLS: [&str; 11] =
    ["icmp", "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp", "dns", "http", "kafka"];

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), SelectError> {
    one.any(filter.verdict.clone(), |verdict, flow| flow.verdict == *verdict);
    one.any(filter.drop_reason_desc.clone(), |reason, flow| {
        flow.verdict == Verdict::Dropped as i32 && flow.drop_reason_desc == *reason
    });
    one.any(filter.traffic_direction.clone(), |wanted, flow| flow.traffic_direction == *wanted);
    one.any(filter.reply.clone(), |reply, flow| {
        // What is dropped before anybody knows is taken for no reply.
        let dropped = flow.verdict == Verdict::Dropped as i32;
        flow.is_reply.or(dropped.then_some(false)) == Some(*reply)
    });
    one.any(filter.uuid.clone(), |uuid, flow| flow.uuid == *uuid);
    one.any(filter.event_type.clone(), |wanted, flow| {
        let event = flow.event_type.unwrap_or_default();
        (wanted.r#type == 0 || wanted.r#type == event.r#type)
            && (!wanted.match_sub_type || wanted.sub_type == event.sub_type)
    });
    one.any(filter.ip_version.clone(), |version, flow| {
        flow.ip.as_ref().map_or(0, |ip| ip.ip_version) == *version
    });
    one.any(filter.encrypted.clone(), |wanted, flow| {
        flow.ip.as_ref().is_some_and(|ip| ip.encrypted) == *wanted
    });
    one.any(filter.interface.clone(), |wanted, flow| {
        flow.interface.as_ref().is_some_and(|interface| {
            (wanted.index == 0 || interface.index == wanted.index)
                && (wanted.name.is_empty() || interface.name == wanted.name)
        })
    });
    one.any(filter.trace_id.clone(), |id, flow| {
        let parent = flow.trace_context.as_ref().and_then(|context| context.parent.as_ref());
        parent.is_some_and(|parent| parent.trace_id == *id)
    });
    one.any(filter.ip_trace_id.clone(), |id, flow| {
        flow.ip_trace_id.as_ref().is_some_and(|trace| trace.trace_id == *id)
    });
    one.any(filter.tcp_flags.clone(), |wanted, flow| {
        let flags = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(Protocol::Tcp(tcp)) => tcp.flags,
            _ => None,
        };
        flags.is_some_and(|flags| has_all(&flags, wanted))
    });
    let mut protocols = Vec::new();
    for name in &filter.protocol {
        let lower = name.to_ascii_lowercase();
        if !PROTOCOLS.contains(&lower.as_str()) {
            let hint = near::hint(name, PROTOCOLS);
            let known = PROTOCOLS.join(", ");
            return Err(wrong("protocol", name, format!("is none of {known}{hint}")));
        }
        protocols.push(lower);
    }
    one.any(protocols, |name, flow| is_protocol(flow, name));
    one.any(filter.http_method.clone(), |method, flow| {
        http(flow).is_some_and(|http| http.method.eq_ignore_ascii_case(method))
    });
    one.any(filter.http_header.clone(), |wanted, flow| {
        http(flow).is_some_and(|http| {
            http.headers
                .iter()
                .any(|header| header.key == wanted.key && header.value == wanted.value)
        })
    });
    let mut codes = Vec::new();
    for code in &filter.http_status_code {
        let digits = code.trim_end_matches('+');
        let whole = digits.len() == code.len();
        let fits = if whole { digits.len() == 3 } else { (1..3).contains(&digits.len()) };
        if !fits || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong("http_status_code", code, "must be like 404 or 5+"));
        }
        codes.push((digits.to_owned(), whole));
    }
    one.any(codes, |(digits, whole), flow| {
        http(flow).is_some_and(|http| {
            let code = format!("{:03}", http.code);
            if *whole { code == *digits } else { code.starts_with(digits.as_str()) }
        })
    });
    Ok(())
}

fn has_all(flags: &TcpFlags, wanted: &TcpFlags) -> bool {
    let list =
        |of: &TcpFlags| [of.fin, of.syn, of.rst, of.psh, of.ack, of.urg, of.ece, of.cwr, of.ns];
    list(wanted).iter().zip(list(flags)).all(|(wanted, set)| !wanted || set)
}

fn is_protocol(flow: &Flow, name: &str) -> bool {
    let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
    let l7 = flow.l7.as_ref().and_then(|l7| l7.record.as_ref());
    match name {
        "icmp" => matches!(l4, Some(Protocol::IcmPv4(_) | Protocol::IcmPv6(_))),
        "icmpv4" => matches!(l4, Some(Protocol::IcmPv4(_))),
        "icmpv6" => matches!(l4, Some(Protocol::IcmPv6(_))),
        "tcp" => matches!(l4, Some(Protocol::Tcp(_))),
        "udp" => matches!(l4, Some(Protocol::Udp(_))),
        "sctp" => matches!(l4, Some(Protocol::Sctp(_))),
        "vrrp" => matches!(l4, Some(Protocol::Vrrp(_))),
        "igmp" => matches!(l4, Some(Protocol::Igmp(_))),
        "dns" => matches!(l7, Some(Record::Dns(_))),
        "http" => matches!(l7, Some(Record::Http(_))),
        "kafka" => matches!(l7, Some(Record::Kafka(_))),
        _ => false,
    }
}

/// What a flow says of HTTP.
pub(super) fn http(flow: &Flow) -> Option<&enforcer_hubble::flow::Http> {
    match flow.l7.as_ref()?.record.as_ref()? {
        Record::Http(http) => Some(http),
        Record::Dns(_) | Record::Kafka(_) => None,
    }
}
