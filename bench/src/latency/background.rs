//! Pods and policies that the changes do not concern: 50 pods a namespace, and its share of the
//! policies.

use std::{fmt::Write as _, net::IpAddr};

use enforcer_tests::{Manifests, PodSpec, spec::namespace_manifest};

use super::{AnyError, Size};

const PODS_A_NAMESPACE: u32 = 50;
/// Workloads in a namespace, and so labels that policies name.
const WORKLOADS: u32 = 7;

/// Writes them, a file a namespace.
pub(super) fn write(manifests: &Manifests, size: Size) -> Result<(), AnyError> {
    let namespaces = size.pods.div_ceil(PODS_A_NAMESPACE).max(1);
    for namespace in 0..namespaces {
        let text = file(namespace, share(size.pods, namespaces), share(size.policies, namespaces));
        manifests.write(&format!("team-{namespace}.yaml"), &text)?;
    }
    Ok(())
}

/// What one of `parts` has of `all`, rounded up: no size is smaller than what is said.
fn share(all: u32, parts: u32) -> u32 {
    all.div_ceil(parts)
}

/// A namespace with its pods and policies.
fn file(namespace: u32, pods: u32, policies: u32) -> String {
    let name = format!("team-{namespace}");
    let mut text = namespace_manifest(&name);
    for pod in 0..pods {
        let spec = PodSpec::new(&format!("{name}/pod-{pod}"), &[address(namespace, pod)])
            .label("app", &format!("app-{}", pod % WORKLOADS))
            .label("job", &format!("job-{namespace}-{pod}"));
        text.push_str("\n---\n");
        text.push_str(&spec.manifest());
    }
    for policy in 0..policies {
        let (subject, peer) = (policy % WORKLOADS, (policy + 1) % WORKLOADS);
        let port = 8000 + policy;
        // Writing to a string cannot fail.
        let _infallible = write!(
            text,
            "\n---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: \
             p-{policy}, namespace: {name}}}, spec: {{podSelector: {{matchLabels: {{app: \
             app-{subject}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: \
             app-{peer}}}}}}}], ports: [{{port: {port}}}]}}]}}}}"
        );
    }
    text
}

/// An address that no other of these pods has, and none in the laboratory.
fn address(namespace: u32, pod: u32) -> IpAddr {
    let first = u32::from_be_bytes([100, 64, 0, 0]);
    std::net::Ipv4Addr::from(first + namespace * 64 + pod).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_pods_of_the_largest_size_have_one_address() {
        let namespaces = 100_000 / PODS_A_NAMESPACE;
        let all: BTreeSet<IpAddr> = (0..namespaces)
            .flat_map(|namespace| (0..PODS_A_NAMESPACE).map(move |pod| address(namespace, pod)))
            .collect();
        assert_eq!(all.len(), 100_000);
        // RFC 6598's block ends at 100.127.255.255.
        assert!(all.iter().all(|ip| *ip < IpAddr::from([100, 128, 0, 0])));
    }

    #[test]
    fn a_namespace_has_its_share_of_pods_and_policies() {
        let text = file(3, share(100, 2), share(3, 2));
        assert_eq!(text.matches("NetworkPolicy").count(), 2);
        assert!(text.contains("pod-49") && !text.contains("pod-50"));
    }
}
