//! The agent is told to end (SIGTERM) while its gate holds a sandbox.

use serde_json::{Value, json};

use crate::{
    api_server::wait_until_live,
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{PATIENCE, SYSTEM, World},
};

/// The node whose agent ends.
const NODE: &str = "node2";
/// Neither what the agent says to the API server nor what it is told: a pod that starts is not known
/// to it, and so held for half a second. The kubelet has the server's own address.
const CUT_OFF: &str = "table ip away {
    chain out { type filter hook output priority -500; ip daddr 10.213.0.1 drop; }
    chain in { type filter hook input priority 500; ip saddr 10.213.0.1 drop; }
}";
/// Waits for the word of the network plugins, which comes shortly before the runtime asks the gate,
/// and tells the process to end.
const END: &str = "before=$(ls /var/lib/cni/results | wc -l); \
    until [ \"$(ls /var/lib/cni/results | wc -l)\" -gt \"$before\" ]; do sleep 0.02; done; \
    sleep 0.2; kill -TERM \"$0\"";
/// The half second may be over before the signal comes, on a busy machine.
const TRIES: usize = 4;

/// What is held is refused, and the next agent holds it again: it runs in the end, under its policy.
pub(crate) fn while_holding(world: &World) {
    world.import_image();
    world.roll_out(&World::manifest("enforcer-gate.yaml"));
    let space = Namespace::new(world, "ending", &[]);
    let server = space.pod(&PodSpec::server("server", "node1"));
    let free = space.pod(&PodSpec::client("free", NODE));
    let deny = json!({"podSelector": {"matchLabels": {"role": "shut"}}, "policyTypes": ["Egress"]});
    space.policy("shut", deny);
    let refused = (0..TRIES).find_map(|number| {
        let spec = PodSpec::client(&format!("held-{number}"), NODE).label("role", "shut");
        end_while_starting(world, &space, &spec)
    });
    let (name, event) = refused.expect("an agent that is told to end while it holds a sandbox");
    println!("  {event}");
    // It ended in order, and soon: the kubelet did not have to kill it.
    let agent = world.agent(NODE);
    let words = ["get", "pod", &agent.pod, "-n", SYSTEM, "-o", "json"];
    let pod: Value = serde_json::from_str(&world.cluster.ask(&words).unwrap()).unwrap();
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 0, "{last}");
    let held = space.ready(&name);
    world.barrier();
    world.expect(
        "after the agent's end",
        &[Probe::tcp(&free, &server, 80, Allowed), Probe::tcp(&held, &server, 80, Denied)],
    );
    world.roll_out(&World::manifest("enforcer.yaml"));
}

/// Starts a pod, and ends the agent while it does. Gives its name and the Event about it, if the
/// agent had it held at that moment.
fn end_while_starting(
    world: &World,
    space: &Namespace<'_>,
    spec: &PodSpec,
) -> Option<(String, String)> {
    let process = world.process(&world.agent(NODE).container).to_string();
    world.cluster.run_in(NODE, &["nft", CUT_OFF]).unwrap();
    let mut watch = world.cluster.exec(NODE, &["sh", "-ec", END, &process]).unwrap();
    let watch = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let pod: Value = serde_json::from_str(&space.object(spec)).unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    space.create(std::slice::from_ref(spec));
    assert!(watch.wait_with_output().unwrap().status.success(), "the agent was not there");
    world.cluster.run_in(NODE, &["nft", "delete table ip away"]).unwrap();
    space.ready(&name);
    poll::until("the end of that agent", PATIENCE, || {
        let now = world.agent_by_runtime(NODE)?;
        let is_new = world.process(&now.container).to_string() != process;
        poll::holds(is_new, || format!("{process} runs"))
    });
    wait_until_live(world, NODE);
    world.wait_for_rollout();
    let events = world.objects(&["get", "events", "-n", &space.name]);
    let about = |event: &&Value| event["involvedObject"]["name"] == name.as_str();
    let notes = events.iter().filter(about).filter_map(|event| event["message"].as_str());
    let note = notes.into_iter().find(|note| note.contains("the agent on this node is ending"))?;
    Some((name, note.to_owned()))
}
