//! A generated cluster's objects as an API server has them: with all the bookkeeping that nobody
//! reads, because to skip it is most of the work of reading them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::cluster::{Cluster, Pod};

/// The version of everything: nothing ever changes here.
pub(super) const VERSION: u64 = 1_000_000;

/// An object, written.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) text: String,
    /// `spec.nodeName`, of pods.
    pub(super) node: String,
}

/// All objects of a kind.
#[derive(Debug)]
pub(super) struct Resource {
    /// Last part of the path.
    pub(super) name: &'static str,
    pub(super) objects: Vec<Object>,
}

/// All resources that the agent asks for.
pub(super) fn all(cluster: &Cluster) -> Vec<Resource> {
    let mut version = 0;
    let mut resource = |name, objects: &mut dyn Iterator<Item = Value>| {
        let objects = objects.map(|mut object| {
            version += 1;
            let meta = &mut object["metadata"];
            meta["resourceVersion"] = version.to_string().into();
            if meta["uid"].is_null() {
                meta["uid"] = format!("00000000-0000-4000-8000-{version:012}").into();
            }
            meta["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            let node = object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
            Object { text: object.to_string(), node }
        });
        Resource { name, objects: objects.collect() }
    };
    let (services, slices): (Vec<_>, Vec<_>) = (cluster.services.iter())
        .flat_map(|of| of.manifests())
        .partition(|object| object["kind"] == "Service");
    let nodes: BTreeSet<&str> = cluster.pods.iter().map(|pod| pod.node.as_str()).collect();
    let objects = vec![
        resource("pods", &mut cluster.pods.iter().map(pod)),
        resource("namespaces", &mut cluster.namespaces.iter().map(|of| of.manifest())),
        resource("networkpolicies", &mut cluster.policies.iter().map(managed)),
        resource("nodes", &mut (0u16..).zip(nodes).map(|(number, name)| node(name, number))),
        resource("services", &mut services.iter().map(managed)),
        resource("endpointslices", &mut slices.iter().map(managed)),
    ];
    assert!(version < VERSION, "a cluster of more than {VERSION} objects");
    objects
}

/// With a note of who wrote which field.
fn managed(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["managedFields"] = json!([fields("kubectl-client-side-apply")]);
    object
}

fn fields(manager: &str) -> Value {
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1",
           "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
           "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {},
                                                    "f:app.kubernetes.io/instance": {}}},
                        "f:spec": {"f:selector": {}, "f:type": {}}}})
}

fn node(name: &str, number: u16) -> Value {
    let [high, low] = number.to_be_bytes();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name},
                     "managedFields": [fields("kubelet")]},
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.{high}.{low}")},
            {"type": "Hostname", "address": name}]},
    })
}

/// About 3 KiB, as a pod with one container has.
fn pod(of: &Pod) -> Value {
    let mut pod = of.manifest();
    let (kind, owner) = match of.name.rsplit_once('-') {
        Some((owner, _)) if of.app == "import" => ("Job", owner),
        Some((owner, _)) if of.labels.contains_key("pod-template-hash") => ("ReplicaSet", owner),
        _ => ("StatefulSet", of.app.as_str()),
    };
    let meta = &mut pod["metadata"];
    meta["generateName"] = format!("{owner}-").into();
    meta["annotations"] = json!({
        "checksum/config": format!("{:0>64}", of.uid),
        "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    meta["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner,
        "uid": of.uid, "controller": true, "blockOwnerDeletion": true}]);
    meta["managedFields"] = json!([
        {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
         "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {
            "f:metadata": {
                "f:annotations": {".": {}, "f:checksum/config": {}}, "f:generateName": {},
                "f:labels": {".": {}, "f:app.kubernetes.io/name": {}, "f:pod-template-hash": {}},
                "f:ownerReferences": {".": {}, "k:{\"uid\":\"x\"}": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"main\"}": {
                    ".": {}, "f:env": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                    "f:ports": {}, "f:resources": {}, "f:volumeMounts": {}}},
                "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                "f:securityContext": {}, "f:volumes": {}}}},
        {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "subresource": "status",
         "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {
            "f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}}},
            "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIPs": {},
            "f:startTime": {}}}}]);
    let spec = &mut pod["spec"];
    let container = &mut spec["containers"][0];
    container["env"] = json!([
        {"name": "LISTEN", "value": ":8080"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]);
    container["resources"] = json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
    container["imagePullPolicy"] = "IfNotPresent".into();
    container["terminationMessagePath"] = "/dev/termination-log".into();
    container["volumeMounts"] = json!([{"name": "kube-api-access", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    spec["volumes"] = json!([{"name": "kube-api-access", "projected": {"defaultMode": 420,
        "sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}]);
    spec["tolerations"] = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]);
    for (name, value) in [("serviceAccountName", "default"), ("schedulerName", "default-scheduler")]
    {
        spec[name] = value.into();
    }
    let status = &mut pod["status"];
    status["podIP"] = of.address.to_string().into();
    status["startTime"] = "2026-01-01T00:00:01Z".into();
    let condition = |kind| {
        json!({"type": kind, "status": "True", "lastProbeTime": null,
               "lastTransitionTime": "2026-01-01T00:00:02Z"})
    };
    status["conditions"] =
        ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition).to_vec().into();
    status["containerStatuses"] = json!([{
        "name": "main", "image": "example/main", "imageID": format!("sha256:{:0>64}", of.uid),
        "containerID": format!("containerd://{:0>64}", of.uid), "ready": true, "restartCount": 0,
        "started": true, "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}}}]);
    pod
}

#[cfg(test)]
mod tests {
    use super::{super::super::cluster::Shape, *};

    #[test]
    fn objects_are_as_large_as_real_ones_and_those_of_a_node_are_found() {
        let cluster = Cluster::new(Shape::of(1_000));
        let all = all(&cluster);
        let of = |name| all.iter().find(|one| one.name == name).unwrap();
        let pods = of("pods");
        let bytes: usize = pods.objects.iter().map(|object| object.text.len()).sum();
        assert!((2_500..5_000).contains(&(bytes / pods.objects.len())), "{bytes}");
        let local = pods.objects.iter().filter(|object| object.node == "node-0").count();
        assert_eq!((pods.objects.len(), local), (1_000, cluster.local().count()));
        let nodes = &of("nodes").objects;
        assert!(nodes.len() > 9 && nodes.iter().any(|node| node.text.contains("\"node-0\"")));
        let versions: BTreeSet<_> = (all.iter().flat_map(|one| &one.objects))
            .map(|object| serde_json::from_str::<Value>(&object.text).unwrap())
            .map(|object| object["metadata"]["resourceVersion"].to_string())
            .collect();
        assert_eq!(versions.len(), all.iter().map(|one| one.objects.len()).sum::<usize>());
    }
}
