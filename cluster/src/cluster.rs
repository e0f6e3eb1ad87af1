//! The cluster that runs: started, used, disturbed and removed.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Assets, ClusterError, Layout, Options, Progress, cgroups, control_plane, interrupt, kubeconfig,
    network, node, node_config,
    pki::Pki,
    plan::{CONTROL, MAX_NODES, NODE_PREFIX, NodePlan},
    processes, program,
};

/// The API server is ready after a few seconds; a busy machine is given time.
const API_LIMIT: Duration = Duration::from_secs(120);
/// Nodes are, too.
const NODE_LIMIT: Duration = Duration::from_secs(180);

/// The cluster that runs on this machine. Dropping this leaves it running: see [`Cluster::down`].
#[derive(Clone, Debug)]
pub struct Cluster {
    layout: Layout,
    options: Options,
}

impl Cluster {
    /// Starts a cluster of these assets and waits until all its nodes are ready. If that fails,
    /// all is removed again but the logs.
    ///
    /// # Errors
    /// If one is up already, or something does not start.
    pub fn up(
        assets: &Assets,
        options: Options,
        progress: &mut dyn Progress,
    ) -> Result<Self, ClusterError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(ClusterError::NotRoot);
        }
        if options.nodes > MAX_NODES {
            return Err(ClusterError::NodeCount(options.nodes));
        }
        if !network::namespaces().is_empty() {
            return Err(ClusterError::AlreadyUp);
        }
        let cluster = Self { layout: assets.layout().clone(), options };
        let Err(error) = cluster.start(progress) else { return Ok(cluster) };
        // The first error is the one to tell.
        drop(stop_all());
        // A signal also reaches programs that run just then, and makes them fail.
        interrupt::check()?;
        Err(error)
    }

    /// The cluster that was started with this layout and still runs.
    ///
    /// # Errors
    /// If there is none.
    pub fn running(layout: &Layout) -> Result<Self, ClusterError> {
        let path = layout.options();
        if network::identity(CONTROL).is_none() || !path.is_file() {
            return Err(ClusterError::NotUp);
        }
        let text = fs::read_to_string(&path).map_err(ClusterError::file("read", &path))?;
        let options = serde_json::from_str(&text).map_err(|error| ClusterError::Content {
            path: path.display().to_string(),
            reason: error.to_string(),
            remedy: "remove the cluster with `cargo xtask cluster down`",
        })?;
        Ok(Self { layout: layout.clone(), options })
    }

    /// Removes whatever runs of a cluster, whole or not, and what it has written. Tells whether
    /// there was anything.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn down(layout: &Layout) -> Result<bool, ClusterError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(ClusterError::NotRoot);
        }
        let run = layout.run();
        let was_there = !network::namespaces().is_empty() || run.exists();
        stop_all()?;
        remove_run(&run)?;
        Ok(was_there)
    }

    fn start(&self, progress: &mut dyn Progress) -> Result<(), ClusterError> {
        let (layout, options) = (&self.layout, self.options);
        let begun = Instant::now();
        progress.step("starting the control plane");
        remove_run(&layout.run())?;
        let pki = Pki::make(layout, options)?;
        let text = serde_json::json!(options).to_string();
        fs::write(layout.options(), text)
            .map_err(ClusterError::file("write", &layout.options()))?;
        kubeconfig::write(&pki, "admin", &layout.kubeconfig())?;
        network::make_control(options.families)?;
        control_plane::start_etcd(layout)?;
        control_plane::start_api_server(layout, options)?;
        // Beside the API server, which they wait for.
        for node in options.node_plans() {
            node::install(layout, node, options)?;
            node::start(layout, node, options)?;
        }
        self.wait_for_api()?;
        control_plane::start_controllers(layout, options)?;
        progress.detail(&format!("ready after {:.1} s", begun.elapsed().as_secs_f64()));
        for node in options.node_plans() {
            self.apply(&node_config::object(node).to_string())?;
        }
        if options.nodes > 0 {
            progress.step("waiting for the nodes");
            self.wait_for_nodes()?;
        }
        self.wait_for_service_account()?;
        progress.detail(&format!("ready after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Where its files are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What it was started with.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// The nodes' names.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.options.node_plans().map(NodePlan::name).collect()
    }

    /// kubectl with the administrator's rights.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.layout.program("kubectl"));
        command.arg("--kubeconfig").arg(self.layout.kubeconfig()).env_remove("KUBECONFIG");
        command
    }

    /// Runs kubectl and gives what it printed.
    ///
    /// # Errors
    /// If it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, ClusterError> {
        let what = format!("kubectl {}", arguments.join(" "));
        program::capture(self.kubectl().args(arguments), &what)
    }

    /// Applies manifests (YAML or JSON, several documents as one likes).
    ///
    /// # Errors
    /// If the API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<(), ClusterError> {
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "--filename", "-"]);
        program::feed(&mut command, manifests, "kubectl apply").map(drop)
    }

    /// A command that runs in a node, in all its namespaces.
    ///
    /// # Errors
    /// If there is no such node or it does not run.
    pub fn exec(&self, node: &str, words: &[&str]) -> Result<Command, ClusterError> {
        node::enter(self.node(node)?, words)
    }

    /// Runs a command in a node and gives what it printed.
    ///
    /// # Errors
    /// If there is no such node, it does not run, or the command fails.
    pub fn run_in(&self, node: &str, words: &[&str]) -> Result<String, ClusterError> {
        let what = format!("`{}` in {node}", words.join(" "));
        program::capture(&mut self.exec(node, words)?, &what)
    }

    /// Imports an image archive into every node that runs. One in [`Layout::images`] is imported
    /// by every node when it starts.
    ///
    /// # Errors
    /// If the archive cannot be read or a node does not take it.
    pub fn import_image(&self, archive: &Path) -> Result<(), ClusterError> {
        for node in self.options.node_plans() {
            let name = node.name();
            let file = fs::File::open(archive).map_err(ClusterError::file("open", archive))?;
            let mut command =
                node::enter(node, &["ctr", "--namespace", "k8s.io", "images", "import", "-"])?;
            program::capture_with(
                command.stdin(file),
                &format!("importing {} in {name}", archive.display()),
            )?;
        }
        Ok(())
    }

    /// Stops the API server. Nodes and pods go on without.
    ///
    /// # Errors
    /// If it does not end.
    pub fn stop_api_server(&self) -> Result<(), ClusterError> {
        control_plane::stop_api_server(&self.layout)
    }

    /// Starts the API server after [`Self::stop_api_server`] and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_api_server(&self) -> Result<(), ClusterError> {
        if control_plane::missing(&self.layout).iter().any(|name| name == "kube-apiserver") {
            control_plane::start_api_server(&self.layout, self.options)?;
        }
        self.wait_for_api()
    }

    /// Ends a node as if it lost its power: all processes, interfaces, what is in its memory.
    ///
    /// # Errors
    /// If there is no such node, or something of it stays.
    pub fn stop_node(&self, name: &str) -> Result<(), ClusterError> {
        let node = self.node(name)?;
        node::kill(&node.netns())?;
        network::unplug(node)
    }

    /// Starts a node after [`Self::stop_node`], with what it has on its disk.
    ///
    /// # Errors
    /// If there is no such node, or it does not start.
    pub fn start_node(&self, name: &str) -> Result<(), ClusterError> {
        let node = self.node(name)?;
        if processes::node_init(&node.netns()).is_some() {
            return Ok(());
        }
        node::start(&self.layout, node, self.options)
    }

    /// Stops a node, starts it, and waits until it is ready again.
    ///
    /// # Errors
    /// As [`Self::stop_node`], [`Self::start_node`] and [`Self::wait_for_nodes`].
    pub fn reboot_node(&self, name: &str) -> Result<(), ClusterError> {
        let boot_id = |cluster: &Self| {
            cluster.ask(&[
                "get",
                "node",
                name,
                "-o",
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].lastHeartbeatTime}",
            ])
        };
        let before = boot_id(self)?;
        self.stop_node(name)?;
        self.start_node(name)?;
        // The API goes on saying that it is ready until kubelet says something else.
        program::poll(
            &format!("a sign of life of {name}"),
            NODE_LIMIT,
            || self.hint(),
            || Ok((boot_id(self)? != before).then_some(())),
        )?;
        self.wait_for_nodes()
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    /// If it does not in time.
    pub fn wait_for_api(&self) -> Result<(), ClusterError> {
        program::poll(
            "a ready API server",
            API_LIMIT,
            || self.hint(),
            || Ok(self.ask(&["get", "--raw", "/readyz"]).is_ok().then_some(())),
        )
    }

    /// Waits until all nodes are ready.
    ///
    /// # Errors
    /// If they are not in time.
    pub fn wait_for_nodes(&self) -> Result<(), ClusterError> {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        program::poll(
            "readiness of all nodes",
            NODE_LIMIT,
            || self.hint(),
            || {
                let states = self.ask(&["get", "nodes", "-o", path]).unwrap_or_default();
                let ready = states.split_whitespace().filter(|state| *state == "True").count();
                Ok((ready == usize::from(self.options.nodes)).then_some(()))
            },
        )
    }

    /// No pod can be made before the controller manager has made its account.
    fn wait_for_service_account(&self) -> Result<(), ClusterError> {
        program::poll(
            "the account `default`",
            API_LIMIT,
            || self.hint(),
            || Ok(self.ask(&["get", "serviceaccount", "default"]).is_ok().then_some(())),
        )
    }

    /// What does not run, and where the logs are.
    fn hint(&self) -> String {
        let mut missing = control_plane::missing(&self.layout);
        for node in self.options.node_plans() {
            let name = node.name();
            missing.extend(node::missing(node).iter().map(|program| format!("{name}'s {program}")));
        }
        let logs = format!(
            "see the logs in {} and {}",
            self.layout.logs().display(),
            self.layout.node("node*").join("log").display()
        );
        if missing.is_empty() {
            logs
        } else {
            format!("not running: {}; {logs}", missing.join(", "))
        }
    }

    fn node(&self, name: &str) -> Result<NodePlan, ClusterError> {
        self.options.node_plans().find(|node| node.name() == name).ok_or_else(|| {
            ClusterError::NoSuchNode { name: name.to_owned(), present: self.nodes().join(", ") }
        })
    }
}

/// Ends all processes and removes all namespaces, links and control groups.
fn stop_all() -> Result<(), ClusterError> {
    for netns in network::namespaces() {
        if netns == CONTROL {
            processes::kill_all(&netns, |_| true)?;
            network::remove(&netns)?;
        } else {
            node::kill(&netns)?;
        }
    }
    network::remove_host_link()?;
    cgroups::remove(NODE_PREFIX)
}

/// Removes what a cluster has written.
fn remove_run(run: &Path) -> Result<(), ClusterError> {
    if !run.exists() {
        return Ok(());
    }
    // Nodes mount in their own namespaces. If something is mounted here nevertheless, removing
    // files would remove those of the machine.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let run_text = run.display().to_string();
    if mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| at.starts_with(&run_text)))
    {
        return Err(ClusterError::Left {
            what: run_text.clone(),
            hint: format!("unmount what is mounted below {run_text}, then repeat"),
        });
    }
    fs::remove_dir_all(run).map_err(ClusterError::file("remove", run))
}
