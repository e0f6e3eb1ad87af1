//! Lines, losses, and disks that are full.

use std::{fs, path::Path, process::Command, time::Instant};

use enforcer_common::abi::Event;
use serde_json::Value;

use super::*;
use crate::flow::event::tests::{allowed, denied, flow};

const KEEP: Keep = Keep { bytes: 1 << 20, backups: 2, age: None, compress: false };

fn config(path: &Path) -> ExportConfig {
    let target = Target::File(path.to_owned(), KEEP);
    ExportConfig { target, allow: Vec::new(), deny: Vec::new(), field_mask: Vec::new() }
}

fn start(config: ExportConfig, ring: &FlowRing, counts: &ExportCounts) -> Export {
    let origin = Origin::new("default", "w1");
    Export::start(config, origin, ring.clone(), counts.clone()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn flows_are_lines_as_hubbles_exporter_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    let (ring, counts) = (FlowRing::new(64), ExportCounts::default());
    ring.push(flow(&allowed()));
    let export = start(config(&path), &ring, &counts);
    ring.push(flow(&denied()));
    drop(export);
    let lines = lines(&path);
    assert_eq!(lines.len(), 1, "what was there before is not exported: {lines:#?}");
    assert_eq!(lines[0]["flow"]["verdict"], "DROPPED");
    assert_eq!(lines[0]["flow"]["drop_reason_desc"], "POLICY_DENIED");
    assert_eq!(lines[0]["flow"]["IP"]["ipVersion"], "IPv4");
    assert_eq!(lines[0]["node_name"], "default/w1");
    assert!(lines[0]["time"].is_string());
    assert_eq!((counts.written.get(), counts.lost.get(), counts.failed.get()), (1, 0, 0));
}

#[test]
fn filters_and_mask_choose() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.log");
    let mut config = config(&path);
    config.allow = vec![filter(r#"{"destination_pod":["shop/db"]}"#).unwrap()];
    config.deny = vec![filter(r#"{"verdict":["FORWARDED"]}"#).unwrap()];
    config.field_mask = vec!["verdict".into(), "source.pod_name".into()];
    let ring = FlowRing::new(64);
    let export = start(config, &ring, &ExportCounts::default());
    for event in [allowed(), denied(), Event { dst: allowed().src, ifindex: 5, ..denied() }] {
        ring.push(flow(&event));
    }
    drop(export);
    let flows: Vec<Value> = lines(&path).into_iter().map(|mut line| line["flow"].take()).collect();
    let expected = serde_json::json!({"verdict": "DROPPED", "source": {"pod_name": "web-1"}});
    assert_eq!(flows, [expected]);
}

#[test]
fn what_means_nothing_is_refused() {
    let ring = FlowRing::new(1);
    let folder = tempfile::tempdir().unwrap();
    let start = |config| {
        let origin = Origin::new("default", "w1");
        Export::start(config, origin, ring.clone(), ExportCounts::default()).map(drop)
    };
    let path = folder.path().join("f");
    let mask = ExportConfig { field_mask: vec!["verdikt".into()], ..config(&path) };
    assert!(matches!(start(mask), Err(ExportError::Mask(_))));
    let port = filter(r#"{"destination_port":["http"]}"#).unwrap();
    let filters = ExportConfig { allow: vec![port], ..config(&path) };
    assert!(matches!(start(filters), Err(ExportError::Filter(_))));
}

/// A file system of so many KiB, as long as this lives.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(kib: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let args = ["-t", "tmpfs", "-o", &*size, "tmpfs"];
        let mounted = Command::new("mount").args(args).arg(folder.path()).status().unwrap();
        assert!(mounted.success(), "needs root");
        Self(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// A disk that gets full holds nobody up, leaves no half line, and when there is room again the
/// export goes on and says what was overwritten in the ring meanwhile: written + lost = all.
#[test]
fn a_full_disk_loses_only_what_the_ring_could_not_keep_and_says_how_much() {
    let disk = Tmpfs::new(2048);
    let path = disk.0.path().join("flows.log");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 1536 << 10]).unwrap();
    let (ring, counts) = (FlowRing::new(512), ExportCounts::default());
    let mut config = config(&path);
    config.target = Target::File(path.clone(), Keep { bytes: 1 << 30, ..KEEP });
    let export = start(config, &ring, &counts);
    until("the disk is full", || {
        (0..50).for_each(|len| ring.push(flow(&Event { len, ..denied() })));
        counts.failed.get() > 0
    });
    let written = counts.written.get();
    assert_eq!(flows_and_lost(&path).0, written, "no half line");
    for len in 0..1000 {
        ring.push(flow(&Event { len, ..denied() }));
    }
    fs::remove_file(&ballast).unwrap();
    until("all is told", || counts.written.get() + counts.lost.get() == ring.next());
    drop(export);
    assert!(counts.written.get() > written && counts.lost.get() > 0);
    assert_eq!(flows_and_lost(&path), (counts.written.get(), counts.lost.get()));
}

/// Flows in a file, and how many it says were lost.
fn flows_and_lost(path: &Path) -> (u64, u64) {
    let lines = lines(path);
    let lost = lines.iter().filter_map(|line| line["lost_events"]["num_events_lost"].as_str());
    let flows = lines.iter().filter(|line| line.get("flow").is_some()).count();
    (flows as u64, lost.map(|count| count.parse::<u64>().unwrap()).sum())
}

#[test]
fn a_folder_that_comes_later_is_written_to_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/flows.log");
    let (ring, counts) = (FlowRing::new(8), ExportCounts::default());
    let export = start(config(&path), &ring, &counts);
    for _ in 0..20 {
        ring.push(flow(&denied()));
    }
    until("it failed", || counts.failed.get() > 0);
    fs::create_dir(folder.path().join("later")).unwrap();
    until("it is written", || counts.written.get() > 0);
    drop(export);
    assert_eq!(counts.written.get() + counts.lost.get(), 20);
    assert_eq!(flows_and_lost(&path), (8, 12));
}
