//! A policy that is in force, as it is kept for the disk: written, because the API's types take
//! several times the room, for every selector a node of a tree.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::{RawValue, to_raw_value};

/// A policy.
#[derive(Debug)]
pub(super) struct Kept {
    uid: Option<Box<str>>,
    /// All of it has a form in JSON; if it had none, nothing could be saved, and that is told.
    text: Result<Box<RawValue>, serde_json::Error>,
}

impl Kept {
    pub(super) fn of(policy: &NetworkPolicy) -> Self {
        Self { uid: policy.metadata.uid.as_deref().map(Box::from), text: to_raw_value(policy) }
    }

    pub(super) fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.as_ref().map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_what_it_was() {
        let policy: NetworkPolicy = serde_json::from_value(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "n", "name": "a", "uid": "u"},
            "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Egress"],
                     "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                                 "ports": [{"port": "http", "protocol": "TCP"}]}]}}))
        .unwrap();
        let kept = Kept::of(&policy);
        assert_eq!(kept.uid(), Some("u"));
        let read: NetworkPolicy =
            serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(read, policy);
    }
}
