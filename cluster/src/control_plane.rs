//! etcd, API server, controller manager and scheduler, in the control plane's network namespace.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    time::Duration,
};

use crate::{
    ClusterError, Layout, Options, kubeconfig, network,
    pki::Pki,
    plan::{API_ADDRESS, API_PORT, CONTROL},
    processes, program,
};

/// Name of etcd's program.
const ETCD: &str = "etcd";
/// Name of the API server's program.
const API_SERVER: &str = "kube-apiserver";
/// An orderly end takes a second or two.
const STOP: Duration = Duration::from_secs(15);
/// Of the namespace's own loopback: what listens on the host is not met.
const ETCD_CLIENTS: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// Starts etcd; its data is below the cluster's folder.
pub(crate) fn start_etcd(layout: &Layout) -> Result<(), ClusterError> {
    let data = layout.run().join("etcd");
    fs::create_dir_all(&data).map_err(ClusterError::file("create", &data))?;
    start(layout, ETCD, |add| {
        add("--name", "cluster");
        add("--data-dir", &data.display().to_string());
        add("--listen-client-urls", ETCD_CLIENTS);
        add("--advertise-client-urls", ETCD_CLIENTS);
        add("--listen-peer-urls", ETCD_PEERS);
        add("--initial-advertise-peer-urls", ETCD_PEERS);
        add("--initial-cluster", &format!("cluster={ETCD_PEERS}"));
        add("--log-level", "warn");
        // Nobody misses the data after a crash of the machine.
        add("--unsafe-no-fsync", "true");
    })
}

/// Starts the API server.
pub(crate) fn start_api_server(layout: &Layout, options: Options) -> Result<(), ClusterError> {
    let pki = Pki::of(layout);
    start(layout, API_SERVER, |add| {
        add("--bind-address", &API_ADDRESS.to_string());
        add("--advertise-address", &API_ADDRESS.to_string());
        add("--secure-port", &API_PORT.to_string());
        add("--etcd-servers", ETCD_CLIENTS);
        add("--service-cluster-ip-range", &options.service_ranges());
        add("--authorization-mode", "Node,RBAC");
        add("--enable-admission-plugins", "NodeRestriction");
        add("--allow-privileged", "true");
        add("--profiling", "false");
        // One API server: the address is removed with its lease and does not outlive it.
        add("--endpoint-reconciler-type", "lease");
        // Servers before 1.36 take ipBlocks less strictly, and what they have stored stays.
        add("--feature-gates", "StrictIPCIDRValidation=false");
        add("--service-account-issuer", "https://kubernetes.default.svc.cluster.local");
        add("--kubelet-preferred-address-types", "InternalIP");
        for (flag, file) in [
            ("--client-ca-file", pki.certificate("ca")),
            ("--tls-cert-file", pki.certificate("apiserver")),
            ("--tls-private-key-file", pki.key("apiserver")),
            ("--kubelet-client-certificate", pki.certificate("kubelet-client")),
            ("--kubelet-client-key", pki.key("kubelet-client")),
            ("--kubelet-certificate-authority", pki.certificate("ca")),
            ("--service-account-key-file", pki.token_public_key()),
            ("--service-account-signing-key-file", pki.key("service-account")),
        ] {
            add(flag, &file.display().to_string());
        }
    })
}

/// Starts the controller manager and the scheduler.
pub(crate) fn start_controllers(layout: &Layout, options: Options) -> Result<(), ClusterError> {
    let pki = Pki::of(layout);
    let config = |user: &str| {
        let path = layout.pki().join(format!("{user}.kubeconfig"));
        kubeconfig::write(&pki, user, &path)?;
        Ok::<_, ClusterError>(path.display().to_string())
    };
    let (manager, scheduler) = (config("controller-manager")?, config("scheduler")?);
    start(layout, "kube-controller-manager", |add| {
        add("--bind-address", "127.0.0.1");
        add("--kubeconfig", &manager);
        add("--leader-elect", "false");
        add("--use-service-account-credentials", "true");
        // Nodes come with their ranges: see `Cluster::up`.
        add("--allocate-node-cidrs", "false");
        add("--cluster-cidr", &options.pod_ranges());
        add("--service-cluster-ip-range", &options.service_ranges());
        // A node that is gone is seen to be gone soon.
        add("--node-monitor-period", "2s");
        add("--node-monitor-grace-period", "20s");
        for (flag, file) in [
            ("--service-account-private-key-file", pki.key("service-account")),
            ("--root-ca-file", pki.certificate("ca")),
            ("--cluster-signing-cert-file", pki.certificate("ca")),
            ("--cluster-signing-key-file", pki.key("ca")),
        ] {
            add(flag, &file.display().to_string());
        }
    })?;
    start(layout, "kube-scheduler", |add| {
        add("--bind-address", "127.0.0.1");
        add("--kubeconfig", &scheduler);
        add("--leader-elect", "false");
    })
}

/// Stops the API server and waits until it is gone.
pub(crate) fn stop_api_server(layout: &Layout) -> Result<(), ClusterError> {
    let path = layout.program(API_SERVER).display().to_string();
    processes::stop_all(CONTROL, STOP, |process| process.program == path)
}

/// Starts a program with flags in the control plane's namespace.
fn start(
    layout: &Layout,
    name: &str,
    flags: impl FnOnce(&mut dyn FnMut(&str, &str)),
) -> Result<(), ClusterError> {
    let logs = layout.logs();
    fs::create_dir_all(&logs).map_err(ClusterError::file("create", &logs))?;
    let mut command: Vec<OsString> = network::enter(CONTROL).map(OsString::from).into();
    command.push(layout.program(name).into());
    flags(&mut |flag, value| command.push(format!("{flag}={value}").into()));
    let command: Vec<&OsStr> = command.iter().map(OsString::as_os_str).collect();
    program::detach(&command, &[], &log(&logs, name))
}

fn log(logs: &Path, name: &str) -> std::path::PathBuf {
    logs.join(format!("{name}.log"))
}

/// Which of the programs do not run, of those that a cluster of these options has.
pub(crate) fn missing(layout: &Layout) -> Vec<String> {
    let running: Vec<String> =
        processes::in_namespace(CONTROL).into_iter().map(|process| process.program).collect();
    [ETCD, API_SERVER, "kube-controller-manager", "kube-scheduler"]
        .into_iter()
        .filter(|name| !running.contains(&layout.program(name).display().to_string()))
        .map(str::to_owned)
        .collect()
}
