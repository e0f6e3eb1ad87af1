//! One document to the objects in it, whatever file it stands in.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::Value;

use super::{services, tree};
use crate::{
    cluster::event::{EndpointSlice, Namespace, Node, ObjectKey, Pod, Service},
    source::{pod, problem::FieldError, shared::Shared, typed, validate},
};

/// Kinds that are read. Namespaces are announced first, policies last, and endpoints before the
/// Service that has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Kind {
    Namespace,
    Node,
    Pod,
    EndpointSlice,
    Service,
    NetworkPolicy,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }
}

/// Which object; of what is in no namespace it is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ObjectId {
    pub(super) kind: Kind,
    pub(super) key: ObjectKey,
}

impl ObjectId {
    /// `Kind namespace/name`.
    pub(super) fn title(&self) -> String {
        if !self.kind.is_namespaced() {
            format!("{} {}", self.kind.name(), self.key.name)
        } else {
            format!("{} {}/{}", self.kind.name(), self.key.namespace, self.key.name)
        }
    }
}

/// A valid object.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Object {
    Namespace(Namespace),
    Node(Node),
    Pod(Pod),
    EndpointSlice(EndpointSlice),
    Service(Box<Service>),
    NetworkPolicy(Box<NetworkPolicy>),
}

/// An object of a document, valid or not.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` where not even the name can be told.
    pub(super) id: Option<ObjectId>,
    pub(super) object: Result<Arc<Object>, Vec<FieldError>>,
}

/// What one document holds.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) entries: Vec<Entry>,
    /// Kinds that mean nothing here.
    pub(super) ignored: BTreeSet<String>,
}

/// Kinds of Kubernetes itself that have nothing to do with policy, or not yet.
const SILENT: &[&str] = &[
    "APIService",
    "Binding",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "Event",
    "HorizontalPodAutoscaler",
    "IPAddress",
    "Ingress",
    "IngressClass",
    "Job",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "RuntimeClass",
    "Secret",
    "ServiceAccount",
    "ServiceCIDR",
    "StatefulSet",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// API groups whose kinds [`SILENT`] lists.
const KNOWN_GROUPS: &[&str] = &["", "apps", "autoscaling", "batch", "policy", "extensions"];

/// Reads one document; `Err` only for what is no YAML (or JSON) at all.
pub(super) fn document(text: &str, is_json: bool, shared: &mut Shared) -> Result<Document, String> {
    let value = if is_json { tree::json(text)? } else { tree::yaml(text)? };
    let mut document = Document::default();
    if !value.is_null() {
        read(value, "", None, &mut document, shared);
    }
    Ok(document)
}

fn read(
    value: Value,
    path: &str,
    typed_list: Option<(&str, &str)>,
    out: &mut Document,
    shared: &mut Shared,
) {
    let Value::Object(mut map) = value else {
        return out.unnamed(path, "is no Kubernetes object (an object with `kind` is wanted)");
    };
    let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
    let (mut version, mut kind) = (text("apiVersion"), text("kind"));
    if let Some((list_version, list_kind)) = typed_list {
        // Items of a typed list may leave out what the list says.
        version.get_or_insert_with(|| list_version.to_owned());
        kind.get_or_insert_with(|| list_kind.to_owned());
    }
    let Some(kind) = kind.filter(|k| !k.is_empty()) else {
        return out.unnamed(&join(path, "kind"), "is required");
    };
    let version = version.unwrap_or_default();
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    match kind.as_str() {
        "List" | "PodList" | "NamespaceList" | "NetworkPolicyList" | "NodeList" | "ServiceList"
        | "EndpointSliceList" => {
            let typed = kind.strip_suffix("List").filter(|k| !k.is_empty());
            let items = match map.remove("items") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(items)) => items,
                Some(_) => return out.unnamed(&join(path, "items"), "must be a list"),
            };
            for (i, item) in items.into_iter().enumerate() {
                let path = join(path, &format!("items[{i}]"));
                read(item, &path, typed.map(|kind| (version.as_str(), kind)), out, shared);
            }
        }
        "Namespace" if group.is_empty() => {
            let value = Value::Object(map);
            let object = core(&version).and_then(|()| pod::namespace(&value));
            out.push(Kind::Namespace, &value, path, object.map(Object::Namespace));
        }
        "Pod" if group.is_empty() => {
            let value = Value::Object(map);
            let object = core(&version).and_then(|()| pod::pod(&value, shared));
            out.push(Kind::Pod, &value, path, object.map(Object::Pod));
        }
        "Node" if group.is_empty() => {
            let value = Value::Object(map);
            let object = core(&version).and_then(|()| services::node(&value));
            out.push(Kind::Node, &value, path, object.map(Object::Node));
        }
        "Service" if group.is_empty() => {
            let value = Value::Object(map);
            let object = core(&version).and_then(|()| services::service(&value));
            let object = object.map(|service| Object::Service(Box::new(service)));
            out.push(Kind::Service, &value, path, object);
        }
        "EndpointSlice" if matches!(group, "discovery.k8s.io" | "") => {
            let value = Value::Object(map);
            let object = api_version(&version, "discovery.k8s.io/v1");
            let object = object.and_then(|()| services::slice(&value, shared));
            out.push(Kind::EndpointSlice, &value, path, object.map(Object::EndpointSlice));
        }
        // `extensions` had it once; without a group it is a mistake, not another kind.
        "NetworkPolicy" if matches!(group, "networking.k8s.io" | "extensions" | "") => {
            map.insert("apiVersion".into(), version.clone().into());
            map.insert("kind".into(), kind.into());
            let value = Value::Object(map);
            let object = policy(&version, &value);
            out.push(Kind::NetworkPolicy, &value, path, object.map(Object::NetworkPolicy));
        }
        known
            if SILENT.contains(&known)
                && (KNOWN_GROUPS.contains(&group) || group.ends_with(".k8s.io")) => {}
        _ if group.is_empty() => drop(out.ignored.insert(kind)),
        _ => drop(out.ignored.insert(format!("{kind}.{group}"))),
    }
}

impl Document {
    fn unnamed(&mut self, path: &str, reason: &str) {
        let object = Err(vec![FieldError::new(path, reason)]);
        self.entries.push(Entry { id: None, object });
    }

    fn push(
        &mut self,
        kind: Kind,
        value: &Value,
        path: &str,
        object: Result<Object, Vec<FieldError>>,
    ) {
        let object = object.map(Arc::new).map_err(|mut errors| {
            for error in &mut errors {
                error.field = join(path, &error.field);
            }
            errors
        });
        self.entries.push(Entry { id: identify(kind, value), object });
    }
}

/// The object's identity even if much else is wrong with it, so that its last good state is known.
fn identify(kind: Kind, value: &Value) -> Option<ObjectId> {
    let meta = value.get("metadata")?;
    let text = |key: &str| meta.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    let namespace = match kind {
        _ if !kind.is_namespaced() => "",
        // A namespace that is no text names nothing; an absent one is the default.
        _ => match meta.get("namespace") {
            None | Some(Value::Null) => "default",
            Some(Value::String(namespace)) if namespace.is_empty() => "default",
            Some(_) => text("namespace")?,
        },
    };
    let key = ObjectKey { namespace: namespace.into(), name: text("name")?.into() };
    Some(ObjectId { kind, key })
}

fn core(version: &str) -> Result<(), Vec<FieldError>> {
    api_version(version, "v1")
}

fn api_version(version: &str, wanted: &str) -> Result<(), Vec<FieldError>> {
    if version == wanted {
        return Ok(());
    }
    let reason = format!("must be `{wanted}`");
    Err(vec![if version.is_empty() {
        FieldError::new("apiVersion", reason)
    } else {
        FieldError::value("apiVersion", version, reason)
    }])
}

/// Reads, checks and completes a NetworkPolicy.
fn policy(version: &str, value: &Value) -> Result<Box<NetworkPolicy>, Vec<FieldError>> {
    api_version(version, "networking.k8s.io/v1")?;
    let mut errors = validate::unknown_policy_fields(value);
    let mut policy: NetworkPolicy = match typed(value) {
        Ok(policy) => policy,
        Err(wrong) => {
            errors.extend(wrong);
            return Err(errors);
        }
    };
    errors.extend(validate::network_policy(&policy));
    if !errors.is_empty() {
        return Err(errors);
    }
    complete(&mut policy);
    Ok(Box::new(policy))
}

/// The API server's defaults for a NetworkPolicy.
fn complete(policy: &mut NetworkPolicy) {
    let namespace = policy.metadata.namespace.get_or_insert_default();
    if namespace.is_empty() {
        "default".clone_into(namespace);
    }
    // Bookkeeping of an API server that once had the object: large, and no change of policy.
    policy.metadata.managed_fields = None;
    let spec = policy.spec.get_or_insert_with(NetworkPolicySpec::default);
    spec.pod_selector.get_or_insert_with(LabelSelector::default);
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let mut types = vec!["Ingress".to_owned()];
        if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
            types.push("Egress".to_owned());
        }
        spec.policy_types = Some(types);
    }
    let ingress = spec.ingress.iter_mut().flatten().map(|rule| &mut rule.ports);
    let egress = spec.egress.iter_mut().flatten().map(|rule| &mut rule.ports);
    for port in ingress.chain(egress).flatten().flatten() {
        let NetworkPolicyPort { protocol, .. } = port;
        protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}

fn join(path: &str, field: &str) -> String {
    match (path.is_empty(), field.is_empty()) {
        (true, _) => field.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
