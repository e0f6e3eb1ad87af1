//! What a hold is judged by, with the real kernel half in a namespace.

use std::{fs, path::Path};

use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::{
    agent::{
        core::Parts,
        dns::ClusterDns,
        found::{Found, Look},
    },
    cli::{StartMode, args::DirArgs},
    cluster::{Enforcement, NodePortAddresses, event::ObjectKey},
    dataplane::{
        self, AttachMode, FlowEvents, Kernel, KernelConfig,
        netlink::{
            DiscoveryEvent, tcx,
            testing::{Namespace, block_on, ifindex, sh},
        },
    },
    flow::{
        nodes::Nodes,
        reading::Reading,
        ring::FlowRing,
        thread::{Clocks, FlowsThread},
    },
    gate::Network,
    source::{Source, manifests::ManifestSource},
};

fn sandbox() -> Sandbox {
    Sandbox {
        id: "1".into(),
        pod: ObjectKey { namespace: "a".into(), name: "p".into() },
        uid: "u".into(),
        addresses: Vec::new(),
        network: Network::Unknown,
    }
}

fn hold(patience: Duration) -> (Hold, oneshot::Receiver<Held>) {
    let (answer, held) = oneshot::channel();
    let since = Instant::now();
    (Hold { sandbox: sandbox(), since, until: since + patience, answer }, held)
}

#[test]
fn a_closed_interface_waits_for_the_object_only_a_while() {
    let (hold, _held) = hold(Duration::from_millis(1400));
    let (since, until) = (hold.since, hold.until);
    let (soon, later) = (since + Duration::from_millis(10), since + Duration::from_millis(600));
    assert_eq!(hold.decide(&SandboxState::Bound, true, soon), Some(Held::Armed));
    assert_eq!(hold.decide(&SandboxState::Bound, false, later), None);
    assert_eq!(hold.decide(&SandboxState::Starting, true, soon), None);
    assert_eq!(hold.next_look(soon), since + FOR_THE_OBJECT);
    assert_eq!(hold.decide(&SandboxState::Starting, true, later), Some(Held::Armed));
    assert_eq!(hold.decide(&SandboxState::Starting, false, later), None);
    assert_eq!(hold.decide(&SandboxState::Unknown, false, later), None);
    assert_eq!(hold.next_look(later), until);
    for state in [
        SandboxState::Unknown,
        SandboxState::Starting,
        SandboxState::Bound,
        SandboxState::Unenforceable("ipvlan".into()),
    ] {
        let decided = hold.decide(&state, false, until);
        assert!(matches!(decided, Some(Held::NotInTime(_))), "{state:?}");
    }
}

/// The network plugins' word that the pod has this interface.
fn cache(dir: &Path, interface: &str, address: &str) {
    let text = format!(
        r#"{{"kind":"cniCacheV1","cniArgs":[["K8S_POD_NAMESPACE","a"],["K8S_POD_NAME","p"],
            ["K8S_POD_UID","u"]],"result":{{"interfaces":[{{"name":"{interface}"}}],
            "ips":[{{"address":"{address}/24"}}]}}}}"#
    );
    fs::write(dir.join(format!("net-{interface}")), text).unwrap();
}

/// An agent that has found what is in this namespace, and brought its first plan into force.
async fn agent(dir: &Path) -> (Core, Discovery) {
    let mut discovery = Discovery::open().unwrap();
    let mut found = Found::default();
    while found.take(discovery.next().await.unwrap()) == Look::Going {}
    let (kernel, rings) = Kernel::open(&KernelConfig {
        bpf_dir: None,
        state_dir: None,
        attach: AttachMode::default(),
        conntrack_entries: 1024,
        service_entries: 1024,
        class_key: [1, 2],
    })
    .unwrap();
    let reading = Reading::new(FlowRing::new(16), Duration::ZERO);
    let clocks = Clocks { events: dataplane::monotonic, wall_offset: || Duration::ZERO };
    let mut core = Core::new(Parts {
        kernel,
        source: Source::Manifests(Box::new(ManifestSource::new(dir.join("manifests")).unwrap())),
        cni: Some(CniCache::new(&dir.join("cni"))),
        flows: FlowsThread::start(reading, rings, clocks).unwrap(),
        nodes: Nodes::default(),
        wall_offset: Duration::ZERO,
        node: None,
        start: StartMode::Closed,
        dns: ClusterDns {
            service: ObjectKey { namespace: "kube-system".into(), name: "kube-dns".into() },
            node_local: None,
        },
        metrics: Metrics::new(Instant::now()),
        not_pods: Vec::new(),
        told: (FlowEvents::All, 1),
        enforcement: Enforcement::Enforce,
        self_check: None,
        node_ports: NodePortAddresses::default(),
        dirs: DirArgs {
            run_dir: dir.to_owned(),
            state_dir: dir.join("state"),
            bpf_dir: dir.join("bpf"),
        },
    });
    core.begin(found, Vec::new()).unwrap();
    (core, discovery)
}

#[test]
fn a_sandbox_is_not_let_go_for_the_interface_of_the_one_before() {
    let dir = TempDir::new().unwrap();
    for folder in ["manifests", "cni"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let object = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: a, uid: u}\n\
                  status: {podIP: 10.0.0.8}\n";
    fs::write(dir.path().join("manifests/p.yaml"), object).unwrap();
    let (node, pod) = (Namespace::new(), Namespace::new());
    let thread = pod.thread;
    node.run(move || {
        let veth = |host: &str, address: &str| {
            sh(&format!("ip link add {host} type veth peer name {host} netns {thread}"));
            cache(&dir.path().join("cni"), host, address);
        };
        veth("h0", "10.0.0.8");
        block_on(async {
            let (mut core, mut discovery) = agent(dir.path()).await;
            assert_eq!(core.index.sandbox_state("u"), (SandboxState::Bound, vec![ifindex("h0")]));

            // Another sandbox of the same pod; no word of its interface has been read yet.
            veth("h1", "10.0.0.9");
            let (hold, mut held) = hold(Duration::from_secs(60));
            take(&mut core, &mut discovery, hold).unwrap();
            assert_eq!(held.try_recv(), Err(TryRecvError::Empty), "nobody has looked");
            core.answer_holds(Instant::now());
            assert_eq!(held.try_recv(), Ok(Held::Armed));
            assert!(core.kernel.is_attached(ifindex("h1")), "it was let go unarmed");
        });
    });
}

/// How many programs judge what leaves by an interface.
fn programs_out(interface: &str) -> usize {
    tcx::query(ifindex(interface), tcx::Hook::Egress).unwrap().programs.len()
}

#[test]
fn before_there_are_objects_backends_are_judged_where_an_earlier_agents_programs_leave_it_to() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    Namespace::new().run(move || {
        block_on(async {
            let (mut core, _discovery) = agent(dir.path()).await;
            // What follows is as at the beginning of the next agent, without objects.
            core.found = Some(Found::default());
            sh("ip link add d0 type bridge");
            let outlets = [(ifindex("d0"), "d0".into())].into();
            core.discovered(DiscoveryEvent::Outlets(outlets));
            assert_eq!(programs_out("d0"), 1);
            core.maintain();
            assert_eq!(programs_out("d0"), 1, "only the first plan says what is no outlet");
        });
    });
}
