//! Clusters of any size with the shape of real ones: namespaces of very different sizes, workloads
//! with replicas, jobs that come and go with labels of their own, pods on their node's network, and
//! policies in the sets in which people write them (see [`super::policies`]). Pure: the same shape
//! gives the same cluster.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use super::{policies, random::Random};

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) pods: u32,
    pub(crate) policies: u32,
    /// Pods of the node that is looked at.
    pub(crate) local: u32,
    pub(crate) seed: u64,
}

/// Pods of a full node.
const FULL_NODE: u32 = 110;
/// Pods of a namespace, in the mean.
const PODS_A_NAMESPACE: u32 = 50;
/// Of so many pods one is on its node's network.
const HOST_NETWORK: u32 = 25;

impl Shape {
    /// So many pods, policies in proportion (10 to 5,000), one full node.
    pub(crate) fn of(pods: u32) -> Self {
        let policies = (pods / 20).clamp(10, 5_000);
        Self { pods, policies, local: FULL_NODE.min(pods), seed: 1 }
    }

    fn namespaces(self) -> u32 {
        (self.pods / PODS_A_NAMESPACE).max(4)
    }

    fn nodes(self) -> u32 {
        self.pods.div_ceil(FULL_NODE).max(1)
    }
}

/// A namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) address: IpAddr,
    pub(crate) host_network: bool,
    /// `metrics` is what its name is, by convention.
    pub(crate) ports: Vec<(&'static str, u16)>,
    pub(crate) node: String,
    /// Of the node that is looked at, with an interface of its own there.
    pub(crate) local: bool,
    /// Its workload: a Service may be in front of it.
    pub(crate) app: String,
}

/// A Service with all its endpoints.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Addresses, nodes and names of the pods behind it.
    pub(crate) endpoints: Vec<(IpAddr, String, String)>,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cluster {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
    /// As the API has them.
    pub(crate) policies: Vec<Value>,
}

/// The name of a namespace.
pub(crate) fn namespace_name(number: u32) -> String {
    match number {
        0 => "kube-system".to_owned(),
        1 => "ingress-nginx".to_owned(),
        2 => "monitoring".to_owned(),
        n => format!("project-{n}"),
    }
}

/// The names of workloads that namespaces have: the first ones in most of them.
pub(crate) const APPS: [&str; 12] = [
    "api", "web", "db", "cache", "worker", "queue", "auth", "search", "mail", "store", "report",
    "proxy",
];

impl Cluster {
    pub(crate) fn new(shape: Shape) -> Self {
        let mut random = Random::new(shape.seed);
        let namespaces: Vec<_> = (0..shape.namespaces()).map(namespace).collect();
        let local_step = (shape.pods / shape.local.max(1)).max(1);
        let mut locals = 0;
        let pods: Vec<_> = (0..shape.pods)
            .map(|number| {
                let mut pod = pod(number, shape, &mut random);
                // Pods of one node come from everywhere; those on its network have no interface.
                pod.local = number / local_step >= locals && locals < shape.local;
                if pod.local {
                    pod.address = local_address(locals);
                    locals += 1;
                    pod.host_network = false;
                    pod.node = node_name(0);
                }
                pod
            })
            .collect();
        let services = services(&pods);
        let policies = policies::sets(shape.policies, shape.namespaces());
        Self { namespaces, pods, services, policies }
    }

    pub(crate) fn local(&self) -> impl Iterator<Item = &Pod> + Clone {
        self.pods.iter().filter(|pod| pod.local)
    }
}

fn namespace(number: u32) -> Namespace {
    let name = namespace_name(number);
    let mut labels = labels(&[
        ("kubernetes.io/metadata.name", &name),
        ("pod-security.kubernetes.io/enforce", "baseline"),
    ]);
    labels.insert("team".into(), format!("team-{}", number % 40));
    labels.insert("stage".into(), ["dev", "test", "live"][number as usize % 3].into());
    Namespace { name, labels }
}

fn node_name(number: u32) -> String {
    format!("node-{number}")
}

/// The address of a pod by its number, of which there are fewer than fifteen million.
pub(crate) fn address(number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    IpAddr::from([10, a, b, c])
}

/// The address of a pod of the node that is looked at, in the laboratory's network.
fn local_address(number: u32) -> IpAddr {
    let [.., b, c] = (number + 0x101).to_be_bytes();
    IpAddr::from([10, 244, b, c])
}

fn pod(number: u32, shape: Shape, random: &mut Random) -> Pod {
    // Half of all pods are in a tenth of the namespaces.
    let namespaces = shape.namespaces();
    let large = (namespaces / 10).max(1);
    let at = if random.percent(50) { random.below(large) } else { random.below(namespaces) };
    let namespace = namespace_name(at);
    let uid = hexadecimal(random, 32);
    let address = address(number + 1);
    let node = node_name(1 + number % shape.nodes());
    let is_job = random.percent(10);
    let (app, name, mut labels, ports) = if is_job {
        let job = format!("import-{}", hexadecimal(random, 8));
        let id = hexadecimal(random, 32);
        let name = format!("{job}-{}", hexadecimal(random, 5));
        let labels = labels(&[
            ("app.kubernetes.io/name", "import"),
            ("batch.kubernetes.io/controller-uid", &id),
            ("batch.kubernetes.io/job-name", &job),
            ("controller-uid", &id),
            ("job-name", &job),
        ]);
        ("import".to_owned(), name, labels, Vec::new())
    } else {
        let app = APPS[random.below(12).min(random.below(12)) as usize];
        let template =
            format!("{:08x}", (u64::from(at) * 31 + app.len() as u64 * 7919) % 0xffff_ffff);
        let is_set = matches!(app, "db" | "queue" | "store");
        let name = if is_set {
            format!("{app}-{number}")
        } else {
            format!("{app}-{template}-{}", hexadecimal(random, 5))
        };
        let mut labels = labels(&[
            ("app.kubernetes.io/name", app),
            ("app.kubernetes.io/instance", &format!("{namespace}-{app}")),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("app.kubernetes.io/version", &format!("{}.{}", at % 5, app.len())),
        ]);
        if is_set {
            labels.insert("statefulset.kubernetes.io/pod-name".into(), name.clone());
            labels.insert("controller-revision-hash".into(), format!("{app}-{template}"));
        } else {
            labels.insert("pod-template-hash".into(), template);
        }
        (app.to_owned(), name, labels, vec![("http", 8080), ("metrics", 9100)])
    };
    for (label, of_a_hundred) in
        [("network-access-external-ips", 15), ("network-access-kube-api", 5), ("dns", 60)]
    {
        if random.percent(of_a_hundred) {
            labels.insert(label.to_owned(), "true".to_owned());
        }
    }
    let host_network = number % HOST_NETWORK == HOST_NETWORK - 1;
    Pod { namespace, name, uid, labels, address, host_network, ports, node, local: false, app }
}

/// One Service for each workload of a namespace.
fn services(pods: &[Pod]) -> Vec<Service> {
    let mut by_app: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.ports.is_empty() && !pod.host_network) {
        by_app.entry((&pod.namespace, &pod.app)).or_default().push(pod);
    }
    (0u32..)
        .zip(by_app)
        .map(|(number, ((namespace, name), pods))| {
            let [_, _, b, c] = number.to_be_bytes();
            Service {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                address: IpAddr::from([172, 20 + u8::from(number > 0xffff), b, c]),
                port: 80,
                endpoints: (pods.into_iter())
                    .map(|pod| (pod.address, pod.node.clone(), pod.name.clone()))
                    .collect(),
            }
        })
        .collect()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn hexadecimal(random: &mut Random, digits: usize) -> String {
    let mut text = format!("{:016x}{:016x}", random.next(), random.next());
    text.truncate(digits);
    text
}

impl Namespace {
    pub(crate) fn manifest(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace",
               "metadata": {"name": self.name, "labels": self.labels}})
    }
}

impl Pod {
    pub(crate) fn manifest(&self) -> Value {
        let ports =
            self.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port}));
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "uid": self.uid,
                         "labels": self.labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": self.node, "hostNetwork": self.host_network,
                     "containers": [{"name": "main", "image": "example/main",
                                     "ports": ports.collect::<Vec<_>>()}]},
            "status": {"phase": "Running", "podIPs": [{"ip": self.address.to_string()}]},
        })
    }
}

impl Service {
    /// The Service and its slices.
    pub(crate) fn manifests(&self) -> Vec<Value> {
        let Self { namespace, name, address, port, endpoints } = self;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": address.to_string(), "clusterIPs": [address.to_string()],
                     "selector": {"app.kubernetes.io/name": name},
                     "ports": [{"name": "http", "port": port, "targetPort": "http"}]},
        });
        let slices = (0u32..).zip(endpoints.chunks(ENDPOINTS_A_SLICE)).map(|(number, part)| {
            let endpoints = part.iter().map(|(address, node, pod)| {
                json!({"addresses": [address.to_string()], "nodeName": node,
                       "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod}})
            });
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"namespace": namespace, "name": format!("{name}-{number}"),
                             "labels": {"kubernetes.io/service-name": name}},
                "ports": [{"name": "http", "port": 8080}],
                "endpoints": endpoints.collect::<Vec<_>>(),
            })
        });
        std::iter::once(service).chain(slices).collect()
    }
}

/// As the control plane makes them.
pub(crate) const ENDPOINTS_A_SLICE: usize = 100;

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn a_shape_gives_one_cluster_of_its_size() {
        for pods in [100, 1_000, 10_000] {
            let shape = Shape::of(pods);
            let cluster = Cluster::new(shape);
            assert_eq!(cluster, Cluster::new(shape));
            assert_eq!(cluster.pods.len(), pods as usize);
            assert_eq!(cluster.policies.len(), shape.policies as usize);
            assert_eq!(cluster.local().count(), shape.local as usize);
            assert!(cluster.local().all(|pod| !pod.host_network));
            let addresses: HashSet<_> = cluster.pods.iter().map(|pod| pod.address).collect();
            let names: HashSet<_> = cluster.pods.iter().map(|p| (&p.namespace, &p.name)).collect();
            assert_eq!((addresses.len(), names.len()), (pods as usize, pods as usize));
        }
        assert_eq!(Shape::of(100).policies, 10);
        assert_eq!(Shape::of(100_000).policies, 5_000);
    }

    #[test]
    fn namespaces_differ_in_size_and_labels_in_how_many_pods_have_them() {
        let cluster = Cluster::new(Shape::of(10_000));
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        let mut values: HashMap<&str, HashSet<&str>> = HashMap::new();
        for pod in &cluster.pods {
            *sizes.entry(&pod.namespace).or_default() += 1;
            for (key, value) in &pod.labels {
                values.entry(key).or_default().insert(value);
            }
        }
        let mut sizes: Vec<_> = sizes.into_values().collect();
        sizes.sort_unstable();
        assert!(sizes[sizes.len() - 1] > 5 * sizes[sizes.len() / 2], "{sizes:?}");
        // Churny labels have a value for each pod, others few.
        assert!(values["job-name"].len() > 700);
        assert!(values["statefulset.kubernetes.io/pod-name"].len() > 1_000);
        assert!(values["app.kubernetes.io/name"].len() < 20);
        let services: HashSet<_> = cluster.services.iter().map(|service| service.address).collect();
        assert_eq!(services.len(), cluster.services.len());
        let behind: usize = cluster.services.iter().map(|service| service.endpoints.len()).sum();
        assert!(behind > 8_000 && cluster.services.len() > 500);
    }
}
