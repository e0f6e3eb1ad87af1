//! A real cluster of two nodes: pods reach each other, and what happens to machines is survived.
//!
//! Run by `cargo xtask test --cluster`, which makes the assets first and names their folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to end, also in its helpers")]

use std::{env, path::PathBuf, process::Command, time::Duration};

use enforcer_cluster::{Assets, Cluster, ClusterError, Layout, Options, Quiet, end_on_signals};

/// A cluster that is removed whatever becomes of the test.
struct Guard(Cluster);

impl Guard {
    fn up(options: Options) -> Self {
        end_on_signals().unwrap();
        let folder = env::var_os("ENFORCER_CLUSTER")
            .map(PathBuf::from)
            .expect("the tests of the cluster are run by `cargo xtask test --cluster`");
        let assets = Assets::find(&Layout::new(folder)).unwrap();
        Self(Cluster::up(&assets, options, &mut Quiet).unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Within a panic another one would end the program; the next start says what is left.
        if let Err(error) = Cluster::down(self.0.layout()) {
            eprintln!("the cluster is not removed: {error}");
        }
    }
}

/// A pod of the workload's image on a node.
fn pod(name: &str, node: &str, arguments: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  \
         containers:\n  - name: main\n    image: localhost/workload:1\n    \
         imagePullPolicy: Never\n    args: [{arguments}]\n---\n"
    )
}

fn wait_until_ready(cluster: &Cluster, pods: &[&str]) {
    let mut arguments = vec!["wait", "--for=condition=Ready", "--timeout=120s"];
    arguments.extend(pods);
    cluster.ask(&arguments).unwrap();
}

fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.ask(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).unwrap()
}

/// Runs the client in a pod; gives whether every try was answered, and by whom.
fn connect(cluster: &Cluster, from: &str, to: &str, more: &[&str]) -> (bool, String) {
    let output = cluster
        .kubectl()
        .args(["exec", from, "--", "/workload", "connect", to, "--for", "1", "--rate", "5"])
        .args(more)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_cluster_of_two_nodes_works_and_survives_what_happens_to_machines() {
    let guard = Guard::up(Options { nodes: 2, ..Options::default() });
    let cluster = &guard.0;
    assert_eq!(cluster.nodes(), ["node1", "node2"]);

    // There is one at a time, and it is found.
    let assets = Assets::find(cluster.layout()).unwrap();
    let second = Cluster::up(&assets, Options::default(), &mut Quiet).unwrap_err();
    assert!(matches!(second, ClusterError::AlreadyUp), "{second}");
    assert_eq!(Cluster::running(cluster.layout()).unwrap().options(), cluster.options());

    // Pods across nodes, by TCP and UDP.
    let pods = pod("server", "node2", "serve, --port, '80'") + &pod("client", "node1", "idle");
    cluster.apply(&pods).unwrap();
    wait_until_ready(cluster, &["pod/server", "pod/client"]);
    let target = address(cluster, "server") + ":80";
    for more in [&[][..], &["--udp"], &["--hold"]] {
        let (all, lines) = connect(cluster, "client", &target, more);
        assert!(all && lines.contains("\"server\":\"server\""), "{more:?}: {lines}");
    }
    // The client can tell when nobody answers: the test above could have failed.
    let nobody = address(cluster, "server") + ":81";
    let (all, lines) = connect(cluster, "client", &nobody, &[]);
    assert!(!all && lines.contains("\"ok\":0"), "{lines}");

    // Without an API server pods go on; then it comes back with what it knew.
    cluster.stop_api_server().unwrap();
    cluster.ask(&["get", "pods"]).unwrap_err();
    let alone = Command::new("nsenter")
        .arg("--net=/run/netns/enfk-control")
        .args(["curl", "--silent", "--max-time", "5", &format!("telnet://{target}")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&alone.stdout).trim(), "server");
    cluster.start_api_server().unwrap();
    cluster.ask(&["get", "pod", "server"]).unwrap();

    // A node that lost its power comes back with its disk and nothing else.
    cluster.run_in("node2", &["touch", "/var/on-disk", "/run/in-memory"]).unwrap();
    cluster.run_in("node2", &["mkdir", "/sys/fs/bpf/pinned"]).unwrap();
    cluster.reboot_node("node2").unwrap();
    cluster.run_in("node2", &["test", "-e", "/var/on-disk"]).unwrap();
    cluster.run_in("node2", &["test", "!", "-e", "/run/in-memory"]).unwrap();
    cluster.run_in("node2", &["test", "!", "-e", "/sys/fs/bpf/pinned"]).unwrap();
    // The pod's container is started again, with a new sandbox and so perhaps a new address.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let target = address(cluster, "server") + ":80";
        let (all, lines) = connect(cluster, "client", &target, &[]);
        if all && lines.contains("\"server\":\"server\"") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no way to the pod after a reboot: {lines}");
    }
    let other = cluster.run_in("node9", &["true"]).unwrap_err();
    assert!(matches!(other, ClusterError::NoSuchNode { .. }), "{other}");

    // All is removed, and removing it again is no error.
    let layout = cluster.layout().clone();
    assert!(Cluster::down(&layout).unwrap());
    assert!(!Cluster::down(&layout).unwrap());
    assert!(!std::path::Path::new("/sys/class/net/enfk-host").exists());
    assert!(!layout.run().exists());
}
