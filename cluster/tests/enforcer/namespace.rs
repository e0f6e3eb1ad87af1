//! A namespace of a test, with its pods: removed when the test has ended.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    poll,
    world::{Container, PATIENCE, World, container_of},
};

/// A namespace that goes with this value.
pub(crate) struct Namespace<'a> {
    pub(crate) world: &'a World,
    pub(crate) name: String,
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its name.
    pub(crate) name: String,
    /// Its addresses, one a family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its container.
    pub(crate) container: Container,
}

impl Pod {
    /// A port of it, of the youngest family that the cluster has: what must hold for IPv6 is tried
    /// with it wherever it is there.
    pub(crate) fn port(&self, port: u16) -> SocketAddr {
        let address = self.addresses.last().unwrap_or_else(|| panic!("{} has none", self.name));
        SocketAddr::new(*address, port)
    }
}

/// A pod that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct PodSpec {
    name: String,
    object: Value,
}

impl PodSpec {
    /// A pod of the workload's image on a node; `words` are its arguments, its label `app` is its
    /// name.
    pub(crate) fn new(name: &str, node: &str, words: &str) -> Self {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": false,
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main",
                    "image": "localhost/workload:1",
                    "imagePullPolicy": "Never",
                    "args": words.split_whitespace().collect::<Vec<_>>(),
                }],
            },
        });
        Self { name: name.to_owned(), object }
    }

    /// A server of TCP and UDP at ports 80 and 81, of which the first is called `http`.
    pub(crate) fn server(name: &str, node: &str) -> Self {
        let mut spec = Self::new(name, node, "serve --port 80 --port 81");
        spec.container()["ports"] = json!([{"name": "http", "containerPort": 80}]);
        spec
    }

    /// A pod from which tests connect.
    pub(crate) fn client(name: &str, node: &str) -> Self {
        Self::new(name, node, "idle")
    }

    /// One whose container runs once.
    pub(crate) fn once(mut self) -> Self {
        self.object["spec"]["restartPolicy"] = json!("Never");
        self
    }

    /// Adds a label.
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][key] = json!(value);
        self
    }

    /// In the network of its node.
    pub(crate) fn host_network(mut self) -> Self {
        self.object["spec"]["hostNetwork"] = json!(true);
        self
    }

    /// Its only container.
    pub(crate) fn container(&mut self) -> &mut Value {
        &mut self.object["spec"]["containers"][0]
    }
}

impl<'a> Namespace<'a> {
    /// A new one, with labels.
    pub(crate) fn new(world: &'a World, name: &str, labels: &[(&str, &str)]) -> Self {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels},
        });
        world.cluster.apply(&object.to_string()).unwrap();
        // No pod can be made before it has its account.
        poll::until("the namespace's account", PATIENCE, || {
            let asked = world.cluster.ask(&["get", "serviceaccount", "default", "-n", name]);
            asked.map_err(|error| error.to_string())
        });
        Self { world, name: name.to_owned() }
    }

    /// kubectl's words, with the namespace.
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        self.world.cluster.ask(&[words, &["-n", &self.name]].concat()).unwrap()
    }

    /// Makes pods and does not wait for them.
    pub(crate) fn create(&self, specs: &[PodSpec]) {
        let objects: Vec<String> = specs.iter().map(|spec| self.object(spec)).collect();
        self.world.cluster.apply(&objects.join("\n---\n")).unwrap();
    }

    /// A pod of this namespace, as JSON.
    pub(crate) fn object(&self, spec: &PodSpec) -> String {
        let mut object = spec.object.clone();
        object["metadata"]["namespace"] = json!(self.name);
        object.to_string()
    }

    /// Makes pods and waits until they are ready.
    pub(crate) fn pods(&self, specs: &[PodSpec]) -> Vec<Pod> {
        self.create(specs);
        specs.iter().map(|spec| self.ready(&spec.name)).collect()
    }

    /// Makes one pod and waits until it is ready.
    pub(crate) fn pod(&self, spec: &PodSpec) -> Pod {
        self.pods(std::slice::from_ref(spec)).remove(0)
    }

    /// Waits until a pod is ready.
    pub(crate) fn ready(&self, name: &str) -> Pod {
        poll::until(&format!("readiness of {name}"), PATIENCE, || {
            let object: Value =
                serde_json::from_str(&self.ask(&["get", "pod", name, "-o", "json"])).unwrap();
            ready_pod(&object).ok_or_else(|| object["status"].to_string())
        })
    }

    /// The pod objects.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.world.objects(&["get", "pods", "-n", &self.name])
    }

    /// Applies a NetworkPolicy and waits until it is in force.
    pub(crate) fn policy(&self, name: &str, spec: Value) {
        self.world.enforce(&self.policy_object(name, spec));
    }

    /// A NetworkPolicy of this namespace.
    pub(crate) fn policy_object(&self, name: &str, spec: Value) -> String {
        let metadata = json!({"name": name, "namespace": self.name});
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": metadata, "spec": spec,
        })
        .to_string()
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // What stays is no matter of other tests, and goes with the cluster.
        let words = ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"];
        if let Err(error) = self.world.cluster.ask(&words) {
            println!("the namespace {} is not removed: {error}", self.name);
        }
    }
}

/// A pod as its object describes it, if it is ready.
fn ready_pod(object: &Value) -> Option<Pod> {
    let conditions = object["status"]["conditions"].as_array()?;
    let is_ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let container = container_of(object).filter(|_| is_ready)?;
    let all = object["status"]["podIPs"].as_array()?;
    let address = |one: &Value| one["ip"].as_str()?.parse().ok();
    Some(Pod {
        name: object["metadata"]["name"].as_str()?.to_owned(),
        addresses: all.iter().filter_map(address).collect(),
        container,
    })
}
