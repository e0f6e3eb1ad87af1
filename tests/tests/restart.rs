//! The agent dies, comes back, is removed: what it put into the kernel stays, until it is to go.

use std::{thread, time::Duration};

use enforcer_tests::{
    AgentOptions, Mode, PodSpec, Probe, World, policy,
    world::{
        must, shop_client as client, shop_never as never, shop_other as other, shop_pods,
        shop_policies, undisturbed,
    },
};

const ATTACH: [&str; 2] = ["tcx", "clsact"];

fn shop(attach: &'static str) -> World {
    let options = AgentOptions { attach: Some(attach), ..AgentOptions::default() };
    World::shop(Mode::PointToPoint, options)
}

#[test]
fn a_killed_agent_leaves_its_policy_in_force() {
    for attach in ATTACH {
        let mut world = shop(attach);
        let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
        let (opened, rounds) = world.while_closed(&never(), |agent, _, lab| {
            must(agent.kill());
            thread::sleep(Duration::from_millis(500));
            must(lab.probe(&[client().expecting(true), client().v6().expecting(true)]))
        });
        assert!(opened.iter().all(enforcer_tests::Outcome::is_open), "--attach={attach}");
        assert!(rounds >= 2);
        undisturbed(heartbeat);
    }
}

#[test]
fn a_restart_interrupts_nothing_and_opens_nothing() {
    for attach in ATTACH {
        let mut world = shop(attach);
        let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
        for graceful in [true, false] {
            world.while_closed(&never(), |agent, _, _| {
                must(if graceful { agent.stop() } else { agent.kill() });
                thread::sleep(Duration::from_millis(100));
                must(agent.restart());
            });
            world.expect(&[(client(), true), (client().v6(), true)]);
        }
        undisturbed(heartbeat);
    }
}

#[test]
fn what_changed_while_no_agent_ran_is_in_force_after_the_restart() {
    let mut world = shop("tcx");
    let heartbeat = world.connect("shop/client", "shop/server", 80).beat();
    must(world.agent.kill());
    let turned = shop_policies().replace("role", "task");
    world.policies(&turned);
    let [_, _, other_pod] = shop_pods();
    world.describe(&other_pod.label("task", "client"));
    thread::sleep(Duration::from_millis(100));
    world.expect(&[(client(), true), (other(), false)]);
    must(world.agent.restart());
    world.expect(&[(client(), false), (other(), true)]);
    let stopped = heartbeat.stopped(Duration::from_millis(400), Duration::from_secs(3));
    assert!(stopped.is_some(), "the established connection is not allowed any more");
}

#[test]
fn pods_that_came_and_went_while_no_agent_ran() {
    let mut world = shop("tcx");
    must(world.agent.kill());
    must(world.lab.remove_pod("shop/client"));
    world.forget("shop/client");
    let late = [
        PodSpec::numbered("shop/late", 2),
        PodSpec::numbered("shop/late-client", 5).label("role", "client"),
    ];
    must(world.lab.add_pods(&late));
    for pod in &late {
        world.describe(pod);
    }
    must(world.lab.replace_interface("shop/other"));
    must(world.agent.restart());
    world.expect(&[
        (Probe::tcp("shop/late", "shop/server", 80), false),
        (Probe::tcp("shop/late-client", "shop/server", 80), true),
        (other(), false),
    ]);
    let status = must(world.agent.status());
    let endpoints = status["report"]["endpoints"].as_array().expect("a list of endpoints");
    let mut pods: Vec<&str> = endpoints.iter().filter_map(|one| one["pod"].as_str()).collect();
    pods.sort_unstable();
    assert_eq!(pods, ["shop/late", "shop/late-client", "shop/other", "shop/server"]);
    // Two links a pod, one where packets leave, one a family where the node takes them in, and none of
    // interfaces that went while nobody looked.
    let versions = std::fs::read_dir(world.agent.bpf_dir()).expect("the agent's pins");
    let links: usize = versions
        .flatten()
        .filter_map(|version| std::fs::read_dir(version.path().join("links")).ok())
        .map(Iterator::count)
        .sum();
    assert_eq!(links, 2 * pods.len() + 1 + 2);
}

#[test]
fn connections_that_were_there_before_the_agent_live_on() {
    let pods = shop_pods();
    for mode in [Mode::PointToPoint, Mode::PlainBridge] {
        let mut world = World::shop(mode, AgentOptions::default());
        must(world.agent.stop());
        must(world.agent.uninstall());
        // The server opened this one; policy closes its ingress, and answers must come in.
        let outgoing = world.connect("shop/server", "shop/other", 8080).beat();
        let incoming = world.connect("shop/client", "shop/server", 80).beat();
        assert_eq!(world.lab.pods().count(), pods.len());
        must(world.agent.restart());
        let before = (outgoing.beats(), incoming.beats());
        thread::sleep(Duration::from_millis(500));
        assert!(outgoing.beats() > before.0, "{}: answers to the server stop", mode.name());
        assert!(incoming.beats() > before.1, "{}: the client's connection stops", mode.name());
        world.expect(&[(client(), true), (other(), false)]);
    }
}

/// What `tc` and `bpftool` see on the interfaces of the node.
fn hooks(world: &World) -> (String, String) {
    let node = world.lab.node();
    (
        must(node.command("tc", &["qdisc", "show"])),
        must(node.command("bpftool", &["-j", "net", "show"])),
    )
}

#[test]
fn uninstall_leaves_nothing_of_ours_and_all_of_others() {
    for attach in ATTACH {
        let mut world = shop(attach);
        let (qdiscs, programs) = hooks(&world);
        assert_eq!(qdiscs.contains("clsact"), attach == "clsact", "{qdiscs}");
        if attach == "clsact" {
            assert!(programs.contains("pod_egress"), "{programs}");
        }
        assert!(world.agent.bpf_dir().is_dir());
        must(world.agent.stop());
        must(world.agent.uninstall());
        let (qdiscs, programs) = hooks(&world);
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
        assert!(
            !programs.contains("pod_egress") && !programs.contains("pod_ingress"),
            "{programs}"
        );
        assert!(!world.agent.bpf_dir().exists());
        world.expect(&[(client(), true), (other(), true)]);

        // Somebody else's qdisc on one of the interfaces is there before us and after us.
        let host = must(world.lab.pod("shop/server")).host_interface().to_owned();
        must(world.lab.node().command("tc", &["qdisc", "add", "dev", &host, "clsact"]));
        must(world.agent.restart());
        world.expect(&[(client(), true), (other(), false)]);
        must(world.agent.stop());
        must(world.agent.uninstall());
        let (qdiscs, _) = hooks(&world);
        let theirs: Vec<&str> = qdiscs.lines().filter(|line| line.contains("clsact")).collect();
        assert_eq!(theirs.len(), 1, "--attach={attach}: {qdiscs}");
        assert!(theirs[0].contains(&format!("dev {host} ")), "{qdiscs}");
    }
}

#[test]
fn a_laboratory_takes_its_agent_and_all_its_files_along() {
    let world = shop("tcx");
    let paths = [world.agent.bpf_dir(), world.agent.run_dir(), world.manifests.path()]
        .map(std::path::Path::to_owned);
    let pid = must(world.agent.status())["report"]["agent"]["pid"].to_string();
    let process = std::path::Path::new("/proc").join(pid);
    assert!(paths.iter().all(|path| path.exists()) && process.exists());
    drop(world);
    for path in paths.iter().chain([&process]) {
        assert!(!path.exists(), "{} is left", path.display());
    }
}

#[test]
fn two_agents_on_one_run_directory_are_refused_and_the_first_goes_on() {
    let world = shop("tcx");
    let path = |path: &std::path::Path| path.display().to_string();
    // Bounded: one that is not refused would run for good.
    let second = world.lab.node().command(
        "timeout",
        &[
            "5",
            &path(world.agent.binary()),
            "agent",
            "--manifests",
            &path(world.manifests.path()),
            "--run-dir",
            &path(world.agent.run_dir()),
            "--bpf-dir",
            &path(world.agent.bpf_dir()),
            "--state-dir",
            &path(&world.lab.dir().join("second")),
        ],
    );
    let refusal = second.expect_err("a second agent is refused").chain();
    assert!(refusal.contains("another agent is running"), "{refusal}");
    world.policies(&policy::deny("app=server", &["Ingress"]));
    world.settle();
    world.closed(client());
}

#[test]
fn a_pod_that_takes_anothers_address_while_no_agent_runs_stays_who_it_is() {
    for attach in ATTACH {
        let mut world = shop(attach);
        // A client on some other node: its object is known, its interface is not here.
        let remote = PodSpec::numbered("shop/remote", 9).label("role", "client");
        world.describe(&remote);
        world.settle();
        must(world.agent.kill());
        let thief = must(world.lab.pod("shop/other"));
        let netns = thief.netns();
        must(netns.command("ip", &["addr", "flush", "dev", "eth0", "scope", "global"]));
        for address in &remote.addresses {
            must(netns.command("ip", &["addr", "add", &address.to_string(), "dev", "eth0"]));
        }
        must(world.agent.restart());
        let status = must(world.agent.status());
        let endpoints = status["report"]["endpoints"].as_array().expect("a list of endpoints");
        let interface = thief.host_interface();
        let bound = endpoints.iter().find(|one| one["interface"] == interface);
        assert_eq!(bound.map(|one| one["pod"].as_str()), Some(Some("shop/other")), "{attach}");
    }
}
