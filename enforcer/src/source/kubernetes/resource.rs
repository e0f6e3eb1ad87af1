//! What is watched: where it is, which part of it, and how one object of it is read.

use k8s_openapi::{
    api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    lanes::Lane,
    objects::{EndpointSlice, Node, Service},
};
use crate::{
    cluster::event::{self, Namespace, ObjectKey, Pod},
    source::{
        pod::{self, Meta, RawNamespace, RawPod},
        problem::{FieldError, Problem},
        shared::Shared,
        typed, validate,
    },
};

/// A kind of object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Kind {
    Namespace,
    Pod,
    NetworkPolicy,
    Node,
    Service,
    EndpointSlice,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Namespace,
        Self::Pod,
        Self::NetworkPolicy,
        Self::Node,
        Self::Service,
        Self::EndpointSlice,
    ];

    /// Whether there may be a hundred thousand of them: such lists are to come from the server's
    /// cache.
    pub(super) const fn is_many(self) -> bool {
        matches!(self, Self::Pod | Self::EndpointSlice)
    }

    /// `Kind namespace/name`.
    pub(super) fn title(self, key: &ObjectKey) -> String {
        if key.namespace.is_empty() {
            format!("{self:?} {}", key.name)
        } else {
            format!("{self:?} {}/{}", key.namespace, key.name)
        }
    }
}

/// A watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Watch {
    pub(super) kind: Kind,
    pub(super) lane: Lane,
    /// As the status names it.
    pub(super) name: &'static str,
    /// As RBAC names it.
    pub(super) resource: &'static str,
    pub(super) group: &'static str,
    /// Path with the selector's query.
    path: String,
}

/// All watches of the agent on a node.
pub(super) fn all(node: &str) -> Vec<Watch> {
    let watch = |kind, name, resource, group, path: &str| Watch {
        kind,
        lane: Lane::General,
        name,
        resource,
        group,
        path: path.to_owned(),
    };
    let pods = "/api/v1/pods?fieldSelector=";
    let unfinished = escape("status.phase!=Succeeded,status.phase!=Failed");
    let local = escape(&format!("spec.nodeName={node}"));
    let policies = "/apis/networking.k8s.io/v1/networkpolicies?";
    let slices = "/apis/discovery.k8s.io/v1/endpointslices?";
    vec![
        watch(Kind::Namespace, "namespaces", "namespaces", "", "/api/v1/namespaces?"),
        Watch {
            lane: Lane::Own,
            ..watch(Kind::Pod, "local pods", "pods", "", &format!("{pods}{local}&"))
        },
        watch(
            Kind::NetworkPolicy,
            "networkpolicies",
            "networkpolicies",
            "networking.k8s.io",
            policies,
        ),
        watch(Kind::Pod, "pods", "pods", "", &format!("{pods}{unfinished}&")),
        watch(Kind::Node, "nodes", "nodes", "", "/api/v1/nodes?"),
        watch(Kind::Service, "services", "services", "", "/api/v1/services?"),
        watch(Kind::EndpointSlice, "endpointslices", "endpointslices", "discovery.k8s.io", slices),
    ]
}

/// The characters of selectors that mean something in a query.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Watch {
    /// The path with more of a query.
    pub(super) fn with(&self, query: &str) -> String {
        format!("{}{query}", self.path)
    }

    /// The path of all objects of the kind, with a query.
    pub(super) fn of_all(&self, query: &str) -> String {
        let all = self.path.split_once('?').map_or(&*self.path, |(path, _)| path);
        format!("{all}?{query}")
    }
}

/// An object, slim.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Object {
    Namespace(Namespace),
    Pod(Pod),
    NetworkPolicy(Box<NetworkPolicy>),
    Node(event::Node),
    Service(Box<event::Service>),
    EndpointSlice(event::EndpointSlice),
}

/// What was read of an object.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: ObjectKey,
    /// 0 if it is no number.
    pub(super) version: u64,
    /// As the server wrote it: where a watch goes on.
    pub(super) version_text: String,
    pub(super) object: Result<Object, Vec<Problem>>,
    /// An object with problems that is better in force than not at all, where no last good state
    /// is: a policy isolates, and what is wrong in it allows nothing.
    pub(super) closed: Option<Object>,
}

/// A version as a number; 0 for one that is none.
pub(super) fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Just enough to know which object it is.
#[derive(Deserialize)]
struct Anything {
    metadata: Meta,
}

/// Reads the objects of a watch.
#[derive(Debug)]
pub(super) struct Reader {
    kind: Kind,
    shared: Shared,
}

impl Reader {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, shared: Shared::default() }
    }

    /// Forgets texts that no object has any more.
    pub(super) fn tidy(&mut self) {
        self.shared.tidy();
    }

    /// Reads one object. `Err` if it cannot even be told which it is.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<Item, Box<Problem>> {
        let item = match self.kind {
            Kind::Namespace => self.take(
                text,
                |raw: &RawNamespace| raw.metadata.as_ref(),
                |raw, _, _| Ok(Object::Namespace(pod::read_namespace(raw))),
            ),
            Kind::Pod => self.take(
                text,
                |raw: &RawPod| raw.metadata.as_ref(),
                |raw, key, shared| {
                    // One name, not two of the same.
                    pod::read_pod(raw, shared).map(|pod| Object::Pod(Pod { key, ..pod }))
                },
            ),
            Kind::NetworkPolicy => self.policy(text),
            Kind::Node => self.take(
                text,
                |raw: &Node| Some(&raw.metadata),
                |raw, key, _| Ok(Object::Node(raw.read(key))),
            ),
            Kind::Service => self.take(
                text,
                |raw: &Service| Some(&raw.metadata),
                |raw, key, _| Ok(Object::Service(Box::new(raw.read(key)))),
            ),
            Kind::EndpointSlice => self.take(
                text,
                |raw: &EndpointSlice| Some(&raw.metadata),
                |raw, key, shared| Ok(Object::EndpointSlice(raw.read(key, shared))),
            ),
        };
        item.or_else(|errors| self.refuse(text, errors))
    }

    fn take<Raw: DeserializeOwned>(
        &mut self,
        text: &[u8],
        meta: impl Fn(&Raw) -> Option<&Meta>,
        read: impl FnOnce(Raw, ObjectKey, &mut Shared) -> Result<Object, Vec<FieldError>>,
    ) -> Result<Item, Vec<FieldError>> {
        // The path of what is wrong costs time, and is asked for only where something is.
        let raw: Raw = match serde_json::from_slice(text) {
            Ok(raw) => raw,
            Err(_) => typed(&mut serde_json::Deserializer::from_slice(text))?,
        };
        let (key, version_text) = self.identity(meta(&raw))?;
        let object = read(raw, key.clone(), &mut self.shared);
        let object = object.map_err(|errors| self.problems(Some(&key), errors));
        Ok(Item { key, version: version(&version_text), version_text, object, closed: None })
    }

    fn policy(&mut self, text: &[u8]) -> Result<Item, Vec<FieldError>> {
        let mut policy: NetworkPolicy = typed(&mut serde_json::Deserializer::from_slice(text))?;
        let errors = validate::network_policy(&policy);
        let meta = std::mem::take(&mut policy.metadata);
        let key = ObjectKey {
            namespace: self.shared.text(meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.as_deref().unwrap_or_default().into(),
        };
        if key.name.is_empty() || key.namespace.is_empty() {
            return Err(vec![FieldError::new("metadata", "names no object")]);
        }
        let version_text = meta.resource_version.clone().unwrap_or_default();
        // The rest of it is the API server's bookkeeping.
        policy.metadata = ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            ..ObjectMeta::default()
        };
        let policy = Object::NetworkPolicy(Box::new(policy));
        let (object, closed) = if errors.is_empty() {
            (Ok(policy), None)
        } else {
            (Err(self.problems(Some(&key), errors)), Some(policy))
        };
        Ok(Item { key, version: version(&version_text), version_text, object, closed })
    }

    fn identity(&mut self, meta: Option<&Meta>) -> Result<(ObjectKey, String), Vec<FieldError>> {
        let nameless = || vec![FieldError::new("metadata", "names no object")];
        let meta = meta.ok_or_else(nameless)?;
        let name = meta.name.as_deref().filter(|name| !name.is_empty()).ok_or_else(nameless)?;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let is_namespaced = !matches!(self.kind, Kind::Namespace | Kind::Node);
        if is_namespaced == namespace.is_empty() {
            return Err(vec![FieldError::new("metadata.namespace", "does not fit the kind")]);
        }
        let key = ObjectKey { namespace: self.shared.text(namespace), name: name.into() };
        Ok((key, meta.resource_version.clone().unwrap_or_default()))
    }

    /// What could not be read, under its name if it has one.
    fn refuse(&mut self, text: &[u8], errors: Vec<FieldError>) -> Result<Item, Box<Problem>> {
        let named = serde_json::from_slice::<Anything>(text).ok();
        let named = named.and_then(|any| self.identity(Some(&any.metadata)).ok());
        let Some((key, version_text)) = named else {
            let problem = self.problems(None, errors).into_iter().next();
            return Err(Box::new(problem.unwrap_or_default()));
        };
        let object = Err(self.problems(Some(&key), errors));
        Ok(Item { key, version: version(&version_text), version_text, object, closed: None })
    }

    fn problems(&self, key: Option<&ObjectKey>, errors: Vec<FieldError>) -> Vec<Problem> {
        let object = key.map_or_else(|| format!("{:?}", self.kind), |key| self.kind.title(key));
        let problem = |error: &FieldError| Problem {
            document: None,
            ..Problem::field("", 0, Some(&object), error)
        };
        errors.iter().map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn read(kind: Kind, value: &Value) -> Result<Item, Box<Problem>> {
        Reader::new(kind).read(value.to_string().as_bytes())
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": "7",
                            "managedFields": [{"x": [1, {"y": "z"}]}]},
               "spec": {"nodeName": "w1"}, "status": {"podIP": "10.0.0.1"}})
    }

    #[test]
    fn selectors_are_escaped() {
        let watches = all("w1.example");
        let paths: Vec<_> = watches.iter().map(|watch| watch.with("limit=1")).collect();
        assert_eq!(paths[1], "/api/v1/pods?fieldSelector=spec.nodeName%3Dw1.example&limit=1");
        assert_eq!(
            paths[3],
            "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit=1"
        );
        assert_eq!(paths[0], "/api/v1/namespaces?limit=1");
    }

    #[test]
    fn texts_in_common_are_one() {
        let mut reader = Reader::new(Kind::Pod);
        let mut next = |name: &str| match reader.read(pod(name).to_string().as_bytes()) {
            Ok(Item { object: Ok(Object::Pod(pod)), .. }) => pod,
            other => panic!("{other:?}"),
        };
        let (a, b) = (next("a"), next("b"));
        assert!(Arc::ptr_eq(&a.key.namespace, &b.key.namespace));
        assert!(a.node.zip(b.node).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b)));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_object_by_name() {
        let mut bad = pod("a");
        bad["spec"]["hostNetwork"] = "yes".into();
        let item = read(Kind::Pod, &bad).unwrap();
        assert_eq!((&*item.key.name, item.version), ("a", 7));
        let problem = item.object.unwrap_err().remove(0).to_string();
        assert!(problem.starts_with("Pod n/a: spec.hostNetwork: invalid type"), "{problem}");
        let mut bad = pod("a");
        bad["status"]["podIP"] = "1.2.3".into();
        let problem = read(Kind::Pod, &bad).unwrap().object.unwrap_err().remove(0).to_string();
        assert_eq!(problem, "Pod n/a: status.podIP: \"1.2.3\": must be an IP address");
    }

    #[test]
    fn what_has_no_name_is_a_problem_without_one() {
        for value in [json!({}), json!([]), json!({"metadata": {"name": "a"}}), json!("x")] {
            let problem = read(Kind::Pod, &value).unwrap_err();
            assert_eq!(problem.object.as_deref(), Some("Pod"), "{value}");
        }
        assert!(Reader::new(Kind::Pod).read(b"{").is_err());
    }

    #[test]
    fn a_policy_is_checked_and_slimmed() {
        let mut policy = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "9",
                         "managedFields": [{"manager": "x"}], "annotations": {"large": "x"}},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}});
        let item = read(Kind::NetworkPolicy, &policy).unwrap();
        let Ok(Object::NetworkPolicy(read_policy)) = item.object else { panic!("{item:?}") };
        assert_eq!(read_policy.metadata.uid.as_deref(), Some("u"));
        assert_eq!((read_policy.metadata.managed_fields, item.version), (None, 9));
        policy["spec"]["policyTypes"] = json!(["Both"]);
        let item = read(Kind::NetworkPolicy, &policy).unwrap();
        let problem = item.object.unwrap_err().remove(0).to_string();
        assert!(
            problem.starts_with("NetworkPolicy n/a: spec.policyTypes[0]: \"Both\""),
            "{problem}"
        );
    }

    #[test]
    fn namespaces_and_nodes_have_no_namespace() {
        let value = json!({"metadata": {"name": "a", "resourceVersion": "1"}});
        assert!(matches!(
            read(Kind::Namespace, &value).unwrap().object,
            Ok(Object::Namespace(Namespace { labels, .. }))
                if labels.contains_key("kubernetes.io/metadata.name")
        ));
        assert!(read(Kind::Node, &value).is_ok_and(|item| item.object.is_ok()));
        assert!(read(Kind::Service, &value).is_err());
        assert_eq!(Kind::Node.title(&read(Kind::Node, &value).unwrap().key), "Node a");
    }
}
