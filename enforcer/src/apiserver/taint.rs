//! Takes the node's taint away that keeps pods off it until the agent is ready.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{ApiError, ApiServer};

/// The taint's key. Who sets it (the kubelet's `--register-with-taints`, a node group) chooses value
/// and effect.
pub const TAINT: &str = "enforcer.io/agent-not-ready";
/// What a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A node is not nearly as large.
const MOST: usize = 4 << 20;
/// First wait after a failure; it doubles.
const WAIT: Duration = Duration::from_millis(500);
/// Longest wait after a failure.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Nodes {
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
struct Spec {
    #[serde(default)]
    taints: Vec<Value>,
}

/// What a look at the node came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no such taint.
    Absent,
    /// It was there, and is not any more.
    Removed,
}

/// Takes the taint off the node, however long that takes.
pub async fn remove(api: ApiServer, node: String) {
    let (mut wait, mut failed) = (WAIT, None);
    loop {
        match remove_once(&api, &node).await {
            Ok(Outcome::Absent) => return,
            Ok(Outcome::Removed) => {
                tracing::info!(node, "the taint {TAINT} is removed: pods may come");
                return;
            }
            Err(error) => {
                let sentence = sentence(&error, &node);
                if failed.as_ref() != Some(&sentence) {
                    tracing::warn!("{sentence}");
                    failed = Some(sentence);
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

fn sentence(error: &ApiError, node: &str) -> String {
    match error {
        ApiError::Forbidden(reason) => format!(
            "the taint {TAINT} of node {node} cannot be removed: {reason}; a ClusterRole must allow \
             `list` and `patch` on `nodes`"
        ),
        ApiError::NotFound(_) => format!(
            "the taint {TAINT} cannot be removed: there is no node {node}; check --node-name"
        ),
        other => format!("the taint {TAINT} of node {node} cannot be removed yet: {other}"),
    }
}

/// Takes the taint off the node, unless somebody changes the node's taints at the same time.
///
/// # Errors
/// If the API server does not answer, refuses, or the taints have changed meanwhile.
pub async fn remove_once(api: &ApiServer, node: &str) -> Result<Outcome, ApiError> {
    // As a list of one: the agent may list nodes anyway, and needs no leave to get one.
    let path = format!("/api/v1/nodes?fieldSelector=metadata.name%3D{node}");
    let text = api.get(&path, PATIENCE).await?.whole(MOST, PATIENCE).await?;
    let Nodes { items } = serde_json::from_slice(&text).map_err(|e| api.not_understood(e))?;
    let absent = || ApiError::NotFound(format!("there is no node {node}"));
    let Node { spec } = items.first().ok_or_else(absent)?;
    let Some(patch) = patch(&spec.taints) else { return Ok(Outcome::Absent) };
    let path = format!("/api/v1/nodes/{node}");
    let body = serde_json::to_vec(&patch).map_err(|e| api.not_understood(e))?;
    api.json_patch(&path, body, PATIENCE).await?;
    Ok(Outcome::Removed)
}

/// A patch (RFC 6902) that takes our taint from exactly these; `None` if it is not among them.
fn patch(taints: &[Value]) -> Option<Value> {
    let ours = |taint: &Value| taint["key"] == TAINT;
    let mut steps = vec![json!({"op": "test", "path": "/spec/taints", "value": taints})];
    // The last first: the others keep their places.
    for (place, _) in taints.iter().enumerate().rev().filter(|(_, taint)| ours(taint)) {
        steps.push(json!({"op": "remove", "path": format!("/spec/taints/{place}")}));
    }
    (steps.len() > 1).then_some(Value::Array(steps))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::fake::{Fake, Fault};

    fn node(taints: Value) -> Value {
        json!({"metadata": {"name": "w1"}, "spec": {"taints": taints}})
    }

    #[tokio::test]
    async fn only_our_taint_is_removed_and_only_from_what_was_seen() {
        let fake = Fake::start().await;
        let other = json!({"key": "other", "effect": "NoSchedule"});
        let ours = json!({"key": TAINT, "effect": "NoExecute"});
        let taints = json!([ours, other, {"key": TAINT, "effect": "NoSchedule"}]);
        fake.put("/api/v1/nodes", node(taints.clone()));
        assert_eq!(remove_once(&fake.api(), "w1").await, Ok(Outcome::Removed));
        let written = fake.state().written.clone();
        let [(method, path, patch)] = &written[..] else { panic!("{written:?}") };
        assert_eq!((method.as_str(), path.as_str()), ("PATCH", "/api/v1/nodes/w1"));
        let expected = json!([
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "remove", "path": "/spec/taints/2"},
            {"op": "remove", "path": "/spec/taints/0"},
        ]);
        assert_eq!(*patch, expected);
    }

    #[tokio::test]
    async fn a_node_without_it_is_left_alone() {
        let fake = Fake::start().await;
        for taints in [json!([]), json!([{"key": "other"}])] {
            fake.put("/api/v1/nodes", node(taints));
            assert_eq!(remove_once(&fake.api(), "w1").await, Ok(Outcome::Absent));
        }
        fake.put("/api/v1/nodes", json!({"metadata": {"name": "w1"}, "spec": {}}));
        assert_eq!(remove_once(&fake.api(), "w1").await, Ok(Outcome::Absent));
        assert!(fake.state().written.is_empty());
        assert!(matches!(remove_once(&fake.api(), "w9").await, Err(ApiError::NotFound(_))));
    }

    #[tokio::test]
    async fn a_change_at_the_same_time_is_tried_again() {
        let fake = Fake::start().await;
        fake.put("/api/v1/nodes", node(json!([{"key": TAINT}])));
        fake.fault("write", Fault::Status(422, "the server rejected our request: test failed"));
        remove(fake.api(), "w1".to_owned()).await;
        assert_eq!(fake.state().written.len(), 2);
    }
}
