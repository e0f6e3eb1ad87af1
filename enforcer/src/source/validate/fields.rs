//! Unknown fields of a NetworkPolicy, as `kubectl --validate=strict` finds them. A field that is
//! ignored because its name has a typo can turn a narrow policy into a wide one.

use serde_json::Value;

use crate::source::problem::FieldError;

/// What may stand at a place of an object.
enum Shape {
    /// Anything: not ours to judge, or a scalar whose type the typed reading checks.
    Any,
    /// An object with these fields only.
    Object(&'static [(&'static str, Shape)]),
    /// A list of these.
    List(&'static Shape),
}

use Shape::{Any, List, Object};

const SELECTOR: Shape = Object(&[
    ("matchLabels", Any),
    ("matchExpressions", List(&Object(&[("key", Any), ("operator", Any), ("values", Any)]))),
]);

const PEERS: Shape = List(&Object(&[
    ("podSelector", SELECTOR),
    ("namespaceSelector", SELECTOR),
    ("ipBlock", Object(&[("cidr", Any), ("except", Any)])),
]));

const PORTS: Shape = List(&Object(&[("protocol", Any), ("port", Any), ("endPort", Any)]));

const METADATA: Shape = Object(&[
    ("annotations", Any),
    ("creationTimestamp", Any),
    ("deletionGracePeriodSeconds", Any),
    ("deletionTimestamp", Any),
    ("finalizers", Any),
    ("generateName", Any),
    ("generation", Any),
    ("labels", Any),
    ("managedFields", Any),
    ("name", Any),
    ("namespace", Any),
    ("ownerReferences", Any),
    ("resourceVersion", Any),
    ("selfLink", Any),
    ("uid", Any),
]);

const POLICY: Shape = Object(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("metadata", METADATA),
    (
        "spec",
        Object(&[
            ("podSelector", SELECTOR),
            ("policyTypes", Any),
            ("ingress", List(&Object(&[("from", PEERS), ("ports", PORTS)]))),
            ("egress", List(&Object(&[("to", PEERS), ("ports", PORTS)]))),
        ]),
    ),
    // Written by API servers before 1.28 and so part of what was exported from them; no meaning.
    ("status", Any),
]);

/// The fields of `policy` that NetworkPolicy v1 does not have.
#[must_use]
pub fn unknown_policy_fields(policy: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(&POLICY, policy, "", &mut errors);
    errors
}

fn walk(shape: &Shape, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (shape, value) {
        (Object(known), Value::Object(map)) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => walk(shape, value, &path, errors),
                    None => errors.push(FieldError::new(path, reason(key, known))),
                }
            }
        }
        (List(shape), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                walk(shape, item, &format!("{path}[{i}]"), errors);
            }
        }
        // Wrong types are found, with a better message, by the typed reading.
        _ => {}
    }
}

fn reason(key: &str, known: &[(&str, Shape)]) -> String {
    let near = known.iter().find(|(name, _)| {
        let (a, b) = (name.to_ascii_lowercase(), key.to_ascii_lowercase());
        a == b || a.trim_end_matches('s') == b.trim_end_matches('s')
    });
    match near {
        Some((name, _)) => format!("unknown field; did you mean `{name}`?"),
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            if names.len() > 6 {
                "unknown field".to_owned()
            } else {
                format!("unknown field; known here: {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_found_at_every_depth() {
        let policy = json!({
            "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "extra": 1,
            "metadata": {"name": "a", "label": {}},
            "spec": {
                "podSelectors": {}, "podSelector": {"matchLabel": {}},
                "ingress": [{"ports": [{"port": 1, "endport": 2}]},
                            {"from": [{"ipBlock": {"cidr": "::/0", "expect": []}}], "to": []}],
                "egress": [{"to": [{"namespaceSelector":
                    {"matchExpressions": [{"key": "a", "operators": "In"}]}}]}],
            },
        });
        let mut found: Vec<String> = unknown_policy_fields(&policy)
            .into_iter()
            .map(|e| format!("{}: {}", e.field, e.reason))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "extra: unknown field; known here: apiVersion, kind, metadata, spec, status",
                "metadata.label: unknown field; did you mean `labels`?",
                "spec.egress[0].to[0].namespaceSelector.matchExpressions[0].operators: unknown \
                 field; did you mean `operator`?",
                "spec.ingress[0].ports[0].endport: unknown field; did you mean `endPort`?",
                "spec.ingress[1].from[0].ipBlock.expect: unknown field; known here: cidr, except",
                "spec.ingress[1].to: unknown field; known here: from, ports",
                "spec.podSelector.matchLabel: unknown field; did you mean `matchLabels`?",
                "spec.podSelectors: unknown field; did you mean `podSelector`?",
            ]
        );
    }
}
