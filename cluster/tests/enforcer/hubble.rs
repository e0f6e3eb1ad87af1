//! Hubble's own client and relay, unmodified, as those who read the agents' flows.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use enforcer_cluster::Hubble;
use serde_json::{Value, json};

use crate::{
    namespace::{Namespace, PodSpec},
    network::{
        Probe,
        Verdict::{Allowed, Denied},
    },
    poll,
    world::{SYSTEM, World},
};

/// Where things are in the node.
const FOLDER: &str = "/tmp/hubble";
/// The node in which client and relay run.
const NODE: &str = "node1";
const SOCKET: &str = "unix:///run/enforcer/hubble.sock";
const RELAY: &str = "127.0.0.1:4245";

/// The client at an agent's socket, then a relay at both agents over the network, with certificates.
pub(crate) fn client_and_relay(world: &World) {
    world.ensure_agents();
    bring_programs(world);
    bring_certificates(world);
    world.roll_out(&World::manifest("enforcer-hubble.yaml"));
    let space = Namespace::new(world, "observed", &[]);
    let pods = space.pods(&[
        PodSpec::server("server", "node2"),
        PodSpec::client("friend", NODE),
        PodSpec::client("stranger", NODE),
    ]);
    let [server, friend, stranger] = &pods[..] else { panic!("{pods:?}") };
    let from = json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]);
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": from, "ports": [{"port": 80}]}],
    });
    space.policy("friends", spec);
    // What a sender may is told by its own node.
    space.policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}));
    world.expect(
        "observed",
        &[Probe::tcp(friend, server, 80, Allowed), Probe::tcp(stranger, server, 80, Denied)],
    );

    at_the_socket(world);
    let _relay = Relay::start(world);
    through_the_relay(world);
    let (is_ok, out, errors) = ask(world, &["--server", "127.0.0.1:4244", "status"]);
    assert!(!is_ok, "who shows no certificate is served: {out}{errors}");
    // For the tests that come.
    world.roll_out(&World::manifest("enforcer.yaml"));
}

/// The client on the node, with what `enforcer observe` says beside it.
fn at_the_socket(world: &World) {
    let status = hubble(world, &["--server", SOCKET, "status"]);
    println!("  {}", status.trim().replace('\n', "\n  "));
    assert!(status.contains("Healthcheck") && status.contains("Ok"), "{status}");
    let allowed = flows(
        world,
        &["--server", SOCKET, "--all", "--from-pod", "observed/friend", "-t", "policy-verdict"],
    );
    let flow = allowed.first().unwrap_or_else(|| panic!("no flow of the friend"));
    for (field, expected) in [
        ("/verdict", "FORWARDED"),
        ("/traffic_direction", "EGRESS"),
        ("/source/pod_name", "friend"),
        ("/source/namespace", "observed"),
        ("/source/workloads/0/kind", "Pod"),
        ("/destination/pod_name", "server"),
        ("/egress_allowed_by/0/name", "out"),
        ("/egress_allowed_by/0/kind", "NetworkPolicy"),
        ("/node_name", "default/node1"),
    ] {
        assert_eq!(flow.pointer(field).and_then(Value::as_str), Some(expected), "{field}: {flow}");
    }
    // Byte for byte what our own client says.
    for form in ["compact", "dict", "jsonpb", "table"] {
        let words = ["observe", "--server", SOCKET, "--first", "9", "-n", "observed", "-o", form];
        // Their default mask leaves out what their line has places for.
        let more = ["--color", "never", "--print-policy-names", "--use-default-field-masks=false"];
        let words = [&words[..], &more].concat();
        let theirs = hubble(world, &words);
        let agent = world.agent(NODE);
        let (is_ok, ours, errors) =
            world.exec(&agent.container, &[&["/enforcer"], &words[..]].concat());
        assert!(is_ok, "{errors}");
        assert!(theirs.contains("friend"), "{theirs}");
        if form == "jsonpb" {
            let lines = |text: &str| -> Vec<Value> {
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            };
            assert_eq!(lines(&ours), lines(&theirs));
        } else {
            assert_eq!(ours, theirs, "{form}");
        }
    }
    let events = hubble(world, &["observe", "agent-events", "--server", SOCKET, "--all"]);
    assert!(events.contains("POLICY_UPDATED") && events.contains("friends"), "{events}");
}

fn through_the_relay(world: &World) {
    let nodes = poll::until("a relay at all agents", Duration::from_secs(60), || {
        let (is_ok, out, errors) = ask(world, &["--server", RELAY, "list", "nodes"]);
        poll::holds(is_ok && out.matches("Connected").count() == 2, || format!("{out}{errors}"))?;
        Ok(out)
    });
    println!("  {}", nodes.trim().replace('\n', "\n  "));
    let dropped =
        flows(world, &["--server", RELAY, "--all", "-n", "observed", "--verdict", "DROPPED"]);
    let flow = dropped.first().unwrap_or_else(|| panic!("no denied flow"));
    for (field, expected) in [
        ("/source/pod_name", "stranger"),
        ("/destination/pod_name", "server"),
        ("/drop_reason_desc", "POLICY_DENIED"),
        ("/ingress_denied_by/0/name", "friends"),
        ("/node_name", "default/node2"),
    ] {
        assert_eq!(flow.pointer(field).and_then(Value::as_str), Some(expected), "{field}: {flow}");
    }
    let all = flows(world, &["--server", RELAY, "--all", "-n", "observed"]);
    for node in ["default/node1", "default/node2"] {
        assert!(all.iter().any(|flow| flow["node_name"] == node), "nothing of {node}");
    }
}

fn flows(world: &World, words: &[&str]) -> Vec<Value> {
    let out = hubble(world, &[&["observe", "-o", "jsonpb"], words].concat());
    out.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["flow"].clone())
        .filter(|flow| !flow.is_null())
        .collect()
}

/// What the client prints; it must succeed.
fn hubble(world: &World, words: &[&str]) -> String {
    let (is_ok, out, errors) = ask(world, words);
    assert!(is_ok, "hubble {}: {out}{errors}", words.join(" "));
    out
}

fn ask(world: &World, words: &[&str]) -> (bool, String, String) {
    let program = format!("{FOLDER}/hubble");
    // Where it cannot connect it tries for minutes.
    let words = [&["timeout", "30", &*program], words].concat();
    let output = world.cluster.exec(NODE, &words).unwrap().env("HOME", FOLDER).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn bring(world: &World, file: &Path) {
    let to = format!("{FOLDER}/{}", file.file_name().unwrap().to_str().unwrap());
    let script = "mkdir -p \"${0%/*}\" && cat > \"$0\" && chmod 700 \"$0\"";
    let mut copy = world.cluster.exec(NODE, &["sh", "-c", script, &to]).unwrap();
    assert!(copy.stdin(File::open(file).unwrap()).status().unwrap().success(), "{to}");
}

fn bring_programs(world: &World) {
    let programs = Hubble::find(world.cluster.layout()).unwrap();
    bring(world, &programs.client());
    bring(world, &programs.relay());
}

/// Certificates for the agents, in the secret that they look for, and for the relay.
fn bring_certificates(world: &World) {
    const CONFIG: &str = "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=observed\n\
        [ca]\nbasicConstraints=critical,CA:TRUE\n\
        [leaf]\nbasicConstraints=critical,CA:FALSE\n\
        subjectAltName=DNS:*.default.hubble-grpc.cilium.io\n";
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("openssl.cnf"), CONFIG).unwrap();
    let make = |name: &str, extensions: &str, signed: &[&str]| {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        let mut openssl = Command::new("openssl");
        openssl
            .current_dir(&folder)
            .args(["req", "-x509", "-config", "openssl.cnf", "-nodes", "-days", "2"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-extensions", extensions, "-keyout", &key, "-out", &certificate])
            .args(signed);
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    make("ca", "ca", &[]);
    let by_ca = ["-CA", "ca.crt", "-CAkey", "ca.key"];
    make("tls", "leaf", &by_ca);
    make("client", "leaf", &by_ca);
    let words = ["delete", "secret", "enforcer-hubble", "-n", SYSTEM, "--ignore-not-found"];
    world.cluster.ask(&words).unwrap();
    let files = ["tls.crt", "tls.key", "ca.crt"]
        .map(|name| format!("--from-file={name}={}", path(name).display()));
    let words = ["create", "secret", "generic", "enforcer-hubble", "-n", SYSTEM];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    world.cluster.ask(&[&words, &files[..]].concat()).unwrap();
    for name in ["ca.crt", "client.crt", "client.key"] {
        bring(world, &path(name));
    }
}

/// A relay that runs in a node until it is dropped.
struct Relay<'a> {
    world: &'a World,
    running: Child,
}

impl<'a> Relay<'a> {
    fn start(world: &'a World) -> Self {
        let script = format!(
            "cd {FOLDER} && echo $$ > relay.pid && exec ./hubble-relay serve --gops=false \
             --peer-service=127.0.0.1:4244 --listen-address={RELAY} --disable-server-tls \
             --health-listen-address=127.0.0.1:4222 --retry-timeout=1s \
             --tls-hubble-client-cert-file=client.crt --tls-hubble-client-key-file=client.key \
             --tls-hubble-server-ca-files=ca.crt > relay.log 2>&1"
        );
        let mut command = world.cluster.exec(NODE, &["sh", "-c", &script]).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { world, running: command.spawn().unwrap() }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        let script = format!("kill \"$(cat {FOLDER}/relay.pid)\"; cat {FOLDER}/relay.log");
        let log = self.world.cluster.run_in(NODE, &["sh", "-c", &script]);
        // What entered the node for it may be left.
        let ended = self.running.kill().and_then(|()| self.running.wait());
        if std::thread::panicking() {
            println!("# the relay: {}", log.unwrap_or_else(|error| error.to_string()));
        } else {
            ended.unwrap();
        }
    }
}
