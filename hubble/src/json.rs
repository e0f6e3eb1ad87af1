//! The JSON form of messages: proto3 JSON with the fields' own names, as Hubble writes and reads
//! it. Numbers of 64 bits are strings, enums are names (numbers, where a number has no name).

use std::io;

use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions,
};
use serde_json::{
    Value,
    ser::{CompactFormatter, Formatter},
};

use crate::{
    descriptors,
    flow::{Flow, FlowFilter},
    near,
    observer::{
        ExportEvent, GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsResponse,
        GetNamespacesResponse, GetNodesResponse, ServerStatusResponse,
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
    let mut out = serde_json::Serializer::with_formatter(Vec::with_capacity(1024), WholeNumbers);
    let options = SerializeOptions::new().use_proto_field_name(true);
    let form = |source| JsonError::Form { message: M::NAME, source };
    dynamic.serialize_with_options(&mut out, &options).map_err(form)?;
    Ok(String::from_utf8(out.into_inner()).expect("a serializer of JSON writes UTF-8"))
}

/// Writes doubles that are whole numbers without a fraction, as Hubble does: all numbers in details
/// are doubles.
struct WholeNumbers;

impl Formatter for WholeNumbers {
    fn write_f64<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        // Up to here every whole number has a double of its own.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            write!(out, "{value:.0}")
        } else {
            CompactFormatter.write_f64(out, value)
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
