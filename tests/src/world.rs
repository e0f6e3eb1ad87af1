//! A laboratory with an agent and its manifests, as most tests want it.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Agent, AgentOptions, Connection, Heartbeat, Lab, LabError, Manifests, Mode, Outcome, Place,
    PodSpec, Probe, Protocol, policy, scenario::pod_file, spec::namespace_manifest,
};

/// A node with pods, the manifests that describe them, and the agent.
///
/// What takes a result here panics if the laboratory itself fails: that ends the test, and says why.
#[derive(Debug)]
pub struct World {
    /// Dropped first: the agent needs the node's namespace.
    pub agent: Agent,
    /// What the agent reads.
    pub manifests: Manifests,
    /// The namespaces.
    pub lab: Lab,
}

/// Gives the value, or ends the test with the whole chain of causes.
///
/// # Panics
/// If it is an error.
#[track_caller]
pub fn must<T>(result: Result<T, LabError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{}", error.chain()),
    }
}

impl World {
    /// Pods with their manifests and those of their namespaces, policies, and a ready agent.
    ///
    /// # Panics
    /// If any of it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn new(mode: Mode, pods: &[PodSpec], policies: &str) -> Self {
        Self::with(mode, pods, policies, AgentOptions::default())
    }

    /// The same with an agent that is started in this way.
    ///
    /// # Panics
    /// If any of it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn with(mode: Mode, pods: &[PodSpec], policies: &str, options: AgentOptions) -> Self {
        let mut lab = must(Lab::new(mode));
        let manifests = must(Manifests::new(lab.dir()));
        must(lab.add_pods(pods));
        let namespaces: BTreeSet<&str> = pods.iter().map(PodSpec::namespace).collect();
        for namespace in namespaces {
            must(
                manifests
                    .write(&format!("namespace-{namespace}.yaml"), &namespace_manifest(namespace)),
            );
        }
        for pod in pods {
            must(manifests.write(&pod_file(&pod.name), &pod.manifest()));
        }
        must(manifests.write("policies.yaml", policies));
        let agent = must(Agent::start(&lab, &manifests, options));
        Self { agent, manifests, lab }
    }

    /// Three pods in namespace `shop`: a `server` (label `app=server`) which `client` (label
    /// `role=client`) may reach at TCP and UDP port 80, and `other`, which may not.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    #[track_caller]
    pub fn shop(mode: Mode, options: AgentOptions) -> Self {
        Self::with(mode, &shop_pods(), &shop_policies(), options)
    }

    /// Replaces a pod's manifest by this one's.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn describe(&self, pod: &PodSpec) {
        must(self.manifests.write(&pod_file(&pod.name), &pod.manifest()));
    }

    /// Removes a pod's manifest.
    ///
    /// # Panics
    /// If it cannot be removed.
    #[track_caller]
    pub fn forget(&self, pod: &str) {
        must(self.manifests.remove(&pod_file(pod)));
    }

    /// Replaces all policies.
    ///
    /// # Panics
    /// If they cannot be written.
    #[track_caller]
    pub fn policies(&self, yaml: &str) {
        must(self.manifests.write("policies.yaml", yaml));
    }

    /// Waits until everything that was written is in force.
    ///
    /// # Panics
    /// If it does not come into force.
    #[track_caller]
    pub fn settle(&self) {
        must(self.agent.wait());
    }

    /// Fails unless the probes have these outcomes; names all that do not.
    ///
    /// # Panics
    /// If one does not.
    #[track_caller]
    pub fn expect(&self, probes: &[(Probe, bool)]) {
        let all: Vec<Probe> =
            probes.iter().map(|(probe, open)| probe.clone().expecting(*open)).collect();
        let outcomes = must(self.lab.probe(&all));
        let wrong: Vec<String> = probes
            .iter()
            .zip(&outcomes)
            .filter(|((_, open), outcome)| outcome.is_open() != *open || is_refusal(outcome))
            .map(|((probe, open), outcome)| {
                format!("{probe}: {outcome}, expected {}", if *open { "open" } else { "no answer" })
            })
            .collect();
        assert!(wrong.is_empty(), "{}:\n{}", self.lab.mode().name(), wrong.join("\n"));
    }

    /// Fails unless the probe is open.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn open(&self, probe: Probe) {
        self.expect(&[(probe, true)]);
    }

    /// Fails unless the probe gets no answer.
    ///
    /// # Panics
    /// If it gets one.
    #[track_caller]
    pub fn closed(&self, probe: Probe) {
        self.expect(&[(probe, false)]);
    }

    /// Opens a connection between pods that policy must allow.
    ///
    /// # Panics
    /// If it is not answered.
    #[must_use]
    #[track_caller]
    pub fn connect(&self, from: &str, to: &str, port: u16) -> Connection {
        let connection = must(self.lab.connect(&Place::pod(from), &Place::pod(to), port, false));
        let mut connection = connection.unwrap_or_else(|| panic!("{from} -> {to}: no answer"));
        assert!(connection.echo(Duration::from_secs(1)), "{from} -> {to}: connected, no echo");
        connection
    }

    /// Fires short probes one after the other until one is open; how long that took from `since`.
    ///
    /// # Panics
    /// If none is open in time.
    #[must_use]
    #[track_caller]
    pub fn time_until_open(&self, probe: &Probe, since: Instant, patience: Duration) -> Duration {
        must(self.lab.time_until_open(probe, since, patience))
            .unwrap_or_else(|| panic!("{probe}: not open after {} ms", patience.as_millis()))
    }

    /// Runs the work while probes run in a loop that must never have another outcome than this; at
    /// least one round is run before, and one after it. The result of the work, and the rounds.
    ///
    /// # Panics
    /// If a probe has another outcome.
    #[track_caller]
    pub fn while_closed<T>(
        &mut self,
        probes: &[Probe],
        work: impl FnOnce(&mut Agent, &Manifests, &Lab) -> T,
    ) -> (T, u32) {
        let Self { agent, manifests, lab } = self;
        let lab = &*lab;
        let done = std::sync::atomic::AtomicBool::new(false);
        let begun = std::sync::atomic::AtomicBool::new(false);
        let order = std::sync::atomic::Ordering::SeqCst;
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut rounds = 0;
                loop {
                    let last = done.load(order);
                    for (probe, outcome) in probes.iter().zip(must(lab.probe(probes))) {
                        assert!(!outcome.is_open(), "{probe} was open in round {rounds}");
                    }
                    rounds += 1;
                    begun.store(true, order);
                    if last {
                        return rounds;
                    }
                }
            });
            while !begun.load(order) && !watcher.is_finished() {
                thread::sleep(Duration::from_millis(5));
            }
            let result = work(agent, manifests, lab);
            done.store(true, order);
            let rounds = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (result, rounds)
        })
    }
}

/// What the policies of [`World::shop`] allow: the client, at the server.
#[must_use]
pub fn shop_client() -> Probe {
    Probe::tcp("shop/client", "shop/server", 80)
}

/// What they deny: the other pod, at the server.
#[must_use]
pub fn shop_other() -> Probe {
    Probe::tcp("shop/other", "shop/server", 80)
}

/// Probes that they deny, of both families and protocols.
#[must_use]
pub fn shop_never() -> [Probe; 3] {
    [shop_other(), shop_other().v6(), Probe::udp("shop/other", "shop/server", 80)]
}

/// Fails unless the connection is in use and has lost nothing since it was opened.
///
/// # Panics
/// If it is not, or has.
#[track_caller]
pub fn undisturbed(heartbeat: Heartbeat) {
    let before = heartbeat.beats();
    thread::sleep(Duration::from_millis(200));
    assert!(heartbeat.beats() > before, "the connection does not live any more");
    let connection = heartbeat.end().expect("the heartbeat's thread lives");
    assert_eq!(connection.lost_segments(), 0);
}

/// The pods of [`World::shop`]: server, client, other.
#[must_use]
pub fn shop_pods() -> [PodSpec; 3] {
    [
        PodSpec::numbered("shop/server", 1).label("app", "server"),
        PodSpec::numbered("shop/client", 2).label("role", "client"),
        PodSpec::numbered("shop/other", 3),
    ]
}

/// The policies of [`World::shop`].
#[must_use]
pub fn shop_policies() -> String {
    let on = [(Protocol::Tcp, 80), (Protocol::Udp, 80)];
    policy::all(&[
        policy::deny("app=server", &["Ingress"]),
        policy::allow_in("allow-clients", "app=server", "role=client", &on),
    ])
}

/// Policy drops; a refusal has come from elsewhere and would prove nothing.
fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(_))
}
