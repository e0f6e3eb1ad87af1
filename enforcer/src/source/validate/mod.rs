//! What the API server would refuse: NetworkPolicy (`pkg/apis/networking/validation`), the parts of
//! object metadata that policy reads, and unknown fields.

mod fields;
mod policy;

pub use fields::unknown_policy_fields;
pub use policy::network_policy;

use super::{names, pod::RawLabels, problem::FieldError};

/// Checks keys and values of labels at `path`.
pub(crate) fn labels<'a>(
    path: &str,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
    errors: &mut Vec<FieldError>,
) {
    for (key, value) in labels {
        if let Err(rule) = names::label_key(key) {
            errors.push(FieldError::value(path, key, rule));
        }
        if let Err(rule) = names::label_value(value) {
            errors.push(FieldError::value(format!("{path}[{key}]"), value, rule));
        }
    }
}

/// The rule for an object's name: [`names::dns_label`] for namespaces, [`names::dns_subdomain`] for
/// all others here.
pub(crate) type NameRule = fn(&str) -> Result<(), &'static str>;

/// Checks `metadata.name`, `metadata.namespace` and `metadata.labels`.
pub(crate) fn metadata(
    (name, rule): (&str, NameRule),
    namespace: Option<&str>,
    object_labels: Option<&RawLabels>,
    errors: &mut Vec<FieldError>,
) {
    if name.is_empty() {
        errors.push(FieldError::new("metadata.name", "is required"));
    } else if let Err(broken) = rule(name) {
        errors.push(FieldError::value("metadata.name", name, broken));
    }
    if let Some(namespace) = namespace
        && let Err(broken) = names::dns_label(namespace)
    {
        errors.push(FieldError::value("metadata.namespace", namespace, broken));
    }
    if let Some(object_labels) = object_labels {
        labels("metadata.labels", object_labels, errors);
    }
}
