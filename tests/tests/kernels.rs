//! What depends on the kernel that the agent runs on, end to end: `cargo xtask test --kernels` runs it
//! on each of some packaged ones. It needs what not every kernel has: VLAN devices, macvlan and ipvlan,
//! IPVS, so it is built for that alone.
//!
//! There is one agent for all tests that can share it: the verifier of an emulated machine is slow.

use std::{
    fs,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    AgentOptions, Mode, Place, PodSpec, Probe, Protocol, Service, World, ipvs, market, policy,
    world::must,
};
use serde_json::Value;

/// How long something may take to show in status.
const LOOK: Duration = Duration::from_secs(40);

/// The running kernel's version.
fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's version");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("a version: {text}"),
    }
}

/// An agent with the pods of [`World::shop`], one more that may send to `app=good` only, and Services.
fn shared() -> MutexGuard<'static, World> {
    static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let (send, receive) = mpsc::channel();
        // An agent dies with the thread that started it, and a test's thread with the test.
        thread::spawn(move || {
            send.send(build()).expect("the test waits");
            loop {
                thread::park();
            }
        });
        Mutex::new(receive.recv().expect("a world"))
    });
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn build() -> World {
    let pods: Vec<PodSpec> = [
        PodSpec::numbered("shop/server", 11).label("app", "server"),
        PodSpec::numbered("shop/visitor", 12).label("role", "client"),
        PodSpec::numbered("shop/other", 13),
        market::client(),
        market::good(),
        market::bad(),
    ]
    .into();
    let on = [(Protocol::Tcp, 80), (Protocol::Udp, 80)];
    let target = [(Protocol::Tcp, market::TARGET), (Protocol::Udp, market::TARGET)];
    let policies = policy::all(&[
        policy::deny("app=server", &["Ingress"]),
        policy::allow_in("allow-clients", "app=server", "role=client", &on),
        policy::allow_to("allow-good", "role=client", "app=good", &target),
        policy::allow_to("allow-server", "role=client", "app=server", &on),
    ]);
    World::with(Mode::PointToPoint, &pods, &policies, AgentOptions::default())
}

/// The problems in status of an object whose name begins so.
fn problems(world: &World, object: &str) -> Vec<String> {
    let status = must(world.agent.status());
    let all = status["report"]["problems"].as_array().cloned().unwrap_or_default();
    let of_it =
        |problem: &&Value| problem["object"].as_str().is_some_and(|name| name.starts_with(object));
    all.iter()
        .filter(of_it)
        .map(|problem| problem["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_policy_is_enforced_in_both_families_and_protocols() {
    let world = shared();
    let mut probes = Vec::new();
    for (from, open) in [("shop/visitor", true), ("shop/other", false)] {
        for probe in [Probe::tcp(from, "shop/server", 80), Probe::udp(from, "shop/server", 80)] {
            probes.push((probe.clone(), open));
            probes.push((probe.v6(), open));
        }
        probes.push((Probe::tcp(from, "shop/server", 81), false));
        probes.push((Probe::udp(from, "shop/good", market::TARGET).bytes(4000), true));
    }
    probes.push((Probe::tcp("shop/visitor", "shop/bad", market::TARGET), false));
    probes.push((Probe::tcp("shop/visitor", "shop/bad", market::TARGET).v6(), false));
    world.expect(&probes);
}

#[test]
fn programs_are_where_this_kernel_has_room_for_them() {
    let world = shared();
    let server = must(world.lab.pod("shop/server")).host_interface().to_owned();
    let filters =
        must(world.lab.node().command("tc", &["filter", "show", "dev", &server, "egress"]));
    // TCX came with 6.6; what is there is not seen as a filter.
    assert_eq!(filters.is_empty(), release() >= (6, 6), "{filters}");
    // Programs of netfilter came with 6.4; without, status says what is not judged, and all else is.
    let missing = problems(&world, "Node");
    assert_eq!(missing.is_empty(), release() >= (6, 4), "{missing:?}");
    assert!(missing.iter().all(|reason| reason.contains("processes of the node")), "{missing:?}");
}

#[test]
fn filters_of_clsact_outlive_the_agent_and_are_taken_over() {
    let options = AgentOptions { attach: Some("clsact"), ..AgentOptions::default() };
    let mut world = World::shop(Mode::PointToPoint, options);
    let (open, closed) =
        (Probe::tcp("shop/client", "shop/server", 80), Probe::tcp("shop/other", "shop/server", 80));
    let all = [(open, true), (closed, false)];
    world.expect(&all);
    let mut connection = world.connect("shop/client", "shop/server", 80);
    must(world.agent.kill());
    world.expect(&all);
    must(world.agent.restart());
    world.expect(&all);
    assert!(connection.echo(Duration::from_secs(5)), "a connection outlives the agent");
}

/// Whether a datagram gets from a pod to its node between these addresses.
fn arrives(world: &World, pod: &str, from: &str, to: &str) -> bool {
    let bind = |address: &str| std::net::UdpSocket::bind((address, 9999)).expect("a socket");
    let node = must(world.lab.node().run(|| bind(to)));
    let pod = must(must(world.lab.pod(pod)).netns().run(|| bind(from)));
    node.set_read_timeout(Some(Duration::from_millis(700))).expect("a time-out");
    (0..3).any(|_again| {
        pod.send_to(b"tagged", (to, 9999)).expect("a datagram is sent");
        node.recv(&mut [0; 16]).is_ok()
    })
}

#[test]
fn tagged_frames_leave_no_isolated_pod() {
    let world = shared();
    // Nothing isolates `bad` for egress, so it shows that the devices work.
    for (number, pod, isolated) in [(1, "shop/bad", false), (2, "shop/client", true)] {
        let host = must(world.lab.pod(pod)).host_interface().to_owned();
        let inside = must(world.lab.pod(pod)).netns();
        for (netns, interface, last) in [(world.lab.node(), &*host, 1), (inside, "eth0", 2)] {
            let ip = |line: String| {
                let words: Vec<&str> = line.split(' ').collect();
                must(netns.command("ip", &words));
            };
            let (one, outer, two) =
                (format!("q{number}"), format!("o{number}"), format!("i{number}"));
            ip(format!("link add link {interface} name {one} type vlan id 5"));
            ip(format!("link add link {interface} name {outer} type vlan proto 802.1ad id 6"));
            ip(format!("link add link {outer} name {two} type vlan id 7"));
            ip(format!("addr add 10.90.{number}.{last}/24 dev {one}"));
            ip(format!("addr add 10.91.{number}.{last}/24 dev {two}"));
            for link in [one, outer, two] {
                ip(format!("link set {link} up"));
            }
        }
        for net in ["10.90", "10.91"] {
            let (from, to) = (format!("{net}.{number}.2"), format!("{net}.{number}.1"));
            assert_eq!(arrives(&world, pod, &from, &to), !isolated, "{pod} by {net}");
        }
    }
}

#[test]
fn services_of_ipvs_are_judged_behind_the_translation() {
    let world = shared();
    let (good, bad) = (market::good(), market::bad());
    let services = [
        market::near(20, std::slice::from_ref(&good)),
        market::near(21, std::slice::from_ref(&bad)),
        market::near(22, &[good, bad]),
    ];
    for service in &services {
        must(world.manifests.write(&service.file(), &service.manifest()));
        must(world.manifests.write(&service.slices_file(), &service.slices()));
    }
    must(ipvs::serve(&world.lab, &services));
    for pod in ["shop/good", "shop/bad"] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            must(world.lab.answer(&Place::pod(pod), false, market::TARGET, protocol));
        }
    }
    world.settle();
    let probe = |service: &Service, protocol, from: &str| {
        Probe::new(Place::pod(from), service.place(false), 80, protocol)
    };
    let [allowed, denied, mixed] = &services;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        world.expect(&[
            (probe(allowed, protocol, "shop/client"), true),
            (probe(denied, protocol, "shop/client"), false),
            // Nothing isolates it: both backends answer, so the translation is at work.
            (probe(allowed, protocol, "shop/other"), true),
            (probe(denied, protocol, "shop/other"), true),
        ]);
        // Backends by turns: each second connection is to the denied one.
        let mut open = 0;
        for _ in 0..6 {
            let one = probe(mixed, protocol, "shop/client").expecting(false);
            open += u32::from(must(world.lab.probe_one(&one)).is_open());
        }
        assert_eq!(open, 3, "{protocol}");
    }
}

/// Waits until status fails with a word about this kind of interface.
fn is_named(world: &World, kind: &str) {
    let since = Instant::now();
    loop {
        let status = must(world.agent.status());
        let failure = status["failure"].as_str().unwrap_or_default();
        if failure.contains("shop/kit") && failure.contains(kind) {
            return;
        }
        assert!(since.elapsed() < LOOK, "{kind} is not named: {failure}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn z_a_pod_behind_netkit_is_named() {
    if release() < (6, 7) {
        // The kernel has none, and so no pod: it refuses to make one.
        let world = shared();
        world.lab.node().command("ip", &["link", "add", "kit0", "type", "netkit"]).unwrap_err();
        return;
    }
    let world = shared();
    let pod = PodSpec::numbered("shop/kit", 90);
    world.describe(&pod);
    let inside = must(world.lab.pod("shop/bad")).netns();
    let node = world.lab.node();
    let before = must(node.command("ip", &["-o", "link"]));
    must(node.command("ip", &["link", "add", "kit0", "type", "netkit"]));
    let after = must(node.command("ip", &["-o", "link"]));
    let peer = after
        .lines()
        .filter(|line| !before.contains(line.split(':').nth(1).unwrap_or_default()))
        .find_map(|line| line.split(':').nth(1)?.trim().split('@').next().filter(|n| *n != "kit0"))
        .expect("the other end");
    must(node.command("ip", &["link", "set", peer, "netns", inside.name()]));
    for line in [format!("addr add 10.244.1.90/32 dev {peer}"), format!("link set {peer} up")] {
        must(inside.command("ip", &line.split(' ').collect::<Vec<_>>()));
    }
    must(node.command("ip", &["link", "set", "kit0", "up"]));
    is_named(&world, "netkit");
}
