//! Fields over the flow as a whole.

use enforcer_hubble::flow::{
    DropReason, FlowFilter, IpVersion, NetworkInterface, TcpFlags, TrafficDirection, Verdict,
};

use super::{FilterError, One};
use crate::{
    flow::{decode::RawFlow, event::Flow, names::proto},
    hubble::convert::{self, TYPE_DROP, Uuid},
};

/// Protocols of the transport header, as filters name them, with their numbers.
const PROTOCOLS: [(&str, &[u8]); 8] = [
    ("icmp", &[proto::ICMP, proto::ICMPV6]),
    ("icmpv4", &[proto::ICMP]),
    ("icmpv6", &[proto::ICMPV6]),
    ("tcp", &[proto::TCP]),
    ("udp", &[proto::UDP]),
    ("sctp", &[proto::SCTP]),
    // These have numbers but no flows with them are told in a header of their own.
    ("vrrp", &[112]),
    ("igmp", &[2]),
];
/// Protocols of applications: no flow has one.
const APPLICATIONS: [&str; 3] = ["dns", "http", "kafka"];

pub(super) fn add(one: &mut One, filter: &FlowFilter) -> Result<(), FilterError> {
    let verdicts = known::<Verdict>("verdict", &filter.verdict)?;
    one.add(&filter.verdict, move |flow| {
        verdicts.contains(&convert::proto_verdict(flow.verdict()))
    });
    let reasons = known::<DropReason>("drop_reason_desc", &filter.drop_reason_desc)?;
    one.add(&filter.drop_reason_desc, move |flow| {
        let code = i32::try_from(flow.raw.reason.hubble_code()).unwrap_or(0);
        let reason = if flow.is_dropped() { code } else { 0 };
        reasons.iter().any(|wanted| *wanted as i32 == reason)
    });
    let directions = known::<TrafficDirection>("traffic_direction", &filter.traffic_direction)?;
    one.add(&filter.traffic_direction, move |flow| {
        directions.contains(&convert::direction(&flow.raw))
    });
    let versions = known::<IpVersion>("ip_version", &filter.ip_version)?;
    one.add(&filter.ip_version, move |flow| {
        versions.contains(&match flow.raw.src {
            None => IpVersion::IpNotUsed,
            Some(address) if address.is_ipv4() => IpVersion::IPv4,
            Some(_) => IpVersion::IPv6,
        })
    });
    events(one, filter);
    protocols(one, &filter.protocol)?;

    let replies = filter.reply.clone();
    one.add(&filter.reply, move |flow| {
        // Of a drop it is not known; older clients take that for no.
        let unknown = flow.is_dropped().then_some(false);
        convert::is_reply(flow).or(unknown).is_some_and(|reply| replies.contains(&reply))
    });
    let flags: Vec<u8> = filter.tcp_flags.iter().map(bits).collect::<Result<_, _>>()?;
    one.add(&filter.tcp_flags, move |flow| {
        let tcp = flow.raw.src.is_some() && flow.raw.proto == proto::TCP;
        tcp && flags.iter().any(|wanted| flow.raw.tcp_flags & wanted == *wanted)
    });
    let mut uuids = Vec::new();
    for text in &filter.uuid {
        let uuid = Uuid::parse(text);
        uuids.push(uuid.ok_or_else(|| FilterError::value("uuid", text, "is no UUID"))?);
    }
    one.add(&filter.uuid, move |flow| uuids.contains(&Uuid::of(flow)));
    let interfaces = filter.interface.clone();
    one.add(&filter.interface, move |flow| {
        let (index, name) = (flow.raw.ifindex, flow.interface.as_deref());
        let is_it = |wanted: &NetworkInterface| {
            (wanted.index == 0 || wanted.index == index)
                && (wanted.name.is_empty() || Some(&*wanted.name) == name)
        };
        index != 0 && interfaces.iter().any(is_it)
    });
    // No flow is encrypted or traced, as far as it is told.
    let encrypted = filter.encrypted.contains(&false);
    one.add(&filter.encrypted, move |_| encrypted);
    let untraced = filter.trace_id.iter().any(String::is_empty);
    one.add(&filter.trace_id, move |_| untraced);
    let unmarked = filter.ip_trace_id.contains(&0);
    one.add(&filter.ip_trace_id, move |_| unmarked);
    Ok(())
}

/// The values of an enum.
fn known<E: TryFrom<i32>>(field: &'static str, values: &[i32]) -> Result<Vec<E>, FilterError> {
    let one = |value: &i32| {
        let known = E::try_from(*value).ok();
        known.ok_or_else(|| FilterError::value(field, value.to_string(), "is no value of it"))
    };
    values.iter().map(one).collect()
}

fn events(one: &mut One, filter: &FlowFilter) {
    let types = filter.event_type.clone();
    one.add(&filter.event_type, move |flow| {
        let event = convert::event_type(flow);
        let dropped = flow.is_dropped();
        types.iter().any(|wanted| {
            let sub_type = !wanted.match_sub_type || wanted.sub_type == event.sub_type;
            // Where Hubble tells a denied flow twice, as a verdict and as a drop, we tell the
            // verdict: it is found as either.
            let kind = wanted.r#type == 0
                || wanted.r#type == event.r#type
                || wanted.r#type == TYPE_DROP && dropped;
            kind && sub_type
        })
    });
}

fn protocols(one: &mut One, values: &[String]) -> Result<(), FilterError> {
    let mut numbers: Vec<u8> = Vec::new();
    for value in values {
        let name = value.to_ascii_lowercase();
        match PROTOCOLS.iter().find(|(known, _)| *known == name) {
            Some((_, of)) => numbers.extend(*of),
            None if APPLICATIONS.contains(&&*name) => {}
            None => {
                let names = PROTOCOLS.iter().map(|(name, _)| *name);
                let names: Vec<&str> = names.chain(APPLICATIONS).collect();
                return Err(FilterError::none_of("protocol", value, &names));
            }
        }
    }
    one.add(values, move |flow: &Flow| {
        has_addresses(&flow.raw) && numbers.contains(&flow.raw.proto)
    });
    Ok(())
}

pub(super) fn has_addresses(raw: &RawFlow) -> bool {
    raw.src.is_some()
}

/// The flags that must be set, as in byte 13 of the header.
fn bits(flags: &TcpFlags) -> Result<u8, FilterError> {
    let TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns } = *flags;
    if ns {
        return Err(FilterError::value("tcp_flags", "NS", "is not told of any flow"));
    }
    let flags = [fin, syn, rst, psh, ack, urg, ece, cwr];
    Ok(flags.iter().enumerate().fold(0, |bits, (at, set)| bits | u8::from(*set) << at))
}
