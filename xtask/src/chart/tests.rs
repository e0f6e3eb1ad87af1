//! What the rendered manifests promise, read from the checked-in files: no helm is needed.

use std::{collections::BTreeSet, fs};

use serde_norway::Value;

use super::{MANIFESTS, NAMESPACE, VARIANTS, yaml};
use crate::workspace::Workspace;

fn objects(name: &str) -> Vec<Value> {
    let path = Workspace::find().root().join(MANIFESTS).join(name);
    let text = fs::read_to_string(path).unwrap();
    yaml::documents(&text).map(Result::unwrap).filter(|document| !document.is_null()).collect()
}

fn of_kind(name: &str, kind: &str) -> Value {
    objects(name).into_iter().find(|object| object["kind"] == kind).unwrap()
}

/// Every container of a DaemonSet with the pod's specification.
fn containers(daemonset: &Value) -> Vec<Value> {
    let pod = &daemonset["spec"]["template"]["spec"];
    ["initContainers", "containers"]
        .iter()
        .filter_map(|list| pod[*list].as_sequence())
        .flatten()
        .cloned()
        .collect()
}

fn strings(value: &Value) -> BTreeSet<&str> {
    value.as_sequence().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn no_container_has_more_rights_than_it_needs() {
    for (name, _) in VARIANTS {
        let daemonset = of_kind(name, "DaemonSet");
        let pod = &daemonset["spec"]["template"]["spec"];
        assert_eq!(pod["hostPID"], Value::Null, "{name}");
        assert_eq!(pod["hostIPC"], Value::Null, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in containers(&daemonset) {
            let context = &container["securityContext"];
            assert_eq!(context["privileged"], Value::Null, "{name}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"].into(), "{name}");
            let add = strings(&context["capabilities"]["add"]);
            assert_eq!(add, ["BPF", "NET_ADMIN", "PERFMON"].into(), "{name}");
        }
    }
}

#[test]
fn a_new_agent_can_stand_beside_the_old_one() {
    let daemonset = of_kind("enforcer.yaml", "DaemonSet");
    let update = &daemonset["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!((&update["maxSurge"], &update["maxUnavailable"]), (&1.into(), &0.into()));
    for container in containers(&daemonset) {
        assert_eq!(container["ports"], Value::Null, "a port would be the node's");
    }
}

#[test]
fn every_node_gets_one() {
    for (name, _) in VARIANTS {
        let pod = &of_kind(name, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["tolerations"].as_sequence().unwrap().len(), 1, "{name}");
        assert_eq!(pod["tolerations"][0]["operator"], "Exists", "{name}");
        assert_eq!(pod["tolerations"][0]["key"], Value::Null, "{name}");
    }
}

#[test]
fn only_the_variant_with_the_taint_may_change_a_node() {
    for (name, _) in VARIANTS {
        let roles: Vec<Value> =
            objects(name).into_iter().filter(|o| o["kind"] == "ClusterRole").collect();
        let mut may = BTreeSet::new();
        for rule in roles.iter().filter_map(|role| role["rules"].as_sequence()).flatten() {
            for resource in strings(&rule["resources"]) {
                may.extend(
                    strings(&rule["verbs"])
                        .into_iter()
                        .map(|v| (resource.to_owned(), v.to_owned())),
                );
            }
        }
        let changes: Vec<(&str, &str)> = may
            .iter()
            .map(|(resource, verb)| (resource.as_str(), verb.as_str()))
            .filter(|(_, verb)| !matches!(*verb, "list" | "watch"))
            .collect();
        let expected: &[(&str, &str)] = match name {
            "remove.yaml" => &[],
            "enforcer-taint.yaml" => {
                &[("events", "create"), ("events", "patch"), ("nodes", "patch")]
            }
            _ => &[("events", "create"), ("events", "patch")],
        };
        assert_eq!(changes, expected, "{name}");
    }
}

#[test]
fn all_is_in_one_namespace_that_lets_it_in() {
    for (name, _) in VARIANTS {
        let namespace = of_kind(name, "Namespace");
        assert_eq!(namespace["metadata"]["name"], NAMESPACE, "{name}");
        let level = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        assert_eq!(level, "privileged", "{name}");
        for object in objects(name) {
            let found = &object["metadata"]["namespace"];
            assert!(found.is_null() || found == NAMESPACE, "{name}: {found:?}");
        }
    }
}

#[test]
fn every_mount_has_its_volume_and_every_volume_its_mount() {
    for (name, _) in VARIANTS {
        let daemonset = of_kind(name, "DaemonSet");
        let names = |list: &Value| -> BTreeSet<String> {
            let items = list.as_sequence().into_iter().flatten();
            items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        let mounts: BTreeSet<String> =
            containers(&daemonset).iter().flat_map(|one| names(&one["volumeMounts"])).collect();
        let volumes = names(&daemonset["spec"]["template"]["spec"]["volumes"]);
        assert_eq!(mounts, volumes, "{name}");
        assert_eq!(volumes.contains("nri"), name == "enforcer-gate.yaml", "{name}");
    }
}
