//! The JSON form of messages: proto3 JSON with the fields' own names, as Hubble writes and reads
//! it. Numbers of 64 bits are strings, enums are names (numbers, where a number has no name).

use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
    SerializeOptions, Value as FieldValue,
};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::{
    descriptors,
    flow::{Flow, FlowFilter},
    near,
    observer::{
        ExportEvent, GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse,
        GetNamespacesResponse, GetNodesResponse, Namespace, Node, ServerStatusResponse,
    },
    peer::ChangeNotification,
};

/// Why a message has no JSON form, or JSON is no message.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is no JSON, or a value is of the wrong kind.
    #[error("not understood as {message}")]
    Form {
        /// The message that was expected.
        message: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There is no such field.
    #[error("{message} has no field {field:?}{hint}")]
    NoField {
        /// The message.
        message: String,
        /// The field.
        field: String,
        /// The field that was probably meant.
        hint: String,
    },
    /// There is no such value of an enum.
    #[error("{field} cannot be {value:?}{hint}")]
    NoValue {
        /// The field.
        field: String,
        /// The value.
        value: String,
        /// The value that was probably meant.
        hint: String,
    },
    /// The details of the message cannot be written as JSON: their type is not known here.
    #[error("the {message} cannot be written as JSON")]
    Details {
        /// The message.
        message: &'static str,
        /// Why not.
        #[source]
        source: prost::DecodeError,
    },
}

mod sealed {
    pub trait Sealed {}
}

/// A message with a JSON form here.
pub trait Json: Message + Default + sealed::Sealed {
    /// Its full name.
    const NAME: &'static str;
}

macro_rules! messages {
    ($($message:ty = $name:literal,)*) => {
        $(
            impl sealed::Sealed for $message {}
            impl Json for $message {
                const NAME: &'static str = $name;
            }
        )*
    };
}

messages! {
    Flow = "flow.Flow",
    FlowFilter = "flow.FlowFilter",
    GetFlowsResponse = "observer.GetFlowsResponse",
    GetAgentEventsResponse = "observer.GetAgentEventsResponse",
    GetDebugEventsResponse = "observer.GetDebugEventsResponse",
    GetNodesResponse = "observer.GetNodesResponse",
    GetNamespacesResponse = "observer.GetNamespacesResponse",
    Node = "observer.Node",
    Namespace = "observer.Namespace",
    ServerStatusResponse = "observer.ServerStatusResponse",
    ExportEvent = "observer.ExportEvent",
    ChangeNotification = "peer.ChangeNotification",
}

/// What is done with fields and values that have no meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are an error that names what was probably meant: for what people write.
    Refuse,
    /// Fields are passed over: for what a newer version wrote.
    Skip,
}

fn descriptor<M: Json>() -> MessageDescriptor {
    descriptors().get_message_by_name(M::NAME).expect("the names above are those of the files")
}

/// The message as one line of JSON.
///
/// # Errors
/// If its extensions are of a type that is not known here.
pub fn to_string<M: Json>(message: &M) -> Result<String, JsonError> {
    let dynamic = DynamicMessage::decode(descriptor::<M>(), &*message.encode_to_vec())
        .map_err(|source| JsonError::Details { message: M::NAME, source })?;
    serde_json::to_string(&InOrder(&dynamic))
        .map_err(|source| JsonError::Form { message: M::NAME, source })
}

/// Messages as a list of JSON over several lines.
///
/// # Errors
/// As [`to_string`].
pub fn list_to_string_pretty<M: Json>(messages: &[M]) -> Result<String, JsonError> {
    let of = descriptor::<M>();
    let read = |message: &M| DynamicMessage::decode(of.clone(), &*message.encode_to_vec());
    let dynamic: Vec<DynamicMessage> = messages
        .iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|source| JsonError::Details { message: M::NAME, source })?;
    let all: Vec<InOrder<'_>> = dynamic.iter().map(InOrder).collect();
    serde_json::to_string_pretty(&all)
        .map_err(|source| JsonError::Form { message: M::NAME, source })
}

/// A message whose fields are written in the order of the `.proto` file, as Hubble's are; the
/// descriptors know them by their numbers.
struct InOrder<'a>(&'a DynamicMessage);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = self.0.descriptor();
        // Well-known types have JSON forms of their own.
        if of.package_name() == "google.protobuf" {
            let options = SerializeOptions::new().use_proto_field_name(true);
            let written = self.0.serialize_with_options(serde_json::value::Serializer, &options);
            return whole(written.map_err(serde::ser::Error::custom)?).serialize(serializer);
        }
        let mut map = serializer.serialize_map(None)?;
        for declared in &of.descriptor_proto().field {
            let number = u32::try_from(declared.number()).unwrap_or_default();
            let Some(field) = of.get_field(number) else { continue };
            if self.0.has_field(&field) {
                map.serialize_entry(field.name(), &OneValue(&field, &self.0.get_field(&field)))?;
            }
        }
        map.end()
    }
}

/// Whole numbers without a fraction: in a `Struct` all numbers are of one kind.
fn whole(value: Value) -> Value {
    /// Above it, doubles are not exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 2^53")]
        Value::Number(number) => match number.as_f64() {
            Some(f) if number.is_f64() && f.fract() == 0.0 && f.abs() < EXACT => (f as i64).into(),
            _ => Value::Number(number),
        },
        Value::Array(values) => values.into_iter().map(whole).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, v)| (key, whole(v))).collect(),
        other => other,
    }
}

/// The value of a field, or one of its values.
struct OneValue<'a>(&'a FieldDescriptor, &'a FieldValue);

impl Serialize for OneValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(field, value) = self;
        match value {
            FieldValue::Message(message) => InOrder(message).serialize(serializer),
            FieldValue::List(values) => {
                serializer.collect_seq(values.iter().map(|value| OneValue(field, value)))
            }
            FieldValue::Bool(value) => serializer.serialize_bool(*value),
            FieldValue::I32(value) => serializer.serialize_i32(*value),
            FieldValue::U32(value) => serializer.serialize_u32(*value),
            FieldValue::I64(value) => serializer.collect_str(value),
            FieldValue::U64(value) => serializer.collect_str(value),
            FieldValue::F32(value) => serializer.serialize_f32(*value),
            FieldValue::F64(value) => serializer.serialize_f64(*value),
            FieldValue::String(value) => serializer.serialize_str(value),
            FieldValue::EnumNumber(number) => match field.kind() {
                Kind::Enum(of) => match of.get_value(*number) {
                    Some(value) => serializer.serialize_str(value.name()),
                    None => serializer.serialize_i32(*number),
                },
                _ => serializer.serialize_i32(*number),
            },
            // The files have neither.
            FieldValue::Bytes(_) | FieldValue::Map(_) => {
                Err(serde::ser::Error::custom("bytes and maps have no form here"))
            }
        }
    }
}

/// The message that a piece of JSON says.
///
/// # Errors
/// If it is no JSON, has values of the wrong kind, or [`Unknown::Refuse`] finds something unknown.
pub fn from_str<M: Json>(text: &str, unknown: Unknown) -> Result<M, JsonError> {
    let form = |source| JsonError::Form { message: M::NAME, source };
    if unknown == Unknown::Refuse {
        let value: Value = serde_json::from_str(text).map_err(form)?;
        check(&descriptor::<M>(), &value)?;
    }
    let options = DeserializeOptions::new().deny_unknown_fields(unknown == Unknown::Refuse);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let dynamic =
        DynamicMessage::deserialize_with_options(descriptor::<M>(), &mut deserializer, &options)
            .map_err(form)?;
    deserializer.end().map_err(form)?;
    dynamic.transcode_to().map_err(|source| JsonError::Details { message: M::NAME, source })
}

/// Looks for names that do not exist. What else is wrong is found by reading.
fn check(message: &MessageDescriptor, value: &Value) -> Result<(), JsonError> {
    // Well-known types have JSON forms of their own.
    let Value::Object(fields) = value else { return Ok(()) };
    if message.package_name() == "google.protobuf" {
        return Ok(());
    }
    for (name, value) in fields {
        let field = message.get_field_by_name(name);
        let Some(field) = field.or_else(|| message.get_field_by_json_name(name)) else {
            let names: Vec<String> = message.fields().map(|f| f.name().to_owned()).collect();
            return Err(JsonError::NoField {
                message: message.full_name().to_owned(),
                field: name.clone(),
                hint: near::hint(name, names.iter().map(String::as_str)),
            });
        };
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| one(&field, value))?,
            value => one(&field, value)?,
        }
    }
    Ok(())
}

fn one(field: &FieldDescriptor, value: &Value) -> Result<(), JsonError> {
    match (field.kind(), value) {
        (Kind::Message(inner), value) => check(&inner, value),
        (Kind::Enum(of), Value::String(name)) if of.get_value_by_name(name).is_none() => {
            let names: Vec<String> = of.values().map(|value| value.name().to_owned()).collect();
            Err(JsonError::NoValue {
                field: field.name().to_owned(),
                value: name.clone(),
                hint: near::hint(name, names.iter().map(String::as_str)),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
