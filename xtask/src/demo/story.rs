//! The demo's steps, each of which measures what it says.

use std::{
    thread,
    time::{Duration, Instant},
};

use enforcer_tests::{
    Agent, Lab, Manifests, Outcome, Place, Probe,
    scenario::{Scenario, pod_file, with_label},
};

use super::{
    DemoError,
    platform::{SEARCH, SEARCH_LABEL, SEARCHER, STORE, WORKER, WORKER_POLICY, policy_file},
    screen::{Screen, Tone, wrap},
};

/// Longer than any change may take by far.
const PATIENCE: Duration = Duration::from_secs(5);
/// Silence after which a connection counts as cut: longer than TCP waits before it repeats itself.
const SILENCE: Duration = Duration::from_millis(700);

/// Everything that the steps need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Story<'a> {
    pub(super) screen: Screen,
    pub(super) scenario: &'a Scenario,
    pub(super) lab: &'a Lab,
    pub(super) manifests: &'a Manifests,
    pub(super) agent: &'a Agent,
}

/// A name without its namespace, so that a table fits the screen.
fn short(place: &str) -> &str {
    place.split_once('/').map_or(place, |(_, name)| name)
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

impl Story<'_> {
    /// Tells all of it.
    pub(super) fn tell(self) -> Result<(), DemoError> {
        self.introduce();
        self.probe_all()?;
        self.open_by_label()?;
        self.cut_by_policy()?;
        self.show_flows()
    }

    fn introduce(self) {
        let policies =
            self.scenario.files.keys().filter(|name| name.starts_with("policy-")).count();
        self.screen.heading("1. Pods and policies");
        self.screen.say(&format!(
            "{} pods of a medical imaging platform are up. Each is a network namespace: a network \
             stack of its own, as a container has it. {policies} policies are in force. They close \
             the namespace project-admin, then open single ways by label: names, the web proxy, \
             storage, search, log-in.",
            self.scenario.pods.len()
        ));
    }

    /// Every probe, expected and seen.
    fn probe_all(self) -> Result<(), DemoError> {
        let Self { screen, scenario, lab, .. } = self;
        screen.heading("2. Who reaches whom");
        screen.say(
            "Each line is a real connection attempt. \"Expected\" is what the policies say, \
             \"seen\" is what happened. A denied packet is dropped: the sender hears nothing.",
        );
        screen.line("");
        let start = Instant::now();
        let outcomes = scenario.outcomes(lab)?;
        let took = start.elapsed();
        screen.line(&row(["from", "to", "port", "expected", "seen"]));
        for (probe, outcome) in scenario.expectations.iter().zip(&outcomes) {
            let port = format!("{} {}", probe.protocol, probe.port);
            let expected = word(probe.allowed);
            let seen = match outcome {
                Outcome::Open => word(true),
                Outcome::NoAnswer => word(false),
                Outcome::Refused(_) => "refused",
            };
            let tone = if seen == expected { Tone::Good } else { Tone::Bad };
            let seen = screen.paint(seen, tone);
            screen.line(&row([short(&probe.from), short(&probe.to), &port, expected, &seen]));
        }
        screen.line("");
        let wrong = scenario.mismatches(&outcomes);
        let right = outcomes.len() - wrong.len();
        screen.say(&format!(
            "{right} of {} as the policies say, in {} ms.",
            outcomes.len(),
            took.as_millis()
        ));
        for mismatch in &wrong {
            screen.say(&format!("Wrong: {mismatch}"));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(DemoError::Different(format!("{} probes came out differently", wrong.len())))
    }

    /// A label opens a way.
    fn open_by_label(self) -> Result<(), DemoError> {
        let Self { screen, scenario, lab, manifests, .. } = self;
        let (key, value) = SEARCH_LABEL;
        screen.heading("3. A label opens a way");
        screen.say(&format!(
            "{} may not reach {} so far. Policies choose pods by their labels, and it gets one:",
            short(SEARCHER),
            short(SEARCH.0)
        ));
        screen.line(&format!("    {key}: \"{value}\""));
        let file = pod_file(SEARCHER);
        let before = scenario.files.get(&file).map(String::as_str).unwrap_or_default();
        let after = with_label(before, key, value).map_err(DemoError::Platform)?;
        let probe = Probe::tcp(SEARCHER, SEARCH.0, SEARCH.1);
        if lab.probe_one(&probe)?.is_open() {
            return Err(DemoError::Different("the way was open before the label".into()));
        }
        let written = Instant::now();
        manifests.write(&file, &after)?;
        let Some(took) = lab.time_until_open(&probe, written, PATIENCE)? else {
            return Err(DemoError::Different("the label opened nothing".into()));
        };
        let shown = screen.paint(&format!("{} ms", took.as_millis().max(1)), Tone::Good);
        screen.say(&format!(
            "The first answer came {shown} after the file with the pod was written: found, \
             compiled, in the kernel, and a whole connection made."
        ));
        Ok(())
    }

    /// A policy that goes takes its connections with it.
    fn cut_by_policy(self) -> Result<(), DemoError> {
        let Self { screen, scenario, lab, manifests, agent } = self;
        screen.heading("4. A policy is removed, and a live connection with it");
        let (from, to) = (Place::pod(WORKER), Place::pod(STORE.0));
        let Some(connection) = lab.connect(&from, &to, STORE.1, false)? else {
            return Err(DemoError::Different("an allowed connection was not answered".into()));
        };
        let heartbeat = connection.beat();
        thread::sleep(Duration::from_millis(500));
        let before = heartbeat.beats();
        screen.say(&format!(
            "{} has a connection to {} and sends messages without a pause: {before} were answered \
             in half a second. Now the policy that allows it goes:",
            short(WORKER),
            short(STORE.0)
        ));
        let file = policy_file(WORKER_POLICY);
        screen.line(&format!("    rm {file}"));
        let removed = Instant::now();
        manifests.remove(&file)?;
        let Some(last) = heartbeat.stopped(SILENCE, PATIENCE) else {
            return Err(DemoError::Different("the connection went on without its policy".into()));
        };
        if before == 0 {
            return Err(DemoError::Different("the connection never worked".into()));
        }
        let took = last.saturating_duration_since(removed).as_millis().max(1);
        let shown = screen.paint(&format!("{took} ms"), Tone::Good);
        screen.say(&format!(
            "The last answer came {shown} later; then the connection was silent. Nobody had to \
             close it: each packet is held against the policy of its moment."
        ));
        drop(heartbeat);
        let text = scenario.files.get(&file).map(String::as_str).unwrap_or_default();
        manifests.write(&file, text)?;
        agent.wait()?;
        let probe = Probe::tcp(WORKER, STORE.0, STORE.1).expecting(true);
        if !lab.probe_one(&probe)?.is_open() {
            return Err(DemoError::Different("the policy came back and opened nothing".into()));
        }
        screen.say("The policy is back, and new connections work again.");
        Ok(())
    }

    /// What the agent saw of it.
    fn show_flows(self) -> Result<(), DemoError> {
        let Self { screen, agent, .. } = self;
        screen.heading("5. What the agent saw");
        screen.say("Every decision is recorded with the policy that made it. The label's way:");
        let verdicts = ["observe", "--last", "2", "--type", "policy-verdict", "--why"];
        let opened = [&verdicts[..], &["--from-pod", SEARCHER, "--to-pod", SEARCH.0]].concat();
        let cut = [&verdicts[..], &["--verdict", "DROPPED", "--from-pod", WORKER]].concat();
        let opened = self.quote(&opened, agent)?;
        screen.say("And the connection that lost its policy:");
        let cut = self.quote(&cut, agent)?;
        if !opened.contains("allow-opensearch-egress") || !cut.contains("DENIED") {
            return Err(DemoError::Different("the agent's record does not show this".into()));
        }
        Ok(())
    }

    /// Shows a command and its output, long lines broken; gives the output.
    fn quote(self, args: &[&str], agent: &Agent) -> Result<String, DemoError> {
        for (number, part) in wrap(&args.join(" "), 60).iter().enumerate() {
            let start = if number == 0 { "    enforcer " } else { "      " };
            self.screen.line(&format!("{start}{part}"));
        }
        let output = agent.ask(args)?;
        for line in output.lines() {
            for (number, part) in wrap(line, 72).iter().enumerate() {
                let indent = if number == 0 { "  " } else { "      " };
                self.screen.line(&format!("{indent}{part}"));
            }
        }
        Ok(output)
    }

    /// How to play with what is left running.
    pub(super) fn invite(self) {
        let Self { screen, scenario: _, lab, manifests, agent } = self;
        let binary = agent.binary().display();
        let run_dir = agent.run_dir().display();
        screen.heading("6. Everything is still running: your turn");
        screen.say("In another terminal, as root. First name the programs and the agent:");
        screen.line(&format!("    alias enforcer={binary}"));
        screen.line(&format!("    export ENFORCER_RUN_DIR={run_dir}"));
        screen.say("What is enforced, and what happens:");
        screen.line("    enforcer status");
        screen.line("    enforcer observe --follow");
        screen.say(
            "The cluster is a folder of files. Change, add or remove some: it counts at once.",
        );
        screen.line(&format!("    cd {}", manifests.path().display()));
        screen.say("A shell in a pod, and a connection from it (an answer, or nothing):");
        if let Ok(pod) = lab.pod(WORKER) {
            screen.line(&format!("    nsenter --net={} bash", pod.netns().path().display()));
        }
        if let Ok(address) = lab.pod(STORE.0).and_then(|pod| pod.address(false)) {
            screen.line(&format!(
                "    timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{} && echo open'",
                STORE.1
            ));
        }
        screen.say("All pods:");
        for pod in lab.pods() {
            screen.line(&format!("    {:<16} {}", pod.netns().name(), pod.spec().name));
        }
        screen.line("");
        screen.say("To end it and remove everything: press Ctrl-C here.");
    }
}

/// A row of the table of probes.
fn row([from, to, port, expected, seen]: [&str; 5]) -> String {
    format!("  {from:<19} {to:<28} {port:<9} {expected:<8} {seen}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_the_screen() {
        let from = "create-project-user";
        let row = row([from, "access-information-interface", "TCP 11112", "allowed", "allowed"]);
        assert!(row.len() <= 80, "{}", row.len());
    }

    #[test]
    fn a_place_is_shown_without_its_namespace() {
        assert_eq!(short("services/minio"), "minio");
        assert_eq!(short("203.0.113.50"), "203.0.113.50");
    }
}
