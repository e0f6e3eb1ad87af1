//! The cluster that the tests share, the agents in it, and how to ask them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use enforcer_cluster::{Assets, Cluster, ClusterError, Layout, Options, Quiet, end_on_signals};
use serde_json::{Value, json};

use crate::poll;

/// The namespace of the manifests.
pub(crate) const SYSTEM: &str = "enforcer-system";
/// What may take its time on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The cluster, and what the tests need to know.
pub(crate) struct World {
    /// The cluster itself.
    pub(crate) cluster: Cluster,
    /// Whether the long runs are asked for.
    pub(crate) long: bool,
    /// The daemon's image.
    image: PathBuf,
    /// A cluster that was there before stays.
    is_ours: bool,
}

/// A container whose node and id are known: it can be used without an API server.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// The node's name.
    pub(crate) node: String,
    /// The runtime's name of it.
    pub(crate) id: String,
}

/// The agent of a node.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// Its pod.
    pub(crate) pod: String,
    /// Its container.
    pub(crate) container: Container,
}

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// Whether the command's exit code was 0.
    pub(crate) is_yes: bool,
    /// Its JSON.
    pub(crate) json: Value,
}

impl World {
    /// Starts a cluster, or takes the one that is up.
    pub(crate) fn up(options: Options) -> Self {
        end_on_signals().unwrap();
        let (image, long) = (folder("ENFORCER_IMAGE"), env::var_os("ENFORCER_LONG").is_some());
        if let Some(cluster) = running() {
            return Self { cluster, long, image, is_ours: false };
        }
        let assets = Assets::find(&layout()).unwrap();
        let cluster = Cluster::up(&assets, options, &mut Quiet).unwrap();
        Self { cluster, long, image, is_ours: true }
    }

    /// One number for the usual run and another for the long one.
    pub(crate) fn amount(&self, usual: usize, long: usize) -> usize {
        if self.long { long } else { usual }
    }

    /// The text of a checked-in manifest.
    pub(crate) fn manifest(name: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
        fs::read_to_string(folder.join(name)).unwrap()
    }

    /// Applies a checked-in manifest of the agent, with the image on the nodes, and waits until all
    /// agents are its.
    pub(crate) fn roll_out(&self, manifest: &str) {
        self.cluster.apply(manifest).unwrap();
        self.wait_for_rollout();
    }

    /// Waits until the last change of the DaemonSet has reached all nodes.
    pub(crate) fn wait_for_rollout(&self) {
        let limit = "--timeout=240s";
        self.cluster
            .ask(&["rollout", "status", "daemonset/enforcer", "-n", SYSTEM, limit])
            .unwrap();
        poll::until("an agent a node, and no other", PATIENCE, || {
            let count = self.agent_pods().len();
            poll::holds(count == self.cluster.nodes().len(), || format!("there are {count}"))
        });
    }

    /// Puts the daemon's image on all nodes.
    pub(crate) fn import_image(&self) {
        self.cluster.import_image(&self.image).unwrap();
    }

    /// Takes the agent away from all nodes but one. What is in force there stays.
    pub(crate) fn keep_agent_on(&self, node: &str) {
        self.select_nodes(&json!(node));
        poll::until("nodes without an agent", PATIENCE, || {
            let count = self.agent_pods().len();
            poll::holds(count == 1, || format!("there are {count} agents"))
        });
    }

    /// Lets all nodes have an agent again.
    pub(crate) fn let_agents_back(&self) {
        self.select_nodes(&Value::Null);
        self.wait_for_rollout();
    }

    fn select_nodes(&self, node: &Value) {
        let selector = json!({"nodeSelector": {"kubernetes.io/hostname": node}});
        let patch = json!({"spec": {"template": {"spec": selector}}}).to_string();
        self.cluster.ask(&["patch", "daemonset/enforcer", "-n", SYSTEM, "-p", &patch]).unwrap();
    }

    /// Installs the agent with its usual settings, if it is not there.
    pub(crate) fn ensure_agents(&self) {
        if self.cluster.ask(&["get", "daemonset/enforcer", "-n", SYSTEM]).is_err() {
            self.import_image();
            self.roll_out(&Self::manifest("enforcer.yaml"));
        }
    }

    fn agent_pods(&self) -> Vec<Value> {
        let label = "app.kubernetes.io/name=enforcer";
        self.objects(&["get", "pods", "-n", SYSTEM, "-l", label])
    }

    /// The objects that kubectl lists.
    pub(crate) fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.cluster.ask(&[arguments, &["-o", "json"]].concat()).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The agents, in the order of their nodes.
    pub(crate) fn agents(&self) -> Vec<Agent> {
        let mut agents: Vec<Agent> = self
            .agent_pods()
            .iter()
            .filter_map(|pod| {
                let container = container_of(pod)?;
                Some(Agent { pod: pod["metadata"]["name"].as_str()?.to_owned(), container })
            })
            .collect();
        agents.sort_by(|a, b| a.container.node.cmp(&b.container.node));
        agents
    }

    /// A node's agent.
    pub(crate) fn agent(&self, node: &str) -> Agent {
        let found = self.agents().into_iter().find(|agent| agent.container.node == node);
        found.unwrap_or_else(|| panic!("{node} has no agent"))
    }

    /// A node's agent as the runtime knows it, which needs no API server.
    pub(crate) fn agent_by_runtime(&self, node: &str) -> Result<Agent, String> {
        const FIND: &str = "ctr -n k8s.io tasks ls | while read -r id pid state; do \
             tr '\\0' ' ' < /proc/$pid/cmdline 2> /dev/null | grep -q '^/enforcer agent' && \
             echo $id; done; true";
        let found = self.cluster.run_in(node, &["sh", "-c", FIND]).unwrap();
        let id = found.lines().next().ok_or("no agent runs")?.to_owned();
        let container = Container { node: node.to_owned(), id };
        Ok(Agent { pod: format!("the agent of {node}"), container })
    }

    /// A program in a container's network and file system. Without the API server, and without the
    /// runtime's way of running programs, which may lose what one writes just before its end.
    pub(crate) fn command(&self, container: &Container, words: &[&str]) -> Command {
        const ENTER: &str = "ctr -n k8s.io tasks ls | { while read -r id pid state; do \
             [ \"$id\" = \"$0\" ] && process=$pid; done; echo $process; }";
        let script =
            format!("exec nsenter --target \"$({ENTER})\" --mount --net --root --wd -- \"$@\"");
        let shell = ["sh", "-c", &script, &container.id];
        self.cluster.exec(&container.node, &[&shell, words].concat()).unwrap()
    }

    /// Runs a program in a container; gives whether its exit code was 0, its output and what it had
    /// to say about errors.
    pub(crate) fn exec(&self, container: &Container, words: &[&str]) -> (bool, String, String) {
        let output = self.command(container, words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    /// Asks an agent for its status.
    pub(crate) fn status(&self, agent: &Agent, flags: &[&str]) -> Status {
        self.try_status(agent, flags).unwrap_or_else(|error| panic!("{agent:?}: {error}"))
    }

    /// Like [`Self::status`], where there may be no answer.
    pub(crate) fn try_status(&self, agent: &Agent, flags: &[&str]) -> Result<Status, String> {
        let words = [&["/enforcer", "status", "-o", "json"], flags].concat();
        let (is_yes, out, errors) = self.exec(&agent.container, &words);
        match serde_json::from_str(&out) {
            Ok(json) => Ok(Status { is_yes, json }),
            Err(_) => Err(format!("{out}{errors}")),
        }
    }

    /// Waits until everything that was written before is in force on all nodes.
    pub(crate) fn barrier(&self) {
        for agent in self.agents() {
            let status = self.status(&agent, &["--wait=60"]);
            assert!(status.is_yes, "{}: {}", agent.pod, status.json["failure"]);
        }
    }

    /// Applies objects and waits until they are in force on all nodes.
    pub(crate) fn enforce(&self, manifests: &str) {
        self.cluster.apply(manifests).unwrap();
        self.barrier();
    }

    /// The number of a container's first process, as its node counts.
    pub(crate) fn process(&self, container: &Container) -> u32 {
        let tasks =
            self.cluster.run_in(&container.node, &["ctr", "-n", "k8s.io", "tasks", "ls"]).unwrap();
        let line = tasks.lines().find(|line| line.starts_with(&container.id));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{tasks}"))
    }

    /// A field of `/proc/<pid>/status` of a container's first process.
    pub(crate) fn process_field(&self, container: &Container, field: &str) -> String {
        let path = format!("/proc/{}/status", self.process(container));
        let text = self.cluster.run_in(&container.node, &["cat", &path]).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
    }

    /// Makes good what a test that failed may have left: the next one is to tell of its own matter.
    pub(crate) fn repair(&self) {
        let nodes = self.cluster.nodes();
        let steps = || -> Result<(), ClusterError> {
            self.cluster.start_api_server()?;
            for node in &nodes {
                self.cluster.start_node(node)?;
                let words = ["sh", "-c", "nft delete table ip away 2> /dev/null; true"];
                self.cluster.run_in(node, &words)?;
            }
            self.cluster.wait_for_nodes()
        };
        if let Err(error) = steps() {
            println!("# the cluster cannot be repaired: {error}");
        // The next test installs them anew.
        } else if let Err(error) = self.cluster.ask(&["delete", "daemonset", "--all", "-n", SYSTEM])
        {
            println!("# the agents cannot be removed: {error}");
        }
    }

    /// Says what there is, for the reader of a failure.
    pub(crate) fn explain(&self) {
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "networkpolicies", "-A"],
            &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=enforcer", "--prefix"],
        ] {
            match self.cluster.ask(arguments) {
                Ok(text) => println!("# kubectl {}\n{text}", arguments.join(" ")),
                Err(error) => println!("# {error}"),
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        // The next start says what is left, and how to remove it.
        if let Err(error) = Cluster::down(self.cluster.layout()) {
            println!("the cluster is not removed: {error}");
        }
    }
}

/// The cluster that is up, if there is one.
pub(crate) fn running() -> Option<Cluster> {
    Cluster::running(&layout()).ok()
}

fn layout() -> Layout {
    Layout::new(folder("ENFORCER_CLUSTER"))
}

fn folder(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_else(|| {
        panic!("{name} is not set: run these tests by `cargo xtask test --cluster`")
    })
}

/// The first container of a pod object that runs.
pub(crate) fn container_of(pod: &Value) -> Option<Container> {
    let status = &pod["status"]["containerStatuses"][0];
    status["state"]["running"].as_object()?;
    let id = status["containerID"].as_str()?.strip_prefix("containerd://")?;
    Some(Container { node: pod["spec"]["nodeName"].as_str()?.to_owned(), id: id.to_owned() })
}
