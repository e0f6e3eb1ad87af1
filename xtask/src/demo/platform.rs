//! The example platform that the demo shows, built in so that it needs no files.

use std::collections::BTreeMap;

use enforcer_tests::scenario::Scenario;

use super::DemoError;

const POLICIES: &str = include_str!("../../../deploy/examples/kaapana/policies.yaml");
const CLUSTER: &str = include_str!("../../../deploy/examples/kaapana/cluster.yaml");
const EXPECT: &str = include_str!("../../../deploy/examples/kaapana/expect.yaml");

/// A pod that at first may not search.
pub(super) const SEARCHER: &str = "project-admin/dev-server";
/// The label that lets it.
pub(super) const SEARCH_LABEL: (&str, &str) = ("network-access-opensearch", "true");
/// What is searched.
pub(super) const SEARCH: (&str, u16) = ("services/opensearch", 9200);
/// A pod with a connection to the store, as long as one policy is there.
pub(super) const WORKER: &str = "project-admin/segmentation";
/// The store.
pub(super) const STORE: (&str, u16) = ("services/minio", 9000);
/// The policy that allows the worker its connection.
pub(super) const WORKER_POLICY: &str = "egress-for-processing-containers";

/// The platform, each policy in a file of its own.
pub(super) fn scenario() -> Result<Scenario, DemoError> {
    Scenario::parse(CLUSTER, EXPECT, files(POLICIES)).map_err(DemoError::Platform)
}

/// Name of the file with this policy.
pub(super) fn policy_file(name: &str) -> String {
    format!("policy-{name}.yaml")
}

/// One file for each document that has a name.
fn files(policies: &str) -> BTreeMap<String, String> {
    policies
        .split("\n---\n")
        .filter_map(|document| {
            let name = document.lines().find_map(|line| line.strip_prefix("  name: "))?;
            Some((policy_file(name), format!("{document}\n")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_has_what_the_story_tells_of() {
        let scenario = scenario().unwrap();
        let pods: Vec<&str> = scenario.pods.iter().map(|pod| pod.name.as_str()).collect();
        for pod in [SEARCHER, SEARCH.0, WORKER, STORE.0] {
            assert!(pods.contains(&pod), "{pod}");
        }
        let allowed = |from: &str, to: (&str, u16)| {
            scenario
                .expectations
                .iter()
                .find(|probe| probe.from == from && probe.to == to.0 && probe.port == to.1)
                .map(|probe| probe.allowed)
        };
        assert_eq!(allowed(SEARCHER, SEARCH), Some(false));
        assert_eq!(allowed(WORKER, STORE), Some(true));
        assert!(scenario.files[&policy_file(WORKER_POLICY)].contains("kaapana.ai/type"));
    }

    #[test]
    fn every_policy_has_a_file_of_its_own() {
        assert_eq!(files(POLICIES).len(), POLICIES.matches("\nkind: NetworkPolicy\n").count());
    }
}
