//! The parts of a flow's line.

use enforcer_hubble::flow::{
    AuthType, DebugCapturePoint, Flow, L7FlowType, Policy, SocketTranslationPoint,
    TrafficDirection, Verdict, layer7::Record,
};

use super::{Options, names, reasons, why};
use crate::cli::observe::filters::POINTS;

/// `event_type.type` of a drop, a capture, a trace, a policy verdict and a socket trace.
pub(super) const DROP: i32 = 1;
const CAPTURE: i32 = 3;
pub(super) const TRACE: i32 = 4;
pub(super) const POLICY_VERDICT: i32 = 5;
const TRACE_SOCK: i32 = 7;

/// The flow's parts, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) time: String,
    pub(super) node: String,
    pub(super) source: names::End,
    pub(super) destination: names::End,
    /// Absent where it is not known.
    pub(super) is_reply: Option<bool>,
    pub(super) kind: String,
    pub(super) verdict: String,
    /// ` BY …`
    pub(super) policies: String,
    pub(super) mood: Mood,
    pub(super) summary: String,
    /// What we add, if asked to.
    pub(super) why: Option<String>,
}

/// How a verdict looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Warn,
    Plain,
}

impl Shown {
    pub(super) fn of(flow: &Flow, options: &Options) -> Self {
        let (source, destination) = names::ends(flow, options.names);
        let (verdict, mood) = verdict(flow);
        let policies = if options.policies { policies(flow) } else { String::new() };
        Self {
            time: options.time.text(flow.time.as_ref()),
            node: flow.node_name.clone(),
            source,
            destination,
            is_reply: flow.is_reply,
            kind: kind(flow),
            verdict,
            policies,
            mood,
            summary: summary(flow),
            why: if options.why { why::words(flow) } else { None },
        }
    }
}

fn event(flow: &Flow) -> (i32, i32) {
    flow.event_type.as_ref().map_or((0, 0), |event| (event.r#type, event.sub_type))
}

/// What happened.
fn kind(flow: &Flow) -> String {
    if let Some(l7) = &flow.l7 {
        let step = L7FlowType::try_from(l7.r#type);
        let step = step
            .map_or_else(|_| l7.r#type.to_string(), |step| step.as_str_name().to_ascii_lowercase());
        return match &l7.record {
            Some(Record::Http(_)) => format!("http-{step}"),
            Some(Record::Dns(dns)) => format!("dns-{step} {}", dns.observation_source),
            Some(Record::Kafka(_)) => format!("kafka-{step}"),
            None => format!("l7-{step}"),
        };
    }
    let (kind, sub) = event(flow);
    // The sub-type is a byte on its way from the kernel, and read as one.
    let sub = sub.to_le_bytes()[0];
    match kind {
        DROP => reasons::text(sub),
        TRACE => POINTS.get(usize::from(sub)).map_or_else(|| sub.to_string(), |p| (*p).to_owned()),
        POLICY_VERDICT => {
            let direction = TrafficDirection::try_from(flow.traffic_direction).map_or_else(
                |_| flow.traffic_direction.to_string(),
                |direction| direction.as_str_name().to_owned(),
            );
            format!("policy-verdict:{} {direction}", match_type(flow.policy_match_type))
        }
        CAPTURE => DebugCapturePoint::try_from(flow.debug_capture_point).map_or_else(
            |_| flow.debug_capture_point.to_string(),
            |point| point.as_str_name().to_owned(),
        ),
        TRACE_SOCK => match SocketTranslationPoint::try_from(flow.sock_xlate_point) {
            Ok(SocketTranslationPoint::SockXlatePointPreDirectionFwd) => "pre-xlate-fwd".into(),
            Ok(SocketTranslationPoint::SockXlatePointPostDirectionFwd) => "post-xlate-fwd".into(),
            Ok(SocketTranslationPoint::SockXlatePointPreDirectionRev) => "pre-xlate-rev".into(),
            Ok(SocketTranslationPoint::SockXlatePointPostDirectionRev) => "post-xlate-rev".into(),
            Ok(point @ SocketTranslationPoint::SockXlatePointUnknown) => point.as_str_name().into(),
            Err(_) => flow.sock_xlate_point.to_string(),
        },
        _ => "UNKNOWN".to_owned(),
    }
}

fn match_type(number: u32) -> &'static str {
    match number {
        0 => "none",
        1 => "L3-Only",
        2 => "L3-L4",
        3 => "L4-Only",
        4 => "all",
        5 => "L3-Proto",
        6 => "Proto-Only",
        _ => "unknown",
    }
}

fn verdict(flow: &Flow) -> (String, Mood) {
    let name = Verdict::try_from(flow.verdict);
    let mood = match name {
        Ok(Verdict::Forwarded | Verdict::Redirected) => Mood::Good,
        Ok(Verdict::Dropped | Verdict::Error) => Mood::Bad,
        Ok(Verdict::Audit) => Mood::Warn,
        Ok(Verdict::Unknown | Verdict::Traced | Verdict::Translated) | Err(_) => Mood::Plain,
    };
    let text = match (event(flow).0, name) {
        (POLICY_VERDICT, Ok(Verdict::Forwarded | Verdict::Redirected)) => "ALLOWED".to_owned(),
        (POLICY_VERDICT, Ok(Verdict::Dropped | Verdict::Error)) => "DENIED".to_owned(),
        (POLICY_VERDICT, Ok(Verdict::Audit)) => "AUDITED".to_owned(),
        (_, Ok(name)) => name.as_str_name().to_owned(),
        (_, Err(_)) => flow.verdict.to_string(),
    };
    (text, mood)
}

/// The policies that decided a verdict.
pub(super) fn deciding(flow: &Flow) -> &[Policy] {
    use TrafficDirection::{Egress, Ingress};
    let direction = TrafficDirection::try_from(flow.traffic_direction);
    match (Verdict::try_from(flow.verdict), direction) {
        (Ok(Verdict::Forwarded | Verdict::Redirected), Ok(Ingress)) => &flow.ingress_allowed_by,
        (Ok(Verdict::Forwarded | Verdict::Redirected), Ok(Egress)) => &flow.egress_allowed_by,
        (Ok(Verdict::Dropped | Verdict::Error | Verdict::Audit), Ok(Ingress)) => {
            &flow.ingress_denied_by
        }
        (Ok(Verdict::Dropped | Verdict::Error | Verdict::Audit), Ok(Egress)) => {
            &flow.egress_denied_by
        }
        _ => &[],
    }
}

fn policies(flow: &Flow) -> String {
    let audited = Verdict::try_from(flow.verdict) == Ok(Verdict::Audit);
    if event(flow).0 != POLICY_VERDICT || audited {
        return String::new();
    }
    let named = deciding(flow).iter().filter(|p| !p.name.is_empty() && !p.kind.is_empty());
    let names: Vec<String> = named.map(|p| format!("{} ({})", p.name, p.kind)).collect();
    if names.is_empty() { String::new() } else { format!(" BY {}", names.join(", ")) }
}

fn summary(flow: &Flow) -> String {
    let trace = flow.ip_trace_id.as_ref().map_or(0, |id| id.trace_id);
    let mut out = if trace > 0 { format!("IP Trace ID: {trace}; ") } else { String::new() };
    out.push_str(&flow.summary);
    if flow.auth_type != AuthType::Disabled as i32 {
        let auth = AuthType::try_from(flow.auth_type)
            .map_or_else(|_| flow.auth_type.to_string(), |auth| auth.as_str_name().to_owned());
        out.push_str(&format!("; Auth: {auth}"));
    }
    out
}
