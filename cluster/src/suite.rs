//! A run of Kubernetes' own tests in a cluster, and what came of each of them.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{Cluster, ClusterError, Upstream, program};

/// Side by side. What the tests do is mostly waiting: for pods, and for connections that come to
/// nothing.
const PROCESSES: &str = "--procs=4";
/// Longer than any run should take.
const LIMIT: &str = "--timeout=40m";
/// What a line of a test about a connection that came out otherwise begins with, after its time.
const EXPECTED: &str = "Expected ";
/// What it has in it.
const OTHERWISE: &str = "pod connection was instead";
/// The runner's report.
const REPORT: &str = "report.json";

/// Which tests are to run, by their names.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What all their names have in them.
    pub group: &'a str,
    /// What the names of those that cannot run have in them.
    pub left_out: &'a str,
    /// At least one of these is in each name; each is in the name of at least one.
    pub parts: &'a [&'a str],
    /// How many they are, so that none is lost in silence.
    pub count: usize,
}

/// A test that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its whole name.
    pub name: String,
    /// What came of it, in the runner's words: `passed`, `failed`, `skipped`, `timedout`, ...
    pub state: String,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Why it did not pass, as it says itself, with the connections that came out otherwise.
    pub message: String,
}

impl Upstream {
    /// Runs tests and gives what came of each that was wanted, by name. Those that failed are no
    /// error of this function. The log is below the cluster's folder of logs.
    ///
    /// # Errors
    /// If the runner does not start, or leaves no report.
    pub fn run(&self, cluster: &Cluster, wanted: Wanted<'_>) -> Result<Vec<Spec>, ClusterError> {
        cluster.import_image(&self.image())?;
        let folder = cluster.layout().logs().join("upstream");
        fs::create_dir_all(&folder).map_err(ClusterError::file("create", &folder))?;
        let report = folder.join(REPORT);
        // One of an earlier run would be taken for this one's.
        match fs::remove_file(&report) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(ClusterError::file("remove", &report))?,
        }
        let log = folder.join("log");
        let output = fs::File::create(&log).map_err(ClusterError::file("create", &log))?;
        let errors = output.try_clone().map_err(ClusterError::file("open", &log))?;
        let mut command = Command::new(self.runner());
        command
            .args(["run", "--no-color", LIMIT, PROCESSES])
            .args([format!("--json-report={REPORT}"), format!("--output-dir={}", folder.display())])
            .args(wanted.expressions().map(|expression| format!("--focus={expression}")))
            .arg(format!("--skip={}", quoted(wanted.left_out)))
            .arg(self.suite())
            .args(["--", "--provider=skeleton", "--dump-logs-on-failure=false"])
            .arg(format!("--kubeconfig={}", cluster.layout().kubeconfig().display()))
            .current_dir(&folder)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let status = command.status().map_err(|reason| ClusterError::Start {
            program: self.runner().display().to_string(),
            reason,
        })?;
        // Its status is a failure when a test has failed, too.
        let text = fs::read_to_string(&report).map_err(|_missing| ClusterError::Failed {
            what: "running Kubernetes' own tests".to_owned(),
            status,
            output: program::tail(&fs::read_to_string(&log).unwrap_or_default()).to_owned(),
        })?;
        read(&text, wanted).map_err(|error| ClusterError::Content {
            path: report.display().to_string(),
            reason: error.to_string(),
            remedy: "see the log beside it",
        })
    }
}

impl Wanted<'_> {
    /// What is wrong with a run: every test that has not passed, also one that was skipped, and
    /// every one that is not there.
    #[must_use]
    pub fn failures(&self, specs: &[Spec]) -> Vec<String> {
        let mut wrong: Vec<String> = specs
            .iter()
            .filter(|spec| spec.state != "passed")
            .map(|spec| format!("{}: {} ({})", spec.name, spec.state, spec.message))
            .collect();
        let is_missing = |part: &&&str| !specs.iter().any(|spec| spec.name.contains(**part));
        wrong.extend(
            self.parts.iter().filter(is_missing).map(|part| format!("no test is {part:?}")),
        );
        if specs.len() != self.count {
            wrong.push(format!("there are {} tests, not {}", specs.len(), self.count));
        }
        wrong
    }

    fn has(&self, name: &str) -> bool {
        name.contains(self.group)
            && !name.contains(self.left_out)
            && self.parts.iter().any(|part| name.contains(part))
    }

    /// As the runner is told: the parts come after the name of the group.
    fn expressions(&self) -> impl Iterator<Item = String> {
        self.parts.iter().map(|part| format!("{}.*{}", quoted(self.group), quoted(part)))
    }
}

/// A run of the suite in the report.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Option<Vec<Reported>>,
}

/// A test, or a step before or after all of them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reported {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    /// In nanoseconds.
    run_time: u64,
    failure: Option<Failure>,
    #[serde(default)]
    captured_ginkgo_writer_output: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// The wanted tests of a report. It has all that the suite has: those that were not asked for are
/// skipped there.
fn read(report: &str, wanted: Wanted<'_>) -> serde_json::Result<Vec<Spec>> {
    let suites: Vec<Suite> = serde_json::from_str(report)?;
    let reported = suites.into_iter().flat_map(|suite| suite.spec_reports.unwrap_or_default());
    let specs: BTreeMap<String, Spec> = reported
        .filter(|one| one.leaf_node_type == "It")
        .map(|one| {
            let mut words = one.container_hierarchy_texts.unwrap_or_default();
            words.push(one.leaf_node_text);
            let name = words.join(" ");
            let seconds = one.run_time / 1_000_000_000;
            let mut message = one.failure.unwrap_or_default().message;
            for line in one.captured_ginkgo_writer_output.lines() {
                // Without what says when: each is tried twice.
                let line = line.find(EXPECTED).and_then(|at| line.get(at..)).unwrap_or(line);
                if line.contains(OTHERWISE) && !message.contains(line) {
                    message = format!("{message}\n    {line}");
                }
            }
            (name.clone(), Spec { name, state: one.state, seconds, message })
        })
        .filter(|(name, _)| wanted.has(name))
        .collect();
    Ok(specs.into_values().collect())
}

/// A text as a regular expression of Go's.
fn quoted(text: &str) -> String {
    let mut expression = String::new();
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const WANTED: Wanted<'_> =
        Wanted { group: "Netpol", left_out: "[SCTP]", parts: &["deny", "Ports"], count: 2 };

    fn it(group: &str, name: &str, state: &str) -> Value {
        json!({
            "ContainerHierarchyTexts": [group, "between pods"], "LeafNodeText": name,
            "LeafNodeType": "It", "State": state, "RunTime": 2_500_000_000_u64,
        })
    }

    fn specs(reported: &[Value]) -> Vec<Spec> {
        read(&json!([{"SpecReports": reported}]).to_string(), WANTED).unwrap()
    }

    #[test]
    fn tests_are_chosen_by_their_whole_names() {
        let setup = json!({
            "ContainerHierarchyTexts": null, "LeafNodeText": "Netpol deny", "State": "passed",
            "LeafNodeType": "SynchronizedBeforeSuite", "RunTime": 1,
        });
        let found = specs(&[
            setup,
            it("[net] Netpol", "default deny", "passed"),
            it("[net] Netpol", "something else", "skipped"),
            it("[net] Netpol [SCTP]", "default deny", "skipped"),
            it("[net] Services", "Ports", "skipped"),
            it("[net] Netpol", "by Ports", "passed"),
        ]);
        let names: Vec<&str> = found.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(
            names,
            ["[net] Netpol between pods by Ports", "[net] Netpol between pods default deny"]
        );
        assert_eq!(found[0].seconds, 2);
        assert_eq!(WANTED.failures(&found), [""; 0]);
    }

    #[test]
    fn what_fails_is_skipped_or_missing_is_named() {
        let mut failed = it("Netpol", "default deny", "failed");
        failed["Failure"] = json!({"Message": "it was let through"});
        failed["CapturedGinkgoWriterOutput"] = json!(
            "a\n1 Expected pod connection was instead X\n2 Expected pod connection was instead X\nb"
        );
        let found = specs(&[failed, it("Netpol", "Ports", "skipped")]);
        let wrong = WANTED.failures(&found);
        assert_eq!(wrong[0], "Netpol between pods Ports: skipped ()");
        assert_eq!(
            wrong[1],
            "Netpol between pods default deny: failed (it was let through\n    Expected pod \
             connection was instead X)"
        );
        let wrong = WANTED.failures(&specs(&[it("Netpol", "Ports", "passed")]));
        assert_eq!(wrong, ["no test is \"deny\"", "there are 1 tests, not 2"]);
        let more = ["Ports", "deny", "deny again"].map(|name| it("Netpol", name, "passed"));
        assert_eq!(WANTED.failures(&specs(&more)), ["there are 3 tests, not 2"]);
    }

    #[test]
    fn names_are_no_expressions() {
        let all: Vec<String> = WANTED.expressions().collect();
        assert_eq!(all, ["Netpol.*deny", "Netpol.*Ports"]);
        assert_eq!(quoted("a 'b' (c.d)"), r"a 'b' \(c\.d\)");
    }
}
