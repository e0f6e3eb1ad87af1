//! A folder with policies, a cluster and expected verdicts, brought to life.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Agent, AgentOptions, Lab, LabError, Manifests, Mode, Outcome, Place, PodSpec, Probe, Protocol,
};

/// Name of the file with the objects that are no pods, among [`Scenario::files`].
const CLUSTER_FILE: &str = "cluster.yaml";

/// Name of the file with this pod (`namespace/name`).
#[must_use]
pub fn pod_file(pod: &str) -> String {
    format!("pod-{}.yaml", pod.replace('/', "-"))
}

/// A probe with its expected verdict, as `expect.yaml` has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Expectation {
    /// Pod `namespace/name`, or an address that is no pod's.
    pub from: String,
    /// Likewise.
    pub to: String,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Whether policy allows it, both ends counted.
    pub allowed: bool,
    /// Which policy says so.
    #[serde(default)]
    pub why: String,
}

/// A scenario as read.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its pods, those on the node's own network left out.
    pub pods: Vec<PodSpec>,
    /// All probes.
    pub expectations: Vec<Expectation>,
    /// The manifests: file name and text.
    pub files: BTreeMap<String, String>,
}

/// A probe whose outcome is not the expected one.
#[derive(Debug)]
pub struct Mismatch {
    /// What was expected.
    pub expectation: Expectation,
    /// What came.
    pub outcome: Outcome,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Expectation { from, to, port, protocol, allowed, why } = &self.expectation;
        let expected = if *allowed { "allowed" } else { "denied" };
        write!(f, "{from} -> {to} {protocol} {port}: {}, expected {expected}: {why}", self.outcome)
    }
}

/// The documents of a YAML text; empty ones left out.
fn documents(text: &str) -> Result<Vec<Value>, serde_norway::Error> {
    serde_norway::Deserializer::from_str(text)
        .map(Value::deserialize)
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}

impl Scenario {
    /// Reads `cluster.yaml`, `expect.yaml` and the policies (`policies/`, or `policies.yaml`).
    ///
    /// # Errors
    /// If a file cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Self, LabError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(LabError::io(format!("read {}", path.display())))
        };
        let mut policies = BTreeMap::new();
        let folder = dir.join("policies");
        let mut paths: Vec<PathBuf> = vec![dir.join("policies.yaml")];
        if folder.is_dir() {
            let entries = fs::read_dir(&folder)
                .map_err(LabError::io(format!("read {}", folder.display())))?;
            paths = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        }
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            policies.insert(name, read(&path)?);
        }
        let (cluster, expect) = (dir.join("cluster.yaml"), dir.join("expect.yaml"));
        Self::parse(&read(&cluster)?, &read(&expect)?, policies)
            .map_err(|reason| LabError::Scenario { path: dir.to_owned(), reason })
    }

    /// Understands the three parts of a scenario.
    ///
    /// # Errors
    /// If a part is not what it should be; says which and why.
    pub fn parse(
        cluster: &str,
        expect: &str,
        policies: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let expectations: Vec<Expectation> =
            serde_norway::from_str(expect).map_err(|error| format!("expect.yaml: {error}"))?;
        let objects = documents(cluster).map_err(|error| format!("cluster.yaml: {error}"))?;
        let needs_v6 = expectations
            .iter()
            .flat_map(|probe| [&probe.from, &probe.to])
            .any(|place| place.parse::<Ipv6Addr>().is_ok());
        let mut pods = Vec::new();
        let mut files = policies;
        let mut cluster = String::new();
        for mut object in objects {
            if object["kind"] == "Pod" && object["spec"]["hostNetwork"] != true {
                let mut pod = pod(&object)?;
                if needs_v6 {
                    add_v6(&mut pod);
                }
                object["status"]["podIPs"] =
                    pod.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
                files.insert(pod_file(&pod.name), yaml(&object)?);
                pods.push(pod);
            } else {
                cluster.push_str("---\n");
                cluster.push_str(&yaml(&object)?);
            }
        }
        files.insert(CLUSTER_FILE.into(), cluster);
        Ok(Self { pods, expectations, files })
    }

    /// Makes the pods and all that lies outside, and writes the manifests. Addresses that are no
    /// pod's are outside, node addresses as well: those are then other nodes'. The agent's own node
    /// has addresses that no scenario names, for what comes from there is always allowed.
    ///
    /// # Errors
    /// If the laboratory cannot be made.
    pub fn build(&self, mode: Mode) -> Result<(Lab, Manifests), LabError> {
        let mut lab = Lab::new(mode)?;
        let manifests = Manifests::new(lab.dir())?;
        lab.add_pods(&self.pods)?;
        let outside: BTreeSet<IpAddr> = self
            .expectations
            .iter()
            .flat_map(|probe| [&probe.from, &probe.to])
            .filter_map(|place| place.parse().ok())
            .collect();
        lab.add_outside(&outside.into_iter().collect::<Vec<_>>())?;
        for (name, text) in &self.files {
            manifests.write(name, text)?;
        }
        Ok((lab, manifests))
    }

    /// The probes, in the order of the expectations.
    #[must_use]
    pub fn probes(&self) -> Vec<Probe> {
        let place = |text: &str| match text.parse() {
            Ok(ip) => Place::Outside(ip),
            Err(_) => Place::pod(text),
        };
        self.expectations
            .iter()
            .map(|probe| {
                Probe::new(place(&probe.from), place(&probe.to), probe.port, probe.protocol)
                    .expecting(probe.allowed)
            })
            .collect()
    }

    /// Runs all probes and gives the outcomes in the order of the expectations.
    ///
    /// # Errors
    /// If a place does not exist.
    pub fn outcomes(&self, lab: &Lab) -> Result<Vec<Outcome>, LabError> {
        lab.probe(&self.probes())
    }

    /// Builds it, starts the agent, runs all probes.
    ///
    /// # Errors
    /// If the laboratory or the agent fails.
    pub fn run(&self, mode: Mode, options: AgentOptions) -> Result<Vec<Mismatch>, LabError> {
        let (lab, manifests) = self.build(mode)?;
        let agent = Agent::start(&lab, &manifests, options)?;
        let outcomes = self.outcomes(&lab)?;
        drop(agent);
        Ok(self.mismatches(&outcomes))
    }

    /// The probes that came out differently. A refusal is one always: policy drops.
    #[must_use]
    pub fn mismatches(&self, outcomes: &[Outcome]) -> Vec<Mismatch> {
        self.expectations
            .iter()
            .zip(outcomes)
            .filter(|(expected, outcome)| {
                let wanted = if expected.allowed { Outcome::Open } else { Outcome::NoAnswer };
                **outcome != wanted
            })
            .map(|(expectation, outcome)| Mismatch {
                expectation: expectation.clone(),
                outcome: outcome.clone(),
            })
            .collect()
    }
}

fn yaml(object: &Value) -> Result<String, String> {
    serde_norway::to_string(object).map_err(|error| format!("cluster.yaml: {error}"))
}

/// The manifest of one object with one label more, or another value of it.
///
/// # Errors
/// If it is no manifest of an object.
pub fn with_label(manifest: &str, key: &str, value: &str) -> Result<String, String> {
    let mut object: Value = serde_norway::from_str(manifest).map_err(|error| error.to_string())?;
    let metadata = object["metadata"].as_object_mut().ok_or("an object without metadata")?;
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    labels[key] = value.into();
    yaml(&object)
}

fn pod(object: &Value) -> Result<PodSpec, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&object["metadata"]["name"]).ok_or("cluster.yaml: a pod without a name")?;
    let namespace = text(&object["metadata"]["namespace"]).unwrap_or_else(|| "default".into());
    let mut pod = PodSpec::new(&format!("{namespace}/{name}"), &[]);
    let bad = |what: &str| format!("cluster.yaml: pod {namespace}/{name}: {what}");
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = text(value).ok_or_else(|| bad("a label that is no text"))?;
        pod.labels.insert(key.clone(), value);
    }
    let status = &object["status"];
    let listed = status["podIPs"].as_array().into_iter().flatten().map(|entry| &entry["ip"]);
    for ip in listed {
        let ip = ip.as_str().and_then(|ip| ip.parse().ok());
        pod.addresses.push(ip.ok_or_else(|| bad("a podIPs entry that is no address"))?);
    }
    if pod.addresses.is_empty() {
        let ip = status["podIP"].as_str().and_then(|ip| ip.parse().ok());
        pod.addresses.push(ip.ok_or_else(|| bad("no address"))?);
    }
    Ok(pod)
}

/// A second address for a pod that has IPv4 only: its IPv4 address in the last four octets.
fn add_v6(pod: &mut PodSpec) {
    if let [IpAddr::V4(v4)] = pod.addresses[..] {
        pod.addresses.push(IpAddr::V6(v6_of(v4)));
    }
}

fn v6_of(v4: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = v4.octets();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, pair(a, b), pair(c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "
kind: Namespace
metadata: {name: a}
---
kind: Pod
metadata: {name: p, namespace: a, labels: {app: p}}
spec: {containers: [{ports: [{containerPort: 80, name: web}]}]}
status: {podIP: 10.244.1.5}
---
kind: Pod
metadata: {name: host, namespace: a}
spec: {hostNetwork: true}
";

    #[test]
    fn a_scenario_is_understood() {
        let expect = "- {from: a/p, to: '2001:db8::1', port: 80, protocol: TCP, allowed: true}";
        let scenario = Scenario::parse(CLUSTER, expect, BTreeMap::new()).unwrap();
        assert_eq!(scenario.pods.len(), 1);
        let pod = &scenario.pods[0];
        assert_eq!(pod.addresses[1], "fd10:244::af4:105".parse::<IpAddr>().unwrap());
        assert_eq!(pod.labels["app"], "p");
        let cluster = documents(&scenario.files[CLUSTER_FILE]).unwrap();
        // The pod on the node's network is nobody's address, and yet an object.
        assert_eq!(cluster.len(), 2);
        let pod = &documents(&scenario.files[&pod_file("a/p")]).unwrap()[0];
        assert_eq!(pod["status"]["podIPs"][1]["ip"], "fd10:244::af4:105");
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["name"], "web");
        let labelled = with_label(&scenario.files[&pod_file("a/p")], "more", "yes").unwrap();
        let pod = &documents(&labelled).unwrap()[0];
        assert_eq!(
            (&pod["metadata"]["labels"]["more"], &pod["metadata"]["labels"]["app"]),
            (&json!("yes"), &json!("p"))
        );
        assert!(scenario.probes()[0].v6);
        assert_eq!(scenario.mismatches(&[Outcome::NoAnswer]).len(), 1);
        assert!(scenario.mismatches(&[Outcome::Open]).is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = Scenario::parse("kind: Pod", "[]", BTreeMap::new()).unwrap_err();
        assert_eq!(error, "cluster.yaml: a pod without a name");
        let error = Scenario::parse(CLUSTER, "- {from: a}", BTreeMap::new()).unwrap_err();
        assert!(error.starts_with("expect.yaml: "), "{error}");
    }
}
