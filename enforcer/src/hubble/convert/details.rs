//! What we know of a flow and Hubble has no field for: a `google.protobuf.Struct` under
//! `extensions`.

use std::collections::BTreeMap;

use enforcer_common::abi::{Direction, Spared, rule};
use prost::Message as _;
use prost_types::{Any, ListValue, Struct, Value, value::Kind};
use serde::{Deserialize, Serialize};

use crate::flow::{
    directory::Place,
    event::{DecidedBy, Flow},
};

/// The type under `extensions`.
const TYPE_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// What Hubble has no field for. What has its default is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Why it passed or not, by our name.
    pub reason: String,
    /// The same for people.
    pub reason_text: String,
    /// Which rule of the policy, `spec.ingress[0]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// No rule allows it and a policy isolates the pod.
    #[serde(skip_serializing_if = "is_false")]
    pub default_deny: bool,
    /// An established flow that is no longer allowed.
    #[serde(skip_serializing_if = "is_false")]
    pub revoked: bool,
    /// The source is hidden by masquerade.
    #[serde(skip_serializing_if = "is_false")]
    pub masqueraded: bool,
    /// It passed because enforcement was switched off.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// The node whose address the source is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_node: Option<String>,
    /// The node whose address the destination is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_node: Option<String>,
    /// Frame type of a frame that is not IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethertype: Option<String>,
    /// IP protocol number.
    pub protocol: u8,
    /// Length of the packet, bytes.
    pub length: u32,
    /// Generation of the policy that judged.
    pub generation: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_false(b: &bool) -> bool {
    !*b
}

impl Details {
    /// Those of a flow.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        let raw = &flow.raw;
        let rule = match &flow.decided_by {
            DecidedBy::Rule(rule) => {
                let list = if rule.direction == Direction::Ingress { "ingress" } else { "egress" };
                Some(format!("spec.{list}[{}]", rule.index))
            }
            DecidedBy::Nothing | DecidedBy::Isolation(_) => None,
        };
        Self {
            reason: raw.reason.name().to_owned(),
            reason_text: raw.reason.text().to_owned(),
            rule,
            default_deny: raw.rule == rule::DEFAULT_DENY,
            revoked: raw.revoked,
            masqueraded: raw.masqueraded,
            disabled: raw.spared == Some(Spared::Disabled),
            source_node: node(flow.source_place.as_ref()),
            destination_node: node(flow.destination_place.as_ref()),
            ethertype: raw.ethertype.map(|e| format!("{e:#06x}")),
            protocol: raw.proto,
            length: raw.len,
            generation: raw.generation,
        }
    }

    /// The form in which they are in a flow.
    #[must_use]
    pub fn to_any(&self) -> Any {
        let value = serde_json::to_value(self).expect("texts, numbers and yes or no");
        let details = match to_proto(value).kind {
            Some(Kind::StructValue(details)) => details,
            _ => Struct::default(),
        };
        Any { type_url: TYPE_URL.to_owned(), value: details.encode_to_vec() }
    }

    /// Those in a flow; `None` if they are not ours.
    #[must_use]
    pub fn from_any(any: &Any) -> Option<Self> {
        let details = Struct::decode(&*any.value).ok().filter(|_| any.type_url == TYPE_URL)?;
        let value = from_proto(Value { kind: Some(Kind::StructValue(details)) });
        serde_json::from_value(value).ok()
    }
}

fn node(place: Option<&Place>) -> Option<String> {
    let Some(Place::Node(name)) = place else { return None };
    Some(name.to_string())
}

fn to_proto(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(yes) => Kind::BoolValue(yes),
        // All numbers are doubles there.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(to_proto).collect() })
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, to_proto(value)));
            Kind::StructValue(Struct { fields: fields.collect::<BTreeMap<_, _>>() })
        }
    };
    Value { kind: Some(kind) }
}

fn from_proto(value: Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(yes)) => yes.into(),
        Some(Kind::NumberValue(number)) => whole(number).map_or_else(|| number.into(), Into::into),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_proto).collect(),
        Some(Kind::StructValue(fields)) => {
            let fields = fields.fields.into_iter().map(|(name, value)| (name, from_proto(value)));
            Json::Object(fields.collect())
        }
    }
}

/// A number that was a whole one.
fn whole(number: f64) -> Option<i64> {
    // Up to here every whole number has a double of its own.
    let small = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    let whole = number as i64;
    small.then_some(whole)
}

#[cfg(test)]
mod tests {
    use enforcer_common::abi::{EVENT_DISABLED, EVENT_MASQUERADED, Event};

    use super::*;
    use crate::flow::event::tests::{addr, allowed, denied, flow};

    #[test]
    fn details_survive_the_wire() {
        for event in [
            allowed(),
            denied(),
            Event { ethertype: 0x88cc, len: u32::MAX, ..allowed() },
            Event { src: addr(7), flags: EVENT_DISABLED | EVENT_MASQUERADED, ..denied() },
        ] {
            let details = Details::of(&flow(&event));
            assert_eq!(Details::from_any(&details.to_any()), Some(details));
        }
    }

    #[test]
    fn what_others_put_there_is_not_ours() {
        let mut any = Details::default().to_any();
        any.value.push(0xff);
        assert_eq!(Details::from_any(&any), None);
        let other =
            Any { type_url: "type.googleapis.com/x.Y".into(), ..Details::default().to_any() };
        assert_eq!(Details::from_any(&other), None);
        // A newer version's details are read as far as they are known.
        let newer = serde_json::json!({"reason": "Allowed", "new": {"list": [1.5, null, true]}});
        let Some(Kind::StructValue(fields)) = to_proto(newer.clone()).kind else { panic!() };
        assert_eq!(from_proto(to_proto(newer.clone())), newer);
        let any = Any { type_url: TYPE_URL.to_owned(), value: fields.encode_to_vec() };
        assert_eq!(Details::from_any(&any).unwrap().reason, "Allowed");
    }
}
