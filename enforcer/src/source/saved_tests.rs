//! What is saved, read back, and what is refused.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::cluster::event::{
    Endpoint, EndpointsFrom, ServicePort, SessionAffinity, SlicePort, TargetPort, TrafficPolicy,
};

fn pod(name: &str, last: u8) -> Arc<Pod> {
    Arc::new(Pod {
        key: ObjectKey { namespace: "n".into(), name: name.into() },
        uid: "u".into(),
        labels: Labels::from([("a", "b")]),
        addresses: vec![[10, 0, 0, last].into()],
        host_network: false,
        finished: false,
        terminating: true,
        containers_started: None,
        started: 7,
        ports: vec![NamedPort { name: "http".into(), protocol: Protocol::Sctp, number: 80 }],
        node: Some("w1".into()),
        workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "n".into(), name: name.into() }
}

fn service(name: &str, last: u8) -> Service {
    let port = |name: &str, protocol, node_port| ServicePort {
        name: name.into(),
        protocol,
        port: 53,
        target: TargetPort::Number(53),
        node_port,
    };
    Service {
        key: key(name),
        cluster_ips: vec![[10, 96, 0, last].into(), "fd96::1".parse().unwrap()],
        external_ips: vec![[192, 0, 2, last].into()],
        load_balancer_ips: vec![[198, 51, 100, last].into()],
        ports: vec![port("", Protocol::Udp, None), port("tcp", Protocol::Tcp, Some(30_053))],
        endpoints_from: EndpointsFrom::Elsewhere,
        headless: false,
        affinity: SessionAffinity::None,
        external_traffic: TrafficPolicy::Cluster,
        internal_traffic: TrafficPolicy::Cluster,
    }
}

fn slice(name: &str, last: u8) -> EndpointSlice {
    let port = |name: &str, port| SlicePort { name: name.into(), protocol: Protocol::Udp, port };
    EndpointSlice {
        key: key(&format!("{name}-x")),
        service: Some(name.into()),
        ports: vec![port("", Some(5353)), port("all", None)],
        endpoints: vec![Endpoint {
            addresses: vec![[192, 0, 2, last].into()],
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            pod: None,
        }],
    }
}

fn here() -> Identity {
    Identity {
        node: "w1".into(),
        server: "https://a".into(),
        authorities: vec!["one".into(), "two".into()],
        boot: "b1".into(),
    }
}

fn content() -> Vec<u8> {
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": "http"}]}]},
    }))
    .unwrap();
    let labels = Arc::new(Labels::from([("k", "v")]));
    let remembered = Remembered {
        namespaces: vec![("n".into(), labels)],
        local: vec![pod("here", 1)],
        remote: vec![pod("there", 2)],
        services: vec![service("s", 3)],
        slices: vec![slice("s", 4)],
    };
    encode(&here(), [policy].iter(), &remembered).unwrap()
}

fn useless(dir: &Path, whose: &Identity) -> String {
    read(dir, whose).unwrap_err().to_string()
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    assert!(read(&state, &here()).is_ok_and(|saved| saved.is_none()));
    write(&state, &content()).unwrap();
    let now = SystemTime::now() - Duration::from_secs(77);
    confirm(&state, now).unwrap();
    let saved = read(&state, &here()).unwrap().unwrap();
    assert_eq!(saved.local, [(*pod("here", 1)).clone()]);
    assert_eq!(saved.remote, [(*pod("there", 2)).clone()]);
    assert_eq!(
        (&saved.services[..], &saved.slices[..]),
        (&[service("s", 3)][..], &[slice("s", 4)][..])
    );
    assert_eq!((saved.policies.len(), &*saved.namespaces[0].name), (1, "n"));
    let difference = now.duration_since(saved.confirmed).unwrap_or_default();
    assert!(difference < Duration::from_secs(1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn after_another_boot_local_pods_have_no_addresses() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &content()).unwrap();
    for boot in ["b2", ""] {
        let saved = read(dir.path(), &Identity { boot: boot.into(), ..here() }).unwrap().unwrap();
        assert!(saved.local[0].addresses.is_empty());
        assert_eq!(&*saved.local[0].uid, "u");
        assert_eq!(saved.remote[0].addresses.len(), 1);
    }
}

/// An agent that knew nothing of Services wrote it.
#[test]
fn without_services_it_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut older: Value = serde_json::from_slice(&content()).unwrap();
    for key in ["services", "slices"] {
        older.as_object_mut().unwrap().remove(key).unwrap();
    }
    fs::write(dir.path().join(FILE), older.to_string()).unwrap();
    let saved = read(dir.path(), &here()).unwrap().unwrap();
    assert!(saved.services.is_empty() && saved.slices.is_empty() && saved.local.len() == 1);
}

/// Most clusters have fewer, and it is written anew with every change of policy.
#[test]
fn ten_thousand_services_are_not_much() {
    let service = |at: u16| Service {
        key: key(&format!("a-name-of-usual-length-{at}")),
        ports: service("s", 1).ports[..1].to_vec(),
        cluster_ips: vec![[10, 96, (at >> 8) as u8, at as u8].into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ..service("s", 1)
    };
    let services = (0..10_000).map(service).collect();
    let remembered = Remembered { services, ..Remembered::default() };
    let none: [NetworkPolicy; 0] = [];
    let size = encode(&here(), none.iter(), &remembered).unwrap().len();
    assert!(size < 1_500_000, "{size}");
}

#[test]
fn what_is_not_this_nodes_state_is_said_to_be_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    write(dir.path(), &content()).unwrap();
    let other = Identity { node: "w2".into(), ..here() };
    assert!(useless(dir.path(), &other).contains("the node w1's"));
    let other = Identity { server: "https://b".into(), ..here() };
    assert!(useless(dir.path(), &other).contains("another API server, https://a"));
    // One that was replaced is in the bundle with its successor for a time.
    let mut other = Identity { authorities: vec!["two".into(), "three".into()], ..here() };
    assert!(read(dir.path(), &other).is_ok());
    for authorities in [vec!["three".into()], Vec::new()] {
        other.authorities = authorities;
        assert!(useless(dir.path(), &other).contains("another cluster"));
    }
    let mut newer: Value = serde_json::from_slice(&content()).unwrap();
    newer["version"] = 2.into();
    newer["local"] = "in another form".into();
    fs::write(&file, newer.to_string()).unwrap();
    assert!(useless(dir.path(), &here()).contains("of version 2, and this agent knows 1"));
    fs::write(&file, "{\"format\": \"x\", \"version\": 1}").unwrap();
    assert!(useless(dir.path(), &here()).contains("it is something else"));
    for end in [0, 1, content().len() / 2, content().len() - 1] {
        fs::write(&file, &content()[..end]).unwrap();
        assert!(useless(dir.path(), &here()).contains("it is damaged"), "{end}");
    }
    fs::write(&file, b"\xff\xfe").unwrap();
    assert!(useless(dir.path(), &here()).contains("cannot be read"));
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(useless(dir.path(), &here()).contains("is no file that an agent wrote"));
}

#[test]
fn a_full_disk_leaves_the_old_state_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &content()).unwrap();
    // A directory in the way of the new file fails as a full disk does: before the renaming.
    let new = dir.path().join(format!("{FILE}.new"));
    fs::create_dir(&new).unwrap();
    assert!(write(dir.path(), b"new").is_err());
    assert!(read(dir.path(), &here()).is_ok_and(|saved| saved.is_some()));
    fs::remove_dir(&new).unwrap();
    // What a dead agent left is no obstacle.
    fs::write(&new, "half").unwrap();
    write(dir.path(), &content()).unwrap();
    assert!(!new.exists());
}
