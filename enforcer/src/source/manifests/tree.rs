//! YAML and JSON to one form of value, strictly: a key that is given twice is an error (one of the
//! two would be lost in silence), and what aliases expand to is bounded.

use std::{cell::Cell, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Most values that one document may expand to (a list of ten thousand full pods has three
/// million). Aliases can make a small file arbitrarily large.
const MOST_VALUES: usize = 4_000_000;

/// Reads one YAML document. No content is null.
pub(super) fn yaml(document: &str) -> Result<Value, String> {
    let budget = Cell::new(MOST_VALUES);
    let node = Node { budget: &budget, yaml: true };
    node.deserialize(serde_norway::Deserializer::from_str(document)).or_else(|e| {
        // Only comments: the parser calls that the end of the stream.
        if document.lines().all(is_blank) { Ok(Value::Null) } else { Err(e.to_string()) }
    })
}

/// Reads one JSON document.
pub(super) fn json(document: &str) -> Result<Value, String> {
    let budget = Cell::new(MOST_VALUES);
    let mut input = serde_json::Deserializer::from_str(document);
    let value = Node { budget: &budget, yaml: false }.deserialize(&mut input);
    value.and_then(|value| input.end().map(|()| value)).map_err(|e| e.to_string())
}

fn is_blank(line: &str) -> bool {
    let line = line.trim().trim_start_matches("---").trim_start();
    line.is_empty() || line.starts_with('#')
}

/// One value, charged to the budget.
#[derive(Clone, Copy)]
struct Node<'a> {
    budget: &'a Cell<usize>,
    yaml: bool,
}

impl Node<'_> {
    /// Long texts count more than once: an alias to a large one copies it.
    fn charge<E: Error>(self, text: usize) -> Result<(), E> {
        match self.budget.get().checked_sub(1 + text / 64) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "the document expands to more than {MOST_VALUES} values; split it"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, a list, a text, a number, true, false or null without a tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.charge(0).map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        self.charge(0).map(|()| v.into())
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        self.charge(0).map(|()| v.into())
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        self.charge(0).map(|()| v.into())
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        self.charge(0)?;
        // A number without a fraction is an integer in JSON's eyes, as the API server reads it.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be exact")]
        let whole = v as i64;
        #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "exactness is the test")]
        let exact = whole as f64 == v && whole.unsigned_abs() < 1 << 53;
        if exact {
            return Ok(whole.into());
        }
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        self.charge(v.len()).map(|()| v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.charge(0)?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.charge(0)?;
        let mut map = Map::new();
        let mut merged = None;
        while let Some(key) = access.next_key_seed(Key(self))? {
            let value = access.next_value_seed(self)?;
            if self.yaml && key == "<<" && merged.is_none() {
                merged = Some(value);
            } else if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is given twice")));
            } else {
                map.insert(key, value);
            }
        }
        match merged {
            None => {}
            Some(Value::Object(from)) => merge(&mut map, from),
            Some(Value::Array(sources)) => {
                for source in sources {
                    let Value::Object(from) = source else { return Err(bad_merge()) };
                    merge(&mut map, from);
                }
            }
            Some(_) => return Err(bad_merge()),
        }
        Ok(Value::Object(map))
    }
}

/// The merge key of YAML 1.1, which Kubernetes' tools know: what is there already wins.
fn merge(map: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        map.entry(key).or_insert(value);
    }
}

fn bad_merge<E: Error>() -> E {
    E::custom("`<<` must name an object or a list of objects")
}

/// A key: a text, or what Kubernetes' YAML reader makes one of.
struct Key<'a>(Node<'a>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<String, E> {
        self.0.charge(v.len()).map(|()| v.to_owned())
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<String, E> {
        self.0.charge(0).map(|()| v.to_string())
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<String, E> {
        self.0.charge(0).map(|()| v.to_string())
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<String, E> {
        self.0.charge(0).map(|()| v.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("", json!(null)),
            ("# only this", json!(null)),
            ("---\n# only this\n", json!(null)),
            ("a: '1'\nb: 1\nc: true\nd:\n", json!({"a": "1", "b": 1, "c": true, "d": null})),
            ("1: x\ntrue: y", json!({"1": "x", "true": "y"})),
            ("[80.0, 1.5, '']", json!([80, 1.5, ""])),
            (
                "a: &x {k: v}\nb: {<<: *x, l: w}",
                json!({"a": {"k": "v"}, "b": {"k": "v", "l": "w"}}),
            ),
            ("{<<: [{a: 1}, {a: 2, b: 3}], b: 4}", json!({"a": 1, "b": 4})),
        ] {
            assert_eq!(yaml(text), Ok(expected), "{text:?}");
        }
        assert_eq!(json("{\"a\": [1, null]} "), Ok(json!({"a": [1, null]})));
    }

    #[test]
    fn what_cannot_be_right_is_an_error() {
        for text in
            ["a: 1\na: 2", "a: [", "a: !x y", "<<: 1", "a: .nan", "a: *b", "\u{0}", "{a: 1}}"]
        {
            assert!(yaml(text).is_err(), "{text:?}");
        }
        for text in ["{\"a\": 1, \"a\": 2}", "{} {}", "{", ""] {
            assert!(json(text).is_err(), "{text:?}");
        }
        assert!(yaml("a: 1\na: 2").is_err_and(|e| e.contains("`a` is given twice")));
    }

    #[test]
    fn deep_and_exploding_documents_end() {
        assert!(yaml(&"[".repeat(100_000)).is_err());
        assert!(yaml(&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
        assert!(json(&"[".repeat(100_000)).is_err());
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (c, before) in ('b'..='i').zip('a'..) {
            let list = vec![format!("*{before}"); 10].join(",");
            bomb.push_str(&format!("{c}: &{c} [{list}]\n"));
        }
        assert!(yaml(&bomb).is_err());
    }
}
