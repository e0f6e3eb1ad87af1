//! Filters as JSON, in and out.

use enforcer_hubble::{
    flow::FlowFilter,
    json::{self, Unknown},
};
use serde_json::value::RawValue;

use super::{FilterError, Filters};
use crate::error_chain;

/// The filters in `text`: objects of JSON, one after the other.
pub(super) fn read(flag: &'static str, text: &str) -> Result<Vec<FlowFilter>, FilterError> {
    let wrong = |reason: String| FilterError::Raw { flag, value: text.to_owned(), reason };
    let objects = serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>();
    objects
        .map(|object| {
            let object = object.map_err(|error| wrong(error.to_string()))?;
            json::from_str(object.get(), Unknown::Refuse)
                .map_err(|error| wrong(error_chain(&error)))
        })
        .collect()
}

/// Both lists as Hubble's client prints them (YAML, one filter a line).
pub(super) fn text(filters: &Filters) -> String {
    let mut out = String::new();
    for (name, list) in [("allowlist", &filters.allow), ("denylist", &filters.deny)] {
        if list.is_empty() {
            continue;
        }
        out.push_str(name);
        out.push_str(":\n");
        for filter in list {
            let json = json::to_string(filter).expect("filters have no details of other types");
            out.push_str(&format!("    - '{}'\n", json.replace('\'', "''")));
        }
    }
    if out.is_empty() { "{}\n".to_owned() } else { out }
}
