//! Whether policy is enforced or only audited: the node's default, and the namespace's label.

use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::index::Index;

/// The namespace's label that overrides the node's default; a value of [`Enforcement`].
pub const ENFORCEMENT_LABEL: &str = "enforcer.io/enforcement";

/// What is done with packets that policy denies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// They are dropped
    #[default]
    Enforce,
    /// Nothing is dropped; what would be is counted and shown as audited
    Audit,
}

/// A namespace's label that is no [`Enforcement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEnforcement {
    /// Name of the namespace.
    pub namespace: Arc<str>,
    /// The label's value.
    pub value: String,
}

/// `None` for a value that means nothing.
fn parse(value: &str) -> Option<Enforcement> {
    match value {
        "enforce" => Some(Enforcement::Enforce),
        "audit" => Some(Enforcement::Audit),
        _ => None,
    }
}

impl Index {
    /// Whether the pods of a namespace are only audited. A label that means nothing enforces.
    pub(super) fn audits(&self, namespace: &Arc<str>) -> bool {
        let labels = self.objects.namespace_labels(namespace);
        let enforcement = labels
            .get(ENFORCEMENT_LABEL)
            .map_or(self.enforcement, |value| parse(value).unwrap_or_default());
        enforcement == Enforcement::Audit
    }

    /// The pods of a namespace have come to be enforced, or audited.
    pub(super) fn enforcement_changed(&mut self, namespace: &str) {
        for (ifindex, entry) in &self.interfaces.entries {
            // One whose pod is known by its sandbox only has that pod's name too.
            let pod = entry.named.as_ref().map(|named| &named.pod);
            if pod.is_some_and(|pod| *pod.key.namespace == *namespace) {
                self.dirty.endpoints.insert(*ifindex);
            }
        }
    }

    /// Namespaces whose label means nothing, by name.
    #[must_use]
    pub fn bad_enforcement(&self) -> Vec<BadEnforcement> {
        let mut bad: Vec<_> = self
            .objects
            .namespaces
            .iter()
            .filter_map(|(name, namespace)| {
                let value = namespace.labels.get(ENFORCEMENT_LABEL)?;
                let bad =
                    || BadEnforcement { namespace: Arc::clone(name), value: value.to_owned() };
                parse(value).is_none().then(bad)
            })
            .collect();
        bad.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        bad
    }
}
