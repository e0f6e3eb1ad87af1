//! Values of filters, read as Hubble's client reads them.

use enforcer_hubble::{
    flow::{
        DropReason, EventTypeFilter, HttpHeader, IpVersion, TcpFlags, TrafficDirection, Verdict,
        Workload,
    },
    near,
};

/// Why a value cannot be.
type Read<T> = Result<T, String>;

/// Identities with names, in the order of their numbers, from 1 on.
pub(in crate::cli::observe) const IDENTITIES: [&str; 10] = [
    "host",
    "world",
    "unmanaged",
    "health",
    "init",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "world-ipv4",
    "world-ipv6",
];

/// Types of events and their numbers.
const TYPES: [(&str, i32); 8] = [
    ("drop", 1),
    ("debug", 2),
    ("capture", 3),
    ("trace", 4),
    ("policy-verdict", 5),
    ("trace-sock", 7),
    ("l7", 129),
    ("agent", 130),
];

/// Observation points of traces, in the order of their numbers.
pub(in crate::cli::observe) const POINTS: [&str; 14] = [
    "to-endpoint",
    "to-proxy",
    "to-host",
    "to-stack",
    "to-overlay",
    "from-endpoint",
    "from-proxy",
    "from-host",
    "from-stack",
    "from-overlay",
    "from-network",
    "to-network",
    "from-crypto",
    "to-crypto",
];

/// The number of `name` in a list, if it is there.
fn place(name: &str, names: &[&str]) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

pub(super) fn verdict(text: &str) -> Read<i32> {
    let verdict = Verdict::from_str_name(text);
    verdict.map(|verdict| verdict as i32).ok_or_else(|| {
        let names = (0..8).filter_map(|n| Some(Verdict::try_from(n).ok()?.as_str_name()));
        format!(
            "must be FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED{}",
            near::hint(text, names)
        )
    })
}

pub(super) fn drop_reason(text: &str) -> Read<i32> {
    let reason = DropReason::from_str_name(text);
    reason.map(|reason| reason as i32).ok_or_else(|| {
        let names = (0..256).filter_map(|n| Some(DropReason::try_from(n).ok()?.as_str_name()));
        format!("must be a reason such as POLICY_DENIED{}", near::hint(text, names))
    })
}

pub(super) fn direction(text: &str) -> Read<i32> {
    match text.to_ascii_lowercase().as_str() {
        "ingress" => Ok(TrafficDirection::Ingress as i32),
        "egress" => Ok(TrafficDirection::Egress as i32),
        _ => {
            let hint = near::hint(text, ["ingress", "egress"]);
            Err(format!("must be ingress or egress{hint}"))
        }
    }
}

pub(super) fn ip_version(text: &str) -> Read<i32> {
    match text.to_ascii_lowercase().as_str() {
        "v4" | "4" | "ipv4" => Ok(IpVersion::IPv4 as i32),
        "v6" | "6" | "ipv6" => Ok(IpVersion::IPv6 as i32),
        "none" => Ok(IpVersion::IpNotUsed as i32),
        _ => Err(format!("must be v4, v6 or none{}", near::hint(text, ["v4", "v6", "none"]))),
    }
}

pub(super) fn event_type(text: &str) -> Read<EventTypeFilter> {
    let (name, sub) = match text.split_once(':') {
        Some((name, sub)) => (name, Some(sub)),
        None => (text, None),
    };
    let known = TYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let Some(r#type) = known.or_else(|| small_number(name)) else {
        let hint = near::hint(name, TYPES.iter().map(|(known, _)| *known));
        return Err(format!(
            "must be drop, policy-verdict, trace, l7, capture, trace-sock or a number{hint}"
        ));
    };
    let Some(sub) = sub else { return Ok(EventTypeFilter { r#type, ..Default::default() }) };
    let points: &[&str] = if r#type == 4 { &POINTS } else { &[] };
    let known = place(sub, points).and_then(|place| i32::try_from(place).ok());
    let Some(sub_type) = known.or_else(|| small_number(sub)) else {
        let hint = near::hint(sub, points.iter().copied());
        let form = if points.is_empty() { "a number" } else { "a point such as to-endpoint" };
        return Err(format!("{name} must be followed by {form}{hint}"));
    };
    Ok(EventTypeFilter { r#type, match_sub_type: true, sub_type })
}

fn small_number(text: &str) -> Option<i32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A name, or a number written as in Go: `0x10`, `0b1`, `0o7` and `017` too.
pub(super) fn identity(text: &str) -> Read<u32> {
    if let Some(place) = place(text, &IDENTITIES) {
        return Ok(u32::try_from(place + 1).expect("there are ten"));
    }
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    let signed = digits.starts_with(['+', '-']);
    u32::from_str_radix(digits, base).ok().filter(|_| !signed).ok_or_else(|| {
        let hint = near::hint(text, IDENTITIES);
        format!("must be a number or one of {}{hint}", IDENTITIES.join(", "))
    })
}

pub(super) fn ip_trace_id(text: &str) -> Read<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|n| *n > 0).ok_or_else(|| "must be a number greater than 0".to_owned())
}

pub(super) fn http_header(text: &str) -> Read<HttpHeader> {
    let (key, value) = text.split_once(':').ok_or("must be KEY:VALUE")?;
    Ok(HttpHeader { key: key.to_owned(), value: value.to_owned() })
}

/// `NAME`, `KIND/NAME` or `KIND/`.
pub(super) fn workload(text: &str) -> Workload {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    Workload { name: name.to_owned(), kind: kind.to_owned() }
}

pub(super) fn tcp_flags(text: &str) -> Read<TcpFlags> {
    const NAMES: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];
    let mut flags = TcpFlags::default();
    for name in text.split(',') {
        let flag = match name.to_ascii_lowercase().as_str() {
            "fin" => &mut flags.fin,
            "syn" => &mut flags.syn,
            "rst" => &mut flags.rst,
            "psh" => &mut flags.psh,
            "ack" => &mut flags.ack,
            "urg" => &mut flags.urg,
            "ece" => &mut flags.ece,
            "cwr" => &mut flags.cwr,
            "ns" => &mut flags.ns,
            _ => {
                let hint = near::hint(name, NAMES);
                return Err(format!("'{name}' is none of {}{hint}", NAMES.join(", ")));
            }
        };
        *flag = true;
    }
    Ok(flags)
}
