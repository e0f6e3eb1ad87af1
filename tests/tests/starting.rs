//! Pods that start while the agent runs, and agents that take the node over from each other.

use std::{
    fs,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Lab, Manifests, Mode, Place, PodSpec, Probe, World,
    policy::{self},
    shout::{Ear, shout},
    world::{must, shop_pods, shop_policies},
};

/// What a change may take to come into force.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A busy machine can make a change look slower than it is, and never faster: one of so many tries
/// has to keep to the limit. Without a notification each would take a second.
const TRIES: usize = 5;
/// A runtime needs longer for a container, once its pod has a network; an agent that takes over does
/// not, even on a busy machine.
const START: Duration = Duration::from_millis(150);
/// A standby looks twice a second, and a start takes a while on a busy machine.
const TAKEN_BACK: Duration = Duration::from_secs(10);

fn with_flags(flags: &[&str]) -> AgentOptions {
    AgentOptions {
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..Default::default()
    }
}

fn shop(flags: &[&str]) -> World {
    World::with(Mode::PointToPoint, &shop_pods(), &shop_policies(), with_flags(flags))
}

/// A pod that no policy isolates.
fn late() -> PodSpec {
    PodSpec::numbered("shop/late", 9)
}

fn from_late() -> Probe {
    Probe::tcp("shop/late", "shop/client", 80)
}

fn to_late() -> Probe {
    Probe::tcp("shop/client", "shop/late", 80)
}

fn from_node() -> Probe {
    Probe::new(Place::Node, Place::pod("shop/late"), 80, enforcer_tests::Protocol::Tcp)
}

/// Makes the late pod and waits until the agent knows its address: until then its ARP is dropped
/// too, and comes again only after a second.
fn start_late(world: &mut World) {
    must(world.lab.add_pods(&[late()]));
    let interface = must(world.lab.pod("shop/late")).host_interface().to_owned();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let status = must(world.agent.status());
        let endpoints = status["report"]["endpoints"].as_array().expect("a list");
        let found = endpoints.iter().find(|one| one["interface"] == interface.as_str());
        let attached = |one: &serde_json::Value| {
            !one["reason"].as_str().is_some_and(|reason| reason.contains("not attached"))
        };
        if found.is_some_and(|one| {
            one["addresses"].as_array().is_some_and(|a| a.len() == 2) && attached(one)
        }) {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
}

/// Tries until something came into force at once.
fn comes_at_once(mut attempt: impl FnMut() -> Duration) {
    let mut times = Vec::new();
    while times.len() < TRIES {
        let took = attempt();
        if took < AT_ONCE {
            return;
        }
        times.push(took);
    }
    panic!("not once within {} ms: {times:?}", AT_ONCE.as_millis());
}

/// The late pod is gone, and comes again.
fn start_late_again(world: &mut World) {
    if world.lab.pod("shop/late").is_ok() {
        must(world.lab.remove_pod("shop/late"));
    }
    start_late(world);
}

#[test]
fn a_pod_that_starts_is_closed_until_its_object_is_known() {
    for mode in [Mode::PointToPoint, Mode::Bridge] {
        let mut world = World::with(mode, &shop_pods(), &shop_policies(), AgentOptions::default());
        must(world.lab.add_pods(&[late()]));
        world.expect(&[
            (from_late(), false),
            (from_late().v6(), false),
            (to_late(), false),
            (to_late().v6(), false),
            (from_node(), true),
            (from_node().v6(), true),
        ]);
        let status = must(world.agent.status());
        let interface = must(world.lab.pod("shop/late")).host_interface();
        let endpoints = status["report"]["endpoints"].as_array().expect("a list");
        let closed = endpoints.iter().find(|one| one["interface"] == interface);
        assert_eq!(closed.map(|one| one["state"].as_str()), Some(Some("closed")), "{status}");
        let mut described = false;
        comes_at_once(|| {
            if std::mem::replace(&mut described, true) {
                world.forget("shop/late");
                world.settle();
                start_late_again(&mut world);
            }
            let since = Instant::now();
            world.describe(&late());
            world.time_until_open(&from_late(), since, Duration::from_secs(5))
        });
        world.expect(&[(to_late(), true), (to_late().v6(), true), (from_late().v6(), true)]);
    }
}

#[test]
fn a_pod_that_an_agent_had_half_guarded_when_it_died_stays_closed() {
    let options = AgentOptions { attach: Some("tcx"), ..AgentOptions::default() };
    let mut world = World::with(Mode::PointToPoint, &shop_pods(), &shop_policies(), options);
    start_late(&mut world);
    must(world.agent.kill());
    let interface = must(world.lab.pod("shop/late")).host_interface().to_owned();
    let shown = must(world.lab.node().command("ip", &["-o", "link", "show", "dev", &interface]));
    let index = shown.split(':').next().expect("the index comes first");
    let pin = world.agent.bpf_dir().join(format!("v2/links/{index}-ingress"));
    fs::remove_file(pin).expect("what the pod receives was guarded");
    must(world.agent.restart());
    world.expect(&[(from_late(), false), (to_late(), false), (from_node(), true)]);
    world.describe(&late());
    world.settle();
    world.expect(&[(from_late(), true), (to_late(), true)]);
}

#[test]
fn nothing_passes_from_a_pod_whose_first_act_is_to_send() {
    let mut world = shop(&[]);
    let ear = must(Ear::listen(must(world.lab.pod("shop/client"))));
    for round in 0..20 {
        must(world.lab.add_pods(&[late()]));
        // It has had its address for as long as the laboratory took to return.
        let late = must(world.lab.pod("shop/late"));
        must(shout(late.netns(), ear.address(), Duration::from_millis(300)));
        assert_eq!(ear.heard(), [] as [IpAddr; 0], "in round {round}");
        must(world.lab.remove_pod("shop/late"));
    }
}

#[test]
fn where_the_start_is_open_a_pod_is_free_until_its_object_is_known() {
    let mut world = shop(&["--start=open"]);
    let ear = must(Ear::listen(must(world.lab.pod("shop/client"))));
    must(world.lab.add_pods(&[late()]));
    must(shout(must(world.lab.pod("shop/late")).netns(), ear.address(), START));
    assert_eq!(ear.heard(), late().addresses[..1]);
    world.expect(&[(from_late(), true), (to_late(), true)]);
}

#[test]
fn interfaces_that_are_no_pods_are_left_alone() {
    let mut world = shop(&["--ignore-interface=nothing,*"]);
    must(world.lab.add_pods(&[late()]));
    world.expect(&[(from_late(), true), (to_late(), true)]);
}

#[test]
fn the_network_plugins_tell_who_a_pod_is_before_its_object_has_an_address() {
    let cache = tempfile_dir();
    let flag = format!("--cni-cache-dir={cache}");
    let mut world = shop(&[&flag]);
    let text = late().label("role", "client").manifest();
    let mut object: serde_json::Value = serde_json::from_str(&text).expect("the manifest is JSON");
    object["metadata"]["uid"] = "u-late".into();
    object["status"] = serde_json::json!({"phase": "Pending"});
    must(world.manifests.write("late.yaml", &object.to_string()));
    world.settle();
    let probe = Probe::tcp("shop/late", "shop/server", 80);
    let ips: Vec<_> = late()
        .addresses
        .iter()
        .map(|address| serde_json::json!({"address": format!("{address}/24")}))
        .collect();
    let file = format!("{cache}/net-late-eth0");
    let mut interface = String::new();
    comes_at_once(|| {
        let _absent = fs::remove_file(&file);
        start_late_again(&mut world);
        world.closed(probe.clone());
        interface = must(world.lab.pod("shop/late")).host_interface().to_owned();
        let result = serde_json::json!({
            "kind": "cniCacheV1",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "late"],
                ["K8S_POD_UID", "u-late"]],
            "result": {"interfaces": [{"name": interface}], "ips": ips},
        });
        let since = Instant::now();
        fs::write(&file, result.to_string()).expect("the file is written");
        // The server's policy looks at the label of the pod that has the address.
        world.time_until_open(&probe, since, Duration::from_secs(5))
    });
    let status = must(world.agent.status());
    let endpoints = status["report"]["endpoints"].as_array().expect("a list");
    let bound = endpoints.iter().find(|one| one["interface"] == interface.as_str());
    assert_eq!(bound.map(|one| one["pod"].as_str()), Some(Some("shop/late")), "{status}");
    fs::remove_dir_all(&cache).expect("the folder is removed");
}

#[test]
fn without_an_api_server_a_pod_that_starts_is_closed_too() {
    let mut lab = must(Lab::new(Mode::PointToPoint));
    let manifests = must(Manifests::new(lab.dir()));
    let [server, client, _] = shop_pods();
    must(lab.add_pods(&[server]));
    let kubeconfig = lab.dir().join("kubeconfig");
    let nobody = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \
                  'http://127.0.0.1:1'}}]\ncontexts: [{name: x, context: {cluster: c}}]\n\
                  current-context: x\n";
    fs::write(&kubeconfig, nobody).expect("the file is written");
    let options = AgentOptions { kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
    let agent = must(Agent::start_unready(&lab, &manifests, options));
    must(lab.add_pods(&[client]));
    let probe = |from: &str, to: &str| Probe::tcp(from, to, 80).expecting(false);
    // A netlink message and an attachment later; what passes before is what the gate is for.
    let deadline = Instant::now() + Duration::from_secs(5);
    while must(lab.probe_one(&probe("shop/server", "shop/client"))).is_open() {
        assert!(Instant::now() < deadline, "it stays open");
    }
    // The older one is as free as it was; the younger one is not.
    for probe in [probe("shop/client", "shop/server"), probe("shop/server", "shop/client")] {
        let outcome = must(lab.probe_one(&probe));
        assert!(!outcome.is_open(), "{probe}: {outcome}");
    }
    let to_older =
        Probe::new(Place::Node, Place::pod("shop/server"), 80, enforcer_tests::Protocol::Tcp);
    assert!(must(lab.probe_one(&to_older)).is_open());
    drop(agent);
}

fn tempfile_dir() -> String {
    let dir = std::env::temp_dir().join(format!("enforcer-cni-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a folder");
    dir.display().to_string()
}

#[test]
fn an_agent_takes_over_and_no_packet_notices() {
    let mut world = shop(&[]);
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    let denied = [Probe::tcp("shop/other", "shop/server", 80)];
    let mut former = Vec::new();
    for round in 0..3 {
        let name = format!("next{round}");
        let (next, _) = world.while_closed(&denied, |agent, _, _| must(agent.successor(&name)));
        former.push(std::mem::replace(&mut world.agent, next));
        // The former one stands by, until it is told to end.
        assert!(former.iter_mut().all(Agent::runs));
        if round > 0 {
            must(former.remove(0).stop());
        }
        world.open(Probe::tcp("shop/client", "shop/server", 80));
    }
    let connection = heartbeat.end().expect("the heartbeat's thread lives");
    assert_eq!(connection.lost_segments(), 0);
    // It is the successor that is listened to.
    world.policies(&policy::deny("app=server", &["Ingress"]));
    world.settle();
    world.closed(Probe::tcp("shop/client", "shop/server", 80));
}

#[test]
fn pods_that_start_during_a_hand_over_are_closed() {
    for attach in ["tcx", "clsact"] {
        hand_over(&format!("--attach={attach}"));
    }
}

fn hand_over(attach: &str) {
    let mut world = shop(&[attach]);
    let ear = must(Ear::listen(must(world.lab.pod("shop/client"))));
    let World { agent, lab, .. } = &mut world;
    let done = AtomicBool::new(false);
    let (next, specs) = thread::scope(|scope| {
        // Pods in the other thread: an agent ends with the thread that started it.
        let pods = scope.spawn(|| {
            let mut specs = Vec::new();
            for n in 0..60 {
                // The last one after the end.
                let last = done.load(Ordering::SeqCst);
                let spec = PodSpec::numbered(&format!("shop/young{n}"), 20 + n);
                must(lab.add_pods(std::slice::from_ref(&spec)));
                // As soon as a container could run.
                thread::sleep(START);
                let young = must(lab.pod(&spec.name)).netns();
                must(shout(young, ear.address(), Duration::from_millis(50)));
                specs.push(spec);
                if last {
                    break;
                }
            }
            specs
        });
        let next = must(agent.successor("next"));
        done.store(true, Ordering::SeqCst);
        (next, pods.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    assert_eq!(ear.heard(), [] as [IpAddr; 0]);
    let former = std::mem::replace(&mut world.agent, next);
    let probes: Vec<_> =
        specs.iter().map(|spec| (Probe::tcp(&spec.name, "shop/client", 80), false)).collect();
    world.settle();
    world.expect(&probes);
    drop(former);
}

#[test]
fn a_standby_takes_the_node_back_when_its_successor_dies() {
    let mut world = shop(&[]);
    let mut next = must(world.agent.successor("next"));
    must(next.kill());
    let probe = Probe::tcp("shop/client", "shop/server", 80);
    world.open(probe.clone());
    let deadline = Instant::now() + TAKEN_BACK;
    while world.agent.wait().is_err() {
        assert!(Instant::now() < deadline, "nobody looks after the node");
        thread::sleep(Duration::from_millis(50));
    }
    world.policies(&policy::deny("app=server", &["Ingress"]));
    world.settle();
    world.closed(probe);
    must(world.agent.stop());
}

#[test]
fn a_standby_leaves_the_node_to_a_third_agent() {
    let mut world = shop(&[]);
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    let denied = [Probe::tcp("shop/other", "shop/server", 80)];
    let instance = |agent: &Agent| must(agent.status())["report"]["agent"]["instance"].clone();
    // The standby looks every half second, and acts when it has found nobody twice: the third comes
    // before it looks, and at about the time when it acts.
    for (round, pause) in [0, 1000].into_iter().enumerate() {
        let (mut third, _) = world.while_closed(&denied, |agent, _, _| {
            let mut second = must(agent.successor(&format!("second{round}")));
            must(second.kill());
            thread::sleep(Duration::from_millis(pause));
            let third = must(second.successor(&format!("third{round}")));
            // Long enough for the standby to look twice, and to act.
            thread::sleep(Duration::from_millis(1500));
            third
        });
        assert_eq!(instance(&third), format!("third{round}"));
        assert!(world.agent.runs() && third.runs());
        // It stands by still: when the third ends, it has the node.
        must(third.stop());
        let deadline = Instant::now() + TAKEN_BACK;
        while world.agent.wait().is_err() {
            assert!(Instant::now() < deadline, "nobody looks after the node");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(instance(&world.agent), serde_json::Value::Null);
        world.open(Probe::tcp("shop/client", "shop/server", 80));
    }
    let connection = heartbeat.end().expect("the heartbeat's thread lives");
    assert_eq!(connection.lost_segments(), 0);
}
