//! Documents to objects: kinds, lists, defaults, messages.

use super::*;

fn read_yaml(text: &str) -> Document {
    document(text, false, &mut Shared::default()).unwrap()
}

/// Titles of valid objects, messages of others.
fn outcome(text: &str) -> Vec<String> {
    read_yaml(text)
        .entries
        .into_iter()
        .map(|e| {
            let title = e.id.map_or("?".to_owned(), |id| id.title());
            match e.object {
                Ok(_) => title,
                Err(errors) => {
                    let errors: Vec<String> = errors
                        .into_iter()
                        .map(|e| match e.value {
                            Some(v) => format!("{}={v}: {}", e.field, e.reason),
                            None => format!("{}: {}", e.field, e.reason),
                        })
                        .collect();
                    format!("{title}! {}", errors.join(" & "))
                }
            }
        })
        .collect()
}

fn only_policy(text: &str) -> NetworkPolicy {
    match read_yaml(text).entries.pop().unwrap().object.as_deref() {
        Ok(Object::NetworkPolicy(policy)) => (**policy).clone(),
        other => panic!("{other:?}"),
    }
}

const HEAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n";

#[test]
fn objects_and_lists_are_found() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("# c", &[]),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a}}", &["Pod default/a"]),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: ''}}", &["Pod default/a"]),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: x}}", &["Namespace a"]),
        (HEAD, &["NetworkPolicy default/p"]),
        (
            "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: a}},
              {apiVersion: v1, kind: Namespace, metadata: {name: b}}, {apiVersion: v1, kind: Secret}]}",
            &["Pod default/a", "Namespace b"],
        ),
        ("{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}}]}", &["Pod default/a"]),
        ("{apiVersion: v1, kind: NamespaceList, items: [{metadata: {name: a}}]}", &["Namespace a"]),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList,
              items: [{metadata: {name: a}, spec: {podSelector: {}}}]}",
            &["NetworkPolicy default/a"],
        ),
        ("{apiVersion: v1, kind: List}", &[]),
        ("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}", &[]),
        ("{apiVersion: v1, kind: Endpoints, metadata: {name: a}}", &[]),
        ("{apiVersion: v1, kind: Node, metadata: {name: a}}", &["Node a"]),
        ("{apiVersion: v1, kind: NodeList, items: [{metadata: {name: a}}]}", &["Node a"]),
        (
            "{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}, spec: {ports: [{port: \
             80}]}}]}",
            &["Service default/a"],
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSliceList,
              items: [{metadata: {name: a, namespace: n}, addressType: IPv4}]}",
            &["EndpointSlice n/a"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(outcome(text), *expected, "{text}");
    }
}

#[test]
fn wrong_objects_say_what_is_wrong() {
    let table: &[(&str, &str)] = &[
        ("just a text", "?! : is no Kubernetes object (an object with `kind` is wanted)"),
        ("{a: 1}", "?! kind: is required"),
        ("{apiVersion: v1, kind: Pod}", "?! metadata.name: is required"),
        ("{kind: Pod, metadata: {name: a}}", "Pod default/a! apiVersion: must be `v1`"),
        (
            "{apiVersion: v2, kind: Pod, metadata: {name: a}}",
            "Pod default/a! apiVersion=v2: must be `v1`",
        ),
        (
            "{apiVersion: extensions/v1beta1, kind: NetworkPolicy, metadata: {name: a}}",
            "NetworkPolicy default/a! apiVersion=extensions/v1beta1: must be `networking.k8s.io/v1`",
        ),
        (
            "{apiVersion: v1, kind: Service}",
            "?! metadata.name: is required & spec.ports: is required",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice, metadata: {name: a}}",
            "EndpointSlice default/a! apiVersion=discovery.k8s.io/v1beta1: must be \
             `discovery.k8s.io/v1`",
        ),
        ("{apiVersion: v1, kind: List, items: {}}", "?! items: must be a list"),
        (
            "{apiVersion: v1, kind: List, items: [1]}",
            "?! items[0]: is no Kubernetes object (an object with `kind` is wanted)",
        ),
        (
            "{apiVersion: v1, kind: PodList, items: [{metadata: {name: a}, status: {podIP: x}}]}",
            "Pod default/a! items[0].status.podIP=x: must be an IP address",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a},
           spec: {ingress: [{ports: [{port: 80, endPort: x}]}]}}",
            "NetworkPolicy default/a! spec.ingress[0].ports[0].endPort: invalid type: string \"x\", \
          expected i32",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a},
           spec: {podSelectors: {}, ingress: [{ports: [{port: 0}]}]}}",
            "NetworkPolicy default/a! spec.podSelectors: unknown field; did you mean `podSelector`? & \
          spec.ingress[0].ports[0].port=0: must be a port, 1 to 65535",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
           metadata: {name: a, namespace: 7}}",
            "?! metadata.namespace: invalid type: integer `7`, expected a string",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(outcome(text), [*expected], "{text}");
    }
}

#[test]
fn unknown_kinds_are_listed_and_known_ones_are_not() {
    for (text, expected) in [
        ("{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy}", "CiliumNetworkPolicy.cilium.io"),
        (
            "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy}",
            "NetworkPolicy.projectcalico.org",
        ),
        ("{apiVersion: v1, kind: Thing}", "Thing"),
        ("{apiVersion: x.io/v1, kind: Pod}", "Pod.x.io"),
        ("{apiVersion: serving.knative.dev/v1, kind: Service}", "Service.serving.knative.dev"),
    ] {
        let document = read_yaml(text);
        assert!(document.entries.is_empty(), "{text}");
        assert_eq!(document.ignored.into_iter().collect::<Vec<_>>(), [expected], "{text}");
    }
    assert!(read_yaml("{apiVersion: v1, kind: Secret}").ignored.is_empty());
}

#[test]
fn a_policy_gets_the_api_servers_defaults() {
    let types = |spec: &str| {
        only_policy(&format!("{HEAD}spec: {spec}")).spec.unwrap().policy_types.unwrap()
    };
    assert_eq!(types("{}"), ["Ingress"]);
    assert_eq!(types("{policyTypes: []}"), ["Ingress"]);
    assert_eq!(types("{egress: []}"), ["Ingress"]);
    assert_eq!(types("{egress: [{}]}"), ["Ingress", "Egress"]);
    assert_eq!(types("{egress: [{}], policyTypes: [Egress]}"), ["Egress"]);

    let policy = only_policy(&format!(
        "{HEAD}spec: {{ingress: [{{ports: [{{port: 1}}, {{port: 2, protocol: UDP}}]}}],
                       egress: [{{ports: [{{port: 3}}]}}]}}"
    ));
    assert_eq!(policy.metadata.namespace.as_deref(), Some("default"));
    let spec = policy.spec.unwrap();
    assert_eq!(spec.pod_selector, Some(LabelSelector::default()));
    let protocols = |ports: Option<Vec<NetworkPolicyPort>>| -> Vec<String> {
        ports.unwrap().into_iter().filter_map(|p| p.protocol).collect()
    };
    assert_eq!(protocols(spec.ingress.unwrap().remove(0).ports), ["TCP", "UDP"]);
    assert_eq!(protocols(spec.egress.unwrap().remove(0).ports), ["TCP"]);

    assert_eq!(only_policy(HEAD).spec.unwrap().policy_types.unwrap(), ["Ingress"]);
}
