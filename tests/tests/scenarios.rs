//! Real platforms' policies with expected verdicts: every probe, in both ways to connect pods.

use std::{
    fs,
    path::{Path, PathBuf},
};

use enforcer_tests::{AgentOptions, Mode, scenario::Scenario, world::must};

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository").to_owned()
}

/// Folders with expected verdicts below `dir`. Probes by DNS name are about policies of another kind.
fn scenarios_in(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|dir| {
            fs::read_to_string(dir.join("expect.yaml"))
                .is_ok_and(|text| !text.contains("\n  fqdn: "))
        })
        .collect();
    found.sort();
    found
}

/// The product's own examples, and more beside the repository if there are any.
fn scenarios() -> Vec<PathBuf> {
    let examples = scenarios_in(&root().join("deploy/examples"));
    assert!(!examples.is_empty(), "deploy/examples has no scenario");
    let beside = root().parent().map(|dir| scenarios_in(&dir.join("shared/scenarios")));
    [examples, beside.unwrap_or_default()].concat()
}

fn run(mode: Mode) {
    let mut wrong = Vec::new();
    for dir in scenarios() {
        let scenario = must(Scenario::read(&dir));
        assert!(!scenario.expectations.is_empty(), "{}", dir.display());
        for mismatch in must(scenario.run(mode, AgentOptions::default())) {
            wrong.push(format!("{}: {mismatch}", dir.display()));
        }
        println!("{}: {} probes, {}", dir.display(), scenario.expectations.len(), mode.name());
    }
    assert!(wrong.is_empty(), "{}:\n{}", mode.name(), wrong.join("\n"));
}

#[test]
fn every_probe_has_the_expected_verdict_on_point_to_point_links() {
    run(Mode::PointToPoint);
}

#[test]
fn every_probe_has_the_expected_verdict_on_a_bridge() {
    run(Mode::Bridge);
}

/// Without an agent every allowed probe is open: what the test above finds closed, policy closed.
#[test]
fn without_an_agent_every_probe_is_open() {
    for dir in scenarios() {
        let mut scenario = must(Scenario::read(&dir));
        for probe in &mut scenario.expectations {
            probe.allowed = true;
        }
        let (lab, _manifests) = must(scenario.build(Mode::PointToPoint));
        let outcomes = must(scenario.outcomes(&lab));
        let wrong: Vec<String> =
            scenario.mismatches(&outcomes).iter().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{}:\n{}", dir.display(), wrong.join("\n"));
    }
}
