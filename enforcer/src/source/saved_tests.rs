//! What is saved, read back, and what is refused.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::{Value, json};

use super::*;

fn pod(name: &str, last: u8) -> Arc<Pod> {
    Arc::new(Pod {
        key: ObjectKey { namespace: "n".into(), name: name.into() },
        uid: "u".into(),
        labels: Labels::from([("a".into(), "b".into())]),
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
    let labels = Arc::new(Labels::from([("k".into(), "v".into())]));
    let remembered = Remembered {
        namespaces: vec![("n".into(), labels)],
        local: vec![pod("here", 1)],
        remote: vec![pod("there", 2)],
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
