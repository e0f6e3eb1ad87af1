//! Flows in a file, written by an agent that judges real packets, and by two that take turns.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, Probe, World, world::must};
use serde_json::Value;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("enforcer-export-{name}-{}", process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[test]
fn what_is_denied_is_in_the_file_and_what_is_filtered_is_not() {
    let folder = Folder::new("one");
    let file = folder.0.join("flows.log");
    let flags = vec![
        format!("--export-file={}", file.display()),
        "--export-deny={\"verdict\":[\"FORWARDED\"]}".to_owned(),
        "--export-field-mask=verdict,source.pod_name,ingress_denied_by".to_owned(),
    ];
    let options = AgentOptions { flags, ..AgentOptions::default() };
    let world = World::shop(Mode::PointToPoint, options);
    world.expect(&[
        (Probe::tcp("shop/client", "shop/server", 80), true),
        (Probe::tcp("shop/other", "shop/server", 80), false),
    ]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let text = loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if !text.is_empty() {
            break text;
        }
        assert!(Instant::now() < deadline, "nothing is exported:\n{}", world.agent.log());
        thread::sleep(Duration::from_millis(20));
    };
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert_eq!(line["flow"]["verdict"], "DROPPED", "{text}");
        assert_eq!(line["flow"]["source"]["pod_name"], "other", "{text}");
        assert!(line["flow"]["ingress_denied_by"].is_array(), "{text}");
        assert!(line["flow"].get("IP").is_none(), "{text}");
    }
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "flows are nobody else's business");
}

/// The ports from which the file has flows, each with how often. Every line is whole.
fn senders(file: &Path) -> BTreeMap<u64, u32> {
    let mut ports = BTreeMap::new();
    for line in fs::read_to_string(file).unwrap_or_default().lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(line["lost_events"].is_null(), "{line}");
        let port = line["flow"]["l4"]["UDP"]["source_port"].as_u64();
        *ports.entry(port.expect("only these were asked for")).or_default() += 1;
    }
    ports
}

/// While flows come without a pause, the next agent takes the node over, its predecessor ends, and
/// one after that takes over again: each flow is in the file once. Four seconds.
#[test]
fn agents_that_take_turns_leave_each_flow_in_the_file_once() {
    let folder = Folder::new("turns");
    let file = folder.0.join("flows.log");
    let allow = "{\"source_pod\":[\"shop/client\"],\"traffic_direction\":[\"INGRESS\"],\
                 \"protocol\":[\"UDP\"],\"event_type\":[{\"type\":5}]}";
    let flags = vec![
        format!("--export-file={}", file.display()),
        format!("--export-allow={allow}"),
        "--export-field-mask=l4".to_owned(),
    ];
    let options = AgentOptions { flags, ..AgentOptions::default() };
    let World { mut agent, lab, manifests: _manifests } = World::shop(Mode::PointToPoint, options);
    let own = must(must(lab.pod("shop/client")).address(false));
    let server = must(must(lab.pod("shop/server")).address(false));
    let (stop, last) = (AtomicBool::new(false), AtomicU16::new(0));
    let first = 10_000;
    let traffic = || {
        for port in first..u16::MAX {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let socket = UdpSocket::bind(SocketAddr::new(own, port)).expect("a free port");
            socket.send_to(b"?", SocketAddr::new(server, 80)).expect("a datagram");
            last.store(port, Ordering::Relaxed);
            thread::sleep(Duration::from_micros(500));
        }
    };
    let last_agent = thread::scope(|scope| {
        let sender = scope.spawn(|| must(must(lab.pod("shop/client")).netns().run(traffic)));
        thread::sleep(Duration::from_millis(300));
        let mut second = must(agent.successor("second"));
        thread::sleep(Duration::from_millis(200));
        must(agent.stop());
        let third = must(second.successor("third"));
        thread::sleep(Duration::from_millis(200));
        must(second.kill());
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        third
    });
    let expected: Vec<u64> = (first..=last.load(Ordering::Relaxed)).map(u64::from).collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while senders(&file).len() < expected.len() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let ports = senders(&file);
    let missing: Vec<_> = expected.iter().filter(|port| !ports.contains_key(port)).collect();
    let twice: Vec<_> = ports.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        missing.is_empty() && twice.is_empty(),
        "of {} flows {missing:?} are missing and {twice:?} there more than once\n{}",
        expected.len(),
        last_agent.log()
    );
    assert!(expected.len() > 500, "{}", expected.len());
}
