//! What must survive a reboot, where the disk has no room for it.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, AgentOptions, Lab, Manifests, Mode, Place, Probe,
    api::{Api, NODE},
    policy,
    spec::namespace_manifest,
    world::{must, shop_client, shop_never, shop_other, shop_pods, shop_policies, undisturbed},
};

/// Longer than an agent waits before it tries to save again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until this is so.
#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Takes all room that is left, and gives what took it.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = File::create(&path).expect("a file can be made");
    // A page at a time: whatever is left is less than the state needs.
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

fn is_open(lab: &Lab, probe: Probe) -> bool {
    must(lab.probe_one(&probe.expecting(true))).is_open()
}

fn none_is_open(lab: &Lab) {
    for (probe, outcome) in shop_never().iter().zip(must(lab.probe(&shop_never()))) {
        assert!(!outcome.is_open(), "{probe}");
    }
}

#[test]
fn without_room_to_save_policy_follows_its_objects_and_is_saved_when_there_is_room() {
    let mut lab = must(Lab::new(Mode::PointToPoint));
    must(lab.add_pods(&shop_pods()));
    let api = must(Api::start(lab.node(), lab.dir()));
    api.put(&namespace_manifest("shop"));
    for pod in shop_pods() {
        api.put(&pod.manifest());
    }
    api.put(&shop_policies());

    // The disk is the agent's alone, and goes with it.
    let state = lab.dir().join("state");
    fs::create_dir_all(&state).expect("a folder can be made");
    let mount = format!("mount -t tmpfs -o size=64k none {} && exec \"$@\"", state.display());
    let through = ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(str::to_owned).to_vec();
    let options = AgentOptions {
        through,
        kubeconfig: Some(api.kubeconfig().to_owned()),
        flags: vec![format!("--node-name={NODE}")],
        ..AgentOptions::default()
    };
    let manifests = must(Manifests::new(lab.dir()));
    let agent = must(Agent::start(&lab, &manifests, options));
    let process = must(agent.process_status("Pid"));
    let inside = PathBuf::from(format!("/proc/{process}/root{}", state.display()));
    let saved = || fs::read_to_string(inside.join("cluster.json")).unwrap_or_default();
    let problems = || must(agent.status())["report"]["problems"].to_string();
    let is_told = || problems().contains("cannot be saved");
    until("the first state is saved", || saved().contains("allow-clients"));
    assert!(!is_told(), "{}", problems());
    none_is_open(&lab);
    let connection =
        must(lab.connect(&Place::pod("shop/client"), &Place::pod("shop/server"), 80, false));
    let heartbeat = connection.expect("policy allows it").beat();

    let filler = fill(&inside);
    let on = [(enforcer_tests::Protocol::Tcp, 80)];
    api.put(&policy::allow_in("allow-late", "app=server", "role=late", &on));
    must(agent.wait());
    until("status says that there is no room", is_told);
    assert!(!saved().contains("allow-late"), "there is no room for it");
    assert!(agent.log().contains("cannot be saved"), "{}", agent.log());
    // What is not saved is in force: the other pod is let in, then no more.
    none_is_open(&lab);
    let [_, _, other] = shop_pods();
    api.put(&other.clone().label("role", "late").manifest());
    must(agent.wait());
    assert!(is_open(&lab, shop_other()) && is_open(&lab, shop_client()));
    api.put(&other.manifest());
    must(agent.wait());
    none_is_open(&lab);
    assert!(is_told());

    fs::remove_file(filler).expect("it can be removed");
    until("the state is saved again", || saved().contains("allow-late"));
    until("status says nothing of it", || !is_told());
    none_is_open(&lab);
    undisturbed(heartbeat);
}
