//! Field masks: which fields of a flow are wanted.
//!
//! A mask is compiled against the descriptor once. Pruning works on the encoded message: what is
//! not wanted is skipped by its length, and nothing is decoded.

use std::collections::BTreeMap;

use prost::{
    DecodeError,
    bytes::Buf,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
    },
};
use prost_reflect::{Kind, MessageDescriptor};

use crate::{descriptors, near};

/// A path that leads to no field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// There is no such field.
    #[error("field mask: {message} has no field {field:?} (in {path:?}){hint}")]
    NoField {
        /// The whole path.
        path: String,
        /// The part of it.
        field: String,
        /// The message that should have it.
        message: String,
        /// The field that was probably meant.
        hint: String,
    },
    /// Only the last field of a path may be a list or no message.
    #[error("field mask: {field:?} (in {path:?}) has no fields of its own")]
    NoMessage {
        /// The whole path.
        path: String,
        /// The part of it.
        field: String,
    },
}

/// A compiled mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMask {
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    /// Only the fields with these numbers.
    Only(BTreeMap<u32, Wanted>),
}

impl FieldMask {
    /// A mask for flows. No paths at all mean all fields.
    ///
    /// # Errors
    /// If a path leads to no field; see [`MaskError`].
    pub fn of_flow<S: AsRef<str>>(paths: &[S]) -> Result<Self, MaskError> {
        let flow = descriptors().get_message_by_name("flow.Flow").expect("flow.proto has it");
        Self::compile(paths, &flow)
    }

    /// A mask for a message. No paths at all mean all fields.
    ///
    /// # Errors
    /// If a path leads to no field; see [`MaskError`].
    pub fn compile<S: AsRef<str>>(
        paths: &[S],
        message: &MessageDescriptor,
    ) -> Result<Self, MaskError> {
        if paths.is_empty() {
            return Ok(Self { wanted: Wanted::All });
        }
        let mut wanted = Wanted::Only(BTreeMap::new());
        for path in paths {
            add(&mut wanted, path.as_ref(), message)?;
        }
        Ok(Self { wanted })
    }

    /// Whether the mask takes nothing away.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.wanted == Wanted::All
    }

    /// The encoded message with the wanted fields only. A message around a wanted field stays,
    /// though it may be empty.
    ///
    /// # Errors
    /// If `encoded` is no encoded message.
    pub fn prune(&self, encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::with_capacity(encoded.len());
        prune(&self.wanted, encoded, &mut out)?;
        Ok(out)
    }
}

fn add(wanted: &mut Wanted, path: &str, message: &MessageDescriptor) -> Result<(), MaskError> {
    let mut at = wanted;
    let mut message = Some(message.clone());
    let mut parts = path.split('.').peekable();
    let mut around = "";
    while let Some(part) = parts.next() {
        let Some(of) = message else {
            return Err(MaskError::NoMessage { path: path.into(), field: around.into() });
        };
        let Some(field) = of.get_field_by_name(part) else {
            let names: Vec<String> = of.fields().map(|field| field.name().to_owned()).collect();
            return Err(MaskError::NoField {
                path: path.into(),
                field: part.into(),
                message: of.full_name().into(),
                hint: near::hint(part, names.iter().map(String::as_str)),
            });
        };
        // What is wanted as a whole stays so; the rest of the path is still checked.
        if let Wanted::Only(fields) = at {
            let last = parts.peek().is_none();
            let next = fields.entry(field.number());
            at = next.or_insert_with(|| Wanted::Only(BTreeMap::new()));
            if last {
                *at = Wanted::All;
            }
        }
        message = match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => Some(inner),
            _ => None,
        };
        around = part;
    }
    Ok(())
}

fn prune(wanted: &Wanted, mut encoded: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let Wanted::Only(fields) = wanted else {
        out.extend_from_slice(encoded);
        return Ok(());
    };
    while encoded.has_remaining() {
        let whole = encoded;
        let (number, wire) = decode_key(&mut encoded)?;
        match (fields.get(&number), wire) {
            (Some(inner @ Wanted::Only(_)), WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut encoded)?).ok();
                let content = length.and_then(|length| encoded.split_at_checked(length));
                let Some((content, rest)) = content else {
                    // The same error that decoding would give.
                    skip_field(wire, number, &mut { whole }, DecodeContext::default())?;
                    return Ok(());
                };
                let mut pruned = Vec::with_capacity(content.len());
                prune(inner, content, &mut pruned)?;
                encode_key(number, wire, out);
                encode_varint(pruned.len() as u64, out);
                out.extend_from_slice(&pruned);
                encoded = rest;
            }
            (kept, _) => {
                skip_field(wire, number, &mut encoded, DecodeContext::default())?;
                if kept.is_some() {
                    out.extend_from_slice(&whole[..whole.len() - encoded.len()]);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
