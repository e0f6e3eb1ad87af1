//! Flows in a file, written by an agent that judges real packets.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process, thread,
    time::{Duration, Instant},
};

use enforcer_tests::{AgentOptions, Mode, Probe, World};
use serde_json::Value;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("enforcer-export-{}", process::id()));
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
    let folder = Folder::new();
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
